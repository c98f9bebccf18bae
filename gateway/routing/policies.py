"""Policies order targets: one-method objects over the targets that the hard constraints and the breakers left.

All but `ordered` and `weighted` give each target a number, the lower the better. Those that are nearly as good as the
best are drawn by weight, so that a tie does not send everything to one target; the others follow by their number.
The target where the conversation's prefix is warm (`warm`, its place) comes first unless it is clearly worse.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import log
from typing import Final, Protocol

from gateway.adapters.adapter import Adapter
from gateway.adapters.kinds import adapter_of
from gateway.call import Call
from gateway.charging.in_force import InForce
from gateway.charging.offers import Offer
from gateway.config.model import Backend, Model, Route
from gateway.routing.estimate import estimated_input, expected_cost, expected_counts, expected_output
from gateway.routing.live import Live, Measures

Floats = Sequence[float]

ASSUMED_CONCURRENCY: Final = 64  # of a backend without a limit
DEFAULT_WEIGHTS: Final = {"cost": 0.5, "latency": 0.2, "quality": 0.3}
TERMS: Final = tuple(DEFAULT_WEIGHTS)
SMALLEST_SPAN: Final = log(4.0)
PREFERRED: Final = 0.5  # of all weight goes to what a client prefers


@dataclass(frozen=True)
class Target:
    """A backend and its name for the model: what policies order."""

    backend: Backend
    model: Model
    as_name: str
    weight: int

    @cached_property
    def key(self) -> tuple[str, str]:
        return self.backend.name, self.model.name

    def offer(self, rates: InForce) -> Offer:
        """What the ledger sees of it."""
        backend, model = self.backend, self.model
        return rates.offer(model.name, backend.name, backend.region or "", frozenset(model.tags))

    @cached_property
    def adapter(self) -> Adapter:
        return adapter_of(self.backend)

    @cached_property
    def concurrency(self) -> int:
        """What its backend takes at once."""
        return self.backend.limits.concurrency or ASSUMED_CONCURRENCY


Order = tuple[Sequence[Target], str]  # the targets as they are to be tried, and in a few words what decided


Scores = Mapping[str, Floats]  # by what they say, for each of the targets


class Policy(Protocol):
    def order(self, targets: Sequence[Target], call: Call, now: float, warm: int | None = None) -> Order: ...

    def scores(self, targets: Sequence[Target], call: Call, now: float) -> Scores:
        """What the order follows, for people; the policies compute the same in `order`."""


class Ordered:
    """As written in routes.yaml."""

    def order(self, targets: Sequence[Target], call: Call, now: float, warm: int | None = None) -> Order:
        if warm is None:
            return targets, "ordered"
        return _at(_first(warm, range(len(targets))), targets), "ordered;affinity"

    def scores(self, targets: Sequence[Target], call: Call, now: float) -> Scores:
        return {"place": range(1, len(targets) + 1)}


class Weighted:
    """A random order without replacement, each draw in proportion to weight (Efraimidis and Spirakis, 2006)."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def order(self, targets: Sequence[Target], call: Call, now: float, warm: int | None = None) -> Order:
        if len(targets) < 2:
            return targets, "weighted"
        if warm is None:
            return drawn(targets, self._rng), "weighted"
        rest = [target for place, target in enumerate(targets) if place != warm]
        return [targets[warm], *drawn(rest, self._rng)], "weighted;affinity"

    def scores(self, targets: Sequence[Target], call: Call, now: float) -> Scores:
        return {"weight": [target.weight for target in targets]}


class Cheapest:
    """By expected cost. Nearly the best: within 1 %; clearly worse: over 25 %, which a cached prefix may save."""

    def __init__(self, live: Live, route: str, rng: random.Random) -> None:
        self._live = live
        self._route = route
        self._rng = rng

    def order(self, targets: Sequence[Target], call: Call, now: float, warm: int | None = None) -> Order:
        costs = expected_costs(self._live, self._route, targets, call)
        least = min(costs)
        places, warmed = spread(targets, costs, least * 1.01, least * 1.25, warm, self._rng)
        return _at(places, targets), f"cheapest;cost={costs[places[0]] / 1e6:.6f}{warmed}"

    def scores(self, targets: Sequence[Target], call: Call, now: float) -> Scores:
        return {"cost": [cost / 1e6 for cost in expected_costs(self._live, self._route, targets, call)]}


class Fastest:
    """By expected seconds under the present load. Nearly: within 10 %; clearly worse: over 50 %."""

    def __init__(self, live: Live, route: str, rng: random.Random) -> None:
        self._live = live
        self._route = route
        self._rng = rng

    def order(self, targets: Sequence[Target], call: Call, now: float, warm: int | None = None) -> Order:
        seconds = expected_seconds(self._live, self._route, targets, call, now)
        least = min(seconds)
        places, warmed = spread(targets, seconds, least * 1.1, least * 1.5, warm, self._rng)
        return _at(places, targets), f"fastest;seconds={seconds[places[0]]:.2f}{warmed}"

    def scores(self, targets: Sequence[Target], call: Call, now: float) -> Scores:
        return {"seconds": expected_seconds(self._live, self._route, targets, call, now)}


class Best:
    """By quality. Nearly, and not clearly worse: within 0.02."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def order(self, targets: Sequence[Target], call: Call, now: float, warm: int | None = None) -> Order:
        lacking = [1.0 - target.model.quality for target in targets]
        near = min(lacking) + 0.02
        places, warmed = spread(targets, lacking, near, near, warm, self._rng)
        return _at(places, targets), f"best;quality={targets[places[0]].model.quality:.2f}{warmed}"

    def scores(self, targets: Sequence[Target], call: Call, now: float) -> Scores:
        return {"quality": [target.model.quality for target in targets]}


class LeastBusy:
    """By what is in flight at the backend, relative to its limit. Clearly worse: a quarter of the limit more."""

    def __init__(self, live: Live, rng: random.Random) -> None:
        self._live = live
        self._rng = rng

    def order(self, targets: Sequence[Target], call: Call, now: float, warm: int | None = None) -> Order:
        loads = self._loads(targets)
        least = min(loads)
        places, warmed = spread(targets, loads, least, least + 0.25, warm, self._rng)
        return _at(places, targets), f"least_busy;load={loads[places[0]]:.2f}{warmed}"

    def scores(self, targets: Sequence[Target], call: Call, now: float) -> Scores:
        return {"load": self._loads(targets)}

    def _loads(self, targets: Sequence[Target]) -> Floats:
        return [self._live.in_flight.get(t.backend.name, 0) / t.concurrency for t in targets]


class Balanced:
    """By the weighted sum of how much worse each is in cost, seconds and lack of quality.

    Nearly the best: within 0.05; clearly worse: over 0.2.
    """

    def __init__(self, live: Live, route: str, weigh: Mapping[str, float], rng: random.Random) -> None:
        self._live = live
        self._route = route
        self._weights = {prefer: weights_of(weigh, prefer) for prefer in ("", "balanced", *TERMS)}
        self._rng = rng

    def terms(self, targets: Sequence[Target], call: Call, now: float) -> tuple[Floats, Floats, Floats]:
        """Cost, latency and quality: for each target a number in [0, 1], where 0 is the best one's."""
        return (
            worse(expected_costs(self._live, self._route, targets, call)),
            worse(expected_seconds(self._live, self._route, targets, call, now)),
            worse([1.0 - target.model.quality for target in targets]),
        )

    def order(self, targets: Sequence[Target], call: Call, now: float, warm: int | None = None) -> Order:
        costs, seconds, lacking = self.terms(targets, call, now)
        scores = self._sums(call, costs, seconds, lacking)
        least = min(scores)
        places, warmed = spread(targets, scores, least + 0.05, least + 0.2, warm, self._rng)
        at = places[0]
        prefer = f";prefer={call.prefer}" if call.prefer else ""
        terms = "cost=%.2f;latency=%.2f;quality=%.2f" % (costs[at], seconds[at], lacking[at])  # noqa: UP031 - half the time
        return _at(places, targets), f"balanced{prefer};{terms}{warmed}"

    def scores(self, targets: Sequence[Target], call: Call, now: float) -> Scores:
        """The three terms, and their sum by the weights of the route and the client's preference."""
        terms = self.terms(targets, call, now)
        return {**dict(zip(TERMS, terms, strict=True)), "sum": self._sums(call, *terms)}

    def _sums(self, call: Call, costs: Floats, seconds: Floats, lacking: Floats) -> Floats:
        by_cost, by_latency, by_quality = self._weights[call.prefer]
        return [
            by_cost * cost + by_latency * latency + by_quality * quality
            for cost, latency, quality in zip(costs, seconds, lacking, strict=True)
        ]


def policy_of(route: Route, live: Live, rng: random.Random) -> Policy:
    made: Mapping[str, Policy] = {
        "ordered": Ordered(),
        "weighted": Weighted(rng),
        "cheapest": Cheapest(live, route.name, rng),
        "fastest": Fastest(live, route.name, rng),
        "best": Best(rng),
        "least_busy": LeastBusy(live, rng),
        "balanced": Balanced(live, route.name, route.weigh, rng),
    }
    return made[route.policy]


def weights_of(weigh: Mapping[str, float], prefer: str) -> tuple[float, ...]:
    """Of cost, latency and quality; they add up to 1. A term that a route leaves out weighs nothing."""
    given = weigh or DEFAULT_WEIGHTS
    total = sum(given.values())
    weights = {term: given.get(term, 0.0) / total for term in TERMS}
    if prefer in weights:
        weights = {term: weight * (1 - PREFERRED) for term, weight in weights.items()}
        weights[prefer] += PREFERRED
    return tuple(weights.values())


def worse(values: Floats) -> Floats:
    """0 for the least, 1 for the greatest, and each doubling in between counts alike.

    Where the greatest is less than four times the least, 1 would be four times the least: small differences stay small.
    A thousandth of the greatest is added to each, so that what costs nothing has a logarithm.
    """
    floor = max(values) / 1000
    least = min(values) + floor
    if least <= 0:
        return [0.0] * len(values)
    span = log(max(values) + floor) - (start := log(least))
    if span < SMALLEST_SPAN:
        span = SMALLEST_SPAN
    return [(log(value + floor) - start) / span for value in values]


def expected_costs(live: Live, route: str, targets: Sequence[Target], call: Call) -> Floats:
    """In micro-units of currency."""
    output = expected_output(call, live.output(route))
    read, counts = estimated_input(call), expected_counts(call)
    return [expected_cost(target.model, read, output, call.choices, counts) for target in targets]


def expected_seconds(live: Live, route: str, targets: Sequence[Target], call: Call, now: float) -> Floats:
    """Until the end of the answer, longer by the share of the backend's limit that is in flight: at the limit, double.

    Nobody knows of a target that has not served yet: it counts as the best, so that it is tried, and as twice the worst
    while its first call is under way.
    """
    output = expected_output(call, live.output(route))
    known: list[float] = []
    unknown: list[tuple[int, Measures]] = []
    for place, target in enumerate(targets):
        measures = live.of(target.key)
        bare_s = measures.seconds(min(output, target.model.max_output), now)
        if bare_s is None:
            unknown.append((place, measures))
        else:
            known.append(bare_s * (1.0 + live.in_flight.get(target.backend.name, 0) / target.concurrency))
    if unknown:
        best, worst = (min(known), max(known)) if known else (1.0, 1.0)
        for place, measures in unknown:
            known.insert(place, worst * 2 if measures.in_flight else best)
    return known


def spread(
    targets: Sequence[Target], scores: Floats, near: float, clear: float, warm: int | None, rng: random.Random
) -> tuple[Sequence[int], str]:
    """Places by ascending scores, where those up to `near` are drawn by weight; `warm` first if it is within `clear`.

    The second value says whether it was.
    """
    places = sorted(range(len(targets)), key=scores.__getitem__)
    head = 1
    while head < len(places) and scores[places[head]] <= near:
        head += 1
    if head > 1:
        chances = {place: rng.random() ** (1.0 / targets[place].weight) for place in places[:head]}
        places[:head] = sorted(chances, key=chances.__getitem__, reverse=True)
    if warm is not None and scores[warm] <= clear:
        return _first(warm, places), ";affinity"
    return places, ""


def drawn(targets: Sequence[Target], rng: random.Random) -> Sequence[Target]:
    return sorted(targets, key=lambda t: rng.random() ** (1.0 / t.weight), reverse=True)


def _at(places: Sequence[int], targets: Sequence[Target]) -> Sequence[Target]:
    return [targets[place] for place in places]


def _first(warm: int, places: Iterable[int]) -> list[int]:
    return [warm, *(place for place in places if place != warm)]
