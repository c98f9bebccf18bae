"""Subscriptions cancelled and changed: steps on the image, for `Ledger.change`."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.charging import renewing
from gateway.charging.directory import MAX_GRANT_UC
from gateway.charging.grants import NEVER_MS, prorated
from gateway.charging.image import Image
from gateway.charging.offers import scope_of
from gateway.charging.orders import amounts, book, check_sale, end, known, on_sale, revoke, subscribe
from gateway.charging.packages import OWN_IDS, Order, Subscription
from gateway.charging.records import Account
from gateway.config.model import Package
from gateway.errors import Conflict, InvalidValue, NotFound


def cancel(image: Image, subscription_id: str, now: bool, now_ms: int) -> Subscription:
    """At the end of the period that runs, or now: then what is left of it is revoked. Twice is as once."""
    one, node = _found(image, subscription_id, now_ms)
    if one.closed:
        return one
    if now or one.period < 0:
        grants = [grant for grant in node.grants if grant.offer == one.id]
        revoke(image, grants, MAX_GRANT_UC, now_ms)
        end(image, node, grants, one, now_ms)
    else:
        _, end_ms = renewing.bounds(one, one.period, image.zone)
        one.ended_ms = min(end_ms, one.ended_ms or NEVER_MS)
        image.changes.subscriptions[one.id] = one
        image.changed(node)
    return one


def change(
    image: Image, subscription_id: str, order_id: str | None, name: str | None, quantity: int | None,
    packages: Mapping[str, Package], now_ms: int,
) -> tuple[Order | None, Subscription]:  # fmt: skip
    """Another package or quantity: more is granted at once, by the days that are left; less from the next period.

    A package of another recurrence, card or scope follows when the period that runs has ended, as a subscription of
    its own, which is the one that is returned. Without a difference there is no order.

    Raises NotFound, InvalidValue, Conflict.
    """
    one, node = _found(image, subscription_id, now_ms)
    quantity = one.quantity if quantity is None else quantity
    if order_id is not None:
        content = {"kind": "change", "account": node.id, "package": name or one.terms.name, "quantity": quantity}
        first = known(image, order_id, **content)
        if first is not None:
            return first, image.sold.subscriptions[first.subscription]
    terms = one.terms if name is None else on_sale(packages, name)
    if (terms, quantity) == (one.terms, one.quantity):
        return None, one
    _check(image, node, one, terms, quantity)
    order = Order(order_id or _own_id(image, one), "change", node.id, terms.name, quantity, 0, 0, now_ms)
    order.credits_uc, order.price = amounts(terms, quantity)
    if _kind(terms) != _kind(one.terms) and one.period >= 0:
        _, one.ended_ms = renewing.bounds(one, one.period, image.zone)
        image.changes.subscriptions[one.id] = one
        one = subscribe(image, node, order.id, terms, quantity, one.ended_ms)
    else:
        _adopt(image, node, one, terms, order, now_ms)
    order.subscription = one.id
    return book(image, order), one


def _found(image: Image, subscription_id: str, now_ms: int) -> tuple[Subscription, Account]:
    """As it is now."""
    one = image.sold.subscriptions.get(subscription_id)
    if one is None:
        raise NotFound(f"no subscription {subscription_id[:64]!r}")
    node = image.accounts[one.account]
    image.refresh(node, now_ms)
    return one, node


def _check(image: Image, node: Account, one: Subscription, terms: Package, quantity: int) -> None:
    if terms.every is None:
        raise InvalidValue(f"{terms.name} does not recur: order it.", param="package")
    _, end_ms = renewing.bounds(one, max(one.period, 0), image.zone)
    if one.closed or one.over(end_ms):
        raise Conflict(f"{one.id} ends with this period: order {terms.name} anew")
    if terms.name != one.terms.name or terms.once:
        check_sale(image, node, terms, quantity)


def _adopt(image: Image, node: Account, one: Subscription, terms: Package, order: Order, now_ms: int) -> None:
    """The end stays as it was sold. Credits and price of the order become what is due of them for this period."""
    start_ms, end_ms = renewing.bounds(one, max(one.period, 0), image.zone)
    more_uc, more_price = max(0, order.credits_uc - one.peak_uc), max(0, order.price - one.paid)
    one.terms, one.quantity = terms, order.quantity
    one.peak_uc, one.paid = one.peak_uc + more_uc, one.paid + more_price
    if one.period < 0:  # nothing of it runs
        one.peak_uc, order.price, order.credits_uc = 0, more_price, 0
        one.ended_ms = renewing.end_ms(one, image.zone)
    else:
        part = end_ms - now_ms, end_ms - start_ms
        order.price, order.credits_uc = prorated(more_price, *part), prorated(more_uc, *part)
    if order.credits_uc:
        mine = sum(grant.offer == one.id for grant in node.owned)
        image.grant_due(node, [renewing.of_change(one, order.credits_uc, order.price, now_ms, end_ms, mine)], now_ms)
    image.changes.subscriptions[one.id] = one
    image.fit(node, now_ms)
    if node.debt_uc:
        image.repay(node, now_ms)


def _kind(terms: Package) -> tuple[object, ...]:
    """What two packages must have in common, for the credits of one to be more or less than those of the other."""
    return terms.every, terms.card, scope_of(terms.scope)


def _own_id(image: Image, one: Subscription) -> str:
    return f"{OWN_IDS}change:{one.id}:{len(image.sold.orders)}"  # orders are never taken out
