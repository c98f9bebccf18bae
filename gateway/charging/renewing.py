"""What recurs: which grants of a plan's offers and which periods of a subscription are due. Nothing is changed here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final
from zoneinfo import ZoneInfo

from gateway.charging.ending import Ending, ending, purse
from gateway.charging.grants import (
    NEVER_MS,
    PAYG_PRIORITY,
    PLAN_PRIORITY,
    Grant,
    period_bounds,
    period_number,
    period_start_ms,
    prorated,
    purse_period,
)
from gateway.charging.offers import STANDARD, Scope
from gateway.charging.packages import ROLLED_PRIORITY, Subscription, grant_period, granted
from gateway.charging.records import Account
from gateway.config.model import Package, Plan, PlanGrant

PLAN_PURSE: Final = "payg"  # the offer of a plan that is paid for afterwards


@dataclass(slots=True)
class Due:
    """A grant that is to be made, keyed by its period within the account."""

    credits_uc: int
    starts_ms: int
    expires_ms: int | None
    period: str
    priority: int = PLAN_PRIORITY
    source_ref: str = ""
    card: str = STANDARD
    scope: Scope | None = None
    ending: Ending | None = None
    price: int | None = None  # what it is sold for; None: it is not


def of_plan(account: Account, plan: Plan | None, zone: ZoneInfo, now_ms: int) -> tuple[list[Due], int]:
    """What is due of the plan's offers, and when the next will be."""
    due: list[Due] = []
    next_ms = NEVER_MS
    for name, offer, priority, said in _offers(plan) if plan else ():
        one, at_ms = _of_offer(account, name, offer, zone, now_ms)
        if one is not None and offer.credits_uc > 0:
            due.append(replace(one, priority=priority, source_ref=f"plan:{account.plan}", ending=said))
        next_ms = min(next_ms, at_ms)
    known = {grant.period for grant in account.owned} if due else ()
    return [one for one in due if one.period not in known], next_ms


def _offers(plan: Plan) -> Iterator[tuple[str, PlanGrant, int, Ending | None]]:
    """Its grants, by their place in the list, and the purse of each month.

    What a plan says of calls that no credits cover is in force at once, and so is not of its grants.
    """
    said = Ending(alerts=plan.alerts) if plan.alerts else None
    for index, offer in enumerate(plan.grants):
        yield str(index), offer, PLAN_PRIORITY, said
    payg = plan.exhausted.payg
    if payg is not None:
        yield PLAN_PURSE, PlanGrant(payg.credits_uc, "month"), PAYG_PRIORITY, purse(payg, 1, plan.alerts)


def _of_offer(account: Account, index: str, offer: PlanGrant, zone: ZoneInfo, now_ms: int) -> tuple[Due | None, int]:
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
    return Due(credits_uc, max(start_ms, ended_ms), end_ms, key, card=offer.card), next_ms


def upgrade(account: Account, plan: Plan, zone: ZoneInfo, now_ms: int) -> list[Due]:
    """Another plan in mid-period: what its offers have more than was granted, by the days that are left.

    How much may be paid for afterwards changes with the next month.
    """
    due = []
    for index, offer, priority, said in _offers(plan):
        last = None if index == PLAN_PURSE else _last(account, index, now_ms)
        start_ms, end_ms, key = _period(account, index, offer, zone, now_ms)
        # What differs, in its end or its card, waits for the end of what runs.
        if last is None or last.expires_ms not in (None, end_ms) or (last.expires_ms and last.card != offer.card):
            continue
        mine = [grant for grant in account.owned if grant.offer == index]
        alike = (grant for grant in mine if (grant.expires_ms, grant.card) == (end_ms, offer.card))
        more_uc = offer.credits_uc - sum(grant.granted for grant in alike)
        if end_ms is not None:
            more_uc = prorated(more_uc, end_ms - now_ms, end_ms - start_ms)
        if more_uc > 0:
            due.append(
                Due(
                    more_uc, now_ms, end_ms, f"{key}:change:{len(mine)}", priority, f"plan:{plan.name}",
                    card=offer.card, ending=said,
                )
            )  # fmt: skip
    return due


def _last(account: Account, index: str, now_ms: int) -> Grant | None:
    """The grant of the offer that began last; not one that has yet to begin: the clock may have been set back."""
    begun = (grant for grant in account.owned if grant.offer == index and grant.starts_ms <= now_ms)
    return max(begun, key=lambda grant: grant.starts_ms, default=None)


def _period(account: Account, index: str, offer: PlanGrant, zone: ZoneInfo, now_ms: int) -> tuple[int, int | None, str]:
    if offer.every is None:
        return account.activated_ms, None, f"{index}:once:0"
    number = period_number(account.activated_ms, offer.every, now_ms, zone)
    start_ms, end_ms = period_bounds(account.activated_ms, offer.every, number, zone)
    return start_ms, end_ms, f"{index}:{offer.every}:{number}"


def of_sale(order_id: str, terms: Package, quantity: int, now_ms: int) -> list[Due]:
    """The grant of an order that does not recur, and the purse behind it."""
    expires_ms = None if terms.valid_s is None else now_ms + int(terms.valid_s * 1000)
    return _sold(terms, quantity, grant_period(order_id), now_ms, expires_ms)


def of_period(subscription: Subscription, number: int, start_ms: int, end_ms: int, left_uc: int) -> list[Due]:
    """What a period grants: its credits, what rolls over of the `left_uc` of the last one, and the purse."""
    terms, quantity, key = subscription.terms, subscription.quantity, f"{subscription.id}:{number}"
    due = _sold(terms, quantity, key, start_ms, end_ms)
    rolled_uc = min(left_uc, terms.rollover_uc * quantity)
    if rolled_uc:
        rolled = replace(due[0], credits_uc=rolled_uc, period=f"{key}:rolled", priority=ROLLED_PRIORITY)
        due.append(replace(rolled, source_ref=f"rollover:{terms.name}", price=None))
    return due


def of_change(subscription: Subscription, credits_uc: int, price: int, now_ms: int, end_ms: int, number: int) -> Due:
    """What a change in mid-period grants beside what was granted for it; the purse stays as it is."""
    one = subscription
    key = f"{one.id}:{one.period}:change:{number}"
    [due, *_] = _sold(one.terms, one.quantity, key, now_ms, end_ms)
    return replace(due, credits_uc=credits_uc, price=price)


def _sold(terms: Package, quantity: int, key: str, start_ms: int, end_ms: int | None) -> list[Due]:
    source_ref, what = f"package:{terms.name}", granted(terms)
    said, payg = ending(terms.exhausted, terms.alerts), terms.exhausted.payg
    due = [Due(terms.credits_uc * quantity, start_ms, end_ms, key, terms.priority, source_ref, ending=said, **what)]
    due[0].price = terms.price * quantity
    if payg is not None:
        behind = purse(payg, quantity, terms.alerts)
        assert behind.payg is not None
        credits_uc, key = behind.payg.credits_uc, purse_period(key)
        due.append(Due(credits_uc, start_ms, end_ms, key, PAYG_PRIORITY, source_ref, ending=behind, **what))
    return due


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
