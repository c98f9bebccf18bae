"""Composition root: Config -> components -> a server that listens. Nothing else knows how the parts are made."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
import resource
import secrets
from collections.abc import Callable

from aiohttp import web

from gateway.admin import Admin
from gateway.backends.client import HttpClient
from gateway.backends.keys import Keys
from gateway.charging.ledger import Ledger, open_ledger
from gateway.chores import Chores
from gateway.clock import Clock, LoopClock
from gateway.config.load import resolve
from gateway.config.model import Config, Plan
from gateway.deadline import Deadlines
from gateway.dispatch import Dispatcher
from gateway.edge import SWEEP_S, Edge
from gateway.limits import Gates
from gateway.metrics import LiveGauges, Metrics, TargetState
from gateway.pipeline import Pipeline
from gateway.recorder import Recorder
from gateway.routing.live import Live
from gateway.routing.router import Router
from gateway.server import Gateway
from gateway.status.page import StatusPage
from gateway.status.sections import View
from gateway.status.traffic import LOOK_EVERY_S, Traffic
from gateway.tenants import Caller, Tenants
from gateway.tokens import Tokenizer

_log = logging.getLogger("gateway.app")
EXPIRE_EVERY_S = 5.0
FAREWELL_S = 1.0  # for the error events of calls that a shutdown ends
OWN_FILES = 32  # the ledger, the event loop, standard streams, the listener
MANY_FILES = 1_000_000
EXPIRE_GRACE_MS = 60_000  # the wall clock may have jumped: a live call keeps its hold for another minute
MAX_NAMED = 20  # tenants in one line of the log


class App:
    """A running gateway. `port` is known after `start`; `aclose` lets calls end within the drain time."""

    def __init__(self, config: Config, *, log_call: Callable[[bytes], None] | None = None) -> None:
        self._config = config
        self._log_call = log_call
        self.metrics = Metrics()
        self.port = 0
        self._draining = self._hurried = False

    async def start(self, host: str | None = None, port: int | None = None) -> None:
        """Raises LockHeld, StoreUnavailable, or OSError when it cannot listen; nothing is left open then."""
        config, clock = self._config, LoopClock(asyncio.get_running_loop())
        deadlines = self._deadlines = Deadlines(clock)
        async with contextlib.AsyncExitStack() as stack:
            self.ledger = await open_config_ledger(config, clock)
            stack.push_async_callback(self.ledger.aclose)
            self.ledger.on_commit = self.metrics.committed
            self.metrics.open_holds.set_function(lambda: self.ledger.open_holds)
            self.metrics.ledger_available.set_function(lambda: self.ledger.healthy)
            self.metrics.ready.set_function(lambda: not self._not_ready())
            self.metrics.generation.set(1)
            self._tokenizer = Tokenizer()
            self._client = HttpClient(config.timeout.connect_s, clock, deadlines)
            stack.push_async_callback(self._client.aclose)
            chores = self._chores = Chores(clock)
            stack.push_async_callback(chores.aclose)
            self._front = self._gateway(clock, deadlines)
            self._edge = Edge(self._front.handle, self._front.refuse, _most_connections())
            self._runner = web.ServerRunner(self._edge, shutdown_timeout=FAREWELL_S)
            stack.push_async_callback(self._runner.cleanup)
            await self._runner.setup()
            site = web.TCPSite(
                self._runner, host or config.server.host, config.server.port if port is None else port, backlog=1024
            )
            await site.start()
            self._parts = stack.pop_all()
        self.port = self._runner.addresses[0][1]
        chores.every(SWEEP_S, "closing slow connections", self._edge.sweep)
        chores.every(EXPIRE_EVERY_S, "expiring overdue holds", lambda: self._expire(clock.wall_ms()))
        chores.once("loading the tokenizer", lambda: asyncio.to_thread(self._tokenizer.load))

    async def aclose(self) -> None:
        """Idempotent. Until calls have ended, readiness, metrics and refusals are still served."""
        self._draining = self._front.draining = True
        await self._edge.drain(0.0 if self._hurried else self._config.server.drain_s)
        self._deadlines.end()  # what is left hears that we shut down
        await self._edge.drain(FAREWELL_S)
        await self._parts.aclose()  # in the reverse order: the listener first, the ledger last

    def hurry(self) -> None:
        """An `aclose` under way, or the next one, waits for no call."""
        self._hurried = True
        if self._draining:
            self._edge.hurry()

    def _expire(self, wall_ms: int) -> None:
        """No hold outlives its deadline without an owner; a grace, because the owner ends at the deadline."""
        if self.ledger.healthy:
            self.ledger.expire_overdue(wall_ms - EXPIRE_GRACE_MS)

    def _gateway(self, clock: Clock, deadlines: Deadlines) -> Gateway:
        config, rng = self._config, random.Random()
        tenants = directory(config, self.ledger)
        for warning in without_plan(config, self.ledger):
            _log.warning("%s", warning)
        live = Live(config.breaker)
        recorder = Recorder(self.metrics, top=config.tenant_label_top, log=self._log_call)
        view = self._show(clock, live, recorder)
        pipeline = Pipeline(
            config=config,
            generation=1,
            tenants=tenants,
            gates=Gates(clock),
            router=Router(config, rng, live),
            dispatcher=self._dispatcher(clock, rng, live),
            ledger=self.ledger,
            tokenizer=self._tokenizer,
            recorder=recorder,
            clock=clock,
            deadlines=deadlines,
            next_charge_id=ids("ch"),
        )
        key = config.server.admin_key
        admin = Admin(
            key=resolve(key) if key else None, ledger=self.ledger, tenants=tenants, plans=config.plans, clock=clock
        )
        metrics_key = config.server.metrics_key
        return Gateway(
            pipeline,
            admin,
            self.metrics,
            StatusPage(view, admin.verify, lambda: key is not None),
            max_body=config.server.max_body,
            metrics_key=resolve(metrics_key) if metrics_key else None,
            reasons=self._not_ready,
            next_id=ids("req"),
        )

    def _show(self, clock: Clock, live: Live, recorder: Recorder) -> Callable[[], View]:
        """What only a look at the running parts can tell; returns what the status page shows of it."""
        keys = [(via.backend, model.name) for model in self._config.models.values() for via in model.via]

        def targets() -> list[TargetState]:
            return [TargetState(*key, live.of(key).in_flight, live.state(key, clock.now())) for key in keys]

        def tenants() -> list[tuple[str, int]]:
            names = [account.id for account in self.ledger.tenants()] if self.ledger.healthy else []
            return [(label, self.ledger.available_uc(*of)) for label, of in recorder.by_label(names).items()]

        self.metrics.registry.register(LiveGauges(targets, tenants))
        self.ledger.on_expired = recorder.expired
        traffic = Traffic(self.metrics, clock)
        if self._config.server.admin_key:  # else nobody may look
            self._chores.every(LOOK_EVERY_S, "measuring traffic", traffic.look)

        def view() -> View:
            now = traffic.now()
            return View(
                config=self._config,
                generation=1,
                now_ms=clock.wall_ms(),
                up_s=clock.now() - traffic.started,
                not_ready=self._not_ready(),
                ledger_available=self.ledger.healthy,
                open_holds=self.ledger.open_holds,
                targets=targets(),
                tenants=tenants(),
                recent=traffic.recent(now),
                so_far=now,
                minutes=traffic.minutes(),
            )

        return view

    def _dispatcher(self, clock: Clock, rng: random.Random, live: Live) -> Dispatcher:
        keys = {
            name: Keys(tuple(value for secret in backend.keys if (value := resolve(secret))), clock)
            for name, backend in self._config.backends.items()
        }
        return Dispatcher(
            client=self._client,
            keys=keys,
            live=live,
            gates=Gates(clock),
            timeout=self._config.timeout,
            retry=self._config.retry,
            clock=clock,
            rng=rng,
            attempted=self.metrics.attempted,
        )

    def _not_ready(self) -> list[str]:
        reasons = [] if self.ledger.healthy else ["the ledger store is not available"]
        reasons += [f"{name} fails" for name in self._chores.down]
        return [*reasons, "shutting down"] if self._draining else reasons


def _most_connections() -> int:
    """Half of the files that this process may open: each call takes a connection in and one out."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, (soft - OWN_FILES) // 2) if soft != resource.RLIM_INFINITY else MANY_FILES


def ids(kind: str) -> Callable[[], str]:
    """Ids of a random process prefix and a counter: unique without a call to the system per id."""
    prefix, counter = secrets.token_hex(8), itertools.count(1)
    return lambda: f"{kind}-{prefix}-{next(counter)}"


async def open_config_ledger(config: Config, clock: Clock) -> Ledger:
    """The ledger that routes.yaml names, with its rates in force and its static tenants in it."""
    rates = {name: model.rates for name, model in config.models.items()}
    ledger = await open_ledger(config.ledger.removeprefix("sqlite:"), clock, config.timezone, config.plans, rates)
    for tenant in config.tenants.values():
        ledger.apply_plan(tenant.name, config.plans[tenant.plan])
    return ledger


def directory(config: Config, ledger: Ledger) -> Tenants:
    """Tenants and keys of the ledger and of routes.yaml. Whoever has no plan any more may call nothing."""
    tenants = Tenants()
    for account in ledger.tenants():
        plan = config.plans.get(account.plan) or Plan(account.plan, allow=frozenset(), gone=True)
        tenants.put(Caller(account.id, plan, account.path))
        for key in ledger.keys(account.id):
            if key.revoked_ms is None:
                tenants.put_key(key.key_hash, key.tenant, key.expires_ms)
    for static in config.tenants.values():
        for hashed in static.key_hashes:
            tenants.put_key(hashed, static.name)
    return tenants


def without_plan(config: Config, ledger: Ledger) -> list[str]:
    """A warning for each plan that tenants of the ledger have and routes.yaml has not."""
    left: dict[str, list[str]] = {}
    for account in ledger.tenants():
        if account.plan not in config.plans:
            left.setdefault(account.plan, []).append(account.id)
    return [
        f"plan {plan} is not in routes.yaml, so its tenants may call nothing: {', '.join(names[:MAX_NAMED])}"
        f"{f' and {len(names) - MAX_NAMED} more' if len(names) > MAX_NAMED else ''}. Put the plan back, or list the"
        " tenants there with another."
        for plan, names in left.items()
    ]
