"""Time as a collaborator, so that a virtual clock can drive everything on a call's path."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol


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
    """The clock of the running event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.now = loop.time

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        return self._loop.call_at(when, callback)

    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
