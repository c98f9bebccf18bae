"""A tenant's statement for a span of time, from the tables alone."""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import orjson

from gateway.charging import loading
from gateway.charging.rating import credits_text
from gateway.charging.records import Account, Key
from gateway.charging.store import read_only
from gateway.charging.views import FIRST_MS, LAST_MS
from gateway.errors import InvalidValue, NotFound, StoreUnavailable


def statement(db_path: str, tenant: str, from_ms: int, to_ms: int) -> dict[str, Any]:
    """[from, to): opening + granted - spent - expired - revoked = closing, over the tenant's own grants.

    `spent` is what they paid, for members of a pool as well; calls, by_model, overage and debt are the tenant's own.
    """
    try:
        with contextlib.closing(read_only(db_path)) as connection:
            connection.execute("BEGIN")  # one snapshot for all the reading
            return _statement(connection, tenant, from_ms, to_ms)
    except sqlite3.Error as error:
        raise StoreUnavailable(f"the ledger {db_path} cannot be read: {error}") from error


def accounts(db_path: str) -> list[Account]:
    """Of the file alone, whoever has it open."""
    try:
        with contextlib.closing(read_only(db_path)) as connection:
            return list(loading.accounts(connection).values())
    except sqlite3.Error as error:
        raise StoreUnavailable(f"the ledger {db_path} cannot be read: {error}") from error


def keys(db_path: str, tenant: str) -> list[Key]:
    """Also revoked and expired ones; of the file alone."""
    try:
        with contextlib.closing(read_only(db_path)) as connection:
            return [key for key in loading.keys(connection) if key.tenant == tenant]
    except sqlite3.Error as error:
        raise StoreUnavailable(f"the ledger {db_path} cannot be read: {error}") from error


def span(from_: str | None, to: str | None, now_ms: int, zone: ZoneInfo) -> tuple[int, int]:
    """[from, to) of ISO dates or times, in `zone` unless they say where; default: this month so far.

    Raises InvalidValue.
    """
    now = datetime.fromtimestamp(now_ms / 1000, zone)
    month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    from_ms = int(month.timestamp() * 1000) if from_ is None else _ms(from_, zone, "from")
    to_ms = now_ms + 1 if to is None else _ms(to, zone, "to")
    if from_ms > to_ms:
        raise InvalidValue("from lies after to.", param="from")
    return from_ms, to_ms


def _ms(text: str, zone: ZoneInfo, field: str) -> int:
    try:
        when = datetime.fromisoformat(text)
        ms = int((when if when.tzinfo else when.replace(tzinfo=zone)).timestamp() * 1000)
    except (ValueError, OverflowError) as error:
        raise InvalidValue(f"{field} is a date or time such as 2027-01-31, not {text[:40]!r}.", param=field) from error
    if not FIRST_MS <= ms <= LAST_MS:
        raise InvalidValue(f"{field} lies outside the years 1970 to 9999.", param=field)
    return ms


def _statement(connection: sqlite3.Connection, tenant: str, from_ms: int, to_ms: int) -> dict[str, Any]:
    if not connection.execute("SELECT 1 FROM accounts WHERE id = ?", (tenant,)).fetchall():
        raise NotFound(f"no tenant {tenant!r}")
    before, during = _movements(connection, tenant, from_ms, to_ms)
    opening = _balance(before)
    calls = _Calls()
    calls.read(connection, tenant, from_ms, to_ms)
    sums = {
        "opening": opening, "granted": during["granted"], "spent": during["spent"], "expired": during["expired"],
        "revoked": during["revoked"], "closing": opening + _balance(during),
        "reserved": _reserved(connection, tenant), "overage": calls.overage, "debt": _debt(connection, tenant, to_ms),
    }  # fmt: skip
    return {
        "tenant": tenant, "from": _iso(from_ms), "to": _iso(to_ms),
        **{name: credits_text(uc) for name, uc in sums.items()},
        "calls": calls.number, "by_model": calls.by_model(),
    }  # fmt: skip


def _balance(moved: Counter[str]) -> int:
    return moved["granted"] - moved["spent"] - moved["expired"] - moved["revoked"]


def _movements(
    connection: sqlite3.Connection, tenant: str, from_ms: int, to_ms: int
) -> tuple[Counter[str], Counter[str]]:
    """Sums per kind before the span and in it, over the tenant's own grants."""
    before: Counter[str] = Counter()
    during: Counter[str] = Counter()
    own = {name for (name,) in connection.execute("SELECT id FROM grants WHERE account = ?", (tenant,))}
    sql = "SELECT e.ms, e.kind, e.uc FROM grants g JOIN entries e ON e.grant_id = g.id WHERE g.account = ? AND e.ms < ?"
    for ms, kind, uc in connection.execute(sql, (tenant, to_ms)):
        (before if ms < from_ms else during)["spent" if kind == "debt_repaid" else kind] += uc
    for closed_ms, parts in _parts(connection, tenant, to_ms):
        moved = before if closed_ms < from_ms else during
        moved["spent"] += sum(uc for grant, uc in orjson.loads(parts).items() if grant in own)
    return before, during


def _parts(connection: sqlite3.Connection, tenant: str, to_ms: int) -> Iterator[tuple[int, str]]:
    """The charges that may have drawn on the tenant's grants: of all that were below it when they began."""
    sql = "SELECT closed_ms, parts FROM records WHERE instr(account_path, ?) AND closed_ms < ?"
    yield from connection.execute(sql, (orjson.dumps(tenant).decode(), to_ms))


def _reserved(connection: sqlite3.Connection, tenant: str) -> int:
    """Of the holds that are written: those open for longer than 50 ms."""
    own = {name for (name,) in connection.execute("SELECT id FROM grants WHERE account = ?", (tenant,))}
    rows = connection.execute("SELECT parts FROM holds")
    return sum(int(uc) for (parts,) in rows for grant, uc in orjson.loads(parts).items() if grant in own)


def _debt(connection: sqlite3.Connection, tenant: str, to_ms: int) -> int:
    made = connection.execute("SELECT debt FROM records WHERE tenant = ? AND closed_ms < ?", (tenant, to_ms))
    sql = "SELECT uc FROM entries WHERE account = ? AND kind = 'debt_repaid' AND ms < ?"
    repaid = connection.execute(sql, (tenant, to_ms))
    return sum(int(uc) for (uc,) in made) - sum(int(uc) for (uc,) in repaid)


class _Calls:
    """The tenant's own settled calls, summed per model."""

    def __init__(self) -> None:
        self.number = 0
        self.overage = 0
        self._models: dict[str, tuple[Counter[str], Counter[str]]] = {}

    def read(self, connection: sqlite3.Connection, tenant: str, from_ms: int, to_ms: int) -> None:
        sql = (
            "SELECT model_served, charged, overage, usage FROM records"
            " WHERE tenant = ? AND closed_ms >= ? AND closed_ms < ? AND status IN ('settled', 'adjusted')"
        )
        for model, charged, overage, usage in connection.execute(sql, (tenant, from_ms, to_ms)):
            self.number += 1
            self.overage += overage
            sums, buckets = self._models.setdefault(model, (Counter(), Counter()))
            sums["calls"] += 1
            sums["charged"] += charged
            buckets.update(orjson.loads(usage))

    def by_model(self) -> list[dict[str, Any]]:
        return [
            {"model": model, "calls": sums["calls"], "credits": credits_text(sums["charged"]), "usage": dict(buckets)}
            for model, (sums, buckets) in sorted(self._models.items())
        ]


def _iso(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
