"""`moma why CHARGE_ID`: one charge explained to a person."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from gateway.cli.accounts import finish
from gateway.cli.layout import say, table
from gateway.cli.reach import Asked

Subparsers = Any  # argparse keeps the type of add_subparsers() private
Value = Mapping[str, Any]


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser("why", help="what one charge was made of, and which grants paid it")
    parser.add_argument("id", metavar="ID", help="a charge id, or a request id as in x-request-id")
    finish(parser, lambda args: Asked("GET", ("charges", args.id)), show)


def show(value: Value) -> None:
    record = value["record"]
    say(f"charge {record['charge_id']}, record {record['seq']}, request {record['request_id']}")
    table("", ("", ""), _call(value, record))
    _show_price(value["price"], record)
    table("Grants, in the order in which they are drawn on", ("grant", "paid", "why", "place"), _grants(value))
    for each in value["flags"]:
        say(f"\n{each['flag']}: {each['means']}")
    if value["other_charges"]:
        say(f"\nother charges of this request: {', '.join(value['other_charges'])}")


def _call(value: Value, record: Value) -> list[tuple[str, str]]:
    served = f"{record['model_served']} on {record['backend']}" if record["backend"] else record["model_served"]
    seconds = (record["closed_ms"] - record["opened_ms"]) / 1000
    return [
        ("tenant", " > ".join(record["account_path"])),
        ("asked", f"{record['endpoint']} of {record['model_requested']}, {value['opened_at']}"),
        ("served", f"{served or 'by nobody'}, in {seconds:.1f} s"),
        ("status", record["status"]),
        ("held", _held(record)),
        ("charged", f"{record['charged']} credits{_unpaid(record)}"),
    ]


def _held(record: Value) -> str:
    back = Decimal(record["reserved"]) - Decimal(record["charged"])
    if back < 0:
        return f"{record['reserved']} credits, {-back:f} less than was used"
    return f"{record['reserved']} credits, of which {back:f} went back"


def _unpaid(record: Value) -> str:
    if not Decimal(record["overage"]):
        return ""
    return f", of which no grant paid {record['overage']}: {record['debt']} is debt, {record['loss']} is lost to you"


def _show_price(price: Value | None, record: Value) -> None:
    if price is None:
        card = f"{record['rate_card']}, version {record['card_version']}"
        say(f"\nThe rates of card {card}, were not kept, or do not fit.")
        return
    title = f"Price by {'; '.join(map(_card, price['cards']))}"
    several = len({line["card"] for line in price["lines"]}) > 1
    rows = [
        (
            f"{line['bucket']} by {line['card']}" if several else line["bucket"],
            f"{line['quantity']:,}",
            f"x {line['rate']}",
            f"= {line['credits']}",
        )
        for line in price["lines"]
    ]
    sums = [("sum", price["sum"])]
    if price["share"] != price["sum"]:
        free = "throttled" in record["flags"]
        sums.append(
            ("for nothing, as no credits covered it" if free else "the cache's share, rounded down", price["share"])
        )
    if price["charged"] != price["share"]:
        sums.append(("at most what was held", price["charged"]))
    table(title, ("bucket", "used", "rate", "credits"), [*rows, *((what, "", "", f"= {n}") for what, n in sums)])


def _card(card: Value) -> str:
    """What a version was of its card, where that is not all of it."""
    terms = [f"from {card['from']} on"] if card["from"] else []
    terms += [f"{', '.join(card['hours'])} x {card['factor']}"] if card["hours"] else []
    return f"card {card['card']}, version {card['version']} since {card['effective_at']}" + "".join(
        f", {term}" for term in terms
    )


def _grants(value: Value) -> list[tuple[str, str, str, str]]:
    return [(_grant(each), each["paid"], each["why"], each["place"]) for each in value["grants"]]


def _grant(each: Value) -> str:
    return f"{each['grant']} (billed)" if each["kind"] == "payg" else str(each["grant"])
