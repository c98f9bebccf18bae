"""From the name a client asked for to an ordered list of targets, with the reason. Pure: no I/O, no clock."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.call import Call
from gateway.config.model import Config, Model, Plan, Route
from gateway.errors import ContextTooLong, GatewayError, InvalidValue, ModelNotFound, NoBackend
from gateway.routing.policies import Ordered, Policy, Target, Weighted
from gateway.routing.shortlist import Ceiling, Removed, Shortlist, shortlist, within


@dataclass(slots=True)
class Decision:
    """`targets` in the order to try; the fallbacks follow on an error, or when a backend finds the context too long.

    `needed` is the context that the input takes, in tokens.
    """

    route: str
    policy: str
    targets: Sequence[Target]
    on_error: Sequence[Target]
    on_context: Sequence[Target]
    removed: Sequence[Removed]
    needed: int
    ceiling: Ceiling

    @property
    def all(self) -> list[Target]:
        return [*self.targets, *self.on_error, *self.on_context]

    @property
    def reason(self) -> str:
        return f"{self.policy};removed={len(self.removed)}" if self.removed else self.policy


class Router:
    """One generation of routes. `route` raises ModelNotFound, InvalidValue, ContextTooLong or NoBackend.

    State: the shortlists that were asked for so far, by route, endpoint and needs: there are few of each.
    """

    def __init__(self, config: Config, rng: random.Random) -> None:
        self._config = config
        self._targets = {name: _targets_of(config, model) for name, model in config.models.items()}
        self._policies: dict[str, Policy] = {"weighted": Weighted(rng)}
        self._ordered = Ordered()
        self._routes = {name: Route(name=name, pick=(name,), policy="weighted") for name in config.models}
        self._routes |= config.routes
        self._contexts = {name: _contexts_of(config, route) for name, route in self._routes.items()}
        self._shortlists: dict[tuple[str, str, frozenset[str]], Shortlist] = {}

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

    def route(self, call: Call, plan: Plan, needed: int | None = None) -> Decision:
        """`needed` is the number of the input's tokens; without it, it is estimated."""
        name = self._config.aliases.get(call.model, call.model)
        route = self._routes.get(name)
        if route is None or not self._allowed(call.model, plan):
            raise _not_in_plan(call.model, plan)
        needed = needed_context(call) if needed is None else needed
        short = self._shortlist(route, call)
        if needed > short.shortest:
            short = within(short, needed)
        lists = _filled_up(short)
        if lists is None:
            raise _why_none(short, call, needed)
        targets, on_error, on_context = lists
        policy = self._policies.get(route.policy, self._ordered)
        return Decision(
            route=name,
            policy="weighted" if policy is not self._ordered else "ordered",
            targets=policy.order(targets),
            on_error=on_error,
            on_context=on_context,
            removed=short.removed,
            needed=needed,
            ceiling=short.ceiling,
        )

    def _shortlist(self, route: Route, call: Call) -> Shortlist:
        key = (route.name, call.endpoint, call.needs)
        short = self._shortlists.get(key)
        if short is None:
            short = self._shortlists[key] = shortlist(route, self._targets, call)
        return short

    def _allowed(self, name: str, plan: Plan) -> bool:
        """By its own name, the name an alias stands for, or a tag of the model."""
        if plan.allow is None:
            return True
        name_behind = self._config.aliases.get(name, name)
        if name in plan.allow or name_behind in plan.allow:
            return True
        model = self._config.models.get(name_behind)
        return model is not None and not plan.allow.isdisjoint(model.tags)


def estimated_input(call: Call) -> int:
    """All tokens of a call by the usual four bytes a token: for limits, never for charges."""
    return call.input_bound // 4


def needed_context(call: Call) -> int:
    """The same of its longest prompt: each prompt of a batch, and each text to embed, has the context to itself."""
    prompts = call.body.get("input" if call.endpoint == "embeddings" else "prompt") if call.endpoint != "chat" else None
    if not isinstance(prompts, list):
        return estimated_input(call)
    if isinstance(prompts[0], int):
        return len(prompts)
    if isinstance(prompts[0], list):
        return max(map(len, prompts))
    return max(len(text.encode()) for text in prompts) // 4


def _targets_of(config: Config, model: Model) -> tuple[Target, ...]:
    return tuple(Target(config.backends[via.backend], model, via.as_name, via.weight) for via in model.via)


def _contexts_of(config: Config, route: Route) -> list[int]:
    """In ascending order."""
    fallbacks = (*route.fallback_error, *route.fallback_context)
    names = {*route.pick, *(fallback.model for fallback in fallbacks)}
    return sorted({config.models[name].context for name in names})


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
            f"The input has about {needed} tokens; the longest context here is {longest}. Shorten it.",
            param="messages",
        )
    if "endpoint" in reasons:
        return InvalidValue(f"The model '{_short(call.model)}' does not serve {call.endpoint}.", param="model")
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
