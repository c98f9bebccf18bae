"""A call under way whose answer several clients read: one upstream call, written once, read by each at its own pace."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from gateway.cache.store import Entry
from gateway.call import Answer, Call, Usage
from gateway.errors import GatewayError, ServiceError, ShuttingDown

AHEAD_BYTES: Final = 64 * 1024  # how far the backend may run ahead of the fastest reader
_BEHIND_ALL: Final = 2**62  # the place of who waits for the end: the backend is not held up for it
BEHIND_BYTES: Final = 1024 * 1024  # how far a reader may fall behind the fastest, of what is too long to be kept


@dataclass(slots=True)
class Facts:
    """What is known of the call behind a flight; `model` once it has begun, `usage` once it has ended well."""

    model: str
    backend: str
    ceiling_uc: int  # what it may take at most at the card standard, by which hits are charged
    usage: Usage | None
    usage_json: Any  # of a stream, as the backend said it
    usage_event: bytes


class Budget:
    """What all flights of a cache may keep together. State: `used` bytes."""

    __slots__ = ("limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0


class Flight:
    """The sink of a call, and the log that its readers read. Everything but `write` returns without suspending.

    The call runs in a task of its own, so that no reader's leaving is its end; the last one's is. The first reader is
    the client that asked, and it is given what it would have been given alone.

    As long as the log is `whole`, a reader may join at any time and gets what was sent so far at once. What grows
    beyond `limit` is whole no more: nobody else joins, nothing is stored, and what all have read is forgotten. The
    backend waits while it is far ahead of the fastest reader, so a slow one holds nobody up; one that falls too far
    behind is sent away.

    State: how the answer began (`status`, `headers`), what it is (`answer`, or the log and `last`), how it ended
    (`over`, `error`, `entry`, `closed`), who reads, and whether others may.
    """

    def __init__(
        self, call: Call, *, cache: str, tenant: str, limit: int, budget: Budget, facts: Callable[[], Facts]
    ) -> None:
        self.call = call
        self.cache = cache
        self.tenant = tenant
        self.facts = facts
        self.begun = False
        self.headers: dict[str, str] = {}
        self.answer: Answer | None = None
        self.last = b""
        self.over = self.closed = False
        self.error: GatewayError | None = None
        self.entry: Entry | None = None  # the whole answer, if it could be put together
        self.shared = self.kept = True
        self.private = False  # alone before it began: what it answers is for its own client only
        self.whole = True
        self.on_alone: Callable[[], None] = lambda: None  # nobody may join any more
        self.on_closed: Callable[[], None] = lambda: None
        self.drains: Callable[[], bool] = lambda: False  # whether it goes on when nobody reads
        self._limit = limit
        self._budget = budget
        self._task: asyncio.Task[Any] | None = None
        self._abandoned = False
        self._readers: dict[Reader, None] = {}
        self._chunks: list[bytes] = []
        self._first = 0  # number of the first chunk in the log
        self._kept_bytes = 0
        self.written = 0
        self._room: asyncio.Future[None] | None = None

    # -- the life of its task -------------------------------------------------------------------------------------

    def start(self) -> None:
        """The first thing its task does: a task that is cancelled before it began would never end its call."""
        self._task = asyncio.current_task()
        if self._abandoned:
            raise asyncio.CancelledError

    def abandon(self) -> None:
        """Nobody reads: the call ends as one whose client has left."""
        self.alone()
        self._abandoned = True
        if self._task is not None:
            self._task.cancel()

    def abandon_unread(self) -> None:
        """Unless somebody has joined since."""
        if not self._readers:
            self.abandon()

    def alone(self, *, kept: bool = False) -> None:
        """From here on nobody may join, and nothing is stored unless it is `kept`."""
        self.kept = self.kept and kept
        self.private = self.private or not self.begun
        if self.shared:
            self.shared = False
            self.on_alone()
            self._wake()

    def close(self) -> None:
        """The last thing its task does."""
        if not self.over:  # it was cancelled
            self.error = self.error or ShuttingDown("The gateway is shutting down.")
            self.over = True
        self.closed = True
        self.shared = False
        self.on_alone()
        self.on_closed()
        self._wake()
        self._forget()

    # -- the sink -------------------------------------------------------------------------------------------------

    async def begin(self, status: int, headers: dict[str, str]) -> None:
        assert status == 200, "only an answer begins a stream"
        self.begun, self.headers = True, headers
        self._wake()

    async def write(self, chunk: bytes) -> None:
        if not chunk:
            return
        self._append(chunk)
        while self.written > AHEAD_BYTES and self._far_ahead():
            self._room = asyncio.get_running_loop().create_future()
            try:
                await self._room
            finally:
                self._room = None

    def _far_ahead(self) -> bool:
        furthest = max([reader.read_bytes for reader in self._readers], default=self.written)
        return self.written - furthest > AHEAD_BYTES

    async def finish(self, last: bytes = b"", *, whole: bool = True) -> None:
        self.last, self.over = last, True
        self._wake()

    async def send(self, answer: Answer) -> None:
        self.begun = self.over = True
        self.answer = answer
        self._wake()

    def _append(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self.written += len(chunk)
        self._kept_bytes += len(chunk)
        self._budget.used += len(chunk)
        if self._kept_bytes > self._limit or self._budget.used > self._budget.limit:
            self.whole = False
            self.alone()
        if not self.whole:
            self._forget()
        self._wake()

    def _forget(self) -> None:
        """What all have read; and of what some have not, the part that is too long to wait for them.

        Of a log that was whole to its end, nobody is sent away.
        """
        behind_bytes = self._kept_bytes if self.whole else BEHIND_BYTES
        places = [reader.place for reader in self._readers] or [self.end]
        slowest, fastest = min(places), max(places)
        gone = gone_bytes = 0
        for chunk in self._chunks:
            number = self._first + gone
            if number >= slowest and (number >= fastest or self._kept_bytes - gone_bytes <= behind_bytes):
                break
            gone += 1
            gone_bytes += len(chunk)
        del self._chunks[:gone]
        self._first += gone
        self._kept_bytes -= gone_bytes
        self._budget.used -= gone_bytes

    # -- its readers ----------------------------------------------------------------------------------------------

    def join(self) -> Reader:
        reader = Reader(self)
        self._readers[reader] = None
        return reader

    def leave(self, reader: Reader) -> None:
        """Synchronous, and may be called twice."""
        if reader not in self._readers:
            return
        del self._readers[reader]
        self.moved()
        if not self._readers and not self.over and not self.drains():
            self.abandon()

    def log_from(self, place: int) -> tuple[bytes, int]:
        """What came since, and the place behind it. Raises ServiceError for who has fallen too far behind."""
        if place < self._first:
            raise ServiceError("This client reads too slowly for a stream that it shares with others. Call again.")
        return b"".join(self._chunks[place - self._first :]), self._first + len(self._chunks)

    def raw(self) -> bytes:
        """The whole stream. Only while it is whole."""
        return b"".join((*self._chunks, self.last))

    @property
    def end(self) -> int:
        return self._first + len(self._chunks)

    def moved(self) -> None:
        """A reader has read on, or left."""
        if self.closed:
            self._forget()
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def _wake(self) -> None:
        for reader in self._readers:
            reader.wake()


class Reader:
    """One client's place in a flight. State: the place, the bytes read up to it, and the wait for more."""

    __slots__ = ("_flight", "_waiter", "place", "read_bytes")

    def __init__(self, flight: Flight) -> None:
        self._flight = flight
        self._waiter: asyncio.Future[None] | None = None
        self.place = 0
        self.read_bytes = 0

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def begun(self) -> None:
        """Until the answer has begun, or nothing is to be expected for this reader."""
        flight = self._flight
        while not (flight.begun or flight.over or not flight.shared):
            await self._change()

    async def answered(self) -> None:
        """Until the answer has begun or the call has failed, for the client whose call it is."""
        flight = self._flight
        while not (flight.begun or flight.over):
            await self._change()

    async def closed(self) -> None:
        """Until the whole answer was put together, if it can be. Who waits for it reads nothing else."""
        self.place = self.read_bytes = _BEHIND_ALL
        self._flight.moved()
        while not self._flight.closed:
            await self._change()

    async def read(self) -> bytes:
        """All that came since the last read; nothing once it is over."""
        flight = self._flight
        while self.place == flight.end:
            if flight.over:
                return b""
            await self._change()
        data, self.place = flight.log_from(self.place)
        self.read_bytes += len(data)
        flight.moved()
        return data

    async def _change(self) -> None:
        """A future of its own: one that many wait for would be cancelled for all by one."""
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
