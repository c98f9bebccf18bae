"""One deadline per call, which also carries the shorter waits inside it (first token, idle)."""

from __future__ import annotations

import asyncio
from types import TracebackType

from gateway.clock import Clock, Timer
from gateway.errors import AttemptFailed

_ROUNDING_S = 1e-6  # of sums and differences of times


class Deadline:
    """A context manager around each wait on a backend: turns its own cancel into AttemptFailed.

    Of kind timeout when the backend had all the time of this wait, deadline when the end of the call cut it short:
    only the first says something of the backend.

    One lazily moved timer serves a whole call, because `asyncio.timeout` per chunk costs more than the chunk.
    State: `_at` (until when is waited now; `_cut`: cut short), the armed timer and when it fires, and whether it fired.
    """

    __slots__ = ("_armed_for", "_at", "_cancelling", "_clock", "_cut", "_fired", "_task", "_timer", "ends")

    def __init__(self, clock: Clock, total_s: float) -> None:
        self._clock = clock
        self.ends = clock.now() + total_s
        self._at = self.ends
        self._cut = True
        self._timer: Timer | None = None
        self._armed_for = 0.0
        self._fired = False
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0

    @property
    def left_s(self) -> float:
        return self.ends - self._clock.now()

    def expect(self, within_s: float | None) -> None:
        """The next thing must come within this; None leaves only the whole deadline."""
        self._cut = within_s is None or within_s > self.left_s + _ROUNDING_S
        self._at = self.ends if within_s is None else min(self._clock.now() + within_s, self.ends)
        if self._task is not None and (self._timer is None or self._at < self._armed_for):
            self._arm()

    def __enter__(self) -> Deadline:
        self._task = asyncio.current_task()
        assert self._task is not None
        self._cancelling = self._task.cancelling()
        self._fired = False
        self._arm()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        self._disarm()
        if not self._fired:
            return
        self._fired = False
        assert task is not None
        # A cancel of our own must not outlive this block; one from outside as well must win over it.
        if task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise AttemptFailed("deadline" if self._cut else "timeout", "the backend did not answer in time") from error

    def _arm(self) -> None:
        self._disarm()
        self._armed_for = self._at
        self._timer = self._clock.call_at(self._at, self._fire)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer = None
        if self._task is None:
            return
        if self._clock.now() < self._at:
            self._arm()
            return
        self._fired = True
        self._task.cancel()
