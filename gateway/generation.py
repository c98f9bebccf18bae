"""One generation of routes.yaml and all that is made of it, over the parts that live as long as the process."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from gateway.backends.client import HttpClient
from gateway.backends.keys import Keys
from gateway.cache.caches import Caches
from gateway.cached import CachedCalls
from gateway.charging import rate_cards
from gateway.charging.in_force import Cards
from gateway.charging.ledger import Ledger
from gateway.charging.offers import CARDS
from gateway.checks import Checker
from gateway.clock import Clock
from gateway.config.model import Backend, Config, Limits
from gateway.config.secrets import Secrets
from gateway.deadline import Deadlines
from gateway.dispatch import Dispatcher, RetryBudget
from gateway.draining import Drains
from gateway.errors import NotFound
from gateway.explain.explainer import Explainer
from gateway.limits import Gates
from gateway.metrics import Metrics
from gateway.pipeline import Pipeline
from gateway.recorder import Recorder
from gateway.routing.health import Health
from gateway.routing.live import Live
from gateway.routing.router import Router
from gateway.tenants import Tenants
from gateway.tokens import Tokenizer
from gateway.waiting import Waiting

MAX_NAMED = 20  # tenants in one line of the log
Target = tuple[str, str]  # backend and model, as `Live` counts them


@dataclass(frozen=True)
class Parts:
    """What survives each change of routes.yaml: what is counted, learnt, open or durable."""

    clock: Clock
    rng: random.Random
    deadlines: Deadlines
    metrics: Metrics
    ledger: Ledger
    client: HttpClient
    live: Live
    health: Health
    tenant_gates: Gates
    backend_gates: Gates
    tenant_waiting: Waiting
    caches: Caches
    backend_waiting: Waiting
    retry_budget: RetryBudget
    tokenizer: Tokenizer
    recorder: Recorder
    next_charge_id: Callable[[], str]
    drains: Drains


@dataclass(frozen=True)
class Generation:
    """Immutable, and replaced as a whole: a call ends on the one that it began on."""

    number: int
    config: Config
    secrets: Secrets
    cards: Cards = field(repr=False)
    keys: dict[str, Keys] = field(repr=False)  # by backend
    tenants: Tenants = field(repr=False)
    pipeline: Pipeline = field(repr=False)
    explainer: Explainer = field(repr=False)
    checkers: tuple[Checker, ...] = field(repr=False)

    @property
    def admin_key(self) -> str | None:
        return self.secrets.of(self.config.server.admin_key)

    @property
    def metrics_key(self) -> str | None:
        return self.secrets.of(self.config.server.metrics_key)

    @property
    def targets(self) -> list[Target]:
        return [(via.backend, model.name) for model in self.config.models.values() for via in model.via]


def made(
    number: int, config: Config, secrets: Secrets, cards: Cards, parts: Parts, before: Generation | None = None
) -> Generation:
    """Changes nothing yet. The keys of backends rest as they do in the generation `before`."""
    keys = {name: _keys(secrets.keys_of(backend), name, parts, before) for name, backend in config.backends.items()}
    static = {hashed: tenant.name for tenant in config.tenants.values() for hashed in tenant.key_hashes}
    tenants, router = Tenants(config.plans, static, parts.ledger), Router(config, parts.rng, parts.live)
    cached = CachedCalls(
        config=config,
        cards=cards,
        caches=parts.caches,
        ledger=parts.ledger,
        clock=parts.clock,
        next_charge_id=parts.next_charge_id,
        drains=parts.drains,
    )
    pipeline = Pipeline(
        config=config,
        cards=cards,
        tenants=tenants,
        gates=parts.tenant_gates,
        waiting=parts.tenant_waiting,
        router=router,
        dispatcher=_dispatcher(config, keys, parts),
        ledger=parts.ledger,
        tokenizer=parts.tokenizer,
        recorder=parts.recorder,
        clock=parts.clock,
        deadlines=parts.deadlines,
        next_charge_id=parts.next_charge_id,
        cached=cached,
    )
    explainer = Explainer(
        config=config,
        cards=cards,
        generation=number,
        router=router,
        gates=parts.tenant_gates,
        backend_gates=parts.backend_gates,
        purse=parts.ledger,
        tokenizer=parts.tokenizer,
        clock=parts.clock,
        caches=parts.caches,
    )
    checkers = tuple(_checkers(config, keys, parts))
    return Generation(number, config, secrets, cards, keys, tenants, pipeline, explainer, checkers)


def _dispatcher(config: Config, keys: dict[str, Keys], parts: Parts) -> Dispatcher:
    return Dispatcher(
        client=parts.client,
        keys=keys,
        live=parts.live,
        gates=parts.backend_gates,
        timeout=config.timeout,
        retry=config.retry,
        clock=parts.clock,
        rng=parts.rng,
        attempted=parts.metrics.attempted,
        budget=parts.retry_budget,
        waiting=parts.backend_waiting,
    )


def _checkers(config: Config, keys: dict[str, Keys], parts: Parts) -> Iterable[Checker]:
    for name, backend in config.backends.items():
        if (check := backend.check) is not None:
            yield Checker(backend, check, parts.client, keys[name], parts.health, parts.clock, parts.deadlines)


def _keys(values: tuple[str, ...], name: str, parts: Parts, before: Generation | None) -> Keys:
    known = before.keys.get(name) if before is not None else None
    return Keys(values, parts.clock) if known is None else known.renewed(values)


def taken_over(parts: Parts, old: Generation | None, new: Generation) -> None:
    """The long-lived parts follow a new generation. Synchronous: the swap stands next to it."""
    config, anew = new.config, set() if old is None else _reached_anew(old, new)
    parts.live.follow(config.breaker, set(new.targets), anew, _routes(config), parts.clock.now())
    parts.health.follow(config.breaker, new.targets)
    parts.tenant_waiting.follow(config.queue)
    parts.backend_waiting.follow(config.queue)
    parts.caches.configure(config.caches.values())
    parts.tenant_gates.follow(lambda name: _limits_of_tenant(new.tenants, name))
    parts.backend_gates.follow(lambda name: config.backends[name].limits if name in config.backends else None)
    parts.backend_gates.keep(config.backends)
    parts.client.follow(config.timeout.connect_s, [backend.base_url for backend in config.backends.values()])


def _limits_of_tenant(tenants: Tenants, name: str) -> Limits | None:
    """None for a key, whose limits are in the ledger."""
    try:
        return tenants.caller(name).plan.limits
    except NotFound:
        return None


def left_over(config: Config, ledger: Ledger) -> list[str]:
    """A warning for all that the ledger needs and routes.yaml has not."""
    return [*without_plan(config, ledger), *_without_card(config, ledger)]


def _without_card(config: Config, ledger: Ledger) -> list[str]:
    return [
        f"rate card {card} is not in routes.yaml: it is sold no more, and its last version goes on for what was sold on"
        f" it: {_some(tenants)}"
        for card, tenants in ledger.look(rate_cards.users).items()
        if card not in config.rate_cards and card not in CARDS
    ]


def without_plan(config: Config, ledger: Ledger) -> list[str]:
    """A warning for each plan that tenants of the ledger have and routes.yaml has not."""
    left: dict[str, list[str]] = {}
    for account in ledger.tenants():
        if account.plan not in config.plans:
            left.setdefault(account.plan, []).append(account.id)
    return [
        f"plan {plan} is not in routes.yaml, so its tenants may call nothing: {_some(names)}. Put the plan back, or"
        " list the tenants there with another."
        for plan, names in left.items()
    ]


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more


def _routes(config: Config) -> set[str]:
    return {*config.models, *config.routes}


def _reached_anew(old: Generation, new: Generation) -> set[Target]:
    """Targets of the same name behind which there may be something else: what was learnt of them is of no use."""
    ways = [
        {
            (via.backend, model.name): (via.as_name, _way(one.config.backends[via.backend], one.secrets))
            for model in one.config.models.values()
            for via in model.via
        }
        for one in (old, new)
    ]
    return {target for target, way in ways[1].items() if ways[0].get(target, way) != way}


def _way(backend: Backend, secrets: Secrets) -> tuple[object, ...]:
    keys = secrets.keys_of(backend)
    return backend.kind, backend.base_url, backend.api_version, backend.headers, backend.quirks, keys
