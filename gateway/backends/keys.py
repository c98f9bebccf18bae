"""The credentials of a backend: used in turn, left alone for a while after the backend refused one."""

from __future__ import annotations

from gateway.clock import Clock

ROTATE_ON = frozenset({401, 402, 403, 429})
REST_S = 30.0
LEAST_REST_S = 1.0  # whatever the backend wishes: two keys must not be a way round the retry budget


class Keys:
    """State: the index in use and until when each key rests. Values never leave except as a header."""

    def __init__(self, values: tuple[str, ...], clock: Clock) -> None:
        self._values = values
        self._clock = clock
        self._rests = [0.0] * len(values)
        self._at = 0

    def renewed(self, values: tuple[str, ...]) -> Keys:
        """For other values: those that stay rest as long as they were to, and the one in use stays in use."""
        if values == self._values:
            return self
        new = Keys(values, self._clock)
        rests = dict(zip(self._values, self._rests, strict=True))
        new._rests = [rests.get(value, 0.0) for value in values]
        if self._values and self._values[self._at] in values:
            new._at = values.index(self._values[self._at])
        return new

    def __len__(self) -> int:
        return len(self._values)

    def current(self) -> tuple[int, str] | None:
        """Index and value of the first key that does not rest, else the one that rests least; None without keys."""
        if not self._values:
            return None
        now = self._clock.now()
        for step in range(len(self._values)):
            index = (self._at + step) % len(self._values)
            if self._rests[index] <= now:
                return index, self._values[index]
        index = min(range(len(self._values)), key=self._rests.__getitem__)
        return index, self._values[index]

    def refused(self, index: int, rest_s: float | None = None) -> bool:
        """Moves on to the next key; True when there is one that was not refused lately."""
        now = self._clock.now()
        self._rests[index] = now + (REST_S if rest_s is None else max(rest_s, LEAST_REST_S))
        if self._at == index:
            self._at = (index + 1) % len(self._values)
        return any(rest <= now for rest in self._rests)
