"""`moma order`: what was sold, taken back and given; the same id never does it twice."""

from __future__ import annotations

import argparse

from gateway.cli import tables
from gateway.cli.accounts import CARD_HELP, TIME_HELP, Subparsers, finish, given, noun
from gateway.cli.reach import Asked


def add_parser(subparsers: Subparsers) -> None:
    order = noun(subparsers, "order", "what was sold")
    parser = order.add_parser("add", help="sell a package; the same ORDER again returns the first result")
    parser.add_argument("id", metavar="ORDER", help="the seller's id")
    parser.add_argument("tenant", metavar="TENANT")
    parser.add_argument("package", metavar="PACKAGE")
    parser.add_argument("--quantity", type=int, metavar="N", help="seats, or units of a top-up; default 1")
    finish(parser, _add, tables.one)
    parser = order.add_parser("list", help="orders, changes, refunds and compensations")
    parser.add_argument("--tenant", metavar="ID")
    finish(parser, lambda args: Asked("GET", ("orders",), query=given(tenant=args.tenant)), tables.orders)
    parser = order.add_parser("show", help="one order, and what is left of it")
    parser.add_argument("id", metavar="ORDER")
    finish(parser, lambda args: Asked("GET", ("orders", args.id)), tables.one)
    parser = order.add_parser("refund", help="take back what is unspent; its subscription ends")
    parser.add_argument("id", metavar="ORDER")
    parser.add_argument("--credits", metavar="N", help="only so many, as far as they are unspent; nothing ends")
    parser.add_argument("--refund-id", metavar="ID", help="for a second refund of one order; the same ID does it once")
    finish(parser, _refund, tables.one)
    parser = order.add_parser("compensate", help="credits for what went wrong")
    parser.add_argument("id", metavar="ORDER", help="an id of its own")
    parser.add_argument("tenant", metavar="TENANT")
    parser.add_argument("credits", metavar="CREDITS", help="such as 2.5, 100k or 1M")
    parser.add_argument("--expires-at", metavar="TIME", help=TIME_HELP)
    parser.add_argument("--card", metavar="CARD", help=CARD_HELP)
    finish(parser, _compensate, tables.one)


def _add(args: argparse.Namespace) -> Asked:
    body = {"order_id": args.id, "tenant": args.tenant, "package": args.package}
    return Asked("POST", ("orders",), body | given(quantity=args.quantity))


def _refund(args: argparse.Namespace) -> Asked:
    return Asked("POST", ("orders", args.id, "refund"), given(credits=args.credits, refund_id=args.refund_id))


def _compensate(args: argparse.Namespace) -> Asked:
    body = {"order_id": args.id, "credits": args.credits}
    return Asked(
        "POST", ("tenants", args.tenant, "compensations"), body | given(expires_at=args.expires_at, card=args.card)
    )
