"""What is known of targets from the calls they served: load, speed, breaker; and how much routes write."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Collection, Sequence
from typing import Final, Protocol, TypeVar

from gateway.config.model import Breaker as Settings
from gateway.routing.affinity import Affinity
from gateway.routing.breaker import Breaker

Key = tuple[str, str]  # (backend, model)

NEWEST: Final = 0.2  # weight of a new value in a moving average: half of it is of the last three calls
FIRST_OUTPUT: Final = 256.0  # tokens an answer is expected to have until a route has seen one
# The shape of an answer's time until a stream has shown it: a whole answer only says how long all of it took.
FIRST_TOKEN_S: Final = 0.5
PER_TOKEN_S: Final = 0.02
NEWER: Final = 0.02  # of the slowest lately: it is that of the last fifty, more or less
HALVES_S: Final = 60.0  # an estimate halves for each such time without news: what was slow once is tried again


class HasKey(Protocol):
    @property
    def key(self) -> Key: ...


T = TypeVar("T", bound=HasKey)


class Measures:
    """One target. State: attempts in flight, moving averages in seconds (None: not measured yet), when last fed.

    For its health: those in flight that have heard nothing yet, by when they began and whether they are streams; when
    anything was heard of it last; and how long the slowest lately took to be heard of, streams apart (0: none yet).
    """

    __slots__ = (
        "at", "breaker", "first_token_s", "heard_at", "in_flight", "per_token_s", "slowest_s", "unheard",
    )  # fmt: skip

    def __init__(self, settings: Settings) -> None:
        self.breaker = Breaker(settings)
        self.in_flight = 0
        self.unheard: dict[object, tuple[float, bool]] = {}
        self.heard_at = float("-inf")
        self.slowest_s = [0.0, 0.0]  # of answers in one piece, of streams
        self.forget()

    def heard(self, now: float, after_s: float, *, stream: bool) -> None:
        """The first sign of an attempt: the whole answer, or the first token of a stream."""
        self.heard_at = now
        slowest_s = self.slowest_s[stream]
        self.slowest_s[stream] = after_s if after_s > slowest_s else slowest_s + NEWER * (after_s - slowest_s)

    def forget(self) -> None:
        self.first_token_s: float | None = None
        self.per_token_s = PER_TOKEN_S
        self.at = 0.0

    def feed(self, now: float, first_token_s: float, per_token_s: float | None) -> None:
        """A stream's own figures; `per_token_s` is None where there was a single token."""
        known = self.first_token_s
        self.at = now
        if known is None:
            self.first_token_s = first_token_s
            self.per_token_s = self.per_token_s if per_token_s is None else per_token_s
            return
        self.first_token_s = known + NEWEST * (first_token_s - known)
        if per_token_s is not None:
            self.per_token_s += NEWEST * (per_token_s - self.per_token_s)

    def feed_whole(self, now: float, total_s: float, tokens: float) -> None:
        """An answer in one piece: both figures are scaled so that together they come to what it took."""
        first_s = FIRST_TOKEN_S if self.first_token_s is None else self.first_token_s
        expected_s = first_s + tokens * self.per_token_s
        scale = total_s / expected_s if expected_s > 0 else 1.0
        self.feed(now, first_s * scale, self.per_token_s * scale)

    def seconds(self, tokens: float, now: float) -> float | None:
        """What an answer of so many tokens is expected to take without load; None: nobody knows."""
        if self.first_token_s is None:
            return None
        seconds = self.first_token_s + tokens * self.per_token_s
        silence_s = now - self.at
        if silence_s > 1.0 and not self.in_flight:  # who is being tried is about to tell
            seconds *= 0.5 ** (silence_s / HALVES_S)
        return seconds


class Live:
    """All targets. Bounded by the names of the configuration. Pure: times are passed in, in monotonic seconds.

    State: measures by target, attempts in flight by backend, expected output by route, and the targets whose breaker
    is not closed or has only just closed (`troubled`); who has none of them pays nothing for breakers.
    `opened` hears of each breaker that opens, and why.
    """

    def __init__(self, settings: Settings, opened: Callable[[Key, str], None] = lambda key, cause: None) -> None:
        self._settings = settings
        self._opened = opened
        self._measures: dict[Key, Measures] = {}
        self._outputs: dict[str, float] = {}
        self.in_flight: dict[str, int] = {}
        self.troubled: set[Key] = set()
        self.affinity = Affinity()

    def aside(self) -> Live:
        """For a decision that changes nothing here: it adds targets that nobody has asked, and drops the recovered."""
        live = copy.copy(self)
        live._measures, live.troubled = self._measures.copy(), self.troubled.copy()
        return live

    def of(self, key: Key) -> Measures:
        measures = self._measures.get(key)
        if measures is None:
            measures = self._measures[key] = Measures(self._settings)
        return measures

    def output(self, route: str) -> float:
        """Tokens that an answer of this route has on average, each choice by itself."""
        return self._outputs.get(route, FIRST_OUTPUT)

    def follow(
        self, settings: Settings, targets: Collection[Key], anew: Collection[Key], routes: Collection[str], now: float
    ) -> None:
        """Another generation of routes.yaml: forgets the targets that are gone and idle, and what was learnt of those
        that are reached in another way (`anew`)."""
        self._settings = settings
        self._measures = {key: one for key, one in self._measures.items() if key in targets or one.in_flight}
        for key, measures in self._measures.items():
            measures.breaker.follow(settings)
            if key in anew:
                measures.breaker = Breaker(settings, now)
                measures.slowest_s = [0.0, 0.0]
                measures.forget()
                self.troubled.discard(key)
        self.troubled &= self._measures.keys()
        backends = {backend for backend, _ in self._measures}
        self.in_flight = {name: calls for name, calls in self.in_flight.items() if calls or name in backends}
        self._outputs = {route: output for route, output in self._outputs.items() if route in routes}

    # -- what dispatch tells --------------------------------------------------------------------------------------

    def began(self, key: Key, now: float, attempt: object = None, *, stream: bool = False) -> bool:
        """True when this attempt is a probe."""
        measures = self.of(key)
        measures.in_flight += 1
        measures.unheard[attempt] = now, stream
        self.in_flight[key[0]] = self.in_flight.get(key[0], 0) + 1
        return key in self.troubled and measures.breaker.began(now)

    def heard(self, key: Key, now: float, attempt: object) -> None:
        """The first token of a stream."""
        measures = self._measures[key]
        began, _ = measures.unheard.pop(attempt, (now, True))
        measures.heard(now, now - began, stream=True)

    def ended(self, key: Key, probe: bool, attempt: object = None) -> None:
        """However it ended."""
        measures = self._measures[key]
        measures.in_flight -= 1
        measures.unheard.pop(attempt, None)
        self.in_flight[key[0]] -= 1
        if probe:
            measures.breaker.ended(probe)

    def succeeded(
        self, key: Key, *, began: float, now: float, first_token_s: float | None, took_s: float, output: float | None
    ) -> None:
        """`first_token_s` of a stream, `output` tokens per choice; None: nobody said. `took_s` without slow readers."""
        measures = self._measures[key]
        if measures.breaker.succeeded(began, now):
            measures.forget()  # what was measured of a target in distress
        if first_token_s is None:
            measures.heard(now, took_s, stream=False)
            measures.feed_whole(now, took_s, 0.0 if output is None else output)
        elif output is not None and output > 1:
            measures.feed(now, first_token_s, max(0.0, took_s - first_token_s) / (output - 1))
        else:
            measures.feed(now, first_token_s, None)

    def failed(self, key: Key, *, began: float, now: float) -> None:
        breaker = self._measures[key].breaker
        if breaker.failed(began, now):
            self.opened(key, breaker.cause)

    def opened(self, key: Key, cause: str) -> None:
        self.troubled.add(key)
        self._opened(key, cause)

    def wrote(self, route: str, output: float) -> None:
        known = self._outputs.get(route)
        self._outputs[route] = output if known is None else known + NEWEST * (output - known)

    # -- what breakers say ----------------------------------------------------------------------------------------

    def available(self, key: Key, now: float) -> bool:
        return key not in self.troubled or self._measures[key].breaker.available(now)

    def back_in_s(self, key: Key, now: float) -> float:
        return self._measures[key].breaker.back_in_s(now) if key in self.troubled else 0.0

    def state(self, key: Key, now: float) -> int:
        return self._measures[key].breaker.state(now) if key in self.troubled else 0

    def parted(self, targets: Sequence[T], now: float, rng: random.Random) -> tuple[list[T], list[T], list[T]]:
        """(those to choose from, those held back by their slow start this time, those that are down)."""
        good: list[T] = []
        held: list[T] = []
        down: list[T] = []
        for target in targets:
            key = target.key
            if key not in self.troubled:
                good.append(target)
                continue
            breaker = self._measures[key].breaker
            if not breaker.available(now):
                down.append(target)
                continue
            share = breaker.share(now)
            if share >= 1.0 and breaker.recovered_at is not None:
                self.troubled.discard(key)
            (good if share >= 1.0 or rng.random() < share else held).append(target)
        return good, held, down
