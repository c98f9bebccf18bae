"""Caps at work: room is taken with a hold, and what was charged takes its place at the end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from zoneinfo import ZoneInfo

from gateway.charging.caps import COUNTED, CREDITS, Meter, Slot, amount, bounds, meters
from gateway.charging.changes import Changes
from gateway.charging.records import Account, Hold, Receipt
from gateway.config.model import Caps


def fit(
    changes: Changes,
    account: Account,
    caps: Caps,
    zone: ZoneInfo,
    next_seq: int,
    holds: Iterable[Hold],
    now_ms: int,
) -> list[Meter]:
    """Meters for the caps; returns those that have yet to be counted.

    Those of the same window and unit go on counting. A new one also counts the calls that are in flight: `holds`, in
    the order in which they were opened; and those that have ended and wait for their commit.
    """
    before = account.meters
    account.meters = meters(account.id, caps, before, zone, next_seq)
    kept = {meter.key for meter in account.meters}
    for meter in before:
        if meter.key not in kept:
            meter.kept = False
            for start_ms in (COUNTED, *(slot.start_ms for slot in meter.slots), *meter.gone):
                changes.meters[meter.account, *meter.key, start_ms] = None
    known = {meter.key for meter in before}
    new = [meter for meter in account.meters if meter.key not in known]
    for hold in holds if new else ():
        if account.id in hold.quote.account_path:
            counting = [meter for meter in new if bounds(meter.window, hold.opened_ms, zone)[1] > now_ms]
            hold.marks = [*hold.marks, *mark(counting, hold.reserved_uc, hold.opened_ms)]
    for end, hold, _ in changes.closings if new else ():  # they have no number yet: no later count would find them
        if account.id in hold.quote.account_path:
            for meter in new:
                used = amount(meter.unit, end.charged_uc, end.status, end.flags)
                if used and bounds(meter.window, hold.opened_ms, zone)[1] > now_ms:
                    meter.settle(meter.hold(0, hold.opened_ms), 0, used)
    return [meter for meter in account.meters if meter.counted_to]


def mark(found: Sequence[Meter], need_uc: int, now_ms: int) -> list[tuple[Meter, Slot, int]]:
    """Takes room of every cap, which must have it."""
    marks = []
    for meter in found:
        held = need_uc if meter.unit == CREDITS else 1
        marks.append((meter, meter.hold(held, now_ms), held))
    return marks


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
