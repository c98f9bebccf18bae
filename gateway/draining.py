"""Calls whose client has left, and whose backend is read on to its end: what they used is known then, not estimated."""

from __future__ import annotations

from typing import Final

from gateway.cache.flight import Flight
from gateway.clock import Clock
from gateway.dispatch import Delivery

MAX_DRAINED: Final = 100  # at once: who leaves calls behind must not hold all of a backend's slots
DRAIN_S: Final = 60.0


class Drains:
    """State: how many calls are read on for nobody."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.count = 0

    def take(self, flight: Flight, delivery: Delivery) -> bool:
        """Whether the call goes on without a reader, for a while: its backend says so, and there is room."""
        target = delivery.target
        if target is None or target.backend.on_disconnect != "drain" or self.count >= MAX_DRAINED:
            return False
        self.count += 1
        until = self._clock.now() + DRAIN_S
        timer = self._clock.call_at(until, flight.abandon_unread)

        def ended() -> None:
            self.count -= 1
            timer.cancel()

        flight.on_closed = ended
        flight.drains = lambda: self._clock.now() < until  # others may join it meanwhile, and leave
        return True
