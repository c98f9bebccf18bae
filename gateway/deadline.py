"""One deadline per call, which also carries the shorter waits inside it (first token, idle)."""

from __future__ import annotations

import asyncio
from types import TracebackType

from gateway.clock import Clock, Timer
from gateway.errors import AttemptFailed

_ROUNDING_S = 1e-6  # of sums and differences of times


class Deadlines:
    """One timer for the waits of all calls, because a timer per wait costs as much as routing a call.

    It is set for the earliest end that was seen, fires there, and then looks through all that wait now: most have moved
    on since. State: who waits, the timer and when it fires, and whether all is over.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._waiting: dict[Deadline, None] = {}
        self._timer: Timer | None = None
        self._armed_for = 0.0
        self.over = False

    def start(self, total_s: float) -> Deadline:
        return Deadline(self, total_s)

    def end(self) -> None:
        """The gateway shuts down: every wait ends now, and every later one at once."""
        self.over = True
        self._fire()

    def enter(self, deadline: Deadline) -> None:
        self._waiting[deadline] = None
        self.moved(deadline.at)

    def leave(self, deadline: Deadline) -> None:
        self._waiting.pop(deadline, None)

    def moved(self, at: float) -> None:
        """The end of one that waits is there now."""
        if self._timer is None or at < self._armed_for:
            self._arm(at)

    def _arm(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._armed_for = at = self.clock.now() if self.over else at
        self._timer = self.clock.call_at(at, self._fire)

    def _fire(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        now = self.clock.now()
        for deadline in [deadline for deadline in self._waiting if deadline.at <= now or self.over]:
            del self._waiting[deadline]
            deadline.fire()
        if self._waiting:
            self._arm(min([deadline.at for deadline in self._waiting]))


class Deadline:
    """A context manager around each wait on a backend: turns its own cancel into AttemptFailed.

    Of kind timeout when the backend had all the time of this wait, deadline when the end of the call cut it short,
    shutdown when the end of the gateway did: only the first says something of the backend.

    State: `at` (until when is waited now; `_cut`: cut short), who waits inside the block, and whether it fired.
    """

    __slots__ = ("_all", "_cancelling", "_clock", "_cut", "_fired", "_task", "at", "ends")

    def __init__(self, deadlines: Deadlines, total_s: float) -> None:
        self._all = deadlines
        self._clock = deadlines.clock
        self.ends = self._clock.now() + total_s
        self.at = self.ends
        self._cut = True
        self._fired = False
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0

    @property
    def left_s(self) -> float:
        return 0.0 if self._all.over else self.ends - self._clock.now()

    def expect(self, within_s: float | None) -> None:
        """The next thing must come within this; None leaves only the whole deadline."""
        self.at, self._cut = self.ends, True
        if within_s is not None:
            at = self._clock.now() + within_s
            if at <= self.ends + _ROUNDING_S:
                self.at, self._cut = min(at, self.ends), False
        if self._task is not None:
            self._all.moved(self.at)

    def fire(self) -> None:
        if self._task is not None:
            self._fired = True
            self._task.cancel()

    def __enter__(self) -> Deadline:
        self._task = asyncio.current_task()
        assert self._task is not None
        self._cancelling = self._task.cancelling()
        self._fired = False
        self._all.enter(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        if not self._fired:
            self._all.leave(self)
            return
        self._fired = False
        assert task is not None
        # A cancel of our own must not outlive this block; one from outside as well must win over it.
        if task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            why = "shutdown" if self._all.over else "deadline" if self._cut else "timeout"
            raise AttemptFailed(why, "the backend did not answer in time") from error
