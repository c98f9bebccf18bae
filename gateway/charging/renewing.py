"""What recurs: which grants of a plan's offers and which periods of a subscription are due. Nothing is changed here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from gateway.charging.grants import NEVER_MS, Grant, period_bounds, period_number, period_start_ms, prorated
from gateway.charging.packages import Subscription
from gateway.charging.records import Account
from gateway.config.model import Plan, PlanGrant


@dataclass(slots=True)
class Due:
    """A grant that is to be made, keyed by its period within the account."""

    credits_uc: int
    starts_ms: int
    expires_ms: int | None
    period: str
    card: str


def of_plan(account: Account, plan: Plan | None, zone: ZoneInfo, now_ms: int) -> tuple[list[Due], int]:
    """What is due of the plan's offers, and when the next will be."""
    due: list[Due] = []
    next_ms = NEVER_MS
    for index, offer in enumerate(plan.grants if plan else ()):
        one, at_ms = _of_offer(account, index, offer, zone, now_ms)
        if one is not None and offer.credits_uc > 0:
            due.append(one)
        next_ms = min(next_ms, at_ms)
    known = {grant.period for grant in account.owned} if due else ()
    return [one for one in due if one.period not in known], next_ms


def _of_offer(account: Account, index: int, offer: PlanGrant, zone: ZoneInfo, now_ms: int) -> tuple[Due | None, int]:
    """Nothing is due while a grant of the offer runs, whatever became of the offer: an edit waits for its end."""
    last = _last(account, index, now_ms)
    ended_ms = last.expires_ms if last is not None and last.expires_ms is not None else 0
    if ended_ms > now_ms:
        return None, ended_ms
    start_ms, end_ms, key = _period(account, index, offer, zone, now_ms)
    if last is not None and last.expires_ms is None and end_ms is not None:
        # It was granted once and for all: its period has no end to wait for, that of the new offer has.
        start_ms, end_ms, key = _period(account, index, offer, zone, end_ms)
    credits_uc = offer.credits_uc
    if end_ms is not None and ended_ms > start_ms:
        credits_uc = prorated(credits_uc, end_ms - ended_ms, end_ms - start_ms)
    next_ms = start_ms if start_ms > now_ms else end_ms or NEVER_MS
    return Due(credits_uc, max(start_ms, ended_ms), end_ms, key, offer.card), next_ms


def upgrade(account: Account, offers: Sequence[PlanGrant], zone: ZoneInfo, now_ms: int) -> list[Due]:
    """Another plan in mid-period: what its offers have more than was granted, by the days that are left."""
    due = []
    for index, offer in enumerate(offers):
        last = _last(account, index, now_ms)
        start_ms, end_ms, _ = _period(account, index, offer, zone, now_ms)
        # What differs, in its end or its card, waits for the end of what runs.
        if last is None or last.expires_ms not in (None, end_ms) or (last.expires_ms and last.card != offer.card):
            continue
        mine = [grant for grant in account.owned if grant.offer == str(index)]
        alike = (grant for grant in mine if (grant.expires_ms, grant.card) == (end_ms, offer.card))
        more_uc = offer.credits_uc - sum(grant.granted for grant in alike)
        if end_ms is not None:
            more_uc = prorated(more_uc, end_ms - now_ms, end_ms - start_ms)
        if more_uc > 0:
            due.append(Due(more_uc, now_ms, end_ms, f"{index}:change:{len(mine)}", offer.card))
    return due


def _last(account: Account, index: int, now_ms: int) -> Grant | None:
    """The grant of the offer that began last; not one that has yet to begin: the clock may have been set back."""
    begun = (grant for grant in account.owned if grant.offer == str(index) and grant.starts_ms <= now_ms)
    return max(begun, key=lambda grant: grant.starts_ms, default=None)


def _period(account: Account, index: int, offer: PlanGrant, zone: ZoneInfo, now_ms: int) -> tuple[int, int | None, str]:
    if offer.every is None:
        return account.activated_ms, None, f"{index}:once:0"
    number = period_number(account.activated_ms, offer.every, now_ms, zone)
    start_ms, end_ms = period_bounds(account.activated_ms, offer.every, number, zone)
    return start_ms, end_ms, f"{index}:{offer.every}:{number}"


def periods_due(subscription: Subscription, zone: ZoneInfo, now_ms: int) -> Iterator[tuple[int, int, int]]:
    """(number, start, end) of each that has begun and has no grant yet.

    Those that nobody looked at are among them: what rolls over must not depend on who looked when.
    """
    number = subscription.period + 1
    while True:
        start_ms, end_ms = bounds(subscription, number, zone)
        if start_ms > now_ms or subscription.over(start_ms):
            return
        yield number, start_ms, end_ms
        number += 1


def renews_ms(subscription: Subscription, zone: ZoneInfo) -> int:
    """When its next period begins, if it does."""
    start_ms, _ = bounds(subscription, subscription.period + 1, zone)
    return NEVER_MS if subscription.over(start_ms) else start_ms


def bounds(subscription: Subscription, number: int, zone: ZoneInfo) -> tuple[int, int]:
    assert subscription.terms.every is not None, "a subscription recurs"
    return period_bounds(subscription.started_ms, subscription.terms.every, number, zone)


def end_ms(subscription: Subscription, zone: ZoneInfo) -> int | None:
    """When the periods that were sold are over; None: they go on until it is cancelled."""
    terms = subscription.terms
    if terms.periods is None or terms.every is None:
        return None
    return period_start_ms(subscription.started_ms, terms.every, terms.periods, zone)
