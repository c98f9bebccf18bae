"""How much there was lately: the counters of `Metrics`, looked at every ten seconds and compared."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import add
from typing import Final

from gateway.clock import Clock
from gateway.errors import NotCached
from gateway.metrics import NO_FAILURE, Distributions, Metrics

LOOK_EVERY_S: Final = 10.0
_LOOKS: Final = 31  # five minutes between the first and the last
_MINUTE_LOOKS: Final = 6
_MINUTES: Final = 61  # an hour between the first and the last

Series = tuple[str, str]  # (what is counted, of which route, model, backend or kind; "" is all)


@dataclass(slots=True)
class Look:
    """The counters at one time. `spread`: observations by bucket, of a histogram and a backend ("" is all)."""

    at: float
    count: dict[Series, float]
    spread: dict[Series, list[int]]


@dataclass(slots=True)
class Recent:
    """What came between two looks; rates are per minute."""

    seconds: float
    _count: dict[Series, float]
    _spread: dict[Series, list[int]]
    _bounds: dict[str, tuple[float, ...]]

    def total(self, what: str, of: str = "") -> float:
        return self._count.get((what, of), 0.0)

    def rate(self, what: str, of: str = "") -> float:
        return self.total(what, of) * 60 / self.seconds if self.seconds > 0 else 0.0

    def share(self, part: str, whole: str, of: str = "") -> float | None:
        """None where there was nothing to have a share of."""
        all_ = self.total(whole, of)
        return self.total(part, of) / all_ if all_ else None

    def quantile(self, what: str, q: float, of: str = "") -> float | None:
        """In seconds, interpolated within its bucket as Prometheus does; None: nothing was observed."""
        return quantile(self._bounds[what], self._spread.get((what, of), ()), q)


class Traffic:
    """State: looks of the last five minutes, and calls and errors so far at each of the last 60 minutes."""

    def __init__(self, metrics: Metrics, clock: Clock) -> None:
        self._metrics = metrics
        self._clock = clock
        self._spreads = {"first_token": metrics.first_token, "duration": metrics.duration}
        self._looks: deque[Look] = deque(maxlen=_LOOKS)
        self._minutes: deque[tuple[float, float]] = deque(maxlen=_MINUTES)
        self._taken = 0
        self.started = clock.now()
        self.look()

    def look(self) -> None:
        """To be called every LOOK_EVERY_S."""
        look = self.now()
        self._looks.append(look)
        if self._taken % _MINUTE_LOOKS == 0:
            self._minutes.append((look.count["calls", ""], look.count["errors", ""]))
        self._taken += 1

    def recent(self, last: Look) -> Recent:
        """The five minutes before `last`, or as many as there were."""
        first = self._looks[0]
        bounds = {what: spread.bounds for what, spread in self._spreads.items()} | {
            "commit": self._metrics.commit_seconds.bounds
        }
        spread = {
            series: _less(counts, first.spread[series]) if series in first.spread else counts
            for series, counts in last.spread.items()
        }
        count = {series: value - first.count.get(series, 0.0) for series, value in last.count.items()}
        return Recent(last.at - first.at, count, spread, bounds)

    def minutes(self) -> list[tuple[int, int]]:
        """(calls, errors) of each full minute of the last hour, the oldest first."""
        return [(int(after[0] - before[0]), int(after[1] - before[1])) for before, after in pairwise(self._minutes)]

    def now(self) -> Look:
        """All counters, since the start of the process."""
        metrics = self._metrics
        count: defaultdict[Series, float] = defaultdict(float, {("calls", ""): 0.0, ("errors", ""): 0.0})
        for (route, model, _, outcome, status), value in metrics.requests.values():
            _count_calls(count, (str(route), str(model)), str(outcome), int(status), value)
        for (backend, outcome), value in metrics.attempts.values():
            count["attempts", str(backend)] += value
            if outcome not in NO_FAILURE:
                count["failures", str(backend)] += value
        for (_, model, _, kind), tokens in metrics.tokens.values():
            count["tokens", ""] += tokens.total
            count["tokens", str(model)] += tokens.total
            count[f"tokens_{kind}", ""] += tokens.total
        for (tenant, kind), value in metrics.credits.values():
            count[str(kind), ""] += value
            count[str(kind), str(tenant)] += value
        for _, value in metrics.cost.values():
            count["cost", ""] += value
        for (kind,), value in metrics.limit_refusals.values():
            count["limits", str(kind)] += value
        return Look(self._clock.now(), count, self._spread(count))

    def _spread(self, count: dict[Series, float]) -> dict[Series, list[int]]:
        spread: dict[Series, list[int]] = {}
        for what, source in self._spreads.items():
            _by_backend(spread, what, source)
        for _, commits in self._metrics.commit_seconds.values():
            spread["commit", ""] = list(commits.counts)
            count["commits", ""] = sum(commits.counts)
        for _, rows in self._metrics.batch_size.values():
            count["rows", ""] = rows.total
        return spread


def _count_calls(count: dict[Series, float], names: tuple[str, str], outcome: str, status: int, value: float) -> None:
    """An error is ours to answer for; a refusal is the client's, and so is the 504 of only-if-cached; who leaves is
    neither."""
    route, model = names
    if outcome == "failed" or (outcome == "refused" and status >= 500 and status != NotCached.status):
        kind = "errors"
    elif outcome == "refused":
        kind = "refusals"
    else:
        kind = outcome
    for what in ("calls", kind):
        count[what, ""] += value
        if route:
            count[f"route_{what}", route] += value
        if model:
            count[f"model_{what}", model] += value


def _by_backend(spread: dict[Series, list[int]], what: str, source: Distributions) -> None:
    for (_, _, backend), seen in source.values():
        _add(spread, (what, str(backend)), seen.counts)
    for (_, backend), counts in [item for item in spread.items() if item[0][0] == what]:
        if backend:
            _add(spread, (what, ""), counts)


def _add(spread: dict[Series, list[int]], series: Series, counts: Sequence[int]) -> None:
    known = spread.get(series)
    spread[series] = list(counts) if known is None else list(map(add, known, counts))


def _less(counts: Sequence[int], before: Sequence[int]) -> list[int]:
    return [now - then for now, then in zip(counts, before, strict=True)]


def quantile(bounds: Sequence[float], counts: Sequence[int], q: float) -> float | None:
    """What is beyond the last bound is shown as the last bound."""
    if not any(counts):
        return None
    wanted = q * sum(counts)
    below = 0
    for place, seen in enumerate(counts[: len(bounds)]):
        if seen and below + seen >= wanted:
            lower = bounds[place - 1] if place else 0.0
            return lower + (bounds[place] - lower) * (wanted - below) / seen
        below += seen
    return bounds[-1]
