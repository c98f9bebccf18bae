"""`moma cache`: what the running gateway keeps, in figures, and letting it go. Never what was asked or answered."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from gateway.cli import tables
from gateway.cli.accounts import Subparsers, finish, given, noun
from gateway.cli.reach import WRONG_USE, Asked, CommandFailed


def add_parser(subparsers: Subparsers) -> None:
    cache = noun(subparsers, "cache", "answers that are given again")
    finish(
        cache.add_parser("show", help="entries, bytes and lookups of each cache, and the tenants that have most"),
        lambda args: Asked("GET", ("cache",), live=True),
        tables.caches,
    )
    parser = cache.add_parser("purge", help="let answers go: all, or those that every option given names")
    parser.add_argument("--all", action="store_true", help="of every cache, tenant and model")
    parser.add_argument("--cache", metavar="NAME")
    parser.add_argument("--tenant", metavar="ID")
    parser.add_argument("--model", metavar="NAME", help="that answered, or a route")
    finish(parser, _purge, _purged)


def _purge(args: argparse.Namespace) -> Asked:
    query = given(cache=args.cache, tenant=args.tenant, model=args.model)
    if bool(query) == args.all:
        raise CommandFailed("Name what shall go by --cache, --tenant or --model, or say --all.", WRONG_USE)
    return Asked("DELETE", ("cache",), query=query, live=True)


def _purged(value: Mapping[str, Any]) -> None:
    print(f"{value['purged']:,} answers are gone, {value['bytes']:,} bytes")
