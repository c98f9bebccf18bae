"""What was sold, compared with the grants that it made: of the file alone."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator

from gateway.charging.ending import ending_of
from gateway.charging.grants import PURSE
from gateway.charging.packages import grant_period
from gateway.charging.tables import has_column, has_table


def sales_contradicted(connection: sqlite3.Connection) -> Iterator[str]:
    """One line for each contradiction; none in a file from before packages were sold."""
    if not has_table(connection, "orders"):
        return
    grants = {
        (account, period): (granted, revoked)
        for account, period, granted, revoked in connection.execute(
            "SELECT account, period, granted, revoked FROM grants WHERE period <> ''"
        )
    }
    yield from _purses(connection, grants)
    yield from _orders(connection, grants)
    yield from _subscriptions(connection, grants)
    used = Counter(order for (order,) in connection.execute("SELECT order_id FROM codes WHERE order_id <> ''"))
    sold = Counter(order for (order,) in connection.execute("SELECT id FROM orders WHERE kind = 'code'"))
    if used != sold:
        yield f"I5: codes that were redeemed and orders of codes differ: {sorted((used - sold) + (sold - used))}"


def _purses(connection: sqlite3.Connection, grants: dict[tuple[str, str], tuple[int, int]]) -> Iterator[str]:
    """What is paid for afterwards stands behind what was sold, and never comes to more than its cap."""
    if not has_column(connection, "grants", "ending"):
        return
    for account, period, spent, granted, ending in connection.execute(
        "SELECT account, period, spent, granted, ending FROM grants WHERE ending IS NOT NULL"
    ):
        said = ending_of(ending)
        payg = said.payg if said else None
        if payg is not None and (granted > payg.credits_uc or payg.amount(spent) > payg.cap):
            yield f"I5: the purse {period} of {account} has more than its cap of {payg.cap} buys"
        if payg is not None and period.startswith(PURSE) and (account, period.removeprefix(PURSE)) not in grants:
            yield f"I5: the purse {period} of {account} stands behind nothing"


def _orders(connection: sqlite3.Connection, grants: dict[tuple[str, str], tuple[int, int]]) -> Iterator[str]:
    """An order that does not recur has its one grant, and refunds took back what the grant says."""
    sold = {}
    revoked: Counter[str] = Counter()
    for name, kind, account, credits_uc, subscription, of in connection.execute(
        "SELECT id, kind, account, credits, subscription, of_order FROM orders"
    ):
        if kind == "refund":
            revoked[of] += credits_uc
        elif not subscription:
            sold[account, grant_period(name)] = name, credits_uc
    for key, (granted, taken) in grants.items():
        if key[1].startswith(grant_period("")) and key not in sold:
            yield f"I5: the grant {key[1]} of {key[0]} has no order"
        elif key in sold and taken != revoked[sold[key][0]]:
            yield f"I5: of order {sold[key][0]} {taken} was revoked, and {revoked[sold[key][0]]} by its refunds"
        elif key in sold and granted != sold[key][1]:
            yield f"I5: order {sold[key][0]} granted {granted}, not {sold[key][1]}"
    for key, (name, _) in sold.items():
        if key not in grants:
            yield f"I5: order {name} has granted nothing"


def _subscriptions(connection: sqlite3.Connection, grants: dict[tuple[str, str], tuple[int, int]]) -> Iterator[str]:
    """Each period that began has its grant, and none that did not."""
    begun: Counter[tuple[str, str]] = Counter()
    for account, period in grants:
        name, _, number = period.partition(":")
        if number.isdigit():
            begun[account, name] += 1
    for name, account, period in connection.execute("SELECT id, account, period FROM subscriptions"):
        if begun[account, name] != period + 1:
            yield f"I5: subscription {name} began {period + 1} periods and has {begun[account, name]} grants"
