"""Ejection: a target that fails five times in a row is left alone for a growing while."""

from __future__ import annotations

from gateway.clock import Clock

FAILURES_TO_EJECT = 5
FIRST_EJECTION_S = 5.0
LONGEST_EJECTION_S = 300.0


class _State:
    __slots__ = ("ejections", "failures", "until")

    def __init__(self) -> None:
        self.failures = 0
        self.ejections = 0
        self.until = 0.0


class Health:
    """State: failures in a row, ejections so far and the end of the current one, per (backend, model)."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._states: dict[tuple[str, str], _State] = {}

    def available(self, key: tuple[str, str]) -> bool:
        state = self._states.get(key)
        return state is None or state.until <= self._clock.now()

    def back_in_s(self, key: tuple[str, str]) -> float:
        state = self._states.get(key)
        return 0.0 if state is None else max(0.0, state.until - self._clock.now())

    def succeeded(self, key: tuple[str, str]) -> None:
        self._states.pop(key, None)

    def failed(self, key: tuple[str, str]) -> None:
        """After an ejection one more failure ejects again, for twice as long."""
        state = self._states.setdefault(key, _State())
        state.failures += 1
        if state.failures < FAILURES_TO_EJECT or state.until > self._clock.now():
            return
        pause_s = min(FIRST_EJECTION_S * 2**state.ejections, LONGEST_EJECTION_S)
        state.ejections = min(state.ejections + 1, 16)
        state.until = self._clock.now() + pause_s
