"""A statement as one CSV file (RFC 4180), with the same columns whatever is in it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any, Final

from gateway.charging.composing import SUMS

COLUMNS: Final = (
    "tenant", "month", "section", "name", "detail", "card", "at", "quantity", "calls", "input", "output", "credits",
    "price", "currency",
)  # fmt: skip
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would compute
Value = Mapping[str, Any]
Row = dict[str, Any]


def csv_text(value: Value) -> str:
    """A line for each figure; credits and prices as in the JSON."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, restval="", lineterminator="\r\n")
    writer.writeheader()
    for row in _rows(value):
        row["name"], row["detail"] = _plain(row.get("name")), _plain(row.get("detail"))
        writer.writerow({"tenant": value["tenant"], "month": value["month"], **row})
    return out.getvalue()


def tokens(usage: Mapping[str, int]) -> tuple[int, int]:
    """Of any kind of input, and of output."""
    total = [sum(n for bucket, n in usage.items() if bucket.startswith(kind)) for kind in ("input", "output")]
    return total[0], total[1]


def _plain(text: object) -> str:
    found = "" if text is None else str(text)
    return f"'{found}" if found.startswith(_FORMULA) else found


def _rows(value: Value) -> Iterator[Row]:
    yield {"section": "period", "name": "from", "at": value["from"]}
    yield {"section": "period", "name": "to", "at": value["to"]}
    for card, sums in value["cards"].items():
        yield from ({"section": "balance", "name": name, "card": card, "credits": sums[name]} for name in SUMS)
    for name in ("reserved", "overage", "debt", "debt_repaid"):
        yield {"section": "aside", "name": name, "credits": value[name]}
    yield from _sold(value)
    for one in value["by_package"]:
        for name in SUMS:
            row = {"section": "package", "name": one["package"], "detail": name}
            yield {**row, "card": one["card"], "credits": one[name]}
    for one in value["payg"]:
        row = {"section": "payg", "name": one["package"], "detail": one["grant"], "card": one["card"]}
        yield {**row, "credits": one["credits"], "price": one["amount"], "currency": value["money"]["currency"]}
    for one in value["by_model"]:
        yield from _used("model", one["model"], "", one)
    for one in value["by_key"]:
        yield from _used("key", one["key"], one["name"], one)
    for one in value["by_member"]:
        yield {"section": "member", "name": one["tenant"], "calls": one["calls"]}
        for detail in ("cards", "drawn"):
            said = "charged" if detail == "cards" else "drawn"
            for card, text in one[detail].items():
                row = {"section": "member", "name": one["tenant"], "detail": said}
                yield {**row, "card": card, "credits": text}
    for one in value["left"]:
        row = {"section": "left", "name": one["package"], "detail": one["grant"], "card": one["card"]}
        yield {**row, "at": one["expires_at"], "credits": one["credits"]}
    yield from _proof(value)


def _sold(value: Value) -> Iterator[Row]:
    money = value["money"]
    for line in value["lines"]:
        detail = line["order"] or line["subscription"]
        row = {"section": line["kind"], "name": line["what"], "detail": detail, "card": line["card"]}
        row |= {"at": line["at"], "quantity": line["quantity"], "credits": line["credits"]}
        yield {**row, "price": line["price"], "currency": money["currency"]}
    for name, price in money.items():
        if name != "currency":
            yield {"section": "money", "name": name, "price": price, "currency": money["currency"]}


def _used(section: str, name: str, detail: str, one: Value) -> Iterator[Row]:
    row = {"section": section, "name": name, "detail": detail}
    read, written = tokens(one["usage"])
    yield {**row, "calls": one["calls"], "input": read, "output": written}
    yield from ({**row, "card": card, "credits": text} for card, text in one["cards"].items())


def _proof(value: Value) -> Iterator[Row]:
    if value["cut"] is None:
        yield {"section": "cut", "name": "preliminary"}
        return
    for name, detail in {**value["cut"], "sha256": value["sha256"]}.items():
        yield {"section": "cut", "name": name, "detail": detail}
