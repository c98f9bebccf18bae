"""Packages, orders, subscriptions, codes and alerts: operations of the admin API; guesses at codes are limited."""

from __future__ import annotations

import re
import secrets
from typing import Any, Final

from gateway.admin import schemas, shown
from gateway.admin.desk import Desk, Wish, sight
from gateway.admin.fields import card_of, credits_uc, is_text, time_ms
from gateway.admin.kinds import CODES, ORDER, SUBSCRIPTION
from gateway.admin.operations import Answer, Operation
from gateway.admin.shown import seconds, shown_order, shown_subscription
from gateway.admin.tenants import time_to_come
from gateway.charging import codes, orders, subscriptions
from gateway.charging.admins import OPERATOR, TENANT_ADMIN
from gateway.charging.image import Image
from gateway.charging.offers import STANDARD
from gateway.charging.packages import OWN_IDS
from gateway.config.model import Limits
from gateway.errors import Conflict, InvalidValue, NotFound

WRONG_CODES: Final = Limits(rpm=10)
MAX_CODES: Final = 10_000  # at once
MAX_QUANTITY: Final = 10**9
LETTERS: Final = "ABCDEFGHJKMNPQRSTUVWXYZ23456789"  # none that is taken for another
GROUPS, LETTERS_A_GROUP = 4, 5  # 99 bits
_ORDER_ID: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._:-]{0,127}")


async def list_packages(desk: Desk, wish: Wish) -> Answer:
    return 200, shown.packages(desk.packages())


async def list_orders(desk: Desk, wish: Wish) -> Answer:
    return 200, desk.ledger.look(_orders, wish)


async def show_order(desk: Desk, wish: Wish) -> Answer:
    return 200, desk.ledger.look(shown.order, wish.path["order"])


async def place_order(desk: Desk, wish: Wish) -> Answer:
    asked = wish.body
    order_id, tenant, name = (_text(asked, field) for field in ("order_id", "tenant", "package"))
    terms = _order_id(order_id), tenant, name, _count(asked, "quantity", MAX_QUANTITY), desk.packages()
    order, new = await desk.change(wish, orders.place, *terms, makes=ORDER)
    return 201 if new else 200, shown_order(order)


async def refund_order(desk: Desk, wish: Wish) -> Answer:
    asked = wish.body
    refund_id = _order_id(_text(asked, "refund_id")) if "refund_id" in asked else None
    uc = credits_uc(asked["credits"]) if asked.get("credits") is not None else 0
    refund, new = await desk.change(wish, orders.refund, wish.path["order"], refund_id, uc, makes=ORDER)
    return 201 if new else 200, shown_order(refund)


async def compensate(desk: Desk, wish: Wish) -> Answer:
    asked = wish.body
    card = card_of(asked.get("card", STANDARD), desk.cards())
    order_id, uc = _order_id(_text(asked, "order_id")), credits_uc(asked.get("credits"))
    terms = order_id, wish.path["tenant"], uc, time_ms(asked, "expires_at"), card
    order, new = await desk.change(wish, orders.compensate, *terms, makes=ORDER)
    return 201 if new else 200, shown_order(order)


async def list_subscriptions(desk: Desk, wish: Wish) -> Answer:
    return 200, desk.ledger.look(_subscriptions, wish)


async def show_subscription(desk: Desk, wish: Wish) -> Answer:
    return 200, desk.ledger.look(shown.subscription, wish.path["subscription"])


async def cancel_subscription(desk: Desk, wish: Wish) -> Answer:
    now, name = wish.body.get("now", False), wish.path["subscription"]
    if not isinstance(now, bool):
        raise InvalidValue("now is true or false.", param="now")
    one = await desk.change(wish, subscriptions.cancel, name, now, edits=(SUBSCRIPTION, name))
    return 200, shown_subscription(one, desk.clock.wall_ms())


async def change_subscription(desk: Desk, wish: Wish) -> Answer:
    """The subscription that is in force, or will be, and what the change came to."""
    asked, name = wish.body, wish.path["subscription"]
    order_id = _order_id(_text(asked, "order_id")) if "order_id" in asked else None
    package = _text(asked, "package") if "package" in asked else None
    quantity = _count(asked, "quantity", MAX_QUANTITY) if "quantity" in asked else None
    terms = name, order_id, package, quantity, desk.packages()
    order, one = await desk.change(wish, subscriptions.change, *terms, edits=(SUBSCRIPTION, name), makes=ORDER)
    changed = None if order is None else shown_order(order)
    return 200, {**shown_subscription(one, desk.clock.wall_ms()), "change": changed}


async def list_alerts(desk: Desk, wish: Wish) -> Answer:
    return 200, desk.ledger.look(_alerts, wish)


async def list_codes(desk: Desk, wish: Wish) -> Answer:
    return 200, desk.ledger.look(shown.code_batches, wish.query)


async def make_codes(desk: Desk, wish: Wish) -> Answer:
    """The codes are in this answer and nowhere else."""
    terms = orders.on_sale(desk.packages(), _text(wish.body, "package"))
    count, expires_ms = _count(wish.body, "count", MAX_CODES), time_to_come(desk, wish.body, "expires_at")
    made = [_new_code() for _ in range(count)]
    hashes = [codes.code_hash(code) for code in made]
    batch = await desk.change(wish, codes.make, terms, hashes, expires_ms, makes=CODES)
    return 201, {"id": batch.id, "package": terms.name, "expires_at": seconds(expires_ms), "codes": made}


async def redeem(desk: Desk, wish: Wish) -> Answer:
    """Raises RateLimited after ten codes in a minute that were none of the tenant's, whatever is sent then."""
    tenant = desk.ledger.tenant(wish.path["tenant"]).id
    code, guesses = _text(wish.body, "code"), desk.guesses.of(tenant, WRONG_CODES)
    refusal = guesses.over_rate(0)
    if refusal is not None:
        raise refusal
    try:
        order, new = await desk.change(wish, codes.redeem, tenant, codes.code_hash(code), makes=ORDER)
    except (NotFound, Conflict):
        guesses.admit(0).release(None)
        raise
    return 201 if new else 200, shown_order(order)


def _orders(image: Image, wish: Wish, now_ms: int) -> dict[str, Any]:
    return shown.orders(image, wish.query, now_ms, sight(image, wish.by))


def _alerts(image: Image, wish: Wish, now_ms: int) -> dict[str, Any]:
    return shown.alerts(image, wish.query, now_ms, sight(image, wish.by))


def _subscriptions(image: Image, wish: Wish, now_ms: int) -> dict[str, Any]:
    return shown.subscriptions(image, wish.query, now_ms, sight(image, wish.by))


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


_OF_TENANT: Final = {"tenant": {**schemas.TEXT, "description": "only those of this tenant"}}
_QUANTITY: Final = schemas.whole(1, MAX_QUANTITY)
_SOLD: Final = {201: schemas.ORDER, 200: schemas.ORDER}  # new; the same id again
OPERATIONS: Final = (
    Operation("package.list", "GET", "packages", "what is on sale", list_packages,
              {200: schemas.page(schemas.PACKAGE, schemas.TEXT)}),
    Operation("order.list", "GET", "orders", "orders, changes, refunds and compensations", list_orders,
              {200: schemas.page(schemas.ORDER, schemas.TEXT)}, query={**_OF_TENANT, **schemas.PAGES}),
    Operation("order.place", "POST", "orders", "sells a package; the same id again returns the first result",
              place_order, _SOLD, role=OPERATOR,
              body={"order_id": schemas.ORDER_ID, "tenant": schemas.NAME, "package": schemas.NAME,
                    "quantity": _QUANTITY},
              required=("order_id", "tenant", "package"), errors=(404, 409)),
    Operation("order.show", "GET", "orders/{order}", "one order, and what is left of it", show_order,
              {200: schemas.ORDER_WITH_REST}),
    Operation("order.refund", "POST", "orders/{order}/refund", "takes back what is unspent", refund_order, _SOLD,
              role=OPERATOR, body={"credits": schemas.maybe(schemas.CREDITS), "refund_id": schemas.ORDER_ID},
              errors=(409,)),
    Operation("order.compensate", "POST", "tenants/{tenant}/compensations", "credits for what went wrong", compensate,
              _SOLD, role=OPERATOR,
              body={"order_id": schemas.ORDER_ID, "credits": schemas.CREDITS, "expires_at": schemas.TIME,
                    "card": schemas.CARD},
              required=("order_id", "credits"), errors=(409,)),
    Operation("code.redeem", "POST", "tenants/{tenant}/redeem", "a code for a tenant", redeem, _SOLD,
              role=TENANT_ADMIN, body={"code": schemas.NAME}, required=("code",), errors=(409, 429)),
    Operation("subscription.list", "GET", "subscriptions", "all of them, the ended ones too", list_subscriptions,
              {200: schemas.page(schemas.SUBSCRIPTION, schemas.TEXT)}, query={**_OF_TENANT, **schemas.PAGES}),
    Operation("subscription.show", "GET", "subscriptions/{subscription}", "one of them", show_subscription,
              {200: schemas.SUBSCRIPTION}),
    Operation("subscription.cancel", "POST", "subscriptions/{subscription}/cancel",
              "it ends with the period that runs, or now", cancel_subscription, {200: schemas.SUBSCRIPTION},
              role=OPERATOR, body={"now": schemas.BOOLEAN}, edits=True),
    Operation("subscription.change", "POST", "subscriptions/{subscription}/change",
              "another package or quantity: more at once, less next period", change_subscription,
              {200: schemas.SUBSCRIPTION_CHANGED}, role=OPERATOR,
              body={"package": schemas.NAME, "quantity": _QUANTITY, "order_id": schemas.ORDER_ID}, errors=(409,),
              edits=True),
    Operation("alert.list", "GET", "alerts", "shares of packages that were reached", list_alerts,
              {200: schemas.page(schemas.ALERT, schemas.TEXT)}, query={**_OF_TENANT, **schemas.PAGES}),
    Operation("code.list", "GET", "codes", "batches of codes, and how many of each are redeemed", list_codes,
              {200: schemas.page(schemas.BATCH, schemas.TEXT)}, query=schemas.PAGES, everything=True),
    Operation("code.make", "POST", "codes", "new codes for a package, shown once", make_codes,
              {201: schemas.NEW_CODES}, role=OPERATOR,
              body={"package": schemas.NAME, "count": schemas.whole(1, MAX_CODES), "expires_at": schemas.TIME},
              required=("package",)),
)  # fmt: skip
