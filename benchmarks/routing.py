"""What each policy does with the same traffic: the tables of docs/routing.md. `python -m benchmarks.routing`.

The real router and dispatcher on a virtual clock over five scripted backends; the same seed gives the same figures.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import quantiles

from gateway.backends.keys import Keys
from gateway.call import BUCKETS
from gateway.config.model import Breaker, Config, Limits, Plan, Retry, Timeout
from gateway.deadline import Deadlines
from gateway.dispatch import Delivery, Dispatcher, Job, RetryBudget
from gateway.errors import GatewayError
from gateway.limits import Gates
from gateway.routing.live import Live
from gateway.routing.policies import TERMS
from gateway.routing.router import Router
from gateway.waiting import Waiting
from tests.virtual import (
    DONE,
    STOP,
    WORD,
    FakeClient,
    ListSink,
    Said,
    Sent,
    VirtualClock,
    backend,
    call,
    config,
    event,
    model,
    refused,
    route,
)

POLICIES = ("ordered", "weighted", "cheapest", "fastest", "best", "least_busy", "balanced")
CALLS = 6000
RATE = 5.0  # calls a second, at random moments
INPUT_TOKENS = 500
OUTPUT_TOKENS = 200  # on average
OUTAGE_S = (400.0, 460.0)  # in which `shaky` answers nothing but 503
PLAN = Plan("p")
DECISIONS = 5000


@dataclass(frozen=True)
class Scripted:
    """A backend of one model: prices per 1M tokens, speed without load, share of its calls that it refuses with 503."""

    name: str
    price: tuple[float, float]
    quality: float
    first_token_s: float
    per_token_s: float
    errors: float
    concurrency: int


BACKENDS = (
    Scripted("steady", (2.0, 8.0), 0.70, 0.4, 0.015, 0.005, 40),
    Scripted("budget", (1.0, 4.0), 0.55, 0.8, 0.025, 0.02, 20),
    Scripted("shaky", (1.2, 4.8), 0.60, 0.5, 0.020, 0.10, 40),
    Scripted("rapid", (4.0, 16.0), 0.72, 0.15, 0.005, 0.005, 40),
    Scripted("expert", (8.0, 32.0), 0.90, 0.9, 0.030, 0.001, 40),
)


@dataclass
class Outcome:
    served: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    cost: float = 0.0  # micro-units of currency
    attempts: int = 0
    failed: int = 0
    turns: int = 0  # later turns of conversations, and those that went where the turn before went
    stayed: int = 0


def world(policy: str, affinity: str = "none") -> Config:
    models = []
    for scripted in BACKENDS:
        price = dict.fromkeys(BUCKETS, 0)
        price |= {"input": int(scripted.price[0] * 1e6), "output": int(scripted.price[1] * 1e6)}
        models.append(model(scripted.name, scripted.name, price=price, quality=scripted.quality))
    return config(
        [backend(scripted.name, limits=Limits(concurrency=scripted.concurrency)) for scripted in BACKENDS],
        models,
        [route("auto", *(scripted.name for scripted in BACKENDS), policy=policy, affinity=affinity)],
        timeout=Timeout(3, 30, 30, 300),
        retry=Retry(3, 0.2, 5.0),
    )


class Simulation:
    """One policy under the traffic of one seed."""

    def __init__(self, policy: str, affinity: str = "none", prefer: str = "", seed: int = 1) -> None:
        self._headers = {"x-moma-prefer": prefer} if prefer else {}
        self._config = world(policy, affinity)
        self._clock = VirtualClock()
        self._live = Live(Breaker())
        self._rng = random.Random(seed)
        self._router = Router(self._config, random.Random(seed), self._live)
        self._deadlines = Deadlines(self._clock)
        self._last: dict[int, str] = {}
        self._by_name = {scripted.name: scripted for scripted in BACKENDS}
        self._dispatcher = Dispatcher(
            client=FakeClient(self._clock, self._say),
            keys={scripted.name: Keys((), self._clock) for scripted in BACKENDS},
            live=self._live,
            gates=Gates(self._clock),
            timeout=self._config.timeout,
            retry=self._config.retry,
            clock=self._clock,
            rng=random.Random(seed),
            attempted=lambda name, outcome: None,
            budget=RetryBudget(),
            waiting=Waiting(),
        )
        self.outcome = Outcome()

    def _say(self, sent: Sent) -> Said:
        scripted = self._by_name[sent.backend]
        down = scripted.name == "shaky" and OUTAGE_S[0] <= self._clock.at < OUTAGE_S[1]
        if down or self._rng.random() < scripted.errors:
            return refused(503)
        load = 1.0 + self._live.in_flight[scripted.name] / scripted.concurrency
        tokens = max(2, round(self._rng.lognormvariate(0.0, 0.6) * OUTPUT_TOKENS / 1.197))
        usage = event(usage={"prompt_tokens": INPUT_TOKENS, "completion_tokens": tokens, "total_tokens": 500 + tokens})
        quarter_s = (tokens - 1) * scripted.per_token_s * load / 4
        return Said(pieces=[scripted.first_token_s * load, *(WORD, quarter_s) * 4, STOP, usage, DONE])

    async def run(self, calls: int = CALLS, turns: int = 1) -> Outcome:
        """`calls` conversations of so many turns each; a turn follows ten seconds after the answer to the last."""
        tasks: set[asyncio.Task[None]] = set()
        arrivals = asyncio.ensure_future(self._arrive(calls, turns, tasks))
        while not arrivals.done() or tasks:
            for _ in range(3):  # woken, then run up to the next wait
                await asyncio.sleep(0)
            tasks -= {task for task in tasks if task.done()}
            self._clock.step()
        return self.outcome

    async def _arrive(self, calls: int, turns: int, tasks: set[asyncio.Task[None]]) -> None:
        for number in range(calls):
            await self._clock.sleep(self._rng.expovariate(RATE / turns))
            tasks.add(asyncio.ensure_future(self._converse(number, turns)))

    async def _converse(self, number: int, turns: int) -> None:
        messages = [{"role": "user", "content": f"{number:06}" + "x" * (INPUT_TOKENS * 4 - 50)}]
        for _ in range(turns):
            await self._call(number, list(messages))
            messages += [{"role": "assistant", "content": "x"}, {"role": "user", "content": "y"}]
            if turns > 1:
                await self._clock.sleep(10.0)

    async def _call(self, number: int, messages: Sequence[object]) -> None:
        asked = call(self._headers, model="auto", stream=True, messages=messages)
        started, delivery, outcome = self._clock.at, Delivery(), self.outcome
        decision = self._router.route(asked, PLAN, tenant="t", now=started)
        job = Job(asked, decision, 1024, self._deadlines.start(300.0), lambda: None, lambda _: {})
        try:
            await self._dispatcher.run(job, ListSink(), delivery)
        except GatewayError:
            outcome.failed += 1
            return
        finally:
            outcome.attempts += delivery.attempts
        assert delivery.target is not None
        assert delivery.usage is not None
        name, price = delivery.target.backend.name, delivery.target.model.price
        if number in self._last:
            outcome.turns += 1
            outcome.stayed += self._last[number] == name
        self._last[number] = name
        outcome.served[name] += 1
        outcome.seconds.append(self._clock.at - started)
        outcome.cost += sum(n * price[bucket] for bucket, n in delivery.usage.quantities.items()) / 1e6


def policies() -> None:
    names = [scripted.name for scripted in BACKENDS]
    print(f"| policy | {' | '.join(names)} | cost of 1,000 calls | p50, s | p95, s | attempts a call | failed |")
    print("|---" * (len(names) + 6) + "|")
    for policy, prefer in (*((policy, "") for policy in POLICIES), *(("balanced", prefer) for prefer in TERMS)):
        outcome = asyncio.run(Simulation(policy, prefer=prefer).run())
        total = outcome.served.total()
        cuts = quantiles(outcome.seconds, n=20)
        shares = " | ".join(f"{100 * outcome.served[name] / total:.0f} %" for name in names)
        cost = outcome.cost / 1e6 / total * 1000
        print(
            f"| {policy}{', prefer ' * bool(prefer)}{prefer} | {shares} | {cost:.2f} | {cuts[9]:.1f} | {cuts[18]:.1f} "
            f"| {outcome.attempts / CALLS:.2f} | {outcome.failed} |"
        )


def conversations() -> None:
    print("| policy | affinity | later turns that stay |\n|---|---|---|")
    for policy in ("weighted", "least_busy", "balanced"):
        for affinity in ("none", "prefix"):
            outcome = asyncio.run(Simulation(policy, affinity).run(calls=500, turns=6))
            print(f"| {policy} | {affinity} | {100 * outcome.stayed / outcome.turns:.1f} % |")


def decisions() -> None:
    print("| policy | 3 models, us | 300 models, us |\n|---|---|---|")
    for policy in POLICIES:
        print(f"| {policy} | {_decision_us(policy, 3):.1f} | {_decision_us(policy, 300):.1f} |")


def _decision_us(policy: str, models: int) -> float:
    """Of a route of three of them; the least of seven rounds."""
    affinity = "none" if policy == "ordered" else "prefix"
    many = config(
        [backend(f"b{number}") for number in range(models)],
        [model(f"m{number}", f"b{number}") for number in range(models)],
        [route("auto", "m0", "m1", "m2", policy=policy, affinity=affinity)],
    )
    router, asked = Router(many, random.Random(1), Live(Breaker())), call(model="auto")
    rounds = []
    for _ in range(7):
        started = time.perf_counter()
        for _ in range(DECISIONS):
            router.route(asked, PLAN, 100)
        rounds.append((time.perf_counter() - started) / DECISIONS * 1e6)
    return min(rounds)


if __name__ == "__main__":
    policies()
    print()
    conversations()
    print()
    decisions()
