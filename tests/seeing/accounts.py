"""A ledger in which a family has lived for 40 days: packages, calls of several models and keys, a month that is cut."""

from __future__ import annotations

import contextlib
import hashlib
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path

from gateway.app import App
from gateway.call import Usage
from gateway.charging import cutting, orders
from gateway.charging.daily import Daily
from gateway.charging.ledger import Ledger, open_ledger
from gateway.charging.offers import offered
from gateway.charging.rating import Quote
from gateway.charging.tariffs import plain
from gateway.config.load import load
from gateway.config.model import Package, Plan
from tests.charging import manage
from tests.charging.fakes import FakeClock

DAY_MS = 86_400_000
CREDIT = 1_000_000
PACKAGES = {
    "home": Package("home", 10_000_000 * CREDIT, "month", price=9_900_000, priority=20, rollover_uc=2_000_000 * CREDIT),
    "tokens": Package("tokens", 3_000_000 * CREDIT, valid_s=38 * 86_400.0, price=5_990_000, priority=10, card="raw"),
    "yuan": Package("yuan", 400_000 * CREDIT, price=1_000_000, priority=50),
}
MODELS = {"qwen3-32b": (1, 4), "deepseek-v3": (2, 8), "qwen3-235b": (3, 12), "glm-4.6": (2, 6)}
RATES = {
    name: {"input": read * CREDIT, "output": written * CREDIT, "input_cached": CREDIT // 5, "calls": 0}
    for name, (read, written) in MODELS.items()
}
ROUTES = """
version: 1
currency: CNY
timezone: UTC
storage: {{ledger: "sqlite:{path}/moma.db"}}
backends: {{b: {{kind: openai, base_url: "http://127.0.0.1:9/v1"}}}}
models: {{small: {{via: [b], context: 4k, max_output: 1k, price: {{input: 1, output: 2}}}}}}
plans: {{none: {{}}}}
"""
ODD = "<img src=x onerror=alert(1)>"


class Family:
    """`ann` is a member of `family`. Its keys are `KEYS`, of which one is revoked."""

    def __init__(self, path: Path, now_ms: int, odd: str = "") -> None:
        self.path = f"{path}/moma.db"
        self.now_ms = now_ms
        self.clock = FakeClock(now_ms - 40 * DAY_MS)
        self.odd = odd
        self.rng = random.Random(7)
        self.calls = 0

    async def live(self) -> None:
        ledger = await open_ledger(self.path, self.clock, "UTC", {"none": Plan("none")}, plain("standard", RATES))
        statements = cutting.Statements(ledger, self.path, "UTC", "CNY", self.clock)
        await self._begin(ledger)
        while self.clock.ms < self.now_ms - DAY_MS // 2:
            for _ in range(self.rng.randrange(2, 9)):
                await self._call(ledger)
                self.clock.advance(self.rng.randrange(60_000, 3_600_000))
            self.clock.advance(DAY_MS - self.clock.ms % DAY_MS + 8 * 3_600_000)
            await statements.cut_ended()
        self.clock.ms = self.now_ms - 60_000
        for _ in range(8):
            await self._call(ledger)
        await Daily(ledger, self.path, "UTC").catch_up()
        await ledger.aclose()

    async def _begin(self, ledger: Ledger) -> None:
        await manage.add_tenant(ledger, "family", "none")[1]
        await manage.add_tenant(ledger, "ann", "none", "family")[1]
        sold = (("A-1", "family", "home", 1), ("A-2", "ann", "tokens", 1), ("A-3", "ann", "yuan", 3))
        for order, tenant, package, quantity in sold:
            await ledger.change(orders.place, order, tenant, package, quantity, PACKAGES)[1]
        for name in (f"laptop{self.odd}", "server", "old phone"):
            await manage.add_key(ledger, "ann", hashed(name.removesuffix(self.odd)), name)[1]
        await manage.revoke_key(ledger, "ann", "key_000003")[1]
        await manage.add_key(ledger, "family", hashed("mother"), "mother")[1]

    async def _call(self, ledger: Ledger) -> None:
        self.calls += 1
        name, model = f"ch-{self.calls}", self.rng.choices(list(MODELS), (6, 3, 1, 2))[0] + self.odd
        rates = RATES[model.removesuffix(self.odd)]
        used = {"input": self.rng.randrange(2_000, 60_000), "output": self.rng.randrange(200, 9_000), "calls": 1}
        offer = offered(model, "b", "", frozenset(), {"input": rates["input"], "output": rates["output"], "calls": 0})
        path = ledger.tenant("ann").path
        quote = Quote(
            "ann", path, f"req-{self.calls}", "chat", self.rng.choice(("auto", model)), "standard", 1,
            60_000 * rates["input"], rates["output"], 9_000, self.clock.ms + 10**12, 60_000, 1, (offer,),
        )  # fmt: skip
        quote.key_id = self.rng.choice(("key_000001", "key_000001", "key_000002"))
        await ledger.reserve(name, quote, clamp=False)
        ledger.dispatched(name, "b", model)
        flags = ("partial",) if self.rng.random() < 0.1 else ()
        usage = Usage(used, flags=flags)
        await ledger.settle(name, usage, model_served=model, backend="b", rates=rates, price={"input": 1})


def hashed(name: str) -> str:
    return hashlib.sha256(secret(name).encode()).hexdigest()


def secret(name: str) -> str:
    return f"sk-moma-{name.replace(' ', '-')}-of-ann-0123456789"


@contextlib.asynccontextmanager
async def served(path: Path, odd: str = "") -> AsyncIterator[App]:
    """A gateway over it."""
    app = App(load(await lived(path, odd)))
    await app.start("127.0.0.1", 0)
    yield app
    app.hurry()
    await app.aclose()


async def lived(path: Path, odd: str = "") -> Path:
    """The routes.yaml of a ledger in which they have lived until now."""
    await Family(path, int(time.time() * 1000), odd).live()
    routes = path / "routes.yaml"
    routes.write_text(ROUTES.format(path=path))
    return routes
