"""An explainer without a gateway: routes.yaml alone, and what a ledger's file says of the tenants."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from gateway.charging import directory
from gateway.charging.image import Image
from gateway.charging.in_force import unkept
from gateway.charging.preview import Terms, terms
from gateway.charging.rate_cards import tariffs
from gateway.charging.rating import Quote
from gateway.clock import Clock
from gateway.config.model import Config, Plan
from gateway.errors import NotFound
from gateway.explain.explainer import Explainer
from gateway.limits import Gates
from gateway.routing.breaker import FAILURES_IN_A_ROW
from gateway.routing.live import Live
from gateway.routing.router import Router
from gateway.tenants import Caller
from gateway.tokens import Tokenizer

T = TypeVar("T")


class Offline:
    """State: an image of the ledger that nobody writes, the live state, and the gates of backends."""

    def __init__(self, config: Config, clock: Clock, tokenizer: Tokenizer, image: Image | None = None) -> None:
        self._config = config
        self._clock = clock
        self._tokenizer = tokenizer
        self._image = image or Image(config.plans, ZoneInfo(config.timezone))
        for tenant in config.tenants.values():
            self.admit(tenant.name, config.plans[tenant.plan])
        self._live = Live(config.breaker)
        self._backend_gates = Gates(clock)

    def explainer(self, rng: random.Random) -> Explainer:
        return Explainer(
            config=self._config,
            cards=unkept(tariffs(self._config), self._image.zone, self._image.cards),
            generation=None,
            router=Router(self._config, rng, self._live),
            gates=Gates(self._clock),
            backend_gates=self._backend_gates,
            purse=_Purse(self._image, self._clock),
            tokenizer=self._tokenizer,
            clock=self._clock,
            caches=None,
        )

    def fail(self, backend: str, model: str) -> None:
        """As many failures as open the breaker of a target."""
        key, now = (backend, model), self._clock.now()
        for _ in range(FAILURES_IN_A_ROW):
            self._live.ended(key, self._live.began(key, now))
            self._live.failed(key, began=now, now=now)

    def fill(self, backend: str) -> None:
        """A backend at each of its limits."""
        gate = self._backend_gates.of(backend, self._config.backends[backend].limits)
        gate.in_flight = gate.concurrency or 0
        for bucket in (gate.rpm, gate.tpm):
            if bucket is not None:
                bucket.level = 0.0

    def admit(self, tenant: str, plan: Plan) -> None:
        """A tenant with this plan, and what the plan grants, as at a start."""
        directory.apply_plan(self._image, tenant, plan, self._clock.wall_ms())

    def caller(self, tenant: str) -> Caller:
        """Raises NotFound."""
        account = self._image.accounts.get(tenant)
        if account is None:
            known = ", ".join(list(self._image.accounts)[:12]) or "none"
            raise NotFound(f"no tenant {tenant[:64]!r} in routes.yaml or the ledger; known: {known}")
        plan = self._config.plans.get(account.plan) or Plan(account.plan, allow=frozenset(), gone=True)
        return Caller(account.id, plan, account.path)


class _Purse:
    def __init__(self, image: Image, clock: Clock) -> None:
        self._image = image
        self._clock = clock

    def preview(self, quote: Quote, *, clamp: bool) -> Terms:
        return terms(self._image, quote, self._clock.wall_ms(), clamp=clamp)

    def look(self, read: Callable[..., T], *asked: Any) -> T:
        return read(self._image, *asked, self._clock.wall_ms())
