"""What is sold, as the ledger keeps it: subscriptions, orders, and codes that stand for an order.

The terms of a package are frozen with the sale: what routes.yaml says later is for later sales.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import orjson

from gateway.charging.ending import exhausted_of
from gateway.charging.grants import Grant
from gateway.charging.offers import scope_of
from gateway.config.model import Caps, Package

ROLLED_PRIORITY: Final = 15
COMPENSATION_PRIORITY: Final = 35
OWN_IDS: Final = "moma:"  # of orders that no seller numbered; sellers' ids do not begin so


@dataclass(slots=True)
class Subscription:
    """A package that recurs. Its grants are keyed by its id and the number of the period.

    `period` is the last one that has begun, -1 before the first; `peak_uc` and `paid` are the most credits and the
    highest price that it had: a change back and forth grants and costs nothing twice. `closed`: its end is booked.
    """

    id: str
    account: str
    order: str
    terms: Package
    quantity: int
    started_ms: int  # the anchor of its periods
    ended_ms: int | None = None  # when it ends, or has; None: when it is cancelled
    period: int = -1
    peak_uc: int = 0
    paid: int = 0  # in micro-units of currency
    closed: bool = False

    @property
    def credits_uc(self) -> int:
        return self.terms.credits_uc * self.quantity

    @property
    def price(self) -> int:
        return self.terms.price * self.quantity

    def over(self, now_ms: int) -> bool:
        return self.ended_ms is not None and self.ended_ms <= now_ms


@dataclass(slots=True)
class Order:
    """Something that was sold, changed, taken back or given: its id never does it twice.

    `asked_uc` is what a refund or compensation was asked for (0: all there is), `credits_uc` what it came to. `of` is
    the order that a refund is of.
    """

    id: str
    kind: str  # order | code | change | refund | compensation
    account: str
    package: str
    quantity: int
    price: int  # in micro-units of currency, for all of it
    credits_uc: int
    created_ms: int
    subscription: str = ""
    of: str = ""
    asked_uc: int = 0


@dataclass(slots=True)
class Batch:
    """Codes that were made together; all stand for the same package, with the terms of that day."""

    id: str
    terms: Package
    created_ms: int
    expires_ms: int | None


@dataclass(slots=True)
class Code:
    """Only the hash of it is known. `order` is "" until it is redeemed."""

    hash: str
    batch: Batch
    number: int
    order: str = ""


@dataclass(slots=True)
class Sold:
    """All there ever was, by id; `bought` are the packages that each account has had."""

    subscriptions: dict[str, Subscription] = field(default_factory=dict)
    orders: dict[str, Order] = field(default_factory=dict)
    batches: dict[str, Batch] = field(default_factory=dict)
    codes: dict[str, Code] = field(default_factory=dict)
    bought: set[tuple[str, str]] = field(default_factory=set)

    def keep(self, order: Order) -> None:
        self.orders[order.id] = order
        self.bought.add((order.account, order.package))


def granted(terms: Package) -> dict[str, Any]:
    """What its grants pay for, and by which card."""
    return {"card": terms.card, "scope": scope_of(terms.scope)}


def grant_period(order_id: str) -> str:
    """The key of the one grant of an order that does not recur; grants of subscriptions begin with their id."""
    return f"order:{order_id}"


def of_order(order: Order, grants: Iterable[Grant]) -> list[Grant]:
    """What the order granted, and its subscription after it."""
    if order.subscription:
        return [grant for grant in grants if grant.offer == order.subscription]
    return [grant for grant in grants if grant.period == grant_period(order.id)]


def caps_sold(subscriptions: Iterable[Subscription]) -> Caps:
    """Those of all that run, added up: who buys two has twice the calls."""
    found: dict[str, dict[str, int]] = {}
    for subscription in subscriptions:
        if subscription.period >= 0 and not subscription.closed:
            for window, limits in subscription.terms.caps.items():
                sums = found.setdefault(window, {})
                for unit, limit in limits.items():
                    sums[unit] = sums.get(unit, 0) + limit * subscription.quantity
    return found


def terms_text(terms: Package) -> str:
    return orjson.dumps(asdict(terms), option=orjson.OPT_SORT_KEYS).decode()


def terms_of(text: str) -> Package:
    values: dict[str, Any] = orjson.loads(text)
    values["scope"] = {kind: tuple(words) for kind, words in values.get("scope", {}).items()}
    values["alerts"] = tuple(values.get("alerts", ()))
    if "exhausted" in values:  # not of what was sold before packages had it
        values["exhausted"] = exhausted_of(values["exhausted"])
    return Package(**values)
