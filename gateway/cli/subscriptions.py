"""`moma subscription`: packages that recur."""

from __future__ import annotations

import argparse

from gateway.cli import tables
from gateway.cli.accounts import VERSION_HELP, Subparsers, finish, given, noun
from gateway.cli.reach import Asked


def add_parser(subparsers: Subparsers) -> None:
    subscription = noun(subparsers, "subscription", "packages that recur")
    parser = subscription.add_parser("list", help="all of them, the ended ones too")
    parser.add_argument("--tenant", metavar="ID")
    finish(parser, lambda args: Asked("GET", ("subscriptions",), query=given(tenant=args.tenant)), tables.many)
    parser = subscription.add_parser("change", help="another package or quantity: more at once, less next period")
    parser.add_argument("id", metavar="SUBSCRIPTION")
    parser.add_argument("package", metavar="PACKAGE", nargs="?", help="default: the one it has")
    parser.add_argument("--quantity", type=int, metavar="N")
    parser.add_argument("--order-id", metavar="ID", help="the same ID again changes nothing more")
    parser.add_argument("--version", metavar="VERSION", help=VERSION_HELP)
    finish(parser, _change, tables.one)
    parser = subscription.add_parser("cancel", help="it ends with the period that runs")
    parser.add_argument("id", metavar="SUBSCRIPTION")
    parser.add_argument("--now", action="store_true", help="at once: what is left is revoked")
    parser.add_argument("--version", metavar="VERSION", help=VERSION_HELP)
    finish(parser, _cancel, tables.one)


def _cancel(args: argparse.Namespace) -> Asked:
    return Asked("POST", ("subscriptions", args.id, "cancel"), {"now": args.now, **given(version=args.version)})


def _change(args: argparse.Namespace) -> Asked:
    body = given(package=args.package, quantity=args.quantity, order_id=args.order_id, version=args.version)
    return Asked("POST", ("subscriptions", args.id, "change"), body)
