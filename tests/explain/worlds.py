"""Random gateways for the property that explain equals serving: configuration, tenants, backends' moods, calls."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any
from zoneinfo import ZoneInfo

import orjson

from gateway.app import ids
from gateway.backends.keys import Keys
from gateway.cache.caches import Caches
from gateway.cached import CachedCalls
from gateway.call import BUCKETS, Call, Request
from gateway.charging.in_force import unkept
from gateway.charging.ledger import Ledger
from gateway.charging.rate_cards import tariffs
from gateway.config.model import Config, Exhausted, Limits, Payg, Plan, PlanGrant, Retry, Timeout
from gateway.deadline import Deadlines
from gateway.dispatch import Dispatcher, RetryBudget
from gateway.draining import Drains
from gateway.explain.explainer import Explainer
from gateway.limits import Gate, Gates
from gateway.metrics import Metrics
from gateway.parse import PREFER
from gateway.pipeline import Pipeline
from gateway.recorder import Recorder
from gateway.routing.live import Live
from gateway.routing.router import Decision, Router
from gateway.tenants import Caller, Tenants
from gateway.tokens import Tokenizer
from gateway.waiting import Waiting
from tests.virtual import (
    BROKEN,
    CONNECT,
    OK,
    FakeClient,
    Said,
    Sent,
    VirtualClock,
    backend,
    config,
    model,
    refused,
    require,
    route,
    whole,
)

POLICIES = ("balanced", "cheapest", "fastest", "best", "weighted", "ordered", "least_busy")
REGIONS = ("north", "south", "abroad")
TAGS = ("chat", "code", "cheap")
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
IMAGE = [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]


class RecordingRouter(Router):
    """Keeps what serving decided."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.decisions: list[Decision] = []

    def route(self, call: Call, plan: Plan, needed: int | None = None, **more: Any) -> Decision:
        decision = super().route(call, plan, needed, **more)
        self.decisions.append(decision)
        return decision


class Gateway:
    """A pipeline with an explainer over the same parts."""

    def __init__(self, settings: Config, ledger: Ledger, clock: VirtualClock, rng: random.Random) -> None:
        chance = random.Random(rng.random())
        cards = unkept(tariffs(settings), ZoneInfo("UTC"), version=1)
        self.config, self.ledger, self.clock = settings, ledger, clock
        self.mood = rng
        self.others: list[tuple[tuple[str, str], bool]] = []
        self.live, self.rng = Live(settings.breaker), random.Random(rng.random())
        self.client = FakeClient(clock, self._say)
        self.gates, self.backend_gates = Gates(clock), Gates(clock)
        self.router = RecordingRouter(settings, self.rng, self.live)
        tokenizer, metrics, caches = Tokenizer(), Metrics(), Caches(clock, chance)
        caches.configure(settings.caches.values())
        self.pipeline = Pipeline(
            config=settings,
            cards=cards,
            tenants=Tenants(settings.plans, {}, ledger),
            gates=self.gates,
            waiting=Waiting(),
            router=self.router,
            dispatcher=Dispatcher(
                client=self.client,
                keys={name: Keys((), clock) for name in settings.backends},
                live=self.live,
                gates=self.backend_gates,
                timeout=settings.timeout,
                retry=settings.retry,
                clock=clock,
                rng=chance,
                attempted=metrics.attempted,
                budget=RetryBudget(),
                waiting=Waiting(),
            ),
            ledger=ledger,
            tokenizer=tokenizer,
            recorder=Recorder(metrics, top=50, log=None),
            clock=clock,
            deadlines=Deadlines(clock),
            next_charge_id=ids("ch"),
            cached=CachedCalls(
                config=settings,
                cards=cards,
                caches=caches,
                ledger=ledger,
                clock=clock,
                next_charge_id=ids("ch"),
                drains=Drains(clock),
            ),
        )
        self.explainer = Explainer(
            config=settings,
            cards=cards,
            generation=1,
            router=self.router,
            gates=self.gates,
            backend_gates=self.backend_gates,
            purse=ledger,
            tokenizer=tokenizer,
            clock=clock,
            caches=caches,
        )

    def _say(self, sent: Sent) -> Said:
        mood = self.mood.random()
        if mood < 0.7:
            return Said(pieces=[whole(tokens=self.mood.randint(1, 400))], before=self.mood.uniform(0.01, 3.0))
        return OK if mood < 0.75 else self.mood.choice([BROKEN, CONNECT, refused(503), refused(429)])

    def unsettle(self) -> None:
        """Other calls begin and end."""
        rng = self.mood
        keys = [(via.backend, one.name) for one in self.config.models.values() for via in one.via]
        if rng.random() < 0.3:
            key = rng.choice(keys)
            self.others.append((key, self.live.began(key, self.clock.now())))
        if self.others and rng.random() < 0.2:
            key, probe = self.others.pop(rng.randrange(len(self.others)))
            if rng.random() < 0.5:
                self.live.failed(key, began=self.clock.now(), now=self.clock.now())
            self.live.ended(key, probe)

    def state(self) -> dict[str, Any]:
        """All that a call may change, to be compared."""
        image = self.ledger._image
        return {
            "chance": self.rng.getstate(),
            "measures": {key: _slots(measures) for key, measures in self.live._measures.items()},
            "breakers": {key: _slots(measures.breaker) for key, measures in self.live._measures.items()},
            "outputs": dict(self.live._outputs),
            "in flight": dict(self.live.in_flight),
            "troubled": set(self.live.troubled),
            "affinity": dict(self.live.affinity._places),
            "gates": {name: _gate(gate) for name, gate in self.gates._gates.items()},
            "backends": {name: _gate(gate) for name, gate in self.backend_gates._gates.items()},
            "grants": {name: _slots(grant) for name, grant in image.grants.items()},
            "accounts": {name: (account.debt_uc, account.settled_uc) for name, account in image.accounts.items()},
            "holds": (set(image.holds), set(image.young), set(image.closed), image.next_seq),
            "unwritten": len(image.changes.entries),
            "timers": self.clock.armed,
            "sent": len(self.client.sent),
        }


def _slots(value: Any) -> dict[str, Any]:
    names = [name for cls in type(value).__mro__ for name in getattr(cls, "__slots__", ())]
    return {name: getattr(value, name) for name in names if name not in ("breaker", "_settings")}


def _gate(gate: Gate) -> tuple[Any, ...]:
    return gate.in_flight, *(None if b is None else (b.level, b._at, b.capacity) for b in (gate.rpm, gate.tpm))


def random_config(rng: random.Random) -> Config:
    backends = [
        backend(
            f"b{number}",
            region=rng.choice((None, *REGIONS)),
            chip=rng.choice((None, "h20")),
            tags=_some(rng, TAGS),
            limits=Limits(rpm=rng.choice((None, None, 3)), concurrency=rng.choice((None, 1, 50))),
        )
        for number in range(rng.randint(1, 5))
    ]
    models = [_model(rng, f"m{number}", [b.name for b in backends]) for number in range(rng.randint(1, 5))]
    names = [m.name for m in models]
    routes = [
        route(
            f"r{number}",
            *(_some(rng, names) or names),
            policy=rng.choice(POLICIES),
            affinity=rng.choice(("none", "session", "prefix")),
            weigh=rng.choice(({}, {"cost": 1.0}, {"latency": 0.5, "quality": 0.5})),
            require=require(region=_some(rng, REGIONS)) if rng.random() < 0.3 else require(),
            fallback_error=_some(rng, names) if rng.random() < 0.5 else (),
            fallback_context=_some(rng, names) if rng.random() < 0.5 else (),
        )
        for number in range(3)
    ]
    aliases = {"nick": rng.choice([*names, "r0"])}
    return config(backends, models, routes, aliases=aliases, timeout=Timeout(3, 30, 30, 300), retry=Retry(3, 0.2, 5.0))


def _model(rng: random.Random, name: str, backends: Sequence[str]) -> Any:
    price = dict.fromkeys(BUCKETS, rng.choice((0, 500_000, 1_000_000, 1_005_000, 8_000_000)))
    rates = dict.fromkeys(BUCKETS, rng.choice((0, 1_000_000, 3_000_000))) | {"calls": rng.choice((0, 5_000_000))}
    chosen = _some(rng, backends) or backends
    return model(
        name,
        *((one, rng.randint(1, 4)) for one in chosen),
        context=rng.choice((300, 2_000, 128_000)),
        max_output=rng.choice((64, 300)),
        price=price,
        rates=rates,
        quality=rng.choice((0.3, 0.5, 0.51, 0.9)),
        can=rng.choice((None, None, frozenset({"tools", "json", "vision"}), frozenset())),
        tags=_some(rng, TAGS),
        endpoints=rng.choice((frozenset({"chat", "completions"}), frozenset({"chat", "completions", "embeddings"}))),
    )


def random_callers(rng: random.Random, settings: Config) -> list[Caller]:
    names = [*settings.models, *settings.routes, *TAGS]
    callers = []
    for number in range(3):
        plan = Plan(
            f"plan{number}",
            grants=(PlanGrant(rng.choice((9_000_000, 900_000_000, 1_000_000_000_000, 1_000_000_000_000))),),
            limits=Limits(rpm=rng.choice((None, 5)), tpm=rng.choice((None, 2_000)), concurrency=rng.choice((None, 8))),
            allow=rng.choice((None, None, None, frozenset(_some(rng, names)))),
            max_output=rng.choice((None, 50)),
            exhausted=_exhausted(rng, [*settings.models, *settings.routes]),
        )
        callers.append(Caller(f"t{number}", plan, (f"t{number}",)))
    return callers


def _exhausted(rng: random.Random, names: Sequence[str]) -> Exhausted:
    return Exhausted(
        payg=rng.choice((None, None, Payg(1_000_000, 50), Payg(1_000_000, 500))),
        downgrade=rng.choice((None, *names)),
        throttle=rng.choice((None, Limits(rpm=2), Limits(tpm=500), Limits(concurrency=1))),
    )


def random_request(rng: random.Random, settings: Config) -> Request:
    endpoint = rng.choice(("chat", "chat", "chat", "chat", "completions", "embeddings"))
    names = [*[*settings.routes] * 4, *[*settings.models] * 2, "nick", "nobody"]
    body: dict[str, Any] = {"model": rng.choice(names)}
    text = "word " * rng.choice((1, 10, 10, 100, 300, 2000))
    if endpoint == "chat":
        body["messages"] = _messages(rng, text)
    else:
        body["prompt" if endpoint == "completions" else "input"] = rng.choice((text, [text, "two"], [1, 2, 3]))
    extras: dict[str, Any] = {
        "tools": TOOLS, "response_format": {"type": "json_object"}, "n": 2, "max_tokens": 20, "user": "u1",
        "temperature": 0.7, "messages": 5, "stream": "yes",
    }  # fmt: skip
    body |= {n: value for n, value in extras.items() if rng.random() < (0.01 if n in ("messages", "stream") else 0.1)}
    headers = {"x-session-id": f"s{rng.randint(1, 3)}"} if rng.random() < 0.4 else {}
    if rng.random() < 0.3:
        headers["x-moma-prefer"] = rng.choice((*PREFER * 3, "speed"))
    return Request("req-1", endpoint, headers, orjson.dumps(body))


def _messages(rng: random.Random, text: str) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = [{"role": "user", "content": rng.choice((text, text, text, IMAGE))}]
    if rng.random() < 0.5:
        messages += [{"role": "assistant", "content": "yes"}, {"role": "user", "content": "go on"}]
    return messages


def _some(rng: random.Random, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in names if rng.random() < 0.5)
