"""Whose turn it is: a call goes round its targets until one serves it, and is held up only before a new round."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.routing.live import Live
from gateway.routing.policies import Target


class Turns:
    """Whom a call has asked.

    State: the places in `targets` that may be asked, those asked in this round, and until when each wants to rest.
    `desperate`: all were down when it began, and one is asked all the same; a retry would only add to a storm.
    """

    def __init__(self, targets: Sequence[Target]) -> None:
        self.targets = targets
        self.tries = 0
        self.rounds = 1
        self.desperate = False
        self._asked: list[int] = []
        self._rests = [0.0] * len(targets)
        self._left = list(range(len(targets)))

    @property
    def over(self) -> bool:
        """Nobody is left who might answer if asked again."""
        return not self._left

    def fresh(self, live: Live, now: float) -> list[int]:
        """Those that can be asked at once: healthy, and not asked in this round."""
        healthy = self._healthy(live, now)
        return [place for place in healthy if place not in self._asked] if self._asked else healthy

    def next_round(self, live: Live, now: float) -> list[int]:
        """All healthy ones again, those that wish to rest last; all ejected: the one that is back soonest first."""
        if self._asked:
            self.rounds += 1
            self._asked.clear()
        healthy = self._healthy(live, now)
        if not self.tries:
            self.desperate = not healthy
        if healthy:
            return sorted(healthy, key=lambda place: max(now, self._rests[place]))
        return sorted(self._left, key=lambda place: live.back_in_s(self.targets[place].key, now))

    def rest_s(self, live: Live, now: float) -> float:
        """Until the first of them may be asked again."""
        places = self._healthy(live, now) or self._left
        return max(0.0, min(self._rests[place] for place in places) - now)

    def ask(self, place: int) -> None:
        self.tries += 1
        self._asked.append(place)

    def failed(self, now: float, rest_s: float, *, for_good: bool = False) -> None:
        """The one that was asked last has failed, and wishes to be left alone for so long, or for this whole call."""
        self._rests[self._asked[-1]] = now + rest_s
        if for_good:
            self._left.remove(self._asked[-1])

    def _healthy(self, live: Live, now: float) -> list[int]:
        if not live.troubled:
            return list(self._left)
        return [place for place in self._left if live.available(self.targets[place].key, now)]
