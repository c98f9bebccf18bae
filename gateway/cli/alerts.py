"""`moma alert`: which shares of their packages tenants have spent."""

from __future__ import annotations

from gateway.cli import tables
from gateway.cli.accounts import Subparsers, finish, given, noun
from gateway.cli.reach import Asked


def add_parser(subparsers: Subparsers) -> None:
    alert = noun(subparsers, "alert", "packages that are being used up")
    parser = alert.add_parser("list", help="all alerts, the oldest first")
    parser.add_argument("--tenant", metavar="ID")
    finish(parser, lambda args: Asked("GET", ("alerts",), query=given(tenant=args.tenant)), tables.many)
