"""Statements that are cut, compared with records and entries, which are counted here one by one (I15)."""

from __future__ import annotations

import sqlite3
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from typing import Any, Final

import orjson

from gateway.charging import loading
from gateway.charging.composing import MOVES, uc_of
from gateway.charging.cuts import Cut, all_of
from gateway.charging.figures import REPAID
from gateway.charging.grants import Grant

OPENING: Final = -1  # what is older than the first month that was cut
Finding = tuple[str, str, str]  # subject, field, what it says


def statements_contradicted(connection: sqlite3.Connection) -> Iterator[Finding]:
    """In one pass over records and entries; nothing where no month is cut."""
    found = all_of(connection)
    if found:
        months = _Months(found)
        months.read(connection)
        yield from _cuts(connection, found)
        yield from _statements(connection, found, months)


class _Months:
    """State: sums by month (its place among the cuts) and grant, or tenant, and what they are of."""

    def __init__(self, cuts: list[Cut]) -> None:
        self._from_ms = cuts[0].from_ms
        self._ends = [cut.to_ms for cut in cuts]
        self._records = [cut.last for cut in cuts]
        self._entries = [cut.entry for cut in cuts]
        self.moved: dict[tuple[int, str], Counter[str]] = {}
        self.used: dict[tuple[int, str], Counter[str]] = {}

    def read(self, connection: sqlite3.Connection) -> None:
        sql = "SELECT seq, closed_ms, tenant, status, overage, debt, parts FROM records ORDER BY seq"
        for seq, closed_ms, tenant, status, overage, debt, parts in connection.execute(sql):
            month = self._month(self._records, seq, closed_ms)
            if month is not None:
                used = self.used.setdefault((month, tenant), Counter())
                used["calls"] += status in ("settled", "adjusted")
                used["overage"] += overage
                used["debt"] += debt
                for grant, uc in orjson.loads(parts).items():
                    self.moved.setdefault((month, grant), Counter())["spent"] += uc
        for number, ms, account, grant, kind, uc in connection.execute(
            "SELECT number, ms, account, grant_id, kind, uc FROM entries"
        ):
            month = self._month(self._entries, number, ms)
            if month is not None:
                kind = "spent" if (repaid := kind == REPAID) else kind
                self.moved.setdefault((month, grant), Counter())[kind] += uc
                self.used.setdefault((month, account), Counter())["debt"] -= uc * repaid

    def _month(self, numbers: list[int], number: int, ms: int) -> int | None:
        """The first that was cut after the number and ends after the time; None: that is not cut yet."""
        found = max(bisect_left(numbers, number), bisect_right(self._ends, ms))
        if found == 0 and ms < self._from_ms:
            return OPENING
        return found if found < len(self._ends) else None


def _cuts(connection: sqlite3.Connection, cuts: list[Cut]) -> Iterator[Finding]:
    """They join, and the chain is that at which they were cut."""
    for cut in cuts:
        for (stored,) in connection.execute("SELECT hash FROM records WHERE seq = ?", (cut.last,)):
            if stored and stored != cut.hash:
                yield f"month {cut.month}", "hash", f"was cut at another hash of record {cut.last}"
    for first, then in pairwise(cuts):
        if first.to_ms != then.from_ms or not first.last <= then.last or not first.entry <= then.entry:
            yield f"month {then.month}", "from_ms", f"does not follow {first.month}"


def _statements(connection: sqlite3.Connection, cuts: list[Cut], months: _Months) -> Iterator[Finding]:
    owned: dict[str, list[Grant]] = {}
    for grant in loading.grants(connection):
        owned.setdefault(grant.account, []).append(grant)
    for (tenant,) in connection.execute("SELECT id FROM accounts ORDER BY id").fetchall():
        sql = "SELECT month, body, sha256 FROM statements WHERE tenant = ?"
        rows = {month: (body, digest) for month, body, digest in connection.execute(sql, (tenant,))}
        every = owned.get(tenant, [])
        grants, purses = [one.id for one in every if not one.payg], [one for one in every if one.payg]
        left: dict[str, int] = {}
        _move(left, months, OPENING, grants)
        debt = months.used.get((OPENING, tenant), Counter())["debt"]
        for place, cut in enumerate(cuts):
            opening = sum(left.values())
            moves = _move(left, months, place, grants)
            spent = {one.id: months.moved.get((place, one.id), Counter())["spent"] for one in purses}
            used = months.used.get((place, tenant), Counter())
            debt += used["debt"]
            sums = {**moves, "opening": opening, "closing": sum(left.values())}
            sums |= {"overage": used["overage"], "debt": debt}
            wanted = _Wanted(sums, used["calls"], left, spent)
            if cut.month in rows:
                yield from _one(f"statement {cut.month} of {tenant}", *rows[cut.month], cut, wanted)
            elif any(sums.values()) or used["calls"]:
                yield f"statement {cut.month} of {tenant}", "", "is not there"


def _move(left: dict[str, int], months: _Months, place: int, grants: Sequence[str]) -> dict[str, int]:
    """Brings `left` from the beginning of a month to its end; the sums of what moved."""
    sums: Counter[str] = Counter(dict.fromkeys(MOVES, 0))
    for grant in grants:
        moved = months.moved.get((place, grant))
        if moved:
            sums.update(moved)
            left[grant] = left.get(grant, 0) + moved["granted"] - moved["spent"] - moved["expired"] - moved["revoked"]
    return dict(sums)


@dataclass(frozen=True)
class _Wanted:
    """What records and entries say: micro-credits by name, calls, what is left of each grant, what was spent of each
    purse."""

    sums: Mapping[str, int]
    calls: int
    left: Mapping[str, int]
    spent: Mapping[str, int]


def _one(what: str, body: str, digest: str, cut: Cut, wanted: _Wanted) -> Iterator[Finding]:
    if sha256(body.encode()).hexdigest() != digest:
        yield what, "sha256", "was changed: its SHA-256 is another"
    try:
        said: dict[str, Any] = orjson.loads(body)
        for name, uc in wanted.sums.items():
            if uc_of(said[name]) != uc:
                yield what, name, f"has {name} {said[name]}, in millionths not {uc}"
        if said["calls"] != wanted.calls:
            yield what, "calls", f"has {said['calls']} calls, not {wanted.calls}"
        if _listed(said["left"]) != {grant: uc for grant, uc in wanted.left.items() if uc}:
            yield what, "left", "has something else left than its grants"
        if _listed(said["payg"]) != {grant: uc for grant, uc in wanted.spent.items() if uc}:
            yield what, "payg", "bills something else than was spent of its purses"
        if (said["cut"]["records"], said["cut"]["entries"], said["cut"]["chain"]) != (cut.last, cut.entry, cut.hash):
            yield what, "cut", "was cut elsewhere than its month"
    except (ValueError, KeyError, TypeError, ArithmeticError) as error:
        yield what, "body", f"cannot be read: {type(error).__name__}"


def _listed(rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Credits by grant, where there are any."""
    return {one["grant"]: uc for one in rows if (uc := uc_of(one["credits"]))}
