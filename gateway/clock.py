"""Time as a collaborator, so that a virtual clock can drive everything on a call's path."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

LOOP_STEP_S = 0.001  # uvloop rounds to milliseconds and would wake who waits before the time has come


class Timer(Protocol):
    """What `Clock.call_at` returns."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """`now` is monotonic seconds (timeouts, rates); `wall_ms` is Unix milliseconds (expiry, records)."""

    def now(self) -> float: ...

    def wall_ms(self) -> int: ...

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer: ...

    async def sleep(self, delay_s: float) -> None: ...


class LoopClock:
    """The clock of the running event loop, read when it is asked for.

    asyncio's and uvloop's `loop.time` have the base of time.monotonic, but uvloop's is in whole milliseconds, and as it
    was at the start of the loop's step: too coarse to tell what a call has cost us.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.now = time.monotonic

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        return self._loop.call_at(when + LOOP_STEP_S, callback)

    async def sleep(self, delay_s: float) -> None:
        """Until a time, because the loop would count from the start of its step."""
        woken: asyncio.Future[None] = self._loop.create_future()
        timer = self.call_at(self.now() + delay_s, lambda: None if woken.done() else woken.set_result(None))
        try:
            await woken
        finally:
            timer.cancel()
