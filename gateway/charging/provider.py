"""Our records against a provider's own count: by day, model and bucket, with the part that our flags explain.

Nothing is charged by it. What a record says is exact unless a flag or status says that nobody knows: then the truth
lies between nothing and what was held for the call.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

import orjson

from gateway.charging import cards
from gateway.charging.offers import RAW_RATES, STANDARD
from gateway.charging.rating import CACHE_HIT
from gateway.charging.store import read_only
from gateway.charging.usage_file import Buckets, Usages
from gateway.errors import StoreUnavailable

UNSURE: Final = frozenset({"estimated", "partial", "bad_usage", "crash"})
_COLUMNS: Final = "model_served, status, usage, flags, reserved, rate_card, card_version, closed_ms"


@dataclass(slots=True)
class Compared:
    """Tokens or counts. `difference` is theirs less ours; `unexplained` is how far theirs lies beyond what can be."""

    day: str
    model: str
    bucket: str
    ours: int = 0
    theirs: int = 0
    difference: int = 0
    unexplained: int = 0
    flags: dict[str, int] = field(default_factory=dict)  # records of which nobody knows, by the reason


@dataclass(slots=True)
class _Ours:
    """`sure` is what the records say that are exact, `most` what the others may come to; None: no bound is known."""

    all: int = 0
    sure: int = 0
    most: int | None = 0


def compared(
    db_path: str, backend: str, names: Mapping[str, str], theirs: Usages, buckets: Buckets, zone: ZoneInfo
) -> list[Compared]:
    """By day, model and bucket, in their order; `names` are the backend's for our models. Raises StoreUnavailable."""
    try:
        with contextlib.closing(read_only(db_path)) as connection:
            connection.execute("BEGIN")
            sums = _Sums(buckets, names, cards.kept(connection), zone)
            days = [day for day, _ in theirs]
            sums.read(connection, backend, min(days), max(days))
    except sqlite3.Error as error:
        raise StoreUnavailable(f"the ledger cannot be read: {error}") from error
    keys = sorted({*theirs, *sums.flags})
    return [sums.compare(key, label, theirs.get(key, Counter())[label]) for key in keys for label in buckets]


def served(db_path: str) -> set[str]:
    """The backends that records name: also those that routes.yaml no longer has. Raises StoreUnavailable."""
    try:
        with contextlib.closing(read_only(db_path)) as connection:
            return {name for (name,) in connection.execute("SELECT DISTINCT backend FROM records") if name}
    except sqlite3.Error as error:
        raise StoreUnavailable(f"the ledger cannot be read: {error}") from error


class _Sums:
    """State: ours by day, model and label, and the reasons not to be sure by day and model."""

    def __init__(self, buckets: Buckets, names: Mapping[str, str], rates: cards.Kept, zone: ZoneInfo) -> None:
        self.flags: dict[tuple[str, str], Counter[str]] = {}
        self._ours: dict[tuple[str, str, str], _Ours] = {}
        self._buckets, self._names, self._rates, self._zone = buckets, names, rates, zone
        self._packs: dict[str, list[Mapping[str, int]]] = {}  # by model: the rates of all cards but standard
        for (card, _), of in rates.items():
            for model in of if card != STANDARD else ():
                self._packs.setdefault(model, [RAW_RATES]).append(of[model])

    def read(self, connection: sqlite3.Connection, backend: str, first: str, last: str) -> None:
        span = _ms(first, self._zone), _ms(last, self._zone, days=1)
        sql = f"SELECT {_COLUMNS} FROM records WHERE backend = ? AND closed_ms >= ? AND closed_ms < ?"  # noqa: S608
        for row in connection.execute(sql, (backend, *span)):
            self._add(*row)

    def compare(self, key: tuple[str, str], label: str, theirs: int) -> Compared:
        ours = self._ours.get((*key, label), _Ours())
        beyond = min(0, theirs - ours.sure)
        if ours.most is not None:
            beyond += max(0, theirs - ours.sure - ours.most)
        difference = theirs - ours.all
        flags = dict(self.flags.get(key, ())) if difference else {}
        return Compared(*key, label, ours.all, theirs, difference, beyond, flags)

    def _add(
        self, model: str, status: str, usage: str, flags: str, reserved: int, card: str, version: int, closed_ms: int
    ) -> None:
        told = orjson.loads(flags)
        if CACHE_HIT in told:  # no backend was asked
            return
        reasons = [flag for flag in told if flag in UNSURE] if status == "settled" else [status]
        key = self._day(closed_ms), self._names.get(model, model)
        self.flags.setdefault(key, Counter()).update(reasons)
        used, standard = orjson.loads(usage), self._rates.get((card, version), {}).get(model, {})
        rates = (standard, *self._packs.get(model, (RAW_RATES,)))
        for label, of in self._buckets.items():
            ours = self._ours.setdefault((*key, label), _Ours())
            quantity = sum(used.get(bucket, 0) for bucket in of)
            ours.all += quantity
            if not reasons:
                ours.sure += quantity
            elif ours.most is not None:
                most = _most(reserved, [_least(bucket, rates) for bucket in of])
                ours.most = None if most is None else ours.most + most

    def _day(self, closed_ms: int) -> str:
        return datetime.fromtimestamp(closed_ms / 1000, self._zone).date().isoformat()


def _least(bucket: str, cards: Iterable[Mapping[str, int]]) -> int:
    """What a unit was held at, at least: a grant of any of these may have held it."""
    return min(rates.get(bucket, 0) for rates in cards)


def _most(reserved: int, rates: Iterable[int]) -> int | None:
    """What a call can have used of these buckets: it was held, at a rate that is no less than theirs."""
    rate = min(rates)
    return reserved // rate if rate else None


def _ms(day: str, zone: ZoneInfo, days: int = 0) -> int:
    midnight = datetime.combine(date.fromisoformat(day) + timedelta(days=days), time(), zone)
    return int(midnight.astimezone(UTC).timestamp() * 1000)


def totals(rows: Iterable[Compared]) -> dict[str, Any]:
    """By bucket, over all days and models."""
    sums: dict[str, Counter[str]] = {}
    for row in rows:
        for name in ("ours", "theirs", "difference"):
            sums.setdefault(row.bucket, Counter())[name] += getattr(row, name)
    return {bucket: dict(sum_) for bucket, sum_ in sums.items()}
