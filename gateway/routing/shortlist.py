"""Hard constraints: what of a route can serve a call at all. No fallback widens any of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.call import Call
from gateway.charging.offers import Offer
from gateway.config.model import Fallback, Model, Require, Route
from gateway.routing.policies import Target

ANYTHING: Final = Require()
Removed = tuple[Target, str]  # and the constraint that it breaks


@dataclass(frozen=True, slots=True)
class Ceiling:
    """The most that any of some targets takes: what is held for a call must cover whichever serves it."""

    context: int
    max_output: int
    image_tokens: int
    input_rate: int
    output_rate: int
    call_rate: int
    offers: tuple[Offer, ...] = ()


@dataclass(frozen=True, slots=True)
class Shortlist:
    """The targets that are left, in file order, the fallbacks behind them, and who was removed.

    `shortest` is the least context among them all: a call that fits it needs no further look. `removed_fallbacks` are
    kept for who asks why.
    """

    targets: tuple[Target, ...]
    on_error: tuple[Target, ...]
    on_context: tuple[Target, ...]
    removed: tuple[Removed, ...]
    removed_fallbacks: tuple[Removed, ...]
    ceiling: Ceiling
    shortest: int


def shortlist(
    route: Route, targets: Mapping[str, tuple[Target, ...]], call: Call, also: Require = ANYTHING
) -> Shortlist:
    """Of all that a call of this endpoint and these needs may use, whatever its length. `targets` are by model.

    `also` is required of all, beside what the route requires.
    """
    kept: list[Target] = []
    removed: list[Removed] = []
    for name in route.pick:
        for target in targets[name]:
            if why := _broken(target, (route.require, also), call):
                removed.append((target, why))
            else:
                kept.append(target)
    lost: list[Removed] = []
    on_error = _fallbacks(route.fallback_error, targets, kept, (route.require, also), call, lost)
    on_context = _fallbacks(route.fallback_context, targets, kept, (route.require, also), call, lost)
    return _of(kept, on_error, on_context, removed, lost)


def within(short: Shortlist, needed: int) -> Shortlist:
    """Without those whose context is less than `needed` tokens."""
    if needed <= short.shortest:
        return short
    lists = (short.targets, short.on_error, short.on_context)
    kept, on_error, on_context = ([t for t in targets if needed <= t.model.context] for targets in lists)
    removed = [*short.removed, *_too_short(short.targets, needed)]
    lost = [*short.removed_fallbacks, *_too_short((*short.on_error, *short.on_context), needed)]
    return _of(kept, on_error, on_context, removed, lost)


def _too_short(targets: Iterable[Target], needed: int) -> list[Removed]:
    return [(target, "context") for target in targets if needed > target.model.context]


def _fallbacks(
    fallbacks: Iterable[Fallback],
    targets: Mapping[str, tuple[Target, ...]],
    before: Sequence[Target],
    required: tuple[Require, ...],
    call: Call,
    lost: list[Removed],
) -> list[Target]:
    """What the first route requires holds for these too, and a route that is fallen back on keeps its own.

    Those that break either are added to `lost`.
    """
    out: list[Target] = []
    for fallback in fallbacks:
        for target in targets[fallback.model]:
            if why := _broken(target, (*required, fallback.require), call):
                lost.append((target, why))
            elif target not in before and target not in out:
                out.append(target)
    return out


def _broken(target: Target, required: tuple[Require, ...], call: Call) -> str | None:
    """The constraint that a target breaks, or None."""
    backend, model = target.backend, target.model
    if call.endpoint not in model.endpoints:
        return "endpoint"
    if model.can is not None and not call.needs <= model.can:
        return "capability"
    return next((why for require in required if (why := require.broken_by(backend))), None)


def _of(
    targets: Sequence[Target],
    on_error: Sequence[Target],
    on_context: Sequence[Target],
    removed: Sequence[Removed],
    lost: Sequence[Removed],
) -> Shortlist:
    everything = (*targets, *on_error, *on_context)
    models = [target.model for target in everything]
    shortest = min([model.context for model in models], default=0)
    lists = tuple(targets), tuple(on_error), tuple(on_context)
    return Shortlist(*lists, tuple(removed), tuple(lost), _ceiling_of(models, everything), shortest)


def _ceiling_of(models: Sequence[Model], targets: Sequence[Target]) -> Ceiling:
    return Ceiling(
        context=max([model.context for model in models], default=0),
        max_output=max([model.max_output for model in models], default=0),
        image_tokens=max([model.max_image_tokens for model in models], default=0),
        input_rate=max([_dearest(model, "input") for model in models], default=0),
        output_rate=max([_dearest(model, "output") for model in models], default=0),
        call_rate=max([model.rates.get("calls", 0) for model in models], default=0),
        offers=tuple(target.offer for target in targets),
    )


def _dearest(model: Model, kind: str) -> int:
    return max(rate for bucket, rate in model.rates.items() if bucket.startswith(kind))
