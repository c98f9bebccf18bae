"""Caps at work: room is taken with a hold, and what was charged takes its place at the end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from zoneinfo import ZoneInfo

from gateway.charging.caps import COUNTED, CREDITS, Meter, Slot, amount, bounds, meters
from gateway.charging.changes import Changes
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


def fit(changes: Changes, account: Account, wanted: Caps, zone: ZoneInfo, next_seq: int) -> list[Meter]:
    """Meters for the caps that it shall have; returns the new ones. The others go on counting."""
    before = account.meters
    account.meters = meters(account.id, wanted, before, zone, next_seq)
    kept = {meter.key for meter in account.meters}
    for meter in before:
        if meter.key not in kept:
            meter.kept = False
            for start_ms in (COUNTED, *(slot.start_ms for slot in meter.slots), *meter.gone):
                changes.meters[meter.account, *meter.key, start_ms] = None
    known = {meter.key for meter in before}
    return [meter for meter in account.meters if meter.key not in known]


def count_present(new: Sequence[Meter], counting: Counting, now_ms: int) -> None:
    for hold in counting.flying:
        hold.marks = [*hold.marks, *mark(_still(new, hold, now_ms), hold.reserved_uc, hold.opened_ms)]
    for end, hold in counting.ended:
        for meter in _still(new, hold, now_ms):
            used = amount(meter.unit, end.charged_uc, end.status, end.flags)
            if used:
                meter.settle(meter.hold(0, hold.opened_ms), 0, used)


def _still(new: Sequence[Meter], hold: Hold, now_ms: int) -> list[Meter]:
    """Those in whose window the call began."""
    return [meter for meter in new if bounds(meter.window, hold.opened_ms, meter.zone)[1] > now_ms]


def mark(found: Sequence[Meter], need_uc: int, now_ms: int) -> list[tuple[Meter, Slot, int]]:
    """Takes room of every cap, which must have it."""
    marks = []
    for meter in found:
        held = need_uc if meter.unit == CREDITS else 1
        marks.append((meter, meter.hold(held, now_ms), held))
    return marks


def mark_more(hold: Hold, more_uc: int) -> None:
    """The hold has grown: so has what it takes of caps in credits."""
    marks = []
    for meter, slot, held in hold.marks:
        more = more_uc if meter.unit == CREDITS else 0
        meter.settle(slot, -more, 0)
        marks.append((meter, slot, held + more))
    hold.marks = marks


def count_late(changes: Changes, of: Sequence[Meter], hold: Hold, end: Receipt, now_ms: int) -> None:
    """What a call is charged that took no room of these, as it was left by a crash: in the window in which it began."""
    for meter in _still(of, hold, now_ms):
        used = amount(meter.unit, end.charged_uc, end.status, end.flags)
        if used:
            meter.restore(bounds(meter.window, hold.opened_ms, meter.zone)[0], used)
            _write(changes, meter, meter.slots)


def settle(changes: Changes, hold: Hold, end: Receipt) -> None:
    for meter, slot, held in hold.marks:
        meter.settle(slot, held, amount(meter.unit, end.charged_uc, end.status, end.flags))
        _write(changes, meter, (slot,))


def count(changes: Changes, used: Sequence[tuple[Meter, int, int]], counted: Sequence[Meter]) -> None:
    """Adds what the records from before a cap say of it."""
    for meter, start_ms, n in used:
        meter.restore(start_ms, n)
    for meter in counted:
        meter.counted_to = 0
        changes.meters[meter.account, *meter.key, COUNTED] = 0
        _write(changes, meter, meter.slots)


def _write(changes: Changes, meter: Meter, slots: Sequence[Slot]) -> None:
    """One that has yet to be counted is not written: the file would take it for counted."""
    if meter.counted_to or not meter.kept:
        return
    for slot in slots:
        changes.meters[meter.account, *meter.key, slot.start_ms] = slot.used if slot.counts else None
    for start_ms in meter.gone:
        changes.meters[meter.account, *meter.key, start_ms] = None
    meter.gone.clear()
