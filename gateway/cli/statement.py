"""`moma statement`: shown, listed and cut, as a table, JSON, CSV or a page to be printed."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from gateway.account import printed
from gateway.account.forms import csv_text, tokens
from gateway.account.words import KINDS, amount, amounts, money, month, package, unit, when
from gateway.charging.composing import SUMS
from gateway.cli.accounts import Subparsers, given
from gateway.cli.layout import say, table
from gateway.cli.reach import WRONG_USE, Asked, CommandFailed, all_pages
from gateway.config.load import load

Value = Mapping[str, Any]
CUT, LIST = "cut", "list"
_SIGNS: Final = {"granted": "+", "spent": "-", "expired": "-", "revoked": "-", "closing": "="}
_ASIDE: Final = ("reserved", "overage", "debt", "debt_repaid")


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "statement", help="what a tenant had, spent and has left", usage="moma statement [cut|list] TENANT [options]"
    )
    parser.add_argument("words", nargs="+", metavar="[cut|list] TENANT", help="cut: a month that has ended, for good")
    parser.add_argument("--month", metavar="MONTH", help="such as 2026-11")
    parser.add_argument("--from", dest="from_", metavar="DATE", help="default: the first of this month")
    parser.add_argument("--to", metavar="DATE", help="exclusive, default: now")
    parser.add_argument("-c", "--config", type=Path, default=Path("routes.yaml"))
    parser.add_argument("--url", help="the running gateway, default: server.host and port of routes.yaml")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true")
    form.add_argument("--csv", action="store_true", help="one table, RFC 4180")
    form.add_argument("--html", type=Path, metavar="FILE", help="a page to be printed")
    parser.set_defaults(func=_run)


def _run(args: argparse.Namespace) -> int:
    config = load(args.config)
    _show(args, all_pages(config, args.url, _asked(args)))
    return 0


def _asked(args: argparse.Namespace) -> Asked:
    """Two words are a verb and a tenant, one is a tenant, whatever it is called."""
    verb, tenant = args.words if len(args.words) == 2 else ("", args.words[0])
    if len(args.words) > 2 or verb not in ("", CUT, LIST):
        raise CommandFailed("moma statement [cut|list] TENANT: there is no such verb.", WRONG_USE)
    if args.month is not None and (args.from_ or args.to):
        raise CommandFailed("A statement is of a month, or from one day to another: not both.", WRONG_USE)
    if verb == CUT:
        if args.month is None:
            raise CommandFailed("Which month is to be cut? --month 2026-11", WRONG_USE)
        return Asked("POST", ("tenants", tenant, "statements"), {"month": args.month})
    if verb == LIST:
        return Asked("GET", ("tenants", tenant, "statements"))
    if args.month is not None:
        return Asked("GET", ("tenants", tenant, "statements", args.month))
    return Asked("GET", ("tenants", tenant, "statement"), query=given(**{"from": args.from_, "to": args.to}))


def _show(args: argparse.Namespace, value: Value) -> None:
    if args.json:
        print(json.dumps(value, ensure_ascii=False))
    elif "data" in value:
        _show_list(value["data"])
    elif args.csv:
        print(csv_text(value), end="")
    elif args.html is not None:
        try:
            args.html.write_text(printed.printed(value), encoding="utf-8")
        except OSError as error:
            raise CommandFailed(f"{args.html} cannot be written: {error.strerror}.", WRONG_USE) from error
        print(f"written to {args.html}")
    else:
        show(value)


def _show_list(data: Sequence[Value]) -> None:
    rows = [
        (one["month"], f"{one['calls']:,}", str(one["cut"]["records"]), one["sha256"][:16], _closing(one))
        for one in data
    ]
    table("", ("month", "calls", "#", "sha256", "left"), rows)
    if not rows:
        say("none is cut")


def _closing(one: Value) -> str:
    return amounts({card: sums["closing"] for card, sums in one["cards"].items()})


def show(value: Value) -> None:
    """The sums as an addition, then what was sold, used and is left."""
    zone = value.get("timezone") or "UTC"
    state = "preliminary" if value["preliminary"] else f"cut at record {value['cut']['records']:,}"
    say(f"{value['tenant']}  {month(value)}, {state}")
    cards = value["cards"]
    sums = [(f"{_SIGNS.get(n, ' ')} {n}", *(amount(card[n]) for card in cards.values())) for n in SUMS]
    sums += [(f"  {name}", amount(value[name])) for name in _ASIDE if Decimal(value[name])]
    width = len(cards) + 1
    rows = [(*row, *[""] * (width - len(row))) for row in sums] if cards else []
    table("", ("", *(unit(card) for card in cards)), rows)
    _show_sold(value, zone)
    _show_purses(value)
    _show_use(value)
    left = [
        (package(one["package"]), (one["expires_at"] and when(one["expires_at"], zone)) or "never", _left(one))
        for one in value["left"]
    ]
    table("Left at the end", ("package", "expires", "left"), left)
    if value["sha256"]:
        say(f"\nsha256 {value['sha256']}")


def _left(one: Value) -> str:
    return f"{amount(one['credits'])} {unit(one['card'])}"


def _show_sold(value: Value, zone: str) -> None:
    sums = value["money"]
    rows = [
        (
            when(line["at"], zone, "%Y-%m-%d"), KINDS.get(line["kind"], line["kind"]), line["what"],
            f"{amount(line['credits'])} {unit(line['card'])}", money(line["price"]) if line["price"] != "0" else "",
        )
        for line in value["lines"]
    ]  # fmt: skip
    table("Packages, changes and adjustments", ("date", "what", "of", "credits", "price"), rows)
    if sums["total"] != "0":
        of = ", ".join(
            f"{name} {money(n)}" for name, n in sums.items() if name not in ("currency", "total") and n != "0"
        )
        say(f"\nCharges: {money(sums['total'])} {sums['currency']} ({of})")


def _show_purses(value: Value) -> None:
    for one in value["payg"]:
        used = f"{amount(one['credits'])} {unit(one['card'])} beyond the package"
        say(f"\nto be paid: {amount(one['amount'])} for {used}, at {one['price']} for 1M")


def _show_use(value: Value) -> None:
    if not value["by_model"]:
        say("\nno calls")
    heads = ("calls", "input", "output", "charged")
    table("By model", ("model", *heads), [(one["model"], *_use(one)) for one in value["by_model"]])
    table("By key", ("key", *heads), [(_key(one), *_use(one)) for one in value["by_key"]])
    rows = [
        (one["tenant"], f"{one['calls']:,}", amounts(one["cards"]), amounts(one["drawn"])) for one in value["by_member"]
    ]
    table("By member", ("member", "calls", "charged", f"paid by {value['tenant']}"), rows)


def _use(one: Value) -> tuple[str, ...]:
    read, written = tokens(one["usage"])
    return f"{one['calls']:,}", f"{read:,}", f"{written:,}", amounts(one["cards"])


def _key(one: Value) -> str:
    if one["key"] is None:
        return "without an id"
    return f"{one['key']} {one['name']}".strip()
