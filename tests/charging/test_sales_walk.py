"""Random lives of a shop: whatever is sold, spent, changed, taken back and renewed, the books are right at each step.

An id that is sent again gets what it got at first.
"""

from __future__ import annotations

import json
import random
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import pytest

from gateway.charging import months
from gateway.charging.audit import audit
from gateway.charging.composing import uc_of
from gateway.charging.cutting import Statements
from gateway.charging.packages import Subscription
from gateway.errors import CallRejected, QuotaExhausted, StoreUnavailable
from tests.charging.fakes import counted, fail_both, recovered, settle
from tests.charging.shop import PACKAGES, ZONE, Shop

STEPS = 120
HOUR_MS = 3_600_000


class Walk:
    """State: ids that were used, calls in flight, and what was granted by each order, as its first answer said."""

    def __init__(self, shop: Shop, seed: int) -> None:
        self.shop = shop
        self.rng = random.Random(seed)
        self.said: dict[str, int] = {}
        self.flying: list[str] = []

    async def step(self) -> None:
        actions = (
            (6, self.buy), (6, self.spend), (3, self.refund), (3, self.change), (2, self.cancel), (5, self.wait),
            (1, self.restart), (2, self.fail), (3, self.begin), (3, self.finish), (2, self.redeem), (2, self.cut),
        )  # fmt: skip
        (action,) = self.rng.choices([act for _, act in actions], [weight for weight, _ in actions])
        await action()

    def subscription(self) -> Subscription | None:
        found = list(self.shop.ledger._image.sold.subscriptions.values())
        return self.rng.choice(found) if found else None

    async def buy(self) -> None:
        """One in three is sent again, perhaps with other content."""
        again = self.said and self.rng.random() < 0.33
        name = self.rng.choice(list(self.said)) if again else f"A-{len(self.said)}"
        try:
            order, new = await self.shop.buy(
                name, self.rng.choice(list(PACKAGES)), self.rng.choice((1, 1, 2)), self.rng.choice("tu")
            )
        except CallRejected:
            return
        assert new != (name in self.said)
        assert self.said.setdefault(name, order.credits_uc) == order.credits_uc

    async def spend(self) -> None:
        with suppress(QuotaExhausted):
            await self.shop.spend(self.rng.choice((1, 40, 700)), self.rng.choice("tum"))

    async def begin(self) -> None:
        with suppress(QuotaExhausted):
            self.flying.append(await self.shop.begin(self.rng.choice((5, 300)), self.rng.choice("tum")))

    async def finish(self) -> None:
        if self.flying:
            await settle(
                self.shop.ledger, self.flying.pop(self.rng.randrange(len(self.flying))), self.rng.randint(0, 320)
            )

    async def refund(self) -> None:
        if self.said:
            uc = self.rng.choice((0, 10, 500))
            before = self.shop.sums()["revoked"]
            try:
                taken, new = await self.shop.refund(
                    self.rng.choice(list(self.said)), uc, self.rng.choice((None, "R-1"))
                )
            except CallRejected:
                return
            assert self.shop.sums()["revoked"] - before == (taken.credits_uc if new else 0)
            assert not uc or taken.credits_uc <= uc

    async def change(self) -> None:
        one = self.subscription()
        if one is not None:
            with suppress(CallRejected):
                await self.shop.change(one, self.rng.choice(list(PACKAGES)), self.rng.choice((None, 1, 3)))

    async def cancel(self) -> None:
        one = self.subscription()
        if one is not None:
            await self.shop.cancel(one, now=self.rng.random() < 0.5)

    async def redeem(self) -> None:
        code = f"code-{self.rng.randint(0, 5)}"
        if not self.shop.ledger._image.sold.codes:
            await self.shop.codes("pack", *(f"code-{number}" for number in range(4)))
        with suppress(CallRejected):
            await self.shop.redeem(code, self.rng.choice("tu"))

    async def cut(self) -> None:
        """All months that have ended; those that were cut before stay as they are."""
        before = kept(self.shop)
        await statements_of(self.shop).cut_ended()
        assert before.items() <= kept(self.shop).items()

    async def wait(self) -> None:
        """Not while records are counted for a new cap: that takes milliseconds, no month begins in them."""
        await counted(self.shop.ledger)
        self.shop.clock.ms += self.rng.choice((1, HOUR_MS, 30 * HOUR_MS, 20 * 24 * HOUR_MS, 70 * 24 * HOUR_MS))

    async def restart(self) -> None:
        self.flying.clear()
        await self.shop.reopen()

    async def fail(self) -> None:
        """A store that fails in the middle of an order."""
        fail_both(self.shop.ledger, self.rng.choice(("begin", "execute", "commit", "after commit")))
        self.flying.clear()
        name = f"A-{len(self.said)}"
        try:
            await self.shop.buy(name, "rolling")
        except CallRejected:
            pass
        except StoreUnavailable:
            await recovered(self.shop.ledger)
            order, _ = await self.shop.buy(name, "rolling")
            self.said[name] = order.credits_uc
        else:
            raise AssertionError("the store should have failed")


@pytest.mark.parametrize("seed", range(15))
async def test_the_books_are_right_at_each_step(tmp_path: Path, seed: int) -> None:
    shop = await Shop(tmp_path, "2024-01-31").open()
    walk = Walk(shop, seed)
    for number in range(STEPS):
        await walk.step()
        shop.ledger.check_invariants()
        if number % 20 == 0:
            await shop.reopen()
            walk.flying.clear()
            assert audit(shop.path) == []
    while walk.flying:
        await walk.finish()
    shop.clock.ms += 40 * 24 * HOUR_MS
    await walk.cut()
    await _check_statements(shop)
    await shop.end()


def statements_of(shop: Shop) -> Statements:
    return Statements(shop.ledger, shop.path, "Asia/Shanghai", "CNY", shop.clock)


def kept(shop: Shop) -> dict[tuple[str, str], str]:
    with closing(sqlite3.connect(shop.path)) as connection:
        rows = connection.execute("SELECT tenant, month, body FROM statements ORDER BY tenant, month").fetchall()
    return {(tenant, month): body for tenant, month, body in rows}


async def _check_statements(shop: Shop) -> None:
    """Each closing is the next opening, and with the month that runs all of them come to what the grants have."""
    closed: dict[str, str] = {}
    for (tenant, _), body in kept(shop).items():
        value = json.loads(body)
        assert value["opening"] == closed.get(tenant, value["opening"])
        closed[tenant] = value["closing"]
    left_uc = 0
    for tenant in "mtu":
        running = await statements_of(shop).of_month(tenant, months.of(shop.clock.ms, ZONE))
        assert running["opening"] == closed[tenant]
        left_uc += uc_of(running["closing"]) + sum(uc_of(purse["left"]) for purse in running["purses"])
    sums = shop.sums()
    assert left_uc == sums["granted"] - sums["spent"] - sums["expired"] - sums["revoked"]


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("UPDATE grants SET period = 'order:B-1' WHERE period = 'order:A-1'", "has no order"),
        ("DELETE FROM orders WHERE id = 'R-1'", "by its refunds"),
        ("UPDATE orders SET credits = 400 WHERE id = 'A-1'", "granted 500, not 400"),
        ("UPDATE subscriptions SET period = 4", "began 5 periods"),
        ("UPDATE codes SET order_id = ''", "codes that were redeemed"),
    ],
)
async def test_the_audit_finds_what_does_not_fit(tmp_path: Path, sql: str, says: str) -> None:
    shop = await Shop(tmp_path).open()
    await shop.buy("A-1", "pack")
    await shop.refund("A-1", 100, "R-1")
    await shop.buy("A-2", "month")
    await shop.codes("pack", "code")
    await shop.redeem("code")
    await shop.ledger.aclose()
    assert audit(shop.path) == []
    with closing(sqlite3.connect(shop.path)) as connection:
        connection.execute(sql)
        connection.commit()
    assert any(says in line for line in audit(shop.path))
