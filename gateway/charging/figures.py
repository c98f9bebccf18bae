"""What records and entries come to, between two times and up to a number: the sums that statements are made of.

SQLite makes the sums, which leaves the interpreter's lock to the calls.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import orjson

from gateway.charging.offers import STANDARD
from gateway.charging.sums import halves, whole

ALL: Final = 1 << 62  # more than any number or time
REPAID: Final = "debt_repaid"  # a kind of entry: what a grant spent on the debt of an account
_RECORDS: Final = (
    "seq > :floor AND seq <= :last AND closed_ms < :to_ms AND (closed_ms >= :from_ms OR seq > :last_before)"
)
ENTRIES: Final = "number <= :entry AND ms < :to_ms AND (ms >= :from_ms OR number > :entry_before)"
_OF_TENANTS: Final = " AND tenant IN (SELECT value FROM json_each(:tenants))"
OF_ACCOUNTS: Final = " AND account IN (SELECT value FROM json_each(:tenants))"
OF_GRANTS: Final = " AND grant_id IN (SELECT value FROM json_each(:grants))"
_SETTLED: Final = " AND status IN ('settled', 'adjusted')"


@dataclass(frozen=True)
class Reach:
    """What belongs to a statement: what is of a time in [from, to), or is of an earlier time and has a number beyond
    `last_before` or `entry_before`, which the cut before could not know; and has a number up to `last` or `entry`.

    No record up to `floor` belongs to it. Without a cut times alone count.
    """

    from_ms: int
    to_ms: int
    floor: int = 0
    last: int = ALL
    entry: int = ALL
    last_before: int = ALL
    entry_before: int = ALL


@dataclass(slots=True)
class Use:
    """Settled calls of one tenant, model and key. `cards`: what was charged, by the card that it was charged by."""

    calls: int = 0
    charged: int = 0
    overage: int = 0
    debt: int = 0
    cards: Counter[str] = field(default_factory=Counter)
    usage: Counter[str] = field(default_factory=Counter)

    def add(self, other: Use) -> None:
        self.calls += other.calls
        self.charged += other.charged
        self.overage += other.overage
        self.debt += other.debt
        self.cards.update(other.cards)
        self.usage.update(other.usage)


Who = tuple[str, str | None]  # model, and id of the key; None: of routes.yaml, or from before keys were recorded


@dataclass(slots=True)
class Figures:
    """`moved`: micro-credits by grant and kind; `drawn`: what calls took of a grant, by grant and tenant; `used` by
    tenant; `repaid`: debts by account."""

    moved: dict[str, Counter[str]] = field(default_factory=dict)
    drawn: dict[str, Counter[str]] = field(default_factory=dict)
    used: dict[str, dict[Who, Use]] = field(default_factory=dict)
    repaid: Counter[str] = field(default_factory=Counter)


def figures(
    connection: sqlite3.Connection, reach: Reach, tenants: Collection[str] | None = None,
    grants: Collection[str] | None = None,
) -> Figures:  # fmt: skip
    """Of all tenants and grants; else of calls of these tenants, and of moves of these grants."""
    found = Figures()
    asked = asdict(reach) | {"tenants": _list(tenants), "grants": _list(grants)}
    of_tenants = "" if tenants is None else _OF_TENANTS
    _read_entries(connection, found, asked, "" if grants is None else OF_GRANTS)
    _read_repaid(connection, found, asked, "" if tenants is None else OF_ACCOUNTS)
    _read_calls(connection, found, asked, of_tenants)
    _read_parts(connection, found, asked, of_tenants)
    return found


def _read_entries(connection: sqlite3.Connection, found: Figures, asked: dict[str, Any], which: str) -> None:
    sql = f"SELECT grant_id, kind, {halves('uc')} FROM entries WHERE {ENTRIES}{which} GROUP BY grant_id, kind"  # noqa: S608
    for grant, kind, *sums in connection.execute(sql, asked):
        moved = found.moved.setdefault(grant, Counter())
        moved[kind] += whole(*sums)
        if kind == REPAID:
            moved["spent"] += whole(*sums)


def _read_repaid(connection: sqlite3.Connection, found: Figures, asked: dict[str, Any], which: str) -> None:
    sql = (
        f"SELECT account, {halves('uc')} FROM entries WHERE kind = '{REPAID}' AND {ENTRIES}{which}"  # noqa: S608
        " GROUP BY account"
    )
    for account, *sums in connection.execute(sql, asked):
        found.repaid[account] += whole(*sums)


def _read_calls(connection: sqlite3.Connection, found: Figures, asked: dict[str, Any], which: str) -> None:
    key = key_column(connection)
    columns = ", ".join(map(halves, ("charged", "overage", "debt")))
    sql = (
        f"SELECT tenant, model_served, {key}, count(*), {columns} FROM records"  # noqa: S608 - names of this project
        f" WHERE {_RECORDS}{_SETTLED}{which} GROUP BY 1, 2, 3"
    )
    for tenant, model, key_id, calls, *sums in connection.execute(sql, asked):
        use = _use(found, tenant, (model, key_id))
        use.calls = calls
        use.charged, use.overage, use.debt = (whole(*pair) for pair in zip(sums[::2], sums[1::2], strict=True))
        if use.overage:
            use.cards[STANDARD] += use.overage  # what no grant pays is counted at this card
    sql = (
        f"SELECT tenant, model_served, {key}, item.key, sum(item.value) FROM records, json_each(usage) AS item"  # noqa: S608
        f" WHERE {_RECORDS}{_SETTLED}{which} GROUP BY 1, 2, 3, 4"
    )
    for tenant, model, key_id, bucket, number in connection.execute(sql, asked):
        _use(found, tenant, (model, key_id)).usage[bucket] += number


def _read_parts(connection: sqlite3.Connection, found: Figures, asked: dict[str, Any], which: str) -> None:
    sql = (
        f"SELECT item.key, tenant, model_served, {key_column(connection)}, {halves('item.value')}"  # noqa: S608
        f" FROM records, json_each(parts) AS item WHERE {_RECORDS}{which} GROUP BY 1, 2, 3, 4"
    )
    rows = [(*row[:4], whole(*row[4:])) for row in connection.execute(sql, asked)]
    cards = _cards(connection, {row[0] for row in rows})
    for grant, tenant, model, key_id, uc in rows:
        found.drawn.setdefault(grant, Counter())[tenant] += uc
        found.moved.setdefault(grant, Counter())["spent"] += uc
        _use(found, tenant, (model, key_id)).cards[cards.get(grant, STANDARD)] += uc


def _cards(connection: sqlite3.Connection, grants: Collection[str]) -> dict[str, str]:
    sql = "SELECT id, card FROM grants WHERE id IN (SELECT value FROM json_each(?))"
    return dict(connection.execute(sql, (_list(grants),)).fetchall())


def key_column(connection: sqlite3.Connection) -> str:
    """Of records; nobody may have opened the file for writing since keys are recorded."""
    known = {name for _, name, *_ in connection.execute("PRAGMA table_info(records)")}
    return "key_id" if "key_id" in known else "NULL"


def _use(found: Figures, tenant: str, who: Who) -> Use:
    uses = found.used.setdefault(tenant, {})
    if who not in uses:
        uses[who] = Use()
    return uses[who]


def _list(names: Collection[str] | None) -> str | None:
    return None if names is None else orjson.dumps(list(names)).decode()
