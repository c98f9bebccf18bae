"""An event loop without sockets or threads: time passes only when nothing else can happen, and the same every time."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
import selectors
from collections.abc import Callable, Mapping
from typing import Any

THREAD_S = (0.0, 0.0, 0.001, 0.02)  # what work in a thread takes
ROUNDING_S = 1e-6
MOST_STEPS = 40_000  # a run takes a tenth


class Stuck(AssertionError):
    """Nothing can happen any more, and what the loop runs for has not ended."""


class NoSockets(selectors.BaseSelector):
    """Lets the loop's time pass in place of waiting for files."""

    def __init__(self) -> None:
        self.wait: Callable[[float | None], None] = lambda timeout: None
        self._files: dict[Any, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = self._files[fileobj] = selectors.SelectorKey(fileobj, 0, events, data)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._files.pop(fileobj)

    def select(self, timeout: float | None = None) -> list[Any]:
        self.wait(timeout)
        return []

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._files


class VirtualLoop(asyncio.SelectorEventLoop):
    """State: the time `at`, how many `steps` were made, what is due after some more, and the random numbers."""

    def __init__(self, rng: random.Random) -> None:
        self.at = 0.0
        self.steps = 0
        self._rng = rng
        self._tasks: list[asyncio.Task[Any]] = []
        self._due: list[tuple[int, int, Callable[[], object]]] = []
        self._numbers = itertools.count()
        selector = NoSockets()
        super().__init__(selector)
        selector.wait = self._wait
        self._clock_resolution = ROUNDING_S

    def time(self) -> float:
        return self.at

    def create_task(self, coro: Any, **more: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = super().create_task(coro, **more)
        self._tasks.append(task)
        return task

    def living(self) -> list[asyncio.Task[Any]]:
        """The tasks that have yet to end, the oldest first; asyncio's own set of them has another order each time."""
        self._tasks = [task for task in self._tasks if not task.done()]
        return self._tasks

    def after(self, steps: int, callback: Callable[[], object]) -> None:
        """In so many steps of the loop: between any two awaits of whoever runs."""
        heapq.heappush(self._due, (self.steps + steps, next(self._numbers), callback))

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """Here, a little later: a thread whose work takes no time of the loop."""
        future: asyncio.Future[Any] = self.create_future()

        def work() -> None:
            if future.cancelled():  # only the end of a process cancels what waits for a thread
                return
            try:
                future.set_result(func(*args))
            except Exception as error:
                future.set_exception(error)

        self.call_later(self._rng.choice(THREAD_S), work)
        return future

    def _run_once(self) -> None:
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise Stuck(f"it goes on and on at {self.at} s")
        while self._due and self._due[0][0] <= self.steps:
            self.call_soon(heapq.heappop(self._due)[2])
        super()._run_once()  # type: ignore[misc]

    def _wait(self, timeout: float | None) -> None:
        if self._due and (timeout is None or timeout > 0):  # nobody makes steps: what is due after some is due now
            self.steps = self._due[0][0]
        elif timeout is None:
            raise Stuck(f"nothing can happen any more at {self.at} s")
        else:
            self.at += timeout


class SimClock:
    """The loop's time as gateway.clock.Clock. `skew_ms` is how far the wall clock was moved by itself."""

    def __init__(self, loop: VirtualLoop, start_ms: int) -> None:
        self._loop = loop
        self._start_ms = start_ms
        self.skew_ms = 0

    def now(self) -> float:
        return self._loop.at

    def wall_ms(self) -> int:
        return self._start_ms + self.skew_ms + int(self._loop.at * 1000)

    def call_at(self, when: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        return self._loop.call_at(when, callback)

    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
