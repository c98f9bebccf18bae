"""From the name a client asked for to an ordered list of targets, with the reason. Pure: no I/O, no clock."""

from __future__ import annotations

import copy
import random
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.adapters.adapter import Adapter
from gateway.adapters.kinds import adapter_of, takes_all
from gateway.call import Call
from gateway.config.model import Config, Model, Plan, Route
from gateway.dialects.known import DIALECTS
from gateway.errors import ContextTooLong, GatewayError, InvalidValue, ModelNotFound, NoBackend, NotConfigured
from gateway.routing.affinity import conversation
from gateway.routing.estimate import needed_context
from gateway.routing.live import Live
from gateway.routing.policies import Policy, Target, policy_of
from gateway.routing.shortlist import ANYTHING, Ceiling, Removed, Shortlist, shortlist, within

_NONE: Final[frozenset[Adapter]] = frozenset()


@dataclass(slots=True)
class Decision:
    """`targets` in the order to try; the fallbacks follow on an error, or when a backend finds the context too long.

    `needed` is the context that the input takes, in tokens; `why` what decided the order; `conversation` under what
    its next turn will be looked up (0: under nothing).
    """

    route: str
    policy: str
    why: str
    conversation: int
    targets: Sequence[Target]
    on_error: Sequence[Target]
    on_context: Sequence[Target]
    removed: Sequence[Removed]
    needed: int
    ceiling: Ceiling

    @property
    def all(self) -> list[Target]:
        return [*self.targets, *self.on_error, *self.on_context]

    def keep(self, covered: Container[tuple[str, str]] | None) -> None:
        """Only the targets that what was held pays for: model and backend of each; None: all."""
        if covered is None or all((t.model.name, t.backend.name) in covered for t in self.all):
            return
        lists = (self.targets, self.on_error, self.on_context)
        self.targets, self.on_error, self.on_context = (
            [target for target in targets if (target.model.name, target.backend.name) in covered] for targets in lists
        )
        if not self.targets:
            self.targets, self.on_error = self.on_error or self.on_context, ()
        self.why += ";package"

    @property
    def reason(self) -> str:
        return f"{self.why};removed={len(self.removed)}" if self.removed else self.why


class Router:
    """One generation of routes. `route` raises ModelNotFound, InvalidValue, ContextTooLong or NoBackend.

    State: the shortlists that were asked for so far, by route (and the one in whose place it comes), endpoint,
    needs and the dialects of backends that cannot express the call: there are few of each.
    """

    def __init__(self, config: Config, rng: random.Random, live: Live) -> None:
        self._config = config
        self._rng = rng
        self._live = live
        self._targets = {name: _targets_of(config, model) for name, model in config.models.items()}
        self._routes = {name: Route(name, (name,), "weighted", affinity="prefix") for name in config.models}
        self._routes |= config.routes
        self._policies = {name: policy_of(route, live, rng) for name, route in self._routes.items()}
        self._contexts = {name: _contexts_of(config, route) for name, route in self._routes.items()}
        self._drained = {name for name, route in self._routes.items() if _drains(config, route)}
        self.served = _served(self._targets.values())
        self._adapters = {name: _adapters_of(config, route) for name, route in self._routes.items()}
        self._choosy = {name for name, adapters in self._adapters.items() if not all(map(takes_all, adapters))}
        self._shortlists: dict[tuple[str, str, str, frozenset[str], frozenset[Adapter]], Shortlist] = {}

    def names(self, plan: Plan) -> list[str]:
        """What a tenant may put in `model`, in file order."""
        config = self._config
        return [n for n in (*config.models, *config.aliases, *config.routes) if self._allowed(n, plan)]

    def near_limit(self, model: str, tokens: int) -> bool:
        """Whether an estimate is too coarse to tell if the input fits: it is good to a factor of two."""
        contexts = self._contexts.get(self._config.aliases.get(model, model), ())
        if not contexts or tokens * 2 < contexts[0]:
            return False
        return any([tokens <= context * 2 and context <= tokens * 2 for context in contexts])

    def drains(self, model: str) -> bool:
        """Whether a target of it is read on when the client has left."""
        return bool(self._drained) and self._config.aliases.get(model, model) in self._drained

    def why_not(self, endpoint: str) -> NotConfigured | None:
        """Of an endpoint, or a dialect of chat, that no model serves."""
        return None if endpoint in self.served else NotConfigured(endpoint)

    def check(self, model: str, plan: Plan) -> None:
        """Raises ModelNotFound for a name that this plan may not put in `model`."""
        if self._config.aliases.get(model, model) not in self._routes or not self._allowed(model, plan):
            raise _not_in_plan(model, plan)

    def route(
        self, call: Call, plan: Plan, needed: int | None = None, *, tenant: str = "", now: float = 0.0,
        instead: str | None = None,
    ) -> Decision:  # fmt: skip
        """`needed` is the number of the input's tokens; without it, it is estimated. `now` in monotonic seconds.

        `instead` is a route other than the one that was asked for: who named it has allowed it. What the first requires
        holds for it too.
        """
        name = self._config.aliases.get(call.model, call.model) if instead is None else instead
        route = self._routes.get(name)
        if route is None or (instead is None and not self._allowed(call.model, plan)):
            raise _not_in_plan(call.model, plan)
        needed = needed_context(call) if needed is None else needed
        short = self.shortlist(route, call, needed, instead=instead is not None)
        lists = _filled_up(short)
        if lists is None:
            raise self.why_not(call.endpoint) or _why_none(short, call, needed)
        targets, on_error, on_context = lists
        talk, went_on = conversation(call, tenant, name, route.affinity) if len(targets) > 1 else (0, False)
        kept = self._live.affinity.find(talk, now) if went_on else None
        order, why = self._ordered(self._policies[name], targets, call, now, kept)
        return Decision(
            route=name,
            policy=route.policy,
            why=why,
            conversation=talk,
            targets=order,
            on_error=on_error,
            on_context=on_context,
            removed=short.removed,
            needed=needed,
            ceiling=short.ceiling,
        )

    def _ordered(
        self, policy: Policy, targets: Sequence[Target], call: Call, now: float, kept: tuple[str, str] | None
    ) -> tuple[Sequence[Target], str]:
        """The policy's order over those that are up, then those that start slowly, then those that are down.

        `kept` is the target that served the conversation last, if that is known.
        """
        held: Sequence[Target] = ()
        down: Sequence[Target] = ()
        if self._live.troubled:
            good, held, down = self._live.parted(targets, now, self._rng)
            if not good:
                good, held = held, ()
            if not good:
                good, down = down, ()
            targets = good
        warm = None if kept is None else _place(kept, targets)
        order, why = policy.order(targets, call, now, warm)
        if down or held:
            return [*order, *held, *down], f"{why};held={len(held)};down={len(down)}"
        return order, why

    def shortlist(self, route: Route, call: Call, needed: int, *, instead: bool = False) -> Shortlist:
        """What of a route can serve the call, and what cannot; `instead` of the one that it asked for."""
        asked = self.route_of(call.model) if instead else None
        key = (route.name, "" if asked is None else asked.name, call.endpoint, call.needs, self._dumb(route, call))
        short = self._shortlists.get(key)
        if short is None:
            also = ANYTHING if asked is None else asked.require
            short = self._shortlists[key] = shortlist(route, self._targets, call, also)
        return within(short, needed) if needed > short.shortest else short

    def _dumb(self, route: Route, call: Call) -> frozenset[Adapter]:
        """The dialects of the route's backends that cannot express the call."""
        if route.name not in self._choosy and not call.beyond:
            return _NONE
        return frozenset([adapter for adapter in self._adapters[route.name] if adapter.beyond(call) is not None])

    def route_of(self, model: str) -> Route | None:
        """What a name in `model` stands for."""
        return self._routes.get(self._config.aliases.get(model, model))

    def image_tokens(self, call: Call) -> int:
        """The most that an image of it may count as."""
        route = self.route_of(call.model)
        return 0 if route is None else self.shortlist(route, call, 0).ceiling.image_tokens

    def aside(self, route: Route, live: Live, rng: random.Random, policy: Policy) -> Router:
        """This one route over another state: what is decided there changes nothing here."""
        router = copy.copy(self)
        router._live, router._rng, router._policies = live, rng, {route.name: policy}
        return router

    def state(self) -> tuple[Live, random.Random]:
        """Copies of all that a decision may change."""
        return self._live.aside(), copy.deepcopy(self._rng)

    def _allowed(self, name: str, plan: Plan) -> bool:
        """By its own name, the name an alias stands for, or a tag of the model."""
        if plan.allow is None:
            return True
        name_behind = self._config.aliases.get(name, name)
        if name in plan.allow or name_behind in plan.allow:
            return True
        model = self._config.models.get(name_behind)
        return model is not None and not plan.allow.isdisjoint(model.tags)


def _place(key: tuple[str, str], targets: Sequence[Target]) -> int | None:
    for place, target in enumerate(targets):
        if target.key == key:
            return place
    return None


def _targets_of(config: Config, model: Model) -> tuple[Target, ...]:
    return tuple(Target(config.backends[via.backend], model, via.as_name, via.weight) for via in model.via)


def _served(targets: Iterable[Sequence[Target]]) -> frozenset[str]:
    """The endpoints that some model serves by a backend that can, and the dialects of those."""
    found = {name for some in targets for one in some for name in one.model.endpoints & one.adapter.endpoints}
    return frozenset(found | DIALECTS.keys() if "chat" in found else found)


def _models_of(config: Config, route: Route) -> list[Model]:
    """All that may serve a call of it."""
    fallbacks = (*route.fallback_error, *route.fallback_context)
    return [config.models[name] for name in {*route.pick, *(fallback.model for fallback in fallbacks)}]


def _adapters_of(config: Config, route: Route) -> frozenset[Adapter]:
    return frozenset(adapter_of(config.backends[via.backend]) for one in _models_of(config, route) for via in one.via)


def _contexts_of(config: Config, route: Route) -> list[int]:
    """In ascending order."""
    return sorted({model.context for model in _models_of(config, route)})


def _drains(config: Config, route: Route) -> bool:
    backends = {via.backend for model in _models_of(config, route) for via in model.via}
    return any(config.backends[name].on_disconnect == "drain" for name in backends)


def _filled_up(short: Shortlist) -> tuple[Sequence[Target], ...] | None:
    """Targets, fallbacks on error and on context; None when nothing can serve the call.

    A fallback takes the place of targets that are too small.
    """
    if short.targets:
        return short.targets, short.on_error, short.on_context
    reasons = {why for _, why in short.removed}
    if "context" in reasons and short.on_context:
        return short.on_context, short.on_error, ()
    if short.on_error and reasons <= {"context"}:
        return short.on_error, (), short.on_context
    return None


def _why_none(short: Shortlist, call: Call, needed: int) -> GatewayError:
    """What the client hears when nothing can serve its call."""
    reasons = {why for _, why in short.removed}
    if "context" in reasons:
        longest = max(target.model.context for target, _ in short.removed)
        return ContextTooLong(
            # LiteLLM knows what happened by the words up to the colon.
            f"The input is longer than the model's context length: about {needed} tokens of {longest}. Shorten it.",
            param="messages",
        )
    if "endpoint" in reasons:
        return InvalidValue(f"The model '{_short(call.model)}' does not serve {call.endpoint}.", param="model")
    if "dialect" in reasons:
        param = next(target.adapter.beyond(call) for target, why in short.removed if why == "dialect")
        message = f"The model '{_short(call.model)}' cannot be asked for '{param}': no backend of it knows that field."
        return InvalidValue(message, param=param)
    if "capability" in reasons:
        needs = ", ".join(sorted(call.needs))
        return InvalidValue(f"The model '{_short(call.model)}' cannot do what the call needs ({needs}).", param="model")
    return NoBackend("No backend satisfies the route's region, chip and tags.", retry_after_s=60.0)


def _not_in_plan(model: str, plan: Plan) -> ModelNotFound:
    if plan.gone:
        return ModelNotFound(
            f"Nothing can be called, because your plan '{plan.name}' is no longer there. The operator of this gateway"
            " has to put it back into routes.yaml, or to list your tenant there with another plan.",
            param="model",
        )
    return ModelNotFound(
        f"The model '{_short(model)}' does not exist or is not in your plan. GET /v1/models lists yours.", param="model"
    )


def _short(name: str) -> str:
    return name if len(name) <= 64 else name[:64] + "..."
