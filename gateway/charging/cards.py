"""The versions of a rate card: appended, never changed, so that each charge recomputes from the version it names."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Final

import orjson

from gateway.charging.records import CardVersion, rates_text
from gateway.charging.schema import WRITES, select_sql
from gateway.charging.tables import has_table

CARD: Final = "standard"
UNKEPT: Final = 1  # what every record named before versions were kept, whatever its rates were
Rates = Mapping[str, Mapping[str, int]]  # by model and usage bucket: micro-credits per unit


def in_force(connection: sqlite3.Connection, rates: Rates | None, now_ms: int) -> int:
    """The version that charges from now on: the last one, or a new one when `rates` differ from it.

    None, of whoever has no configuration, takes the last one. A new one becomes durable with the caller's transaction.
    """
    sql = f"{select_sql('rate_cards')} WHERE card = ? ORDER BY version DESC LIMIT 1"
    _, version, _, kept = connection.execute(sql, (CARD,)).fetchone() or (CARD, 0, 0, None)
    if rates is None:
        return version or UNKEPT
    if rates_text(rates) != kept:
        if not version and connection.execute("SELECT 1 FROM records LIMIT 1").fetchone():
            version = UNKEPT  # a file of before: nobody knows by which rates its records were charged
        version += 1
        connection.execute(WRITES["rate_cards"], CardVersion(CARD, version, now_ms, rates).row)
    return int(version)


def kept(connection: sqlite3.Connection) -> dict[tuple[str, int], dict[str, dict[str, int]]]:
    """All versions by card and number; none where the file is older than the table."""
    if not has_table(connection, "rate_cards"):
        return {}
    return {
        (card, version): orjson.loads(rates) for card, version, _, rates in connection.execute(select_sql("rate_cards"))
    }
