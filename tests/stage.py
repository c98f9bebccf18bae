"""A whole pipeline over a real ledger and a scripted hop, driven by a virtual clock."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from zoneinfo import ZoneInfo

import orjson

from gateway.app import ids
from gateway.backends.keys import Keys
from gateway.cache.caches import Caches
from gateway.cached import CachedCalls
from gateway.call import BUCKETS
from gateway.charging.in_force import unkept
from gateway.charging.ledger import Ledger
from gateway.charging.rate_cards import tariffs
from gateway.config.model import Config, Plan, PlanGrant, Retry, Timeout
from gateway.deadline import Deadlines
from gateway.dispatch import Dispatcher, RetryBudget
from gateway.draining import Drains
from gateway.limits import Gates
from gateway.metrics import Metrics
from gateway.pipeline import Pipeline
from gateway.recorder import Recorder
from gateway.routing.live import Live
from gateway.routing.router import Router
from gateway.tenants import Caller, Tenants
from gateway.tokens import Tokenizer
from gateway.waiting import Waiting
from tests.virtual import FakeClient, ListSink, Said, Sent, VirtualClock, backend, config, drive, model, request, route

PLAN = Plan("p", (PlanGrant(1_000_000_000_000),))
CONFIG = config(
    [backend("a"), backend("b")],
    [
        model("m", "a"),
        model("n", "b"),
        model("e", "a", endpoints=frozenset({"embeddings"})),
        model("tiny", "b", context=500),
        model("huge", "a", context=1_000_000),
        model("per_call", "a", rates=dict.fromkeys(BUCKETS, 1_000_000) | {"calls": 5_000_000}),
    ],
    [
        route("both", "m", "n"),
        route("tiny_or_m", "tiny", "m"),
        route("even", "m", "n", policy="balanced", affinity="prefix"),
    ],
    timeout=Timeout(3, 30, 30, 300),
    retry=Retry(3, 0.2, 5.0),
    plan=PLAN,
)


@dataclass
class Stage:
    """A pipeline over a real ledger and a scripted hop, without a socket or a second of waiting."""

    ledger: Ledger
    clock: VirtualClock
    script: Sequence[Said] | Callable[[Sent], Said]
    seed: int = 1
    plan: Plan = PLAN
    keys: tuple[str, ...] = ()
    tokenizer: Tokenizer = field(default_factory=Tokenizer)
    lines: list[dict[str, Any]] = field(default_factory=list)
    batches: int = 0
    config: Config = CONFIG

    def __post_init__(self) -> None:
        rng = random.Random(self.seed)
        cards = unkept(tariffs(self.config), ZoneInfo("UTC"), version=1)
        self.live = Live(self.config.breaker)
        self.client = FakeClient(self.clock, self.script)
        self.metrics = Metrics()
        self.gates = Gates(self.clock)
        deadlines = Deadlines(self.clock)
        self.caches = Caches(self.clock, rng)
        self.caches.configure(self.config.caches.values())
        self.pipeline = Pipeline(
            config=self.config,
            cards=cards,
            tenants=Tenants(self.config.plans, {}, self.ledger),
            gates=self.gates,
            waiting=Waiting(self.config.queue),
            router=Router(self.config, rng, self.live),
            dispatcher=Dispatcher(
                client=self.client,
                keys={name: Keys(self.keys, self.clock) for name in self.config.backends},
                live=self.live,
                gates=Gates(self.clock),
                timeout=self.config.timeout,
                retry=self.config.retry,
                clock=self.clock,
                rng=rng,
                attempted=self.metrics.attempted,
                budget=RetryBudget(),
                waiting=Waiting(self.config.queue),
            ),
            ledger=self.ledger,
            tokenizer=self.tokenizer,
            recorder=Recorder(self.metrics, top=50, log=lambda line: self.lines.append(orjson.loads(line))),
            clock=self.clock,
            deadlines=deadlines,
            next_charge_id=ids("ch"),
            cached=CachedCalls(
                config=self.config,
                cards=cards,
                caches=self.caches,
                ledger=self.ledger,
                clock=self.clock,
                next_charge_id=ids("hit"),
                drains=Drains(self.clock),
            ),
        )

    def handle(self, sink: ListSink, headers: dict[str, str] | None = None, **body: Any) -> Any:
        return self.pipeline.handle(self.caller, request(headers, **body), sink)

    @property
    def caller(self) -> Caller:
        return Caller("t", self.plan, ("t",))

    def busy(self) -> bool:
        """The ledger's writer is at its file, or was since the last look, or a thread puts a long stream together.

        Time stands still for them.
        """
        batches, self.batches = self.batches, self.ledger._writer.batches
        joining = any(flight.over and not flight.closed for flight in self.caches._tasks.values())
        return self.ledger._writer._busy or batches != self.batches or joining

    async def ask(self, headers: dict[str, str] | None = None, **body: Any) -> ListSink:
        sink = ListSink()
        await drive(self.clock, self.handle(sink, headers, **body), busy=self.busy)
        assert self.ledger.open_holds == 0
        self.ledger.check_invariants()
        return sink

    async def durable(self) -> list[dict[str, Any]]:
        """All charge records, once nothing is queued."""
        for _ in range(2000):
            await asyncio.sleep(0)
            if not self.busy():
                break
            await asyncio.sleep(0.001)
        rows: list[dict[str, Any]] = self.ledger.charges("t", 0, 5000)["data"]
        return rows

    def metric(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


Open = Callable[..., Stage]
