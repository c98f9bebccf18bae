"""Caps: what an account and all below it may use in a window of time, in credits or in calls.

A charge counts in the window in which its call was reserved. Months, weeks (from Monday) and days are those of the
calendar in the configured timezone. A rolling window is made of slots of five minutes: a charge counts for all of the
window, and at most one slot longer.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import orjson

from gateway.charging.grants import NEVER_MS
from gateway.charging.rating import CACHE_HIT, credits_text
from gateway.charging.tables import has_table
from gateway.config.model import Caps

CREDITS: Final = "credits"
CALLS: Final = "calls"
SLOT_MS: Final = 300_000
COUNTED: Final = -1  # the start of a slot that only says that the records from before the cap are counted
ROLLING_MS: Final = {"5h": 5 * 3_600_000}
USED_SQL: Final = (
    "SELECT seq, opened_ms, account_path, charged, flags FROM records"
    " WHERE seq < ? AND status = 'settled' AND opened_ms >= ?"
)


@dataclass(slots=True)
class Slot:
    """A part of a window, which counts until `end_ms`. `used` is settled, `held` belongs to calls in flight."""

    start_ms: int
    end_ms: int
    used: int = 0
    held: int = 0
    counts: bool = True


@dataclass(slots=True)
class Meter:
    """What of a cap is taken: in micro-credits, or in calls. `taken` is the sum over its slots, the oldest first.

    `counted_to` is the number below which the records have yet to be added, of a cap that is younger than they are;
    0 when they are. `gone` are the starts of slots that count no more, and whose rows have yet to be deleted.
    """

    account: str
    window: str
    unit: str
    limit: int
    zone: ZoneInfo
    counted_to: int = 0
    taken: int = 0
    slots: list[Slot] = field(default_factory=list)
    gone: list[int] = field(default_factory=list)
    kept: bool = True  # False: the cap has been taken away, while calls that it counts are in flight

    @property
    def key(self) -> tuple[str, str]:
        return self.window, self.unit

    @property
    def used(self) -> int:
        return sum(slot.used for slot in self.slots)

    @property
    def held(self) -> int:
        return sum(slot.held for slot in self.slots)

    def room(self, now_ms: int) -> int:
        """May be negative, where a cap was lowered or a call used more than it held."""
        self._forget(now_ms)
        return self.limit - self.taken

    def slot(self, now_ms: int) -> Slot:
        """The one that counts now; after a clock was set back, the one that was reached already."""
        if not self.slots or now_ms >= self._ends(self.slots[-1]):
            self.slots.append(Slot(*bounds(self.window, now_ms, self.zone)))
        return self.slots[-1]

    def hold(self, amount: int, now_ms: int) -> Slot:
        slot = self.slot(now_ms)
        slot.held += amount
        self.taken += amount
        return slot

    def settle(self, slot: Slot, held: int, used: int) -> None:
        slot.held -= held
        slot.used += used
        if slot.counts:
            self.taken += used - held

    def resets_ms(self) -> int | None:
        """When some of what is taken counts no more."""
        end_ms = next((slot.end_ms for slot in self.slots if slot.used or slot.held), NEVER_MS)
        return None if end_ms == NEVER_MS else end_ms

    def restore(self, start_ms: int, used: int) -> None:
        """A slot as the file has it, or what the records say of one; in the order of their starts, or once more."""
        slot = next((slot for slot in self.slots if slot.start_ms == start_ms), None)
        if slot is None:
            slot = Slot(*bounds(self.window, start_ms, self.zone))
            self.slots.append(slot)
            self.slots.sort(key=lambda slot: slot.start_ms)
        slot.used += used
        self.taken += used

    def _ends(self, slot: Slot) -> int:
        """When the next slot begins."""
        return slot.end_ms if self.window not in ROLLING_MS else slot.start_ms + SLOT_MS

    def _forget(self, now_ms: int) -> None:
        while self.slots and now_ms >= self.slots[0].end_ms:
            old = self.slots.pop(0)
            old.counts = False
            self.gone.append(old.start_ms)
            self.taken -= old.used + old.held


def bounds(window: str, now_ms: int, zone: ZoneInfo) -> tuple[int, int]:
    """Where the slot of this moment starts, and when it counts no more."""
    if window == "total":
        return 0, NEVER_MS
    if window in ROLLING_MS:
        start_ms = now_ms - now_ms % SLOT_MS
        return start_ms, start_ms + SLOT_MS + ROLLING_MS[window]
    today = datetime.fromtimestamp(now_ms / 1000, zone).date()
    if window == "month":
        first = today.replace(day=1)
        following = (first + timedelta(days=31)).replace(day=1)
    elif window == "week":
        first = today - timedelta(days=today.weekday())
        following = first + timedelta(days=7)
    else:
        first, following = today, today + timedelta(days=1)
    start, end = (datetime.combine(day, time(), zone).timestamp() for day in (first, following))
    return int(start * 1000), int(end * 1000)


def meters(account: str, caps: Caps, known: Sequence[Meter], zone: ZoneInfo, next_seq: int) -> list[Meter]:
    """One for each cap; those that are `known` go on counting under the new limit."""
    old = {meter.key: meter for meter in known}
    found = []
    for window, limits in caps.items():
        for unit, limit in limits.items():
            meter = old.get((window, unit)) or Meter(account, window, unit, limit, zone, counted_to=next_seq)
            meter.limit = limit
            found.append(meter)
    return found


def merged(*of: Caps) -> Caps:
    """The last one of each window and unit: an account's own takes the place of that of its plan."""
    out: dict[str, dict[str, int]] = {}
    for caps in of:
        for window, limits in caps.items():
            out[window] = {**out.get(window, {}), **limits}
    return out


def amount(unit: str, charged_uc: int, status: str, flags: Sequence[str]) -> int:
    """What a charge counts: a call is one that a backend answered, at least in part."""
    if status != "settled":
        return 0
    if unit == CREDITS:
        return charged_uc
    return int(CACHE_HIT not in flags and "crash" not in flags)


def used_before(
    connection: sqlite3.Connection, uncounted: Sequence[Meter], now_ms: int
) -> list[tuple[Meter, int, int]]:
    """(meter, start of slot, used): what the records with a number below each one's `counted_to` say of it."""
    since = {id(meter): _first_ms(meter, now_ms) for meter in uncounted}
    of_account: dict[str, list[Meter]] = {}
    for meter in uncounted:
        of_account.setdefault(meter.account, []).append(meter)
    used: Counter[tuple[int, int]] = Counter()
    most = max(meter.counted_to for meter in uncounted)
    for seq, opened_ms, path, charged_uc, flags in connection.execute(USED_SQL, (most, min(since.values()))):
        for name in orjson.loads(path):
            for meter in of_account.get(name, ()):
                if seq < meter.counted_to and opened_ms >= since[id(meter)]:
                    start_ms, _ = bounds(meter.window, opened_ms, meter.zone)
                    used[id(meter), start_ms] += amount(meter.unit, charged_uc, "settled", orjson.loads(flags))
    by_id = {id(meter): meter for meter in uncounted}
    return [(by_id[which], start_ms, n) for (which, start_ms), n in sorted(used.items(), key=lambda item: item[0][1])]


def caps_contradicted(connection: sqlite3.Connection) -> Iterator[tuple[str, str, str]]:
    """Of I7: account, window and what is wrong of caps whose slots, from their first on, are not the records since."""
    if not has_table(connection, "cap_use"):
        return
    sql = (
        "SELECT account, span, unit, min(slot_ms), sum(used) FROM cap_use WHERE slot_ms <> ?"
        " GROUP BY account, span, unit"
    )
    for account, window, unit, since_ms, used in connection.execute(sql, (COUNTED,)).fetchall():
        counted = sum(
            amount(unit, charged_uc, "settled", orjson.loads(flags))
            for _, _, path, charged_uc, flags in connection.execute(USED_SQL, (NEVER_MS, since_ms))
            if account in orjson.loads(path)
        )
        if counted != used:
            yield account, window, f"has used {used} {unit}, not {counted}"


def _first_ms(meter: Meter, now_ms: int) -> int:
    """From when on a charge may count now."""
    start_ms, _ = bounds(meter.window, now_ms, meter.zone)
    return start_ms - ROLLING_MS.get(meter.window, 0)


def text(meter: Meter, amount: int) -> str:
    return credits_text(amount) if meter.unit == CREDITS else str(amount)


def worded(meter: Meter) -> str:
    """As a refusal says it."""
    limit = f"{text(meter, meter.limit)} {meter.unit}"
    window = "in total" if meter.window == "total" else "in 5 hours" if meter.window == "5h" else f"a {meter.window}"
    return f"the cap of {limit} {window} of {meter.account} leaves too little for this call"
