"""`moma code`: codes that stand for a package, shown once, redeemed once."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from gateway.cli import tables
from gateway.cli.accounts import TIME_HELP, Subparsers, finish, given, noun
from gateway.cli.reach import Asked


def add_parser(subparsers: Subparsers) -> None:
    code = noun(subparsers, "code", "codes that stand for a package")
    parser = code.add_parser("add", help="new codes, a line each, shown once")
    parser.add_argument("package", metavar="PACKAGE")
    parser.add_argument("--count", type=int, metavar="N", default=1)
    parser.add_argument("--expires-at", metavar="TIME", help=TIME_HELP)
    finish(parser, _add, _new)
    parser = code.add_parser("list", help="batches of codes, and how many of each are redeemed; never the codes")
    finish(parser, lambda args: Asked("GET", ("codes",)), tables.many)
    parser = code.add_parser("redeem", help="for a tenant, who may do it with its own key at /v1/redeem")
    parser.add_argument("tenant", metavar="TENANT")
    parser.add_argument("code", metavar="CODE")
    finish(parser, lambda args: Asked("POST", ("tenants", args.tenant, "redeem"), {"code": args.code}), tables.one)


def _add(args: argparse.Namespace) -> Asked:
    body = {"package": args.package, "count": args.count}
    return Asked("POST", ("codes",), body | given(expires_at=args.expires_at))


def _new(value: Mapping[str, Any]) -> None:
    """Alone on standard output, to go to a file or a printer."""
    print("\n".join(value["codes"]))
