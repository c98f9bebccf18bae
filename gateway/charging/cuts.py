"""Months that are cut. A month is cut for all tenants at once, at the last numbers that records and entries had then;
each tenant's statement of it is kept as the bytes that it was.

A record or entry is on the statement of the first month that ends after its time and was cut after its number: each is
on exactly one, and what comes late is on the next. What is older than the first month that was cut is its opening.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Mapping
from dataclasses import astuple, dataclass
from hashlib import sha256
from typing import Any, Final
from zoneinfo import ZoneInfo

import orjson

from gateway.charging import chain, months
from gateway.charging.composing import Before, composed, uc_of
from gateway.charging.figures import ALL, Reach
from gateway.charging.records import Row
from gateway.charging.schema import select_sql
from gateway.charging.statements import (
    check_tenant,
    cut_table,
    history_of_all,
    of_all,
    of_running,
    reading,
    statement,
)
from gateway.charging.views import iso
from gateway.errors import Conflict, InvalidValue, NotFound

AT_ONCE: Final = 500  # statements in one commit
MOST_LISTED: Final = 1_000
_LAST: Final = ":"  # is behind all months


@dataclass(frozen=True)
class Cut:
    """`last` and `entry` are the numbers at which it was cut, `hash` is that of record `last`. No record up to `floor`
    belongs to a later month."""

    month: str
    from_ms: int
    to_ms: int
    floor: int
    last: int
    entry: int
    hash: str
    ms: int

    @property
    def row(self) -> Row:
        return astuple(self)


def reach(cut: Cut, before: Cut | None) -> Reach:
    if before is None:
        return Reach(cut.from_ms, cut.to_ms, 0, cut.last, cut.entry)
    return Reach(cut.from_ms, cut.to_ms, before.floor, cut.last, cut.entry, before.last, before.entry)


# -- reading ------------------------------------------------------------------------------------------------------


def of_month(db_path: str, tenant: str, month: str, zone: ZoneInfo, currency: str, now_ms: int) -> dict[str, Any]:
    """As it was cut, or as it is until then. Raises NotFound, InvalidValue, StoreUnavailable."""
    from_ms, to_ms = months.bounds(months.read(month), zone)
    with reading(db_path) as connection:
        check_tenant(connection, tenant)
        kept = _kept(connection, tenant, month)
        if kept is not None:
            return shown(*kept)
        if from_ms > now_ms:
            raise InvalidValue(f"{month} has not begun.", param="month")
        last = _cut_of(connection, months.before(month))
        kept = _kept(connection, tenant, months.before(month))
        if last is not None and kept is not None:
            until = Reach(from_ms, min(to_ms, now_ms + 1), last.floor, ALL, ALL, last.last, last.entry)
            found = of_running(connection, tenant, until, _after(kept[0]), currency)
            return {**found, "month": month, **_uncut(zone)}
    return {**statement(db_path, tenant, from_ms, min(to_ms, now_ms + 1), currency), "month": month, **_uncut(zone)}


def kept_of(db_path: str, tenant: str, month: str) -> dict[str, Any]:
    """As it was cut. Raises NotFound, StoreUnavailable."""
    with reading(db_path) as connection:
        kept = _kept(connection, tenant, month)
    if kept is None:
        raise NotFound(f"There is no statement of {month} yet.")
    return shown(*kept)


def listed(db_path: str, tenant: str, after: str = "", limit: int = MOST_LISTED) -> list[dict[str, Any]]:
    """Those that are cut, the latest first; with `after`, those that are before that month.

    Raises NotFound, StoreUnavailable.
    """
    with reading(db_path) as connection:
        check_tenant(connection, tenant)
        if not cut_table(connection):
            return []
        sql = "SELECT body, sha256 FROM statements WHERE tenant = ? AND month < ? ORDER BY month DESC LIMIT ?"
        found = [shown(*row) for row in connection.execute(sql, (tenant, after or _LAST, limit))]
    names = ("month", "from", "to", "calls", "cards", "money", "cut", "sha256")
    return [{name: one[name] for name in names} for one in found]


def shown(body: str, digest: str) -> dict[str, Any]:
    return {**orjson.loads(body), "sha256": digest}


def _uncut(zone: ZoneInfo) -> dict[str, Any]:
    return {"preliminary": True, "timezone": str(zone), "cut": None, "sha256": None}


def _kept(connection: sqlite3.Connection, tenant: str, month: str) -> tuple[str, str] | None:
    if not cut_table(connection):
        return None
    sql = "SELECT body, sha256 FROM statements WHERE tenant = ? AND month = ?"
    found: tuple[str, str] | None = connection.execute(sql, (tenant, month)).fetchone()
    return found


def _cut_of(connection: sqlite3.Connection, month: str) -> Cut | None:
    return next((cut for cut in all_of(connection) if cut.month == month), None)


def all_of(connection: sqlite3.Connection) -> list[Cut]:
    """In the order of their months."""
    if not cut_table(connection):
        return []
    return [Cut(*row) for row in connection.execute(f"{select_sql('cuts')} ORDER BY month")]


def _after(body: str) -> Before:
    """What the following statement goes on from."""
    ended = orjson.loads(body)
    left = {one["grant"]: uc_of(one["credits"]) for one in ended["left"]}
    left |= {one["grant"]: uc_of(one["left"]) for one in ended["purses"]}
    spent = {one["grant"]: uc_of(one["spent"]) for one in ended["purses"]}
    return Before(left, spent, uc_of(ended["debt"]))


# -- cutting ------------------------------------------------------------------------------------------------------


def begun(db_path: str) -> Cut | None:
    """One that was begun, and that nobody has ended. Of a ledger from before that was noted it is the last."""
    with reading(db_path) as connection:
        cuts = all_of(connection)
        sql = "SELECT 1 FROM cuts_ended WHERE month = ?"
        if not cuts or connection.execute(sql, (cuts[-1].month,)).fetchone() is not None:
            return None
        return cuts[-1]


def next_month(db_path: str, month: str, zone: ZoneInfo, now_ms: int) -> str | None:
    """The next that is to be cut up to `month`; None when all of them are. Raises Conflict, InvalidValue."""
    _, to_ms = months.bounds(months.read(month), zone)
    if to_ms > now_ms:
        raise Conflict(f"{month} has not ended: it can be cut from {iso(to_ms)} on.")
    with reading(db_path) as connection:
        cuts = all_of(connection)
        if not cuts:
            return month
        if month < cuts[0].month:
            raise Conflict(f"Statements begin with {cuts[0].month}: what was before is its opening.")
        last = cuts[-1].month
        return months.after(last) if last < month else None


def drawn(db_path: str, month: str, zone: ZoneInfo, now_ms: int) -> Cut:
    """Where it is cut: at what the file has now."""
    from_ms, to_ms = months.bounds(month, zone)
    with reading(db_path) as connection:
        head = chain.head(connection) or chain.Head()
        ((entry,),) = connection.execute("SELECT coalesce(max(number), 0) FROM entries").fetchall()
        before = all_of(connection)
        sql = "SELECT seq FROM records WHERE seq > ? AND closed_ms >= ? ORDER BY seq LIMIT 1"
        later = connection.execute(sql, (before[-1].floor if before else 0, to_ms)).fetchone()
    floor = head.seq if later is None else later[0] - 1
    return Cut(month, from_ms, to_ms, floor, head.seq, entry, head.hash, now_ms)


def statements_of(db_path: str, cut: Cut, zone: ZoneInfo, currency: str) -> Generator[list[Row], None, None]:
    """Rows of those that are not there yet, some at a time."""
    with reading(db_path) as connection:
        before = _cut_of(connection, months.before(cut.month))
        befores = _befores(connection, cut, before)
        span = reach(cut, before)
        book = of_all(connection, span, befores, currency)
        sql = "SELECT id FROM accounts WHERE activated_ms < ? OR id IN (SELECT value FROM json_each(?)) ORDER BY id"
        moved = orjson.dumps([*book.owned, *book.figures.used, *book.lines]).decode()
        names = [name for (name,) in connection.execute(sql, (cut.to_ms, moved))]
        there = {name for (name,) in connection.execute("SELECT tenant FROM statements WHERE month = ?", (cut.month,))}
        names = [name for name in names if name not in there]
        for start in range(0, len(names), AT_ONCE):
            yield [
                _row(name, cut, zone, composed(name, span, book, befores.get(name) or Before()))
                for name in names[start : start + AT_ONCE]
            ]


def _befores(connection: sqlite3.Connection, cut: Cut, before: Cut | None) -> Mapping[str, Before]:
    if before is None:
        return history_of_all(connection, Reach(-ALL, cut.from_ms, 0, cut.last, cut.entry))
    rows = connection.execute("SELECT tenant, body FROM statements WHERE month = ?", (before.month,))
    return {name: _after(body) for name, body in rows}


def _row(tenant: str, cut: Cut, zone: ZoneInfo, made: dict[str, Any]) -> Row:
    """Its text is its content in JSON with sorted keys and without spaces; the SHA-256 is that of the text."""
    value = {
        **made, "month": cut.month, "preliminary": False, "timezone": str(zone),
        "cut": {"at": iso(cut.ms), "records": cut.last, "entries": cut.entry, "chain": cut.hash},
    }  # fmt: skip
    body = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    return tenant, cut.month, body.decode(), sha256(body).hexdigest()
