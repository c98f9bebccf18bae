"""The lines of a statement: what was sold, given and taken back, each with its price. From entries and orders."""

from __future__ import annotations

import re
import sqlite3
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Final

import orjson

from gateway.charging.figures import ENTRIES, OF_GRANTS, Reach
from gateway.charging.grants import Grant
from gateway.charging.packages import Order, grant_period, terms_of
from gateway.charging.schema import select_sql
from gateway.charging.tables import has_table

_OF_SUBSCRIPTION: Final = re.compile(r"(s[0-9]+):([0-9]+)(:rolled|:change:[0-9]+)?")
_OF_ORDER: Final = grant_period("")


@dataclass(frozen=True, slots=True)
class Line:
    """`credits_uc` is negative where they were taken back; `price` in micro-units of currency."""

    kind: str  # subscription | change | rollover | order | code | compensation | plan | grant | refund | revoked
    ms: int
    what: str  # the package, the plan, or what whoever granted it has said
    card: str
    credits_uc: int
    price: int = 0
    quantity: int = 1
    order: str = ""
    subscription: str = ""


@dataclass(slots=True)
class Sales:
    """What lines are named by: orders by id; and by account, time and kind, as entries are found again; and the price
    of a period of each subscription today."""

    orders: dict[str, Order]
    at: dict[tuple[str, int, str], Order]
    fees: dict[str, int]


def lines(
    connection: sqlite3.Connection, reach: Reach, grants: Mapping[str, Grant], of: Collection[str] | None = None
) -> dict[str, list[Line]]:
    """By account, in the order in which they were booked. `of` are accounts; None: all."""
    sales = _sales(connection, of)
    found: dict[str, list[Line]] = defaultdict(list)
    which = "" if of is None else OF_GRANTS
    asked = asdict(reach) | {"grants": orjson.dumps(list(grants)).decode()}
    sql = f"SELECT ms, grant_id, kind, uc FROM entries WHERE {ENTRIES}{which} AND kind IN ('granted', 'revoked')"  # noqa: S608
    for ms, name, kind, uc in connection.execute(f"{sql} ORDER BY number", asked):
        grant = grants[name]
        if grant.payg is not None:  # what is spent of it is billed, not what may be
            continue
        found[grant.account].append(_line(grant, ms, uc, sales) if kind == "granted" else _taken(grant, ms, uc, sales))
    for line, account in _bare_changes(connection, reach, sales):
        found[account].append(line)
    return found


def _line(grant: Grant, ms: int, uc: int, sales: Sales) -> Line:
    what = (grant.source_ref or "").partition(":")[2] or (grant.source_ref or "")
    if grant.period.startswith(_OF_ORDER):
        order = sales.orders.get(grant.period.removeprefix(_OF_ORDER))
        if order is not None:
            return Line(order.kind, ms, order.package, grant.card, uc, order.price, order.quantity, order.id)
    of_subscription = _OF_SUBSCRIPTION.fullmatch(grant.period)
    if of_subscription is not None:
        name, _, part = of_subscription.groups()
        return _of_subscription(grant, ms, uc, sales, what, name, part)
    if (grant.source_ref or "").startswith("plan:") and grant.period:
        return Line("plan", ms, what, grant.card, uc)
    return Line("grant", ms, grant.source_ref or "", grant.card, uc, grant.price or 0)


def _of_subscription(
    grant: Grant, ms: int, uc: int, sales: Sales, what: str, name: str, part: str | None
) -> Line:  # fmt: skip
    if part == ":rolled":
        return Line("rollover", ms, what, grant.card, uc, subscription=name)
    if part is not None:
        order = sales.at.get((grant.account, ms, "change"))
        price = grant.price if grant.price is not None or order is None else order.price
        return Line(
            "change", ms, what, grant.card, uc, price or 0, order.quantity if order else 1, order.id if order else "",
            name,
        )  # fmt: skip
    price = sales.fees.get(name, 0) if grant.price is None else grant.price
    return Line("subscription", ms, what, grant.card, uc, price, subscription=name)


def _taken(grant: Grant, ms: int, uc: int, sales: Sales) -> Line:
    what = (grant.source_ref or "").partition(":")[2] or (grant.source_ref or "")
    refund = sales.at.get((grant.account, ms, "refund"))
    if refund is None:
        return Line("revoked", ms, what, grant.card, -uc)
    return Line("refund", ms, what, grant.card, -uc, order=refund.of, subscription=refund.subscription)


def _bare_changes(connection: sqlite3.Connection, reach: Reach, sales: Sales) -> Iterator[tuple[Line, str]]:
    """Changes that cost something in the period that ran and granted nothing: no entry tells of them, so that their
    time alone says where they belong."""
    for order in sales.orders.values():
        bare = order.kind == "change" and order.price and not order.credits_uc
        if bare and reach.from_ms <= order.created_ms < reach.to_ms:
            sql = "SELECT started_ms, terms FROM subscriptions WHERE id = ?"
            for started_ms, terms in connection.execute(sql, (order.subscription,)):
                if started_ms <= order.created_ms:
                    name, quantity, card = order.subscription, order.quantity, terms_of(terms).card
                    line = Line(
                        "change", order.created_ms, order.package, card, 0, order.price, quantity, order.id, name
                    )
                    yield line, order.account


def _sales(connection: sqlite3.Connection, of: Collection[str] | None) -> Sales:
    sales = Sales({}, {}, {})
    if not has_table(connection, "orders"):
        return sales
    where, asked = "", tuple[str, ...]()
    if of is not None:
        where, asked = " WHERE account IN (SELECT value FROM json_each(?))", (orjson.dumps(list(of)).decode(),)
    for row in connection.execute(f"{select_sql('orders')}{where}", asked):
        order = Order(*row)
        sales.orders[order.id] = sales.at[order.account, order.created_ms, order.kind] = order
    sql = f"SELECT id, terms, quantity FROM subscriptions{where}"  # noqa: S608 - see above
    for name, terms, quantity in connection.execute(sql, asked):
        sales.fees[name] = terms_of(terms).price * quantity
    return sales
