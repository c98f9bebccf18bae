"""What a tenant pays for afterwards, for its statement: from the tables alone."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import orjson

from gateway.charging.ending import ending_of
from gateway.charging.rating import credits_text
from gateway.charging.tables import has_column
from gateway.config.model import Payg

PARTS: Final = "SELECT closed_ms, parts FROM records"
Spent = tuple[int, str, int]  # when, of which purse, how much


def purses(connection: sqlite3.Connection, tenant: str) -> dict[str, tuple[Payg, int]]:
    """The tenant's own, in the order in which they were made: what they are billed by, and what was spent of them."""
    if not has_column(connection, "grants", "ending"):
        return {}
    sql = "SELECT id, ending, spent FROM grants WHERE account = ? AND ending IS NOT NULL ORDER BY id"
    found = ((name, ending_of(text), spent) for name, text, spent in connection.execute(sql, (tenant,)))
    return {name: (said.payg, spent) for name, said, spent in found if said is not None and said.payg is not None}


def billed(connection: sqlite3.Connection, tenant: str, from_ms: int, to_ms: int) -> list[dict[str, Any]]:
    """What was spent of each purse in [from, to), by the tenant and all below it, and what that costs.

    Rounded up over all that was spent since the purse began, so that the statements of its months add up to one.
    """
    own = purses(connection, tenant)
    before, until = Counter[str](), Counter[str]()
    for ms, name, uc in _spent(connection, tenant, own) if own else ():
        until[name] += uc if ms < to_ms else 0
        before[name] += uc if ms < from_ms else 0
    return [
        {
            "grant": name,
            "price": credits_text(payg.price),
            "credits": credits_text(until[name] - before[name]),
            "amount": credits_text(payg.amount(until[name]) - payg.amount(before[name])),
        }
        for name, (payg, _) in own.items()
        if until[name] > before[name]
    ]


def _spent(connection: sqlite3.Connection, tenant: str, own: Mapping[str, tuple[Payg, int]]) -> list[Spent]:
    """By those that are below the tenant now; if that is not all, some have moved: then all records are read."""
    found = list(_of_members(connection, tenant, own))
    sums = Counter[str]()
    for _, name, uc in found:
        sums[name] += uc
    if any(sums[name] != spent for name, (_, spent) in own.items()):
        found = [*_of_parts(connection.execute(PARTS), own), *_repaid(connection, own)]
    return found


def _of_members(connection: sqlite3.Connection, tenant: str, own: Iterable[str]) -> Iterator[Spent]:
    for name, path in connection.execute("SELECT id, path FROM accounts").fetchall():
        if tenant in orjson.loads(path):
            yield from _of_parts(connection.execute(f"{PARTS} WHERE tenant = ?", (name,)), own)
    yield from _repaid(connection, own)


def _of_parts(rows: Iterable[tuple[int, str]], own: Iterable[str]) -> Iterator[Spent]:
    for ms, parts in rows:
        for name, uc in orjson.loads(parts).items():
            if name in own:
                yield ms, name, uc


def _repaid(connection: sqlite3.Connection, own: Iterable[str]) -> Iterator[Spent]:
    """Debts that were paid out of them."""
    for name in own:
        yield from connection.execute(
            "SELECT ms, grant_id, uc FROM entries WHERE grant_id = ? AND kind = 'debt_repaid'", (name,)
        )
