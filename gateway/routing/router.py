"""From the name a client asked for to an ordered list of targets, with the reason. Pure: no I/O, no clock."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gateway.call import Call
from gateway.config.model import Config, Fallback, Model, Plan, Require, Route
from gateway.errors import ContextTooLong, InvalidValue, ModelNotFound, NoBackend
from gateway.routing.policies import Ordered, Policy, Target, Weighted


@dataclass(frozen=True, slots=True)
class Ceiling:
    """The most that any of some targets takes: what is held for a call must cover whichever serves it."""

    context: int
    max_output: int
    image_tokens: int
    input_rate: int
    output_rate: int
    call_rate: int


@dataclass(slots=True)
class Decision:
    """`targets` in the order to try; the fallbacks follow on an error, or when a backend finds the context too long.

    `needed` is the context that the input takes, in tokens.
    """

    route: str
    policy: str
    targets: list[Target]
    on_error: list[Target]
    on_context: list[Target]
    removed: list[tuple[Target, str]]
    needed: int
    ceiling: Ceiling

    @property
    def all(self) -> list[Target]:
        return [*self.targets, *self.on_error, *self.on_context]

    @property
    def reason(self) -> str:
        return f"{self.policy};removed={len(self.removed)}" if self.removed else self.policy


_NOTHING = Ceiling(0, 0, 0, 0, 0, 0)


class Router:
    """One generation of routes. `route` raises ModelNotFound, InvalidValue, ContextTooLong or NoBackend.

    State: the ceilings of the sets of targets that were met so far.
    """

    def __init__(self, config: Config, rng: random.Random) -> None:
        self._config = config
        self._targets = {name: _targets_of(config, model) for name, model in config.models.items()}
        self._policies: dict[str, Policy] = {"weighted": Weighted(rng)}
        self._ordered = Ordered()
        self._routes = {name: Route(name=name, pick=(name,), policy="weighted") for name in config.models}
        self._routes |= config.routes
        self._contexts = {name: _contexts_of(config, route) for name, route in self._routes.items()}
        self._ceilings: dict[frozenset[int], Ceiling] = {}

    def names(self, plan: Plan) -> list[str]:
        """What a tenant may put in `model`, in file order."""
        config = self._config
        return [n for n in (*config.models, *config.aliases, *config.routes) if self._allowed(n, plan)]

    def near_limit(self, call: Call) -> bool:
        """Whether an estimate is too coarse to tell if the input fits: it is good to a factor of two."""
        contexts = self._contexts.get(self._config.aliases.get(call.model, call.model))
        if contexts is None:
            return False
        tokens = needed_context(call)
        return any([tokens <= context * 2 and context <= tokens * 2 for context in contexts])

    def route(self, call: Call, plan: Plan, needed: int | None = None) -> Decision:
        """`needed` is the exact count of the input's tokens, where there is one."""
        name = self._config.aliases.get(call.model, call.model)
        route = self._routes.get(name)
        if route is None or not self._allowed(call.model, plan):
            raise ModelNotFound(
                f"The model '{_short(call.model)}' does not exist or is not in your plan. GET /v1/models lists yours.",
                param="model",
            )
        needed = needed_context(call) if needed is None else needed
        removed: list[tuple[Target, str]] = []
        targets = self._usable(route.pick, route.require, call, needed, removed)
        policy = self._policies.get(route.policy, self._ordered)
        on_error = self._fallbacks(route.fallback_error, targets, route.require, call, needed)
        on_context = self._fallbacks(route.fallback_context, targets, route.require, call, needed)
        decision = Decision(
            route=route.name,
            policy="weighted" if policy is not self._ordered else "ordered",
            targets=policy.order(targets),
            on_error=on_error,
            on_context=on_context,
            removed=removed,
            needed=needed,
            ceiling=_NOTHING,
        )
        _nonempty(decision, call)
        decision.ceiling = self._ceiling(decision.all)
        return decision

    def _ceiling(self, targets: list[Target]) -> Ceiling:
        """Kept by the set of targets, which live as long as this router; each set is one of the few of a route."""
        key = frozenset(map(id, targets))
        ceiling = self._ceilings.get(key)
        if ceiling is None:
            ceiling = self._ceilings[key] = _ceiling_of([target.model for target in targets])
        return ceiling

    def _allowed(self, name: str, plan: Plan) -> bool:
        """By its own name, the name an alias stands for, or a tag of the model."""
        name_behind = self._config.aliases.get(name, name)
        if plan.allow is None or name in plan.allow or name_behind in plan.allow:
            return True
        model = self._config.models.get(name_behind)
        return model is not None and not plan.allow.isdisjoint(model.tags)

    def _fallbacks(
        self, fallbacks: Iterable[Fallback], targets: Sequence[Target], require: Require, call: Call, needed: int
    ) -> list[Target]:
        """What the first route requires holds for these too, and a route that is fallen back on keeps its own."""
        out: list[Target] = []
        for fallback in fallbacks:
            for target in self._usable((fallback.model,), require, call, needed, []):
                if removed_by(target, fallback.require, call, needed) or target in targets or target in out:
                    continue
                out.append(target)
        return out

    def _usable(
        self, models: Iterable[str], require: Require, call: Call, needed: int, removed: list[tuple[Target, str]]
    ) -> list[Target]:
        kept = []
        for name in models:
            for target in self._targets[name]:
                if why := removed_by(target, require, call, needed):
                    removed.append((target, why))
                else:
                    kept.append(target)
        return kept


def removed_by(target: Target, require: Require, call: Call, needed: int) -> str | None:
    """The hard constraint that a target breaks, or None. Fallback cannot widen any of them."""
    backend, model = target.backend, target.model
    if call.endpoint not in model.endpoints:
        return "endpoint"
    if model.can is not None and not call.needs <= model.can:
        return "capability"
    if require.region and backend.region not in require.region:
        return "region"
    if require.chip and backend.chip not in require.chip:
        return "chip"
    if require.tags and require.tags.isdisjoint(backend.tags):
        return "tags"
    if needed > model.context:
        return "context"
    return None


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


def _contexts_of(config: Config, route: Route) -> tuple[int, ...]:
    fallbacks = (*route.fallback_error, *route.fallback_context)
    names = {*route.pick, *(fallback.model for fallback in fallbacks)}
    return tuple({config.models[name].context for name in names})


def _ceiling_of(models: Sequence[Model]) -> Ceiling:
    return Ceiling(
        context=max(model.context for model in models),
        max_output=max(model.max_output for model in models),
        image_tokens=max(model.max_image_tokens for model in models),
        input_rate=max(n for model in models for bucket, n in model.rates.items() if bucket.startswith("input")),
        output_rate=max(n for model in models for bucket, n in model.rates.items() if bucket.startswith("output")),
        call_rate=max(model.rates.get("calls", 0) for model in models),
    )


def _nonempty(decision: Decision, call: Call) -> None:
    """A fallback takes the place of targets that are too small. Raises what the client hears when there is none."""
    if decision.targets:
        return
    reasons = {why for _, why in decision.removed}
    if "context" in reasons and decision.on_context:
        decision.targets, decision.on_context = decision.on_context, []
        return
    if decision.on_error and reasons <= {"context"}:
        decision.targets, decision.on_error = decision.on_error, []
        return
    raise _why_none(reasons, call, decision.needed, [target for target, _ in decision.removed])


def _why_none(reasons: set[str], call: Call, needed: int, targets: Sequence[Target]) -> Exception:
    if "context" in reasons:
        longest = max(target.model.context for target in targets)
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


def _short(name: str) -> str:
    return name if len(name) <= 64 else name[:64] + "..."
