"""A statement as a page to be printed: A4, black on white, nothing from anywhere else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from gateway.account.forms import tokens
from gateway.account.words import KINDS, amount, amounts, money, month, package, unit, when
from gateway.charging.composing import SUMS
from gateway.status.html import Child, Html, el, join
from gateway.status.sheet import sheet

STYLE: Final = Html(Path(__file__).with_name("statement.css").read_text(encoding="utf-8"))
_SIGNS: Final = {"granted": "+", "spent": "−", "expired": "−", "revoked": "−", "closing": "="}
_SUMS: Final = {
    "opening": "Brought forward", "granted": "Granted", "spent": "Spent", "expired": "Expired",
    "revoked": "Taken back", "closing": "Left",
}  # fmt: skip
Value = Mapping[str, Any]
Cells = Sequence[Child]


def printed(value: Value) -> Html:
    """The whole page, as it is stored."""
    title = f"Statement {month(value)}, {value['tenant']}"
    zone = value.get("timezone") or "UTC"
    parts = (
        _header(value, zone), _balance(value), _money(value), _lines(value, zone), _purses(value), _packages(value),
        _models(value), _keys(value), _members(value), _left(value, zone), _footer(value, zone),
    )  # fmt: skip
    return sheet(title, STYLE, *parts)


def _header(value: Value, zone: str) -> Html:
    state = "Preliminary: not cut yet, and may change" if value["preliminary"] else "Final"
    span = f"{when(value['from'], zone)} to {when(value['to'], zone)}, {zone}"
    return el(
        "header",
        el("div", el("p", "MoMA gateway", class_="brand"), el("h1", "Statement ", el("span", month(value)))),
        el("dl", _fact("Tenant", value["tenant"]), _fact("Period", span), _fact("State", state)),
    )


def _fact(name: str, text: Child) -> Html:
    return el("div", el("dt", name), el("dd", text))


def _balance(value: Value) -> Html:
    """An addition for each card, side by side: they are not added up."""
    cards = value["cards"]
    if not cards:
        return el("section", el("h2", "Balance"), el("p", "Nothing was granted, and nothing is left."), _aside(value))
    rows: list[Cells] = [
        [f"{_SIGNS.get(name, '')} {_SUMS[name]}", *(amount(sums[name]) for sums in cards.values())] for name in SUMS
    ]
    table = _table("Balance", ["", *(_title(unit(card)) for card in cards)], rows, 1, class_="balance")
    return join(table, _aside(value))


def _aside(value: Value) -> Html:
    words = {
        "reserved": "held by calls under way", "overage": "beyond what was granted", "debt": "owed at the end",
        "debt_repaid": "of what was spent repaid debts",
    }  # fmt: skip
    said = [f"{amount(value[name])} credits {text}" for name, text in words.items() if value[name] != "0"]
    return el("p", "; ".join(said) + ".", class_="note") if said else Html("")


def _money(value: Value) -> Html:
    sums = value["money"]
    if sums["total"] == "0":
        return Html("")
    names = [name for name in sums if name not in ("currency", "total") and sums[name] != "0"]
    rows: list[Cells] = [[_title(name), money(sums[name])] for name in names]
    rows.append([el("b", "Total"), el("b", money(sums["total"]))])
    return _table(f"Charges in {sums['currency']}", ("", "Amount"), rows, 1, class_="money")


def _lines(value: Value, zone: str) -> Html:
    currency = value["money"]["currency"]
    rows: list[Cells] = [
        [
            when(line["at"], zone, "%Y-%m-%d"),
            join(KINDS.get(line["kind"], line["kind"]), el("small", _named(line))),
            f"{line['quantity']:,}",
            f"{amount(line['credits'])} {unit(line['card'])}",
            money(line["price"]) if line["price"] != "0" else "",
        ]
        for line in value["lines"]
    ]
    heads = ("Date", "What", "Quantity", "Credits", f"Price, {currency}" if currency else "Price")
    return _table("Packages, changes and adjustments", heads, rows, 2)


def _named(line: Value) -> str:
    reference = line["order"] or line["subscription"]
    return " · ".join(part for part in (line["what"], reference) if part)


def _purses(value: Value) -> Html:
    rows: list[Cells] = [
        [package(one["package"]), f"{amount(one['credits'])} {unit(one['card'])}", money(one["price"]), money(of)]
        for one in value["payg"]
        for of in [one["amount"]]
    ]
    return _table("Beyond the packages, paid afterwards", ("Package", "Used", "Price of 1M", "Amount"), rows, 1)


def _packages(value: Value) -> Html:
    rows: list[Cells] = [
        [join(package(one["package"]), el("small", unit(one["card"]))), *(amount(one[name]) for name in SUMS)]
        for one in value["by_package"]
    ]
    return _table("Use by package", ("Package", *(_SUMS[name] for name in SUMS)), rows, 1)


def _models(value: Value) -> Html:
    rows = [_use(one["model"], one) for one in value["by_model"]]
    return _table("Use by model", ("Model", "Calls", "Input tokens", "Output tokens", "Charged"), rows, 1)


def _keys(value: Value) -> Html:
    rows = [_use(join(_key(one), el("small", one["key"] or "")), one) for one in value["by_key"]]
    return _table("Use by key", ("Key", "Calls", "Input tokens", "Output tokens", "Charged"), rows, 1)


def _key(one: Value) -> str:
    if one["key"] is None:
        return "keys without an id"
    return str(one["name"] or one["key"])


def _use(name: Child, one: Value) -> Cells:
    read, written = tokens(one["usage"])
    return [name, f"{one['calls']:,}", f"{read:,}", f"{written:,}", amounts(one["cards"])]


def _members(value: Value) -> Html:
    rows: list[Cells] = [
        [one["tenant"], f"{one['calls']:,}", amounts(one["cards"]), amounts(one["drawn"])] for one in value["by_member"]
    ]
    return _table("Use by member", ("Member", "Calls", "Charged", f"Of it paid by {value['tenant']}"), rows, 1)


def _left(value: Value, zone: str) -> Html:
    rows: list[Cells] = [
        [
            join(package(one["package"]), el("small", one["grant"])),
            "never" if one["expires_at"] is None else when(one["expires_at"], zone),
            f"{amount(one['credits'])} {unit(one['card'])}",
        ]
        for one in value["left"]
    ]
    return _table("Left at the end", ("Package", "Expires", "Left"), rows, 2)


def _footer(value: Value, zone: str) -> Html:
    cut = value["cut"]
    if cut is None:
        return el("footer", el("p", "Preliminary. The final statement is cut when the month has ended."))
    facts = (
        ("Cut", f"{when(cut['at'], zone)} at record {cut['records']:,} and entry {cut['entries']:,} of the ledger"),
        ("Hash of the last record", cut["chain"]),
        ("SHA-256 of this statement", value["sha256"]),
    )
    return el("footer", el("dl", *(_fact(name, text) for name, text in facts)))


def _table(title: str, heads: Sequence[str], rows: Iterable[Cells], names: int, class_: str = "") -> Html:
    """The first `names` columns are text, the others numbers. Nothing without rows."""
    lines = [
        el("tr", *(el("td", cell, class_="" if at < names else "number") for at, cell in enumerate(row)))
        for row in rows
    ]
    if not lines:
        return Html("")
    head = el("tr", *(el("th", text, class_="" if at < names else "number") for at, text in enumerate(heads)))
    table = el("table", el("thead", head), el("tbody", *lines), class_=class_)
    return el("section", el("h2", title), table)


def _title(text: str) -> str:
    return text[:1].upper() + text[1:]
