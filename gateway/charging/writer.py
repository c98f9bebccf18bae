"""Group commit: one daemon thread, one commit in flight, the batch is whatever queued during the last one.

A commit costs the same whether it carries one call or thirty. So when calls come faster than commits (more than BUSY in
the last one and the next), the next one waits for ENOUGH calls, at most until GAP_S after the start of the last.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from gateway.charging.schema import rows_of
from gateway.clock import Clock, Timer

BUSY: Final = 16
ENOUGH: Final = 32
GAP_S: Final = 0.008
log = logging.getLogger(__name__)
Batch = tuple[Any, Any]  # the changes and their numbered records


class Writer:
    """`take` returns a batch or None; `committed` and `failed` are called on the loop, one batch at a time.

    `queued` is how many calls wait for the next one.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, clock: Clock, write: Callable[[Any, Any], None],
        take: Callable[[], Batch | None], committed: Callable[[Any, float], None], failed: Callable[[Any], None],
        queued: Callable[[], int],
    ) -> None:  # fmt: skip
        self.batches = 0
        self._loop = loop
        self._clock = clock
        self._queued = queued
        self._last = 0  # calls in the last batch
        self._started_at = -GAP_S
        self._pause: Timer | None = None
        self._write = write
        self._take = take
        self._on_committed = committed
        self._on_failed = failed
        self._closing = False
        self._busy = False  # a commit is in flight, or about to be taken
        self._idle: asyncio.Future[None] | None = None
        self._jobs: queue.SimpleQueue[list[Any] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self._thread.start()

    def kick(self) -> None:
        """Have what is queued committed: at the end of this loop step, or after the commit in flight."""
        if not self._busy:
            self._busy = True
            self._plan()
        elif self._pause is not None and (self._closing or self._queued() >= ENOUGH):
            self._pause.cancel()
            self._pause = None
            self._loop.call_soon(self._start)

    async def aclose(self) -> None:
        """Commit all that is queued, then end the thread."""
        self._closing = True
        self.kick()
        self._idle = self._loop.create_future()
        await self._idle
        self._jobs.put(None)
        self._thread.join()

    def _plan(self) -> None:
        at, queued = self._started_at + GAP_S, self._queued()
        if BUSY - self._last < queued < ENOUGH and at > self._clock.now() and not self._closing:
            self._pause = self._clock.call_at(at, self._start)
        else:
            self._loop.call_soon(self._start)

    def _start(self) -> None:
        # Rows, balances and callbacks are taken in one step of the loop: that is why no lock is needed.
        self._pause, self._last = None, self._queued()
        batch = self._take()
        self._busy = batch is not None
        if batch is None:
            if self._idle is not None and not self._idle.done():
                self._idle.set_result(None)
            return
        self._started_at = self._clock.now()
        changes, records = batch
        self._jobs.put([changes, records, rows_of(changes)])

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            changes, records, rows = job
            started = time.perf_counter()
            good = True
            try:
                self._write(records, rows)
            except Exception:  # whatever it was: with this thread every call would wait for ever
                log.exception("the ledger's commit failed")
                good = False
            seconds = time.perf_counter() - started
            with contextlib.suppress(RuntimeError):  # the loop is gone, and with it all who wait
                self._loop.call_soon_threadsafe(self._done, changes, good, seconds)

    def _done(self, changes: Any, good: bool, seconds: float) -> None:
        if good:
            self.batches += 1
            self._plan()  # before the answers of this one are sent
            self._on_committed(changes, seconds)
        else:
            self._on_failed(changes)
            self._busy = False
            if self._idle is not None and not self._idle.done():
                self._idle.set_result(None)
