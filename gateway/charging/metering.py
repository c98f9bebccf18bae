"""Caps at work: room is taken with a hold, and what was charged takes its place at the end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from zoneinfo import ZoneInfo

from gateway.charging.cap_records import Used
from gateway.charging.caps import CREDITS, SINCE, TILL, Meter, Slot, amount, meters
from gateway.charging.changes import Changes
from gateway.charging.grants import NEVER_MS
from gateway.charging.records import Account, Hold, Receipt
from gateway.config.model import Caps


@dataclass(slots=True)
class Counting:
    """What a new cap of an account counts at once: its calls in flight, and those that wait for their commit.

    The latter have no number yet, so that no later count would find them.
    """

    flying: list[Hold] = field(default_factory=list)  # in the order in which they were opened
    ended: list[tuple[Receipt, Hold]] = field(default_factory=list)


def by_account(holds: Iterable[Hold], closings: Iterable[tuple[Receipt, Hold, int]]) -> dict[str, Counting]:
    found: dict[str, Counting] = defaultdict(Counting)
    for hold in holds:
        for name in hold.quote.account_path:
            found[name].flying.append(hold)
    for end, hold, _ in closings:
        for name in hold.quote.account_path:
            found[name].ended.append((end, hold))
    return found


def fit(changes: Changes, account: Account, wanted: Caps, zone: ZoneInfo, next_seq: int, now_ms: int) -> list[Meter]:
    """Meters for the caps that it shall have; returns the new ones. The others go on counting, but for those that do
    not know what counts now."""
    before = account.meters
    known = [meter for meter in before if meter.knows(now_ms)]
    account.meters = meters(account.id, wanted, known, zone, next_seq, now_ms)
    kept = {id(meter) for meter in account.meters}
    for meter in before:
        if id(meter) not in kept:
            meter.kept = False
            for start_ms in (SINCE, TILL, *(slot.start_ms for slot in meter.slots), *meter.gone):
                changes.meters[meter.account, *meter.key, start_ms] = None
    old = {id(meter) for meter in before}
    return [meter for meter in account.meters if id(meter) not in old]


def count_present(new: Sequence[Meter], counting: Counting) -> None:
    for hold in counting.flying:
        kept = (mark for mark in hold.marks if mark[0].kept)
        hold.marks = [*kept, *mark(_covering(new, hold), hold.reserved_uc, hold.opened_ms)]
    for end, hold in counting.ended:
        for meter in _covering(new, hold):
            used = amount(meter.unit, end.charged_uc, end.status, end.flags)
            if used:
                meter.settle(meter.slot(hold.opened_ms), 0, used)


def _covering(found: Sequence[Meter], hold: Hold) -> list[Meter]:
    return [meter for meter in found if meter.covers(hold.opened_ms)]


def mark(found: Sequence[Meter], need_uc: int, opened_ms: int) -> list[tuple[Meter, Slot, int]]:
    """Takes room of every cap, which must have it."""
    marks = []
    for meter in found:
        held = need_uc if meter.unit == CREDITS else 1
        marks.append((meter, meter.hold(held, opened_ms), held))
    return marks


def mark_more(hold: Hold, more_uc: int) -> None:
    """The hold has grown: so has what it takes of caps in credits."""
    marks = []
    for meter, slot, held in hold.marks:
        more = more_uc if meter.unit == CREDITS else 0
        meter.settle(slot, -more, 0)
        marks.append((meter, slot, held + more))
    hold.marks = marks


def count_late(changes: Changes, of: Sequence[Meter], hold: Hold, end: Receipt) -> None:
    """What a call is charged that took no room of these, as it was left by a crash: in the window in which it began."""
    for meter in _covering(of, hold):
        used = amount(meter.unit, end.charged_uc, end.status, end.flags)
        if used:
            slot = meter.slot(hold.opened_ms)
            meter.settle(slot, 0, used)
            _write(changes, meter, (slot,))


def settle(changes: Changes, hold: Hold, end: Receipt) -> None:
    for meter, slot, held in hold.marks:
        meter.settle(slot, held, amount(meter.unit, end.charged_uc, end.status, end.flags))
        _write(changes, meter, (slot,))


def count(changes: Changes, used: Used, counted: Sequence[Meter], now_ms: int) -> None:
    """Adds what the records from before a cap say of it."""
    for meter, start_ms, n in used:
        if start_ms < meter.horizon_ms:
            meter.settle(meter.slot(start_ms), 0, n)
        else:
            meter.till_ms = meter.horizon_ms
    for meter in counted:
        meter.counted_to = 0
        meter.look(now_ms)
        _write_span(changes, meter)
        _write(changes, meter, meter.slots)


def _write(changes: Changes, meter: Meter, slots: Sequence[Slot]) -> None:
    """One that has yet to be counted is not written: the file would take it for counted."""
    if meter.counted_to or not meter.kept:
        return
    for slot in slots:
        covered = meter.covers(slot.start_ms)
        changes.meters[meter.account, *meter.key, slot.start_ms] = slot.used if covered else None
    if meter.gone:
        _write_span(changes, meter)
        for start_ms in meter.gone:
            changes.meters[meter.account, *meter.key, start_ms] = None
        meter.gone.clear()


def _write_span(changes: Changes, meter: Meter) -> None:
    changes.meters[meter.account, *meter.key, SINCE] = meter.since_ms
    if meter.till_ms < NEVER_MS:
        changes.meters[meter.account, *meter.key, TILL] = meter.till_ms
