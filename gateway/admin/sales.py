"""`/admin/v1/packages|orders|subscriptions|codes|alerts`, and the codes that tenants redeem.

Guesses at codes are limited.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from gateway.admin import shown
from gateway.admin.fields import card_of, credits_uc, is_text, object_of, time_ms
from gateway.admin.shown import seconds, shown_order, shown_subscription
from gateway.charging import codes, orders, subscriptions
from gateway.charging.ledger import Ledger
from gateway.charging.offers import STANDARD
from gateway.charging.packages import OWN_IDS
from gateway.clock import Clock
from gateway.config.model import Limits, Package
from gateway.errors import Conflict, InvalidValue, MethodNotAllowed, NotFound
from gateway.limits import Gates

WRONG_CODES: Final = Limits(rpm=10)
MAX_CODES: Final = 10_000  # at once
MAX_QUANTITY: Final = 10**9
LETTERS: Final = "ABCDEFGHJKMNPQRSTUVWXYZ23456789"  # none that is taken for another
GROUPS, LETTERS_A_GROUP = 4, 5  # 99 bits
_ORDER_ID: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._:-]{0,127}")
Packages = Callable[[], Mapping[str, Package]]  # those that are on sale
Cards = Callable[[], Iterable[str]]  # the names of those that routes.yaml has
Answer = tuple[int, Any]


class Sales:
    """State: wrong codes by tenant."""

    def __init__(self, ledger: Ledger, packages: Packages, clock: Clock, cards: Cards = tuple) -> None:
        self._ledger = ledger
        self._packages = packages
        self._cards = cards
        self._clock = clock
        self._guesses = Gates(clock)

    async def handle(self, method: str, parts: list[str], query: Mapping[str, str], body: bytes) -> Answer:
        """As `Admin.handle`."""
        if method == "GET":
            return 200, self._read(parts, query)
        match method, *parts:
            case "POST", "orders":
                return await self._place(object_of(body, "order_id", "tenant", "package", "quantity"))
            case "POST", "orders", order_id, "refund":
                return await self._refund(order_id, object_of(body, "credits", "refund_id"))
            case "POST", "subscriptions", name, "cancel":
                return await self._cancel(name, object_of(body, "now"))
            case "POST", "subscriptions", name, "change":
                return await self._change(name, object_of(body, "package", "quantity", "order_id"))
            case "POST", "codes":
                return await self._make_codes(object_of(body, "package", "count", "expires_at"))
            case _, "packages" | "codes" | "orders" | "subscriptions" | "alerts":
                raise MethodNotAllowed("This path takes another method.")
        raise NotFound("There is no such admin path.")

    def _read(self, parts: list[str], query: Mapping[str, str]) -> Any:
        match parts:
            case ["packages"]:
                return shown.packages(self._packages())
            case ["orders"]:
                return self._ledger.look(shown.orders, query)
            case ["orders", order_id]:
                return self._ledger.look(shown.order, order_id)
            case ["subscriptions"]:
                return self._ledger.look(shown.subscriptions, query)
            case ["subscriptions", name]:
                return self._ledger.look(shown.subscription, name)
            case ["codes"]:
                return self._ledger.look(shown.code_batches, query)
            case ["alerts"]:
                return self._ledger.look(shown.alerts, query)
        raise NotFound("There is no such admin path.")

    async def _place(self, asked: dict[str, Any]) -> Answer:
        order_id, tenant, name = (_text(asked, field) for field in ("order_id", "tenant", "package"))
        terms = _order_id(order_id), tenant, name, _count(asked, "quantity", MAX_QUANTITY), self._packages()
        (order, new), receipt = self._ledger.change(orders.place, *terms)
        await receipt
        return 201 if new else 200, shown_order(order)

    async def _refund(self, order_id: str, asked: dict[str, Any]) -> Answer:
        refund_id = _order_id(_text(asked, "refund_id")) if "refund_id" in asked else None
        uc = credits_uc(asked["credits"]) if asked.get("credits") is not None else 0
        (refund, new), receipt = self._ledger.change(orders.refund, order_id, refund_id, uc)
        await receipt
        return 201 if new else 200, shown_order(refund)

    async def compensate(self, tenant: str, body: bytes) -> Answer:
        asked = object_of(body, "order_id", "credits", "expires_at", "card")
        card = card_of(asked.get("card", STANDARD), self._cards())
        order_id, uc, expires_ms = _order_id(_text(asked, "order_id")), credits_uc(asked.get("credits")), None
        if asked.get("expires_at") is not None:
            expires_ms = time_ms(asked, "expires_at")
        (order, new), receipt = self._ledger.change(orders.compensate, order_id, tenant, uc, expires_ms, card)
        await receipt
        return 201 if new else 200, shown_order(order)

    async def _cancel(self, name: str, asked: dict[str, Any]) -> Answer:
        now = asked.get("now", False)
        if not isinstance(now, bool):
            raise InvalidValue("now is true or false.", param="now")
        one, receipt = self._ledger.change(subscriptions.cancel, name, now)
        await receipt
        return 200, shown_subscription(one, self._clock.wall_ms())

    async def _change(self, name: str, asked: dict[str, Any]) -> Answer:
        """The subscription that is in force, or will be, and what the change came to."""
        order_id = _order_id(_text(asked, "order_id")) if "order_id" in asked else None
        package = _text(asked, "package") if "package" in asked else None
        quantity = _count(asked, "quantity", MAX_QUANTITY) if "quantity" in asked else None
        terms = name, order_id, package, quantity, self._packages()
        (order, one), receipt = self._ledger.change(subscriptions.change, *terms)
        await receipt
        changed = None if order is None else shown_order(order)
        return 200, {**shown_subscription(one, self._clock.wall_ms()), "change": changed}

    async def _make_codes(self, asked: dict[str, Any]) -> Answer:
        """The codes are in this answer and nowhere else."""
        terms = orders.on_sale(self._packages(), _text(asked, "package"))
        count, expires_ms = _count(asked, "count", MAX_CODES), time_ms(asked, "expires_at")
        if expires_ms is not None and expires_ms <= self._clock.wall_ms():
            raise InvalidValue("expires_at has passed already.", param="expires_at")
        made = [_new_code() for _ in range(count)]
        batch, receipt = self._ledger.change(codes.make, terms, [codes.code_hash(code) for code in made], expires_ms)
        await receipt
        return 201, {"id": batch.id, "package": terms.name, "expires_at": seconds(expires_ms), "codes": made}

    async def redeem(self, tenant: str, body: bytes) -> Answer:
        """Raises RateLimited after ten codes in a minute that were none of the tenant's, whatever is sent then."""
        code = _text(object_of(body, "code"), "code")
        guesses = self._guesses.of(self._ledger.tenant(tenant).id, WRONG_CODES)
        refusal = guesses.over_rate(0)
        if refusal is not None:
            raise refusal
        try:
            (order, new), receipt = self._ledger.change(codes.redeem, tenant, codes.code_hash(code))
        except (NotFound, Conflict):
            guesses.admit(0).release(None)
            raise
        await receipt
        return 201 if new else 200, shown_order(order)


def _new_code() -> str:
    return "-".join("".join(secrets.choice(LETTERS) for _ in range(LETTERS_A_GROUP)) for _ in range(GROUPS))


def _text(asked: dict[str, Any], field: str) -> str:
    value = asked.get(field)
    if not isinstance(value, str) or not value or not is_text(value, 200):
        raise InvalidValue(f"{field} is a string of 1 to 200 characters.", param=field)
    return value


def _order_id(value: str) -> str:
    if not _ORDER_ID.fullmatch(value) or value.startswith(OWN_IDS):
        raise InvalidValue(
            f"An order's id is 1 to 128 letters, digits, dots, dashes, colons or underscores, and no {OWN_IDS}...",
            param="order_id",
        )
    return value


def _count(asked: dict[str, Any], field: str, most: int) -> int:
    value = asked.get(field, 1)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise InvalidValue(f"{field} is a whole number from 1 to {most:,}.", param=field)
    return value
