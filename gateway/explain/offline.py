"""An explainer without a gateway: routes.yaml alone, and what a ledger's file says of the tenants."""

from __future__ import annotations

import random
from zoneinfo import ZoneInfo

from gateway.charging import directory
from gateway.charging.image import Image
from gateway.charging.preview import Terms, terms
from gateway.charging.rating import Quote
from gateway.clock import Clock
from gateway.config.model import Config, Plan
from gateway.errors import NotFound
from gateway.explain.explainer import Explainer
from gateway.limits import Gates
from gateway.routing.live import Live
from gateway.routing.router import Router
from gateway.tenants import Caller
from gateway.tokens import Tokenizer


class Offline:
    """State: an image of the ledger that nobody writes, the live state, and the gates of backends."""

    def __init__(
        self, config: Config, clock: Clock, tokenizer: Tokenizer, rng: random.Random, image: Image | None = None
    ) -> None:
        self._config = config
        self._clock = clock
        self._image = image or Image(config.plans, ZoneInfo(config.timezone))
        for tenant in config.tenants.values():
            self.admit(tenant.name, config.plans[tenant.plan])
        self.live = Live(config.breaker)
        self.backend_gates = Gates(clock)
        self.explainer = Explainer(
            config=config,
            generation=None,
            router=Router(config, rng, self.live),
            gates=Gates(clock),
            backend_gates=self.backend_gates,
            purse=_Purse(self._image, clock),
            tokenizer=tokenizer,
            clock=clock,
        )

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
    card_version = 0

    def __init__(self, image: Image, clock: Clock) -> None:
        self._image = image
        self._clock = clock

    def preview(self, quote: Quote, *, clamp: bool) -> Terms:
        return terms(self._image, quote, self._clock.wall_ms(), clamp=clamp)
