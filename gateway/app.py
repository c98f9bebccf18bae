"""Composition root: Config -> parts that live long and a first generation -> a server that listens."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import logging
import random
import resource
import secrets
import socket
from collections.abc import Callable, Mapping
from typing import Any

from gateway.account.page import AccountPage
from gateway.account.view import Account
from gateway.admin.api import Admin
from gateway.backends.client import HttpClient
from gateway.cache.caches import Caches
from gateway.charging import rate_cards
from gateway.charging.admins import By
from gateway.charging.cutting import Statements
from gateway.charging.daily import Daily
from gateway.charging.directory import CLOSED
from gateway.charging.ledger import Ledger, open_ledger
from gateway.charging.reconcile import reconciled
from gateway.charging.store import real_path
from gateway.charging.why import why
from gateway.chores import Chores
from gateway.clock import Clock, LoopClock
from gateway.config.model import Config
from gateway.config.secrets import secrets_of
from gateway.deadline import Deadlines
from gateway.dispatch import RetryBudget
from gateway.draining import Drains
from gateway.edge import SWEEP_S, Edge
from gateway.errors import InvalidKey, NotFound, StoreUnavailable
from gateway.explain.asked import explained
from gateway.generation import Generation, Parts, left_over, made, taken_over
from gateway.keeping import Keeping
from gateway.kept.responses import SWEEP_EVERY_S, KeptResponses
from gateway.limits import Gates
from gateway.metrics import CacheGauges, LiveGauges, Metrics, TargetState
from gateway.once import Once
from gateway.recorder import Recorder
from gateway.reload import LOOK_S as RELOAD_LOOK_S
from gateway.reload import Reloader
from gateway.routing.health import LOOK_S, Health
from gateway.routing.live import Live
from gateway.server import Gateway
from gateway.status.page import StatusPage
from gateway.status.sections import View
from gateway.status.traffic import LOOK_EVERY_S, Traffic
from gateway.tokens import Tokenizer
from gateway.waiting import Waiting

_log = logging.getLogger("gateway.app")
EXPIRE_EVERY_S = 5.0
CHECKPOINT_EVERY_S = 5.0
RECONCILE_EVERY_S = 3600.0
DAILY_EVERY_S = 60.0
CUT_EVERY_S = 600.0  # a month that has ended is cut by the next look
MOST_LOGGED = 10  # differences of records and balances: the first say where to look
CACHE_SWEEP_S = 10.0
FAREWELL_S = 1.0  # for the error events of calls that a shutdown ends
OWN_FILES = 32  # the ledger, the event loop, standard streams, the listener
MANY_FILES = 1_000_000
EXPIRE_GRACE_MS = 60_000  # the wall clock may have jumped: a live call keeps its hold for another minute
LINGER_S = 0.5  # what connections without a call have for a last one, where new ones wait for the next process
LINGER_LOOK_S = 0.02


class App:
    """A running gateway. `port` is known after `start`; `aclose` lets calls end within the drain time."""

    def __init__(self, config: Config, *, log_call: Callable[[bytes], None] | None = None) -> None:
        self._config = config  # of the start; `_front.generation` has the one in force
        self._log_call = log_call
        self.metrics = Metrics()
        self.port = 0
        self._draining = self._hurried = False
        self._checks: list[asyncio.Task[None]] = []
        self._reloader: Reloader | None = None

    async def start(
        self, host: str | None = None, port: int | None = None, listener: socket.socket | None = None
    ) -> None:
        """`listener` listens already, and will when this process has ended.

        Raises LockHeld, StoreUnavailable, or OSError when it cannot listen; nothing is left open then.
        """
        config, clock = self._config, LoopClock(asyncio.get_running_loop())
        self._inherits = listener is not None
        async with contextlib.AsyncExitStack() as stack:
            self.ledger = await open_config_ledger(config, clock)
            stack.push_async_callback(self.ledger.aclose)
            parts = self._parts = self._made(clock)
            stack.push_async_callback(parts.caches.aclose)  # what a connection's end has not ended, before the ledger's
            kept = self._opened_responses(stack, clock)
            self._keeping = Keeping(kept)
            once = self._once = Once(clock)
            stack.push_async_callback(once.aclose)
            stack.push_async_callback(parts.client.aclose)
            chores = self._chores = Chores(clock)
            stack.push_async_callback(chores.aclose)
            reloader = self._reloader = self._made_reloader(parts)
            stack.push_async_callback(reloader.aclose)
            zone, currency = config.timezone, config.currency
            self._statements = Statements(self.ledger, ledger_path(config), zone, currency, clock)
            self._daily = Daily(self.ledger, ledger_path(config), zone)
            self._front = self._served(parts, reloader)
            self._check(reloader.generation)
            self._edge = Edge(self._front.handle, self._front.refuse, _most_connections())
            stack.push_async_callback(self._edge.aclose, FAREWELL_S)
            self.port = await self._edge.listen(
                host or config.server.host, config.server.port if port is None else port, listener
            )
            self._open = stack.pop_all()
        chores.every(SWEEP_S, "closing slow connections", self._edge.sweep)
        chores.every(CACHE_SWEEP_S, "expiring cached answers", parts.caches.sweep)
        chores.every(EXPIRE_EVERY_S, "expiring overdue holds", lambda: self._expire(clock.wall_ms()))
        chores.every(CHECKPOINT_EVERY_S, "noting how far streams are", self.ledger.checkpoint)
        chores.every(LOOK_S, "looking at the health of targets", lambda: parts.health.look(clock.now()))
        chores.every(RELOAD_LOOK_S, "watching routes.yaml", reloader.look)
        chores.keep(RECONCILE_EVERY_S, "reconciling the ledger", self.reconcile)
        chores.keep(DAILY_EVERY_S, "adding up usage by day", self._daily.catch_up)
        chores.keep(CUT_EVERY_S, "cutting statements", self._statements.cut_ended)
        if kept is not None:
            chores.keep(SWEEP_EVERY_S, "letting go of old responses", lambda: kept.sweep(self._closed))
        chores.once("loading the tokenizer", lambda: asyncio.to_thread(parts.tokenizer.load))

    def _closed(self, tenant: str) -> bool:
        """For good. Whom the ledger does not know, as it is another file than before, can ask for nothing either."""
        try:
            return self.ledger.tenant(tenant).status == CLOSED
        except NotFound:
            return True

    def _opened_responses(self, stack: contextlib.AsyncExitStack, clock: Clock) -> KeptResponses | None:
        """What is kept of `/v1/responses`, beside the ledger; None when nothing shall be."""
        settings = self._config.responses
        if settings is None:
            return None
        kept = KeptResponses(f"{ledger_path(self._config)}.responses", settings, clock, self.metrics.kept_response)
        stack.push_async_callback(kept.aclose)
        self.metrics.kept_bytes.set_function(lambda: kept.on_disk)
        return kept

    async def aclose(self) -> None:
        """Idempotent. Until calls have ended, readiness and metrics are still served, and new calls refused.

        With a listener that was handed in, new connections wait in it for the next process, and those that are open get
        a last call each.
        """
        self._draining = True
        drain_s = 0.0 if self._hurried else self._front.generation.config.server.drain_s
        _log.info("shutting down: calls under way (%d) have %g s", self.ledger.open_holds, drain_s)
        if self._inherits:
            self._edge.stop_listening()
            await self._last_calls(drain_s)
        else:
            self._front.draining = True
            await self._edge.drain(drain_s)
        self._front.draining = True
        self._parts.deadlines.end()  # what is left hears that we shut down
        await self._edge.drain(FAREWELL_S)
        await self._open.aclose()  # in the reverse order: the listener first, the ledger last

    def hurry(self) -> None:
        """An `aclose` under way, or the next one, waits for no call."""
        self._hurried = True
        if self._draining:
            self._edge.hurry()

    def reload_soon(self) -> None:
        """For a signal. What is changed during the start is found by the first looks."""
        if self._reloader is not None:
            self._reloader.soon()

    async def _last_calls(self, drain_s: float) -> None:
        """A client that has just connected, or is about to use a connection again, must not find it closed."""
        now = self._parts.clock.now
        quiet_since = now()
        until = quiet_since + drain_s
        while now() < until and not self._hurried:
            began = now()
            await self._edge.drain(until - began)
            if now() - began > LINGER_LOOK_S / 2:  # there was a call
                quiet_since = now()
            if not self._edge.connections or now() - quiet_since >= LINGER_S:
                break
            await asyncio.sleep(LINGER_LOOK_S)

    async def reconcile(self) -> None:
        """In a thread and nearly all of it in SQLite, so that calls go on. What cannot be read turns nothing red: the
        store that calls need says so itself."""
        try:
            differences = await asyncio.to_thread(reconciled, ledger_path(self._config), self._parts.clock.wall_ms())
        except StoreUnavailable as error:
            self.metrics.reconcile_differences.set(-1)
            _log.error("records and balances were not compared: %s", error)
            return
        self.metrics.reconcile_differences.set(len(differences))
        for difference in differences[:MOST_LOGGED]:
            _log.error("the ledger differs: %s", difference)

    def _expire(self, wall_ms: int) -> None:
        """No hold outlives its deadline without an owner; a grace, because the owner ends at the deadline."""
        if self.ledger.healthy:
            self.ledger.expire_overdue(wall_ms - EXPIRE_GRACE_MS)

    def _made(self, clock: Clock) -> Parts:
        """What lives as long as the process."""
        config, deadlines = self._config, Deadlines(clock)
        live = Live(config.breaker, lambda key, cause: self.metrics.openings.inc((*key, cause)))
        return Parts(
            clock=clock,
            rng=random.Random(),
            deadlines=deadlines,
            metrics=self.metrics,
            ledger=self.ledger,
            client=HttpClient(config.timeout.connect_s, clock, deadlines),
            live=live,
            health=Health(live),
            tenant_gates=Gates(clock),
            backend_gates=Gates(clock),
            tenant_waiting=Waiting(),
            caches=Caches(clock, random.Random()),
            backend_waiting=Waiting(),
            retry_budget=RetryBudget(),
            tokenizer=Tokenizer(),
            recorder=Recorder(self.metrics, top=config.tenant_label_top, log=self._log_call),
            next_charge_id=ids("ch"),
            drains=Drains(clock),
        )

    def _made_reloader(self, parts: Parts) -> Reloader:
        """With the first generation."""
        first = made(1, self._config, secrets_of(self._config), self.ledger.look(rate_cards.known), parts)
        for warning in left_over(self._config, self.ledger):
            _log.warning("%s", warning)
        taken_over(parts, None, first)
        return Reloader(first, parts, self._swap)

    def _served(self, parts: Parts, reloader: Reloader) -> Gateway:
        """All that is reached by a URL."""

        async def reload(by: By, request_id: str) -> dict[str, Any]:
            return (await reloader.reload(by, request_id)).value()

        async def explain(wish: Mapping[str, Any]) -> dict[str, Any]:
            generation = self._front.generation
            return await generation.explainer.explain(*explained(wish, generation.tenants.caller))

        admin = Admin(
            ledger=self.ledger,
            plans=lambda: self._front.generation.config.plans,
            packages=lambda: self._front.generation.config.packages,
            cards=lambda: self._front.generation.config.rate_cards,
            clock=parts.clock,
            reload=reload,
            explain=explain,
            why=functools.partial(why, ledger_path(self._config)),
            caches=parts.caches,
            statements=self._statements,
        )

        def verify(sent: str, remote: str) -> None:
            if admin.verify(sent, remote, self._front.generation.admin_key).tenant is not None:
                raise InvalidKey("The status page is for keys that see all tenants.")

        page = StatusPage(
            self._show(parts, reloader),
            verify,
            lambda: self._front.generation.admin_key is not None,
        )
        path, zone = ledger_path(self._config), self._config.timezone
        account = AccountPage(Account(self.ledger, path, zone, self._daily, parts.clock))
        return Gateway(
            reloader.generation,
            admin,
            self.metrics,
            page,
            account,
            reasons=self._not_ready,
            reloads=lambda: reloader.status,
            next_id=ids("req"),
            once=self._once,
            keeping=self._keeping,
        )

    def _swap(self, generation: Generation) -> None:
        self._front.generation = generation
        self._check(generation)

    def _check(self, generation: Generation) -> None:
        """The active checks of this generation, in place of those of the last."""
        for task in self._checks:
            self._chores.drop(task)
        self._checks = [
            self._chores.keep(checker.every_s, f"checking backend {checker.backend}", checker.look)
            for checker in generation.checkers
        ]

    def _show(self, parts: Parts, reloader: Reloader) -> Callable[[], View]:
        """What only a look at the running parts can tell; returns what the status page shows of it."""
        live, recorder = parts.live, parts.recorder

        def targets() -> list[TargetState]:
            now = parts.clock.now()
            keys = self._front.generation.targets
            return [TargetState(*key, live.of(key).in_flight, live.state(key, now)) for key in keys]

        def tenants() -> list[tuple[str, int]]:
            names = [account.id for account in self.ledger.tenants()] if self.ledger.healthy else []
            return [(label, self.ledger.available_uc(*of)) for label, of in recorder.by_label(names).items()]

        self.metrics.registry.register(LiveGauges(targets, tenants))
        self.metrics.registry.register(CacheGauges(parts.caches.states))
        self.metrics.spooled.set_function(lambda: self.ledger.spooled_bytes)
        self.metrics.ledger_available.set_function(lambda: self.ledger.healthy)
        self.metrics.ready.set_function(lambda: not self._not_ready())
        self.metrics.queued.labels("tenant").set_function(lambda: parts.tenant_waiting.count)
        self.metrics.queued.labels("backend").set_function(lambda: parts.backend_waiting.count)
        self.metrics.open_holds.set_function(lambda: self.ledger.open_holds)
        self.ledger.on_commit = recorder.committed
        traffic = Traffic(self.metrics, parts.clock)
        self._chores.every(LOOK_EVERY_S, "measuring traffic", traffic.look)

        def view() -> View:
            now, generation = traffic.now(), self._front.generation
            return View(
                config=generation.config,
                generation=generation.number,
                now_ms=parts.clock.wall_ms(),
                up_s=parts.clock.now() - traffic.started,
                not_ready=self._not_ready(),
                ledger_available=self.ledger.healthy,
                open_holds=self.ledger.open_holds,
                targets=targets(),
                tenants=tenants(),
                recent=traffic.recent(now),
                so_far=now,
                minutes=traffic.minutes(),
                caches=parts.caches.states(),
                reloaded=bool(reloader.status["last_reload_successful"]),
                waiting={"tenants": parts.tenant_waiting.count, "backends": parts.backend_waiting.count},
            )

        return view

    def _not_ready(self) -> list[str]:
        reasons = [] if self.ledger.serving else ["the ledger store is not available"]
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


def ledger_path(config: Config) -> str:
    return real_path(config.ledger.removeprefix("sqlite:"))


async def open_config_ledger(config: Config, clock: Clock) -> Ledger:
    """The ledger that routes.yaml names, with its rate cards in force and its static tenants in it."""
    tariffs, path = rate_cards.tariffs(config), ledger_path(config)
    exposure_uc = config.outage.exposure_uc if config.outage.when_down == "serve" else 0
    ledger = await open_ledger(path, clock, config.timezone, config.plans, tariffs, exposure_uc)
    for tenant in config.tenants.values():
        ledger.apply_plan(tenant.name, config.plans[tenant.plan])
    return ledger
