"""Hard constraints: what of a route can serve a call at all. No fallback widens any of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.call import Call
from gateway.charging.in_force import InForce
from gateway.charging.offers import STANDARD, Dearest, Offer
from gateway.config.model import Fallback, Require, Route
from gateway.routing.policies import Target

ANYTHING: Final = Require()
Removed = tuple[Target, str]  # and the constraint that it breaks


class Ceiling:
    """The most that any of some targets takes: what is held for a call must cover whichever serves it.

    State: what it is in credits, at the rates of the moment for which that was asked last.
    """

    __slots__ = ("_known", "_targets", "context", "image_tokens", "max_output")

    def __init__(self, targets: Sequence[Target]) -> None:
        models = [target.model for target in targets]
        self.context = max([model.context for model in models], default=0)
        self.max_output = max([model.max_output for model in models], default=0)
        self.image_tokens = max([model.max_image_tokens for model in models], default=0)
        self._targets = tuple(targets)
        self._known: tuple[InForce, Rated] | None = None

    def at(self, rates: InForce) -> Rated:
        if self._known is None or self._known[0] is not rates:
            self._known = rates, _rated(self._targets, rates)
        return self._known[1]


@dataclass(frozen=True, slots=True)
class Rated:
    """`standard` is the most by that card, `offers` are what the ledger sees of the targets."""

    standard: Dearest
    offers: tuple[Offer, ...]


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
    """Of all that a call of this endpoint, these needs and this form may use, whatever its length.

    `targets` are by model. `also` is required of all, beside what the route requires.
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
    if call.endpoint not in model.endpoints or call.endpoint not in target.adapter.endpoints:
        return "endpoint"
    if target.adapter.beyond(call) is not None:
        return "dialect"
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
    shortest = min([target.model.context for target in everything], default=0)
    lists = tuple(targets), tuple(on_error), tuple(on_context)
    return Shortlist(*lists, tuple(removed), tuple(lost), Ceiling(everything), shortest)


def _rated(targets: Sequence[Target], rates: InForce) -> Rated:
    offers = tuple(target.offer(rates) for target in targets)
    by_standard = [offer.dearest[STANDARD] for offer in offers if STANDARD in offer.dearest]
    return Rated(
        Dearest(
            max([one.input for one in by_standard], default=0),
            max([one.output for one in by_standard], default=0),
            max([one.call for one in by_standard], default=0),
            max([one.images for one in by_standard], default=0),
            max([one.audio_ms for one in by_standard], default=0),
        ),
        offers,
    )
