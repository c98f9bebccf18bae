"""What is sold, taken back and given: each by an id that never does it twice. Steps on the image, for `Ledger.change`.

Each returns its order, and whether it is new: the same id with the same content returns the first, with other content
it raises Conflict.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from gateway.charging import renewing
from gateway.charging.directory import CLOSED, MAX_GRANT_UC, account
from gateway.charging.grants import Grant, burn_key
from gateway.charging.image import Image
from gateway.charging.packages import (
    COMPENSATION_PRIORITY,
    OWN_IDS,
    Order,
    Subscription,
    grant_period,
    granted,
    of_order,
)
from gateway.charging.records import Account
from gateway.config.model import Package
from gateway.errors import Conflict, InvalidValue, NotFound

MAX_PRICE: Final = 10**18  # in 64 bits
SAID: Final = {"account": "tenant", "asked_uc": "credits", "of": "order"}  # as they are called outside
Placed = tuple[Order, bool]


def place(
    image: Image, order_id: str, tenant: str, name: str, quantity: int, packages: Mapping[str, Package], now_ms: int
) -> Placed:
    """Raises NotFound for the tenant, InvalidValue for package and quantity, Conflict."""
    node = account(image, tenant)
    first = known(image, order_id, kind="order", account=tenant, package=name, quantity=quantity)
    if first is not None:
        return first, False
    return sell(image, node, order_id, "order", on_sale(packages, name), quantity, now_ms), True


def on_sale(packages: Mapping[str, Package], name: str) -> Package:
    if name not in packages:
        raise InvalidValue(f"There is no such package. Known: {', '.join(packages) or 'none'}.", param="package")
    return packages[name]


def sell(image: Image, node: Account, order_id: str, kind: str, terms: Package, quantity: int, now_ms: int) -> Order:
    """The grant, or the subscription and its first period."""
    check_sale(image, node, terms, quantity)
    credits_uc, price = amounts(terms, quantity)
    order = Order(order_id, kind, node.id, terms.name, quantity, price, credits_uc, now_ms)
    if terms.every is None:
        expires_ms = None if terms.valid_s is None else now_ms + int(terms.valid_s * 1000)
        image.add_grant(
            node, credits_uc, now_ms, starts_ms=now_ms, expires_ms=expires_ms, priority=terms.priority,
            source_ref=f"package:{terms.name}", period=grant_period(order_id), price=price, **granted(terms),
        )  # fmt: skip
    else:
        order.subscription = subscribe(image, node, order_id, terms, quantity, now_ms).id
        image.refresh(node, now_ms)
    book(image, order)
    if node.debt_uc:
        image.repay(node, now_ms)
    return order


def subscribe(
    image: Image, node: Account, order_id: str, terms: Package, quantity: int, starts_ms: int
) -> Subscription:
    """From `starts_ms` on, which is the anchor of its periods."""
    found = image.sold.subscriptions
    one = Subscription(f"s{len(found) + 1:08d}", node.id, order_id, terms, quantity, starts_ms)
    one.ended_ms, one.paid = renewing.end_ms(one, image.zone), one.price
    found[one.id] = image.changes.subscriptions[one.id] = one
    node.subscriptions.append(one)
    image.changed(node)
    return one


def check_sale(image: Image, node: Account, terms: Package, quantity: int) -> None:
    if node.status == CLOSED:
        raise Conflict(f"{node.id} is closed")
    if terms.once and quantity != 1:
        raise InvalidValue(f"{terms.name} is sold once for each tenant.", param="quantity")
    if terms.once and (node.id, terms.name) in image.sold.bought:
        raise Conflict(f"{node.id} has had {terms.name}, which is sold once for each tenant")


def amounts(terms: Package, quantity: int) -> tuple[int, int]:
    """Credits and price of all of it."""
    credits_uc, price = terms.credits_uc * quantity, terms.price * quantity
    if credits_uc > MAX_GRANT_UC or price > MAX_PRICE:
        raise InvalidValue("quantity is out of range: an order has at most 10^12 credits.", param="quantity")
    return credits_uc, price


def refund(image: Image, order_id: str, refund_id: str | None, credits_uc: int, now_ms: int) -> Placed:
    """Takes back `credits_uc`, at most what is unspent; 0: all that is, and its subscription ends now.

    What calls in flight hold stays with them. Raises NotFound, Conflict.
    """
    order = image.sold.orders.get(order_id)
    if order is None:
        raise NotFound(f"no order {order_id[:64]!r}")
    if order.kind in ("refund", "change"):
        raise Conflict(f"{order_id} is a {order.kind}, which cannot be taken back")
    refund_id = refund_id or f"{OWN_IDS}refund:{order_id}"
    first = known(image, refund_id, kind="refund", of=order_id, asked_uc=credits_uc)
    if first is not None:
        return first, False
    node = image.accounts[order.account]
    image.refresh(node, now_ms)
    revoked_uc = revoke(image, of_order(order, node.grants), credits_uc or MAX_GRANT_UC, now_ms)
    if not credits_uc:
        end(image, node, of_order(order, node.grants), image.sold.subscriptions.get(order.subscription), now_ms)
    taken = Order(refund_id, "refund", node.id, order.package, order.quantity, 0, revoked_uc, now_ms)
    taken.subscription, taken.of, taken.asked_uc = order.subscription, order_id, credits_uc
    return book(image, taken), True


def revoke(image: Image, grants: list[Grant], most_uc: int, now_ms: int) -> int:
    """What would be spent last goes first; returns how much was taken back."""
    left_uc = most_uc
    for grant in sorted(grants, key=burn_key, reverse=True):
        uc = min(grant.available, left_uc)
        if uc:
            image.revoke(grant, uc, now_ms)
            left_uc -= uc
    return most_uc - left_uc


def end(image: Image, node: Account, grants: list[Grant], subscription: Subscription | None, now_ms: int) -> None:
    """Now. What calls in flight hold of the grants and do not use is not to be had again."""
    for grant in grants:
        grant.expires_ms = now_ms
        image.changes.grants[grant.id] = grant
    if subscription is not None and not subscription.over(now_ms):
        subscription.ended_ms = now_ms
        image.changes.subscriptions[subscription.id] = subscription
    image.refresh(node, now_ms)


def compensate(
    image: Image, order_id: str, tenant: str, credits_uc: int, expires_ms: int | None, now_ms: int
) -> Placed:
    """Credits for what went wrong: spent after packages, before a wallet."""
    node = account(image, tenant)
    first = known(image, order_id, kind="compensation", account=tenant, asked_uc=credits_uc)
    if first is not None:
        return first, False
    if node.status == CLOSED:
        raise Conflict(f"{node.id} is closed")
    if expires_ms is not None and expires_ms <= now_ms:
        raise InvalidValue("expires_at has passed already.", param="expires_at")
    image.add_grant(
        node, credits_uc, now_ms, starts_ms=now_ms, expires_ms=expires_ms, priority=COMPENSATION_PRIORITY,
        source_ref="compensation", period=grant_period(order_id),
    )  # fmt: skip
    if node.debt_uc:
        image.repay(node, now_ms)
    given = Order(order_id, "compensation", tenant, "", 1, 0, credits_uc, now_ms, asked_uc=credits_uc)
    return book(image, given), True


def known(image: Image, order_id: str, **content: object) -> Order | None:
    """The order with this id. Raises Conflict when it is of something else."""
    first = image.sold.orders.get(order_id)
    if first is not None:
        other = [SAID.get(name, name) for name, value in content.items() if getattr(first, name) != value]
        if other:
            raise Conflict(f"order {order_id} is there already, with another {', '.join(other)}")
    return first


def book(image: Image, order: Order) -> Order:
    image.sold.keep(order)
    image.changes.orders.append(order)
    return order
