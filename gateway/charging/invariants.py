"""The invariants of the charging design (section 8) that the image alone can show."""

from __future__ import annotations

from collections import Counter

from gateway.charging.caps import CREDITS
from gateway.charging.image import Image


def check_image(image: Image) -> None:
    """I1-I4, I6, I7, I10, I13, as assertions."""
    reserved: Counter[str] = Counter()
    for hold in image.holds.values():
        assert hold.stored != (hold.charge_id in image.young), "a hold has a row, or waits for one"
        assert image.ended(hold.charge_id) is None, "I6: a hold closes once"
        assert sum(uc for _, uc in hold.parts) == hold.reserved_uc, "I3"
        for grant, uc in hold.parts:
            reserved[grant.id] += uc
    for grant in image.grants.values():
        values = (grant.available, grant.reserved, grant.spent, grant.expired, grant.revoked)
        assert min(values) >= 0, f"I1: {grant}"
        assert sum(values) == grant.granted, f"I1: {grant}"
        assert grant.reserved == reserved[grant.id], f"I3: {grant}"
        assert grant.payg is None or grant.payg.amount(grant.spent) <= grant.payg.cap, f"I1: {grant}"
    _check_caps(image)
    _check_sums(image)
    for end, hold, _ in image.changes.closings:
        assert end.status != "settled" or hold.dispatched or "cache_hit" in end.flags, "I13"


def _check_caps(image: Image) -> None:
    held: Counter[int] = Counter()
    for hold in image.holds.values():
        for meter, slot, n in hold.marks:
            held[id(slot)] += n
            assert n == (hold.reserved_uc if meter.unit == CREDITS else 1), f"I7: {meter}"
    for account in image.accounts.values():
        for meter in account.meters:
            assert all(slot.held == held[id(slot)] >= 0 and slot.used >= 0 for slot in meter.slots), f"I7: {meter}"
            assert meter.taken == meter.used + meter.held, f"I7: {meter}"


def _check_sums(image: Image) -> None:
    grants, accounts = image.grants.values(), image.accounts.values()
    granted = sum(grant.granted for grant in grants)
    gone = sum(grant.available + grant.reserved + grant.expired + grant.revoked for grant in grants)
    spent = sum(grant.spent for grant in grants)
    assert granted == gone + spent, "I2"
    overage = sum(account.debt_uc + account.loss_uc for account in accounts)
    assert spent + overage == sum(account.settled_uc for account in accounts), "I4"
    assert spent <= granted + overage, "I10"
    assert image.debtors == {account.id for account in accounts if account.debt_uc}, "I4"
