"""`moma package`: what routes.yaml has on sale."""

from __future__ import annotations

from gateway.cli import tables
from gateway.cli.accounts import Subparsers, finish, noun
from gateway.cli.reach import Asked


def add_parser(subparsers: Subparsers) -> None:
    package = noun(subparsers, "package", "what is sold")
    parser = package.add_parser("list", help="all packages of routes.yaml, with their terms for one of a quantity")
    finish(parser, lambda args: Asked("GET", ("packages",)), tables.packages)
