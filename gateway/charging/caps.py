"""Caps: what an account and all below it may use in a window of time, in credits or in calls.

A charge counts in the window in which its call was reserved. Months, weeks (from Monday) and days are those of the
calendar in the configured timezone. A rolling window is made of slots of five minutes: a charge counts for all of the
window, and at most one slot longer. The clock may be set: what counts is what began in the window of now, whenever that
was entered.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from gateway.charging.grants import NEVER_MS
from gateway.charging.rating import CACHE_HIT, credits_text
from gateway.config.model import Caps

CREDITS: Final = "credits"
CALLS: Final = "calls"
SLOT_MS: Final = 300_000
ROLLING_MS: Final = {"5h": 5 * 3_600_000}
# Slots of a meter. Twice those of a window, so that a clock that is set forward, and put right before all that counted
# has ended, finds it; of the calendar one more, as midnight may pass meanwhile.
MOST: Final = {window: 2 * (ms // SLOT_MS + 1) for window, ms in ROLLING_MS.items()}
MOST_OF_CALENDAR: Final = 3
# Rows of `cap_use` that are no slots: of which span of time what was used is in the others. Without SINCE it has yet to
# be counted, without TILL the span has no end.
SINCE: Final = -1
TILL: Final = -2


@dataclass(slots=True)
class Slot:
    """A part of a window, which counts from `start_ms` until `end_ms`; whether it did at the last look says `counts`.
    `used` is settled, `held` belongs to calls in flight."""

    start_ms: int
    end_ms: int
    used: int = 0
    held: int = 0
    counts: bool = False


@dataclass(slots=True)
class Meter:
    """What of a cap is taken: in micro-credits, or in calls. `taken` is the sum over the slots that count, the same
    `from_ms` `until_ms`.

    What calls took that began since `since_ms` and before `till_ms` is in its slots, in the order of their starts: of
    this span the meter knows. When the clock is set beyond it, another takes its place. `counted_to` is the number
    below which the records have yet to be added, of a cap that is younger than they are; 0 when they are. `gone` are
    the starts of slots that were given up, and whose rows have yet to be deleted.
    """

    account: str
    window: str
    unit: str
    limit: int
    zone: ZoneInfo
    since_ms: int
    till_ms: int = NEVER_MS
    counted_to: int = 0
    taken: int = 0
    from_ms: int = 0
    until_ms: int = 0
    slots: list[Slot] = field(default_factory=list)
    gone: list[int] = field(default_factory=list)
    kept: bool = True  # False: the cap has been taken away, or counted anew, while calls that it counts are in flight

    @property
    def key(self) -> tuple[str, str]:
        return self.window, self.unit

    @property
    def used(self) -> int:
        """By the last look, as `held` is."""
        return sum(slot.used for slot in self.slots if slot.counts)

    @property
    def held(self) -> int:
        return sum(slot.held for slot in self.slots if slot.counts)

    def knows(self, now_ms: int) -> bool:
        """What counts now is in its slots."""
        return _known(self.window, self.since_ms, self.till_ms, now_ms)

    def covers(self, ms: int) -> bool:
        """What began then is in its slots."""
        return self.since_ms <= ms < self.till_ms

    @property
    def horizon_ms(self) -> int:
        """Of what begins later there would be too many slots."""
        return self.since_ms + MOST[self.window] * SLOT_MS if self.window in MOST else NEVER_MS

    def room(self, now_ms: int) -> int:
        """May be negative, where a cap was lowered or a call used more than it held."""
        if not self.from_ms <= now_ms < self.until_ms:
            self.look(now_ms)
        return self.limit - self.taken

    def look(self, now_ms: int) -> None:
        """Finds out which slots count now, and until when it is the same ones."""
        self._give_up(now_ms)
        self.taken, self.from_ms, self.until_ms = 0, 0, NEVER_MS
        for slot in self.slots:
            slot.counts = slot.start_ms <= now_ms < slot.end_ms
            if slot.counts:
                self.taken += slot.used + slot.held
            for edge_ms in (slot.start_ms, slot.end_ms):
                if edge_ms <= now_ms:
                    self.from_ms = max(self.from_ms, edge_ms)
                else:
                    self.until_ms = min(self.until_ms, edge_ms)

    def slot(self, ms: int) -> Slot:
        """The one in which a call counts that began then."""
        for slot in reversed(self.slots):
            if slot.start_ms <= ms:
                if ms < self._ends(slot):
                    return slot
                break
        slot = Slot(*bounds(self.window, ms, self.zone))
        insort(self.slots, slot, key=_start)
        self.until_ms = 0  # it is looked at before it counts
        return slot

    def hold(self, amount: int, ms: int) -> Slot:
        slot = self.slot(ms)
        slot.held += amount
        if slot.counts:
            self.taken += amount
        return slot

    def settle(self, slot: Slot, held: int, used: int) -> None:
        slot.held -= held
        slot.used += used
        if slot.counts:
            self.taken += used - held

    def resets_ms(self) -> int | None:
        """When some of what is taken counts no more."""
        taken = (slot.end_ms for slot in self.slots if slot.counts and (slot.used or slot.held))
        end_ms = next(taken, NEVER_MS)
        return None if end_ms == NEVER_MS else end_ms

    def restore(self, rows: Mapping[int, int], now_ms: int) -> bool:
        """Slots as the file has them. False, and nothing, where they do not say what counts now: they are not all
        there, of another span, or of another time zone."""
        if SINCE not in rows:
            return False
        used = {start_ms: n for start_ms, n in sorted(rows.items()) if start_ms not in (SINCE, TILL)}
        # An older gateway has written no span: it had the slots that counted, and all of each.
        since_ms, till_ms = rows[SINCE] or next(iter(used), 0), rows.get(TILL, NEVER_MS)
        slots = [Slot(*bounds(self.window, start_ms, self.zone), n) for start_ms, n in used.items()]
        starts = [slot.start_ms for slot in slots]
        good = starts == [*used] and bounds(self.window, since_ms, self.zone)[0] == since_ms
        if good and _known(self.window, since_ms, till_ms, now_ms):
            self.since_ms, self.till_ms, self.slots, self.counted_to = since_ms, till_ms, slots, 0
            return True
        return False

    def _ends(self, slot: Slot) -> int:
        """When the next slot begins."""
        return slot.end_ms if self.window not in ROLLING_MS else slot.start_ms + SLOT_MS

    def _give_up(self, now_ms: int) -> None:
        """The slots that ended longest ago, or where none has ended, those that are farthest ahead. None of them as
        long as the records of the span have yet to be added."""
        most = MOST.get(self.window, MOST_OF_CALENDAR)
        while len(self.slots) > most and not self.counted_to:
            if self.slots[0].end_ms <= now_ms:
                old = self.slots.pop(0)
                self.since_ms = max(self.since_ms, self._ends(old))
            else:
                old = self.slots.pop()
                self.till_ms = min(self.till_ms, old.start_ms)
            old.counts = False
            self.gone.append(old.start_ms)


def _start(slot: Slot) -> int:
    return slot.start_ms


def _known(window: str, since_ms: int, till_ms: int, now_ms: int) -> bool:
    return since_ms + ROLLING_MS.get(window, 0) <= now_ms < till_ms


@lru_cache(1_000)  # a start asks for the same few of each account
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


def meters(
    account: str, caps: Caps, known: Sequence[Meter], zone: ZoneInfo, next_seq: int, now_ms: int
) -> list[Meter]:  # fmt: skip
    """One for each cap; those that are `known` go on counting under the new limit."""
    old = {meter.key: meter for meter in known}
    found = []
    for window, limits in caps.items():
        for unit, limit in limits.items():
            meter = old.get((window, unit))
            if meter is None:
                since_ms = _first_ms(window, now_ms, zone)
                meter = Meter(account, window, unit, limit, zone, since_ms, counted_to=next_seq)
            meter.limit = limit
            found.append(meter)
    return found


def _first_ms(window: str, now_ms: int, zone: ZoneInfo) -> int:
    """From when on a charge may count now."""
    start_ms, _ = bounds(window, now_ms, zone)
    return start_ms - ROLLING_MS.get(window, 0)


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


def text(meter: Meter, amount: int) -> str:
    return credits_text(amount) if meter.unit == CREDITS else str(amount)


def worded(meter: Meter) -> str:
    """As a refusal says it."""
    limit = f"{text(meter, meter.limit)} {meter.unit}"
    window = "in total" if meter.window == "total" else "in 5 hours" if meter.window == "5h" else f"a {meter.window}"
    return f"the cap of {limit} {window} of {meter.account} leaves too little for this call"
