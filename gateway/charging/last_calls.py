"""The last calls of a tenant, each with what it cost and why: for who made them, so nothing of providers or others."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from gateway.charging import cards, chain
from gateway.charging.flags import meaning
from gateway.charging.offers import STANDARD
from gateway.charging.rating import credits_text
from gateway.charging.recomputed import Kept, recomputed
from gateway.charging.records import RECORD_COLUMNS

MOST: Final = 20


@dataclass(frozen=True)
class LastCall:
    """`cards`: credits by card; `price`: (bucket, quantity, credits a unit); `paid`: (what a grant came from, credits),
    "" where no grant did; `flags` in words. Amounts are decimal strings."""

    ms: int
    request_id: str
    asked: str
    served: str
    key_id: str
    usage: Mapping[str, int]
    cards: Mapping[str, str]
    price: list[tuple[str, int, str]]
    paid: list[tuple[str, str]]
    flags: list[str]


def last_calls(connection: sqlite3.Connection, tenant: str) -> list[LastCall]:
    """The latest first, at most MOST."""
    sql = f"{chain.select_sql(connection)} WHERE tenant = ? ORDER BY seq DESC LIMIT {MOST}"
    records = [dict(zip(RECORD_COLUMNS, row, strict=True)) for row in connection.execute(sql, (tenant,))]
    names = orjson.dumps([name for record in records for name in orjson.loads(record["parts"])]).decode()
    sql = "SELECT id, source_ref, card FROM grants WHERE id IN (SELECT value FROM json_each(?))"
    grants = {name: (source or "", card) for name, source, card in connection.execute(sql, (names,))}
    kept = cards.kept(connection) if records else {}
    return [_call(record, grants, kept) for record in records]


def _call(record: Mapping[str, Any], grants: Mapping[str, tuple[str, str]], kept: Kept) -> LastCall:
    parts: dict[str, int] = orjson.loads(record["parts"])
    by_card = Counter[str]()
    for grant, uc in parts.items():
        by_card[grants[grant][1]] += uc
    paid = [(grants[grant][0], credits_text(uc)) for grant, uc in parts.items()]
    if record["overage"]:
        by_card[STANDARD] += record["overage"]
        paid.append(("", credits_text(record["overage"])))
    price = recomputed(record, kept)
    return LastCall(
        ms=record["closed_ms"],
        request_id=record["request_id"],
        asked=record["model_requested"],
        served=record["model_served"] if record["status"] == "settled" else "",
        key_id=record["key_id"] or "",
        usage=orjson.loads(record["usage"]),
        cards={card: credits_text(uc) for card, uc in by_card.items()},
        price=[] if price is None else [(bucket, n, credits_text(rate)) for bucket, n, rate, *_ in price.lines],
        paid=paid,
        flags=[meaning(flag) for flag in orjson.loads(record["flags"])],
    )
