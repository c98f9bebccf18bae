"""Work beside the calls that must not end unseen: what fails is logged, tried again, and named while it is down."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from gateway.clock import Clock

RETRY_S = 5.0
_log = logging.getLogger("gateway.chores")


class Chores:
    """State: a task for each, and the names of those that failed when they were last tried."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tasks: list[asyncio.Task[None]] = []
        self._down: dict[str, None] = {}

    @property
    def down(self) -> list[str]:
        return list(self._down)

    def every(self, period_s: float, name: str, step: Callable[[], None]) -> None:
        self._tasks.append(asyncio.create_task(self._repeat(period_s, name, step)))

    def keep(self, period_s: float, name: str, work: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        """Like `every`, for work that waits for something, until it is dropped."""
        task = asyncio.create_task(self._keep(period_s, name, work), name=name)
        self._tasks.append(task)
        return task

    def drop(self, task: asyncio.Task[None]) -> None:
        """What `keep` returned."""
        task.cancel()
        self._tasks.remove(task)
        self._down.pop(task.get_name(), None)

    def once(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Until it has succeeded."""
        self._tasks.append(asyncio.create_task(self._insist(name, work)))

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _repeat(self, period_s: float, name: str, step: Callable[[], None]) -> None:
        async def work() -> None:
            step()

        await self._keep(period_s, name, work)

    async def _keep(self, period_s: float, name: str, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await self._clock.sleep(period_s)
            try:
                await work()
            except Exception:
                self._failed(name)
            else:
                self._succeeded(name)

    async def _insist(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await work()
            except Exception:
                self._failed(name)
                await self._clock.sleep(RETRY_S)
            else:
                self._succeeded(name)
                return

    def _failed(self, name: str) -> None:
        """In the log once, not each second."""
        if name not in self._down:
            self._down[name] = None
            _log.exception("%s failed; it is tried again", name)

    def _succeeded(self, name: str) -> None:
        if name in self._down:
            del self._down[name]
            _log.info("%s works again", name)
