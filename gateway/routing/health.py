"""Health: what a look at all targets together shows, where single calls show nothing yet. Pure: times are passed in.

Silent: several calls wait for longer than the target usually takes, and nothing at all is heard of it meanwhile. That
is a suspicion, taken back with the first sign of life. Outliers fail, or are slow, far beyond their peers, which are
the other targets of the same model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median_low
from typing import Final

from gateway.config.model import Breaker as Settings
from gateway.routing.breaker import CHECK, CLOSED, ERRORS, OPEN, SILENT, SLOW
from gateway.routing.live import Key, Live, Measures

LOOK_S: Final = 1.0
STALLED_S: Final = 0.5  # a look that comes so late says that we were stopped: what was sent to us is not read yet

SILENT_CALLS: Final = 3  # one or two may just be long
SILENT_S: Final = 2.0
TIMES_SLOWEST: Final = 2.0

MORE_ERRORS: Final = 0.1  # an outlier's share of errors is that much above TIMES_ERRORS its peers'
TIMES_ERRORS: Final = 3.0
LEAST_ERRORS: Final = 5
TIMES_SECONDS: Final = 5.0  # chips differ by two or three
MORE_SECONDS: Final = 2.0
SLOW_FOR_S: Final = 10.0  # a few long answers in a row are no illness
USUAL_OUTPUT: Final = 256  # tokens of the answer by which targets are compared


class Health:
    """State: when it looked last, and since when each of the slow targets is slow."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._settings = Settings()
        self._peers: dict[str, list[Key]] = {}
        self._of_backend: dict[str, list[Key]] = {}
        self._looked_at: float | None = None
        self._slow_since: dict[Key, float] = {}

    def follow(self, settings: Settings, targets: Iterable[Key]) -> None:
        """Those of another generation of routes.yaml."""
        self._settings = settings
        self._peers, self._of_backend = {}, {}
        for key in dict.fromkeys(targets):
            self._peers.setdefault(key[1], []).append(key)
            self._of_backend.setdefault(key[0], []).append(key)
        self._slow_since = {key: since for key, since in self._slow_since.items() if key in self._peers.get(key[1], ())}

    def look(self, now: float) -> None:
        """To be called each LOOK_S."""
        looked_at, self._looked_at = self._looked_at, now
        for key in list(self._live.troubled):
            self._acquit(key, now)
        if looked_at is None or now - looked_at > LOOK_S + STALLED_S:
            return
        for peers in self._peers.values():
            all_measures = {key: self._live.of(key) for key in peers}
            for key, measures in all_measures.items():
                if len(measures.unheard) >= SILENT_CALLS and self._is_silent(measures, all_measures.values(), now):
                    self._eject(key, SILENT, now)
            if len(peers) > 1:
                self._outliers(all_measures, now)

    def checked(self, backend: str, *, good: bool, now: float, until: float) -> None:
        """A check of a backend: a bad one opens all its targets until then, a good one takes back what bad ones did."""
        for key in self._of_backend.get(backend, ()):
            measures = self._live.of(key)
            breaker = measures.breaker
            if not good:
                if breaker.cause != CHECK:
                    self._live.opened(key, CHECK)
                breaker.hold(now, until)
            elif breaker.cause == CHECK:
                breaker.recover(now)
                measures.forget()

    def _acquit(self, key: Key, now: float) -> None:
        """Before the cooldown is over; after it the probe decides."""
        measures = self._live.of(key)
        breaker = measures.breaker
        if breaker.cause == SILENT and breaker.state(now) == OPEN and measures.heard_at > breaker.since:
            breaker.acquit()
            self._live.troubled.discard(key)

    def _is_silent(self, measures: Measures, peers: Iterable[Measures], now: float) -> bool:
        """Nobody has ever heard of a target of this model: nobody can tell what is long for it."""
        patience_s = [_patience_s(measures, peers, stream=stream) for stream in (False, True)]
        quiet_s = now - measures.heard_at
        overdue = [
            began
            for began, stream in measures.unheard.values()
            if min(now - began, quiet_s) > (patience_s[stream] or float("inf"))
        ]
        return len(overdue) >= SILENT_CALLS

    def _outliers(self, peers: Mapping[Key, Measures], now: float) -> None:
        """Those that are measured enough, each against the (lower) median of the others."""
        least = self._settings.min_requests
        seen = {key: measures.breaker.seen(now) for key, measures in peers.items() if not measures.breaker.cause}
        known = [key for key, (calls, _) in seen.items() if calls >= least]
        shares = {key: seen[key][1] / seen[key][0] for key in known}
        seconds = {key: s for key in known if (s := _seconds(peers[key])) is not None}
        for key, share in shares.items():
            others = _others(shares, key)
            if seen[key][1] >= LEAST_ERRORS and others and share > MORE_ERRORS + TIMES_ERRORS * median_low(others):
                self._eject_one(key, ERRORS, peers, now)
        for key in peers:
            others = _others(seconds, key)
            if (
                key in seconds
                and others
                and seconds[key] > max(TIMES_SECONDS * median_low(others), median_low(others) + MORE_SECONDS)
            ):
                if now - self._slow_since.setdefault(key, now) >= SLOW_FOR_S:
                    self._eject_one(key, SLOW, peers, now)
            else:
                self._slow_since.pop(key, None)

    def _eject_one(self, key: Key, cause: str, peers: Mapping[Key, Measures], now: float) -> None:
        """Never more than half of the peers are out."""
        out = sum(measures.breaker.state(now) != CLOSED for measures in peers.values())
        if out + 1 <= len(peers) // 2:
            self._slow_since.pop(key, None)
            self._eject(key, cause, now)

    def _eject(self, key: Key, cause: str, now: float) -> None:
        breaker = self._live.of(key).breaker
        if breaker.state(now) == CLOSED:
            breaker.eject(now, cause)
            self._live.opened(key, cause)


def _patience_s(measures: Measures, peers: Iterable[Measures], *, stream: bool) -> float | None:
    """How long silence is nothing unusual. Who was never heard of is measured by its peers."""
    slowest_s = measures.slowest_s[stream] or max((peer.slowest_s[stream] for peer in peers), default=0.0)
    return max(SILENT_S, TIMES_SLOWEST * slowest_s) if slowest_s else None


def _seconds(measures: Measures) -> float | None:
    first_s = measures.first_token_s
    return None if first_s is None else first_s + USUAL_OUTPUT * measures.per_token_s


def _others(values: Mapping[Key, float], own: Key) -> Sequence[float]:
    return [value for key, value in values.items() if key != own]
