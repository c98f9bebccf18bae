"""The versions of rate cards: appended, never changed, so that each charge recomputes from the version it names."""

from __future__ import annotations

import sqlite3
from typing import Final

import orjson

from gateway.charging.offers import STANDARD
from gateway.charging.schema import WRITES
from gateway.charging.tables import has_table
from gateway.charging.tariffs import UNKEPT, CardVersion, Rates, Tariffs, Versions, changed, grouped, tariff_of

# Of each card, those that were made with its last version.
_LAST: Final = (
    "effective_ms = (SELECT latest.effective_ms FROM rate_cards AS latest WHERE latest.card = rate_cards.card"
    " ORDER BY latest.version DESC LIMIT 1)"
)
Kept = dict[tuple[str, int], Rates]  # by card and version


def append(
    connection: sqlite3.Connection, known: Versions, wanted: Tariffs, now_ms: int
) -> dict[str, tuple[CardVersion, ...]]:
    """The cards from now on: those that are `known`, those that are not as `wanted` with new versions.

    New ones become durable with the caller's transaction.
    """
    first = {}
    if STANDARD not in known and connection.execute("SELECT 1 FROM records LIMIT 1").fetchone():
        first[STANDARD] = UNKEPT + 1  # a file of before: nobody knows by which rates its records were charged
    new = changed(known, wanted, now_ms, first)
    connection.executemany(WRITES["rate_cards"], [one.row for one in new])
    connection.executemany(WRITES["card_terms"], [one.terms_row for one in new if one.tariff.terms])
    return {**known, **grouped(new)}


def last(connection: sqlite3.Connection) -> dict[str, tuple[CardVersion, ...]]:
    """Of each card the versions of its last edit."""
    found: dict[str, tuple[CardVersion, ...]] = {}
    for one in _read(connection, _LAST):
        before = found.get(one.card, ())
        found[one.card] = (*before, one) if before and before[-1].made_ms == one.made_ms else (one,)
    return found


def kept(connection: sqlite3.Connection) -> Kept:
    """The rates of all versions; none where the file is older than the table."""
    if not has_table(connection, "rate_cards"):
        return {}
    rows = connection.execute("SELECT card, version, rates FROM rate_cards")
    return {(card, version): orjson.loads(rates) for card, version, rates in rows}


def version_of(connection: sqlite3.Connection, card: str, version: int) -> CardVersion | None:
    return next(iter(_read(connection, "card = ? AND version = ?", card, version)), None)


def _read(connection: sqlite3.Connection, which: str, *values: object) -> list[CardVersion]:
    """By card and number."""
    if not has_table(connection, "rate_cards"):
        return []
    terms = {}
    if has_table(connection, "card_terms"):  # not where nobody has opened the file for writing since
        rows = connection.execute("SELECT card, version, terms FROM card_terms")
        terms = {(card, version): text for card, version, text in rows}
    sql = f"SELECT card, version, effective_ms, rates FROM rate_cards WHERE {which} ORDER BY card, version"  # noqa: S608
    return [
        CardVersion(card, version, made_ms, tariff_of(rates, terms.get((card, version))))
        for card, version, made_ms, rates in connection.execute(sql, values)
    ]
