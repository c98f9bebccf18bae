"""A ledger with tenants who buy: packages, a clock that is set by dates, and what is left at the end."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from gateway.charging import codes, orders, subscriptions
from gateway.charging.audit import audit
from gateway.charging.grants import Grant
from gateway.charging.ledger import Ledger, open_ledger
from gateway.charging.packages import Order, Subscription
from gateway.charging.rating import Quote
from gateway.config.model import Exhausted, Package, Payg, Plan
from tests.charging import manage
from tests.charging.fakes import FakeClock, settle

ZONE = ZoneInfo("Asia/Shanghai")
TWICE = 2 * 10**12  # the price of 1M credits, so that a micro-credit costs two millionths of the currency
PAYG = Exhausted(Payg(TWICE, 400))  # 200 micro-credits
LEVELS = (500_000, 800_000, 1_000_000)
PACKAGES = {
    "month": Package("month", 3100, "month", price=31_000, priority=20),
    "large": Package("large", 31_000, "month", price=310_000, priority=20),
    "rolling": Package("rolling", 1000, "month", rollover_uc=300, priority=20),
    "year": Package("year", 100, "month", periods=12, priority=20),
    "daily": Package("daily", 50, "day", rollover_uc=70, priority=20),
    "raw": Package("raw", 1000, "month", rollover_uc=300, priority=20, card="raw"),
    "office": Package("office", 700, valid_s=30 * 86_400.0, priority=10, scope={"models": ("m",), "tags": ("chat",)}),
    "pack": Package("pack", 500, valid_s=30 * 86_400.0, price=5_990_000),
    "trial": Package("trial", 70, valid_s=7 * 86_400.0, once=True),
    "units": Package("units", 400, price=1_000_000, priority=50),
    "plain": Package("plain", 300, "month", priority=20),
    "over": Package("over", 300, "month", priority=20, rollover_uc=100, exhausted=PAYG, alerts=LEVELS),
    "late": Package("late", 300, valid_s=30 * 86_400.0, exhausted=PAYG, alerts=LEVELS),
    "named": Package("named", 300, "month", priority=20, card="raw", scope={"models": ("m",)}, exhausted=PAYG),
    "calls": Package("calls", 9000, "month", priority=20, caps={"5h": {"calls": 2}, "month": {"credits": 1000}}),
}


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZONE).timestamp() * 1000)


class Shop:
    """Tenants `t` and `u`, and `m`, a member of `t`."""

    def __init__(self, path: Path, now: str = "2024-01-01") -> None:
        self.path = f"{path}/l.db"
        self.clock = FakeClock(ms(now))
        self.packages: dict[str, Package] = dict(PACKAGES)
        self.calls = 0
        self.ledger: Ledger

    async def open(self) -> Shop:
        self.ledger = await open_ledger(self.path, self.clock, "Asia/Shanghai", {"none": Plan("none")})
        known = {account.id for account in self.ledger.tenants()}
        for name, parent in (("t", None), ("u", None), ("m", "t")):
            if name not in known:
                await manage.add_tenant(self.ledger, name, "none", parent)[1]
        return self

    async def reopen(self) -> None:
        await self.ledger.aclose()
        await self.open()

    async def buy(self, order_id: str, package: str, quantity: int = 1, tenant: str = "t") -> tuple[Order, bool]:
        placed, receipt = self.ledger.change(orders.place, order_id, tenant, package, quantity, self.packages)
        await receipt
        return placed

    async def subscribe(self, package: str, quantity: int = 1) -> Subscription:
        order, _ = await self.buy(f"o{len(self.ledger._image.sold.orders)}", package, quantity)
        return self.ledger._image.sold.subscriptions[order.subscription]

    async def refund(self, order_id: str, uc: int = 0, refund_id: str | None = None) -> tuple[Order, bool]:
        placed, receipt = self.ledger.change(orders.refund, order_id, refund_id, uc)
        await receipt
        return placed

    async def cancel(self, one: Subscription, *, now: bool = False) -> Subscription:
        done, receipt = self.ledger.change(subscriptions.cancel, one.id, now)
        await receipt
        return done

    async def change(
        self, one: Subscription, package: str | None = None, quantity: int | None = None, order_id: str | None = None
    ) -> tuple[Order | None, Subscription]:
        terms = one.id, order_id, package, quantity, self.packages
        done, receipt = self.ledger.change(subscriptions.change, *terms)
        await receipt
        return done

    async def codes(self, package: str, *plain: str, expires_ms: int | None = None) -> None:
        hashes = [codes.code_hash(code) for code in plain]
        await self.ledger.change(codes.make, self.packages[package], hashes, expires_ms)[1]

    async def redeem(self, code: str, tenant: str = "t") -> tuple[Order, bool]:
        placed, receipt = self.ledger.change(codes.redeem, tenant, codes.code_hash(code))
        await receipt
        return placed

    async def spend(self, uc: int, tenant: str = "t") -> None:
        await settle(self.ledger, await self.begin(uc, tenant), uc)

    async def begin(self, uc: int, tenant: str = "t") -> str:
        """A call that holds `uc`."""
        self.calls += 1
        name = f"c{self.clock.ms}-{self.calls}"
        path = self.ledger.tenant(tenant).path
        quote = Quote(tenant, path, f"r-{name}", "chat", "m", "standard", 1, 0, 1, uc, self.clock.ms + 10**12)
        await self.ledger.reserve(name, quote, clamp=False)
        self.ledger.dispatched(name, "b", "m")
        return name

    def at(self, now: str) -> None:
        self.clock.ms = ms(now)

    def live(self, tenant: str = "t") -> list[Grant]:
        """In the order in which they are spent."""
        return self.ledger._image.burn_list(self.ledger.tenant(tenant).path, self.clock.ms)

    def left(self, tenant: str = "t") -> list[tuple[str | None, int, str]]:
        """Source, what is available, when it ends; of those that have anything."""
        return [(grant.source_ref, grant.available, _day(grant)) for grant in self.live(tenant) if grant.available]

    def sums(self) -> Mapping[str, int]:
        grants = self.ledger._image.grants.values()
        return {name: sum(getattr(g, name) for g in grants) for name in ("granted", "spent", "expired", "revoked")}

    def statement(self, tenant: str = "t") -> dict[str, Any]:
        return self.ledger.statement(tenant, "2000-01-01", "2100-01-01")

    async def end(self) -> None:
        """The books are right in memory, in the file, and read again."""
        self.ledger.check_invariants()
        before = self.left(), self.left("u"), self.sums()
        await self.ledger.aclose()
        assert audit(self.path) == []
        await self.open()
        assert (self.left(), self.left("u"), self.sums()) == before
        self.ledger.check_invariants()
        await self.ledger.aclose()


def _day(grant: Grant) -> str:
    if grant.expires_ms is None:
        return "never"
    return datetime.fromtimestamp(grant.expires_ms / 1000, ZONE).strftime("%Y-%m-%d")
