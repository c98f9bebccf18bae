"""HTTP/1.1 connections: aiohttp's parser and its handling of a connection, with a loop over requests of our own.

aiohttp's own loop makes a task, a request, a writer and a response of each call, which costs more than to route and
to charge it; and it lacks deadlines for headers and for readers, a body rate, a bound on connections and errors in
JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import sys
import termios
from collections.abc import Awaitable, Callable
from typing import Any, cast

from aiohttp import StreamReader, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import RawRequestMessage
from aiohttp.web_protocol import RequestHandler

from gateway.call import Answer
from gateway.errors import GatewayError, InvalidValue, NoBackend
from gateway.request import HttpRequest

HEADER_DEADLINE_S = 20.0  # from the first byte of a connection or request to its last header
BODY_GRACE_S = 10.0
MIN_BODY_BYTES_PER_S = 500
READ_IDLE_S = 60.0  # a client at 1 kB/s opens its window every 8 kB on a network, every 64 kB on loopback
KEEPALIVE_S = 75.0
LINGER_S = 1.0
SWEEP_S = 1.0
FULL_RETRY_S = 1.0
DRAIN_LOOK_S = 0.02
_log = logging.getLogger("gateway.edge")


def _farewell(refusal: Answer, reason: str) -> bytes:
    """An answer for a connection that is closed without a look at what it asks."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in refusal.headers.items())
    head = f"HTTP/1.1 {refusal.status} {reason}\r\n{lines}connection: close\r\ncontent-length: {len(refusal.body)}"
    return f"{head}\r\n\r\n".encode() + refusal.body


class EdgeHandler(RequestHandler):
    """One connection. Added state: since when headers are awaited, the request that is served, the bytes of its body.

    `_written` bytes were given to the transport, of which the client had taken `_taken` when it last took any.
    """

    __slots__ = (
        "_body_bytes",
        "_body_since",
        "_edge",
        "_headers_since",
        "_refused",
        "_request",
        "_stalled_since",
        "_taken",
        "_written",
    )

    def __init__(self, manager: Edge, **kwargs: Any) -> None:
        super().__init__(manager, **kwargs)
        self._headers_since: float | None = None
        self._request: HttpRequest | None = None
        self._body_since: float | None = None
        self._body_bytes = 0
        self._written = self._taken = 0
        self._stalled_since: float | None = None
        self._edge = manager
        self._refused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._edge.full():
            self._refused = True
            writable = cast(asyncio.WriteTransport, transport)  # uvloop's is one without inheriting from it
            full = NoBackend("The gateway has all the connections it can have.", retry_after_s=FULL_RETRY_S)
            writable.write(_farewell(self._edge.refuse(full), "Service Unavailable"))
            writable.close()
            return
        super().connection_made(transport)
        self._headers_since = self._loop.time()

    def connection_lost(self, exc: BaseException | None) -> None:
        if not self._refused:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        super().data_received(data)
        if self._request_in_progress or self._messages:
            self._fail_broken_body()
            self._headers_since = None
            self._body_bytes += len(data)
        elif self._headers_since is None:
            self._headers_since = self._loop.time()

    async def start(self) -> None:
        """Requests one after another, in the connection's own task: who leaves cancels what is done for them."""
        try:
            while not (self._close or self._force_close):
                if not await self._serve(*await self._next()):
                    break
                self._next_keepalive_close_time = self._loop.time() + KEEPALIVE_S
                if self._keepalive_handle is None:
                    self._keepalive_handle = self._loop.call_at(
                        self._next_keepalive_close_time, self._process_keepalive
                    )
        except asyncio.CancelledError:
            self.force_close()
            raise
        except ConnectionError:  # the client has left
            self.force_close()
        except Exception:
            _log.exception("a connection failed unexpectedly")
            self.force_close()
        self._task_handler = None
        if self.transport is not None:
            self.transport.close()

    async def _next(self) -> tuple[Any, StreamReader]:
        """The next message, which is no RawRequestMessage when it could not be parsed, and its body."""
        if not self._messages:
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        message, payload = self._messages.popleft()
        if self._parser is not None:
            self._parser.message_consumed()
        if self._buffer_paused and len(self._messages) <= self._msg_queue_resume_size:
            self._resume_reading_if_drained()
        return message, payload

    async def _serve(self, message: Any, payload: StreamReader) -> bool:
        """Whether the connection can serve another request."""
        if not isinstance(message, RawRequestMessage):
            refusal = self._edge.refuse(InvalidValue("The request is not valid HTTP."))
            self.put(_farewell(refusal, "Bad Request"))
            return False
        request = self._request = HttpRequest(self, message, payload)
        self._request_in_progress = True
        if self._edge.draining:
            request.keep_alive = False
        self._fail_broken_body()
        try:
            await self._edge.handle(request)
            if self.writing_paused:  # a call has ended before all of it was read: the next one waits
                await self.drained()
        finally:
            self._request = None
            self._request_in_progress = False
        if self._upgraded:  # what follows is in the protocol that nobody switched to
            return False
        return request.keep_alive and (payload.is_eof() or await self._discard(payload))

    def _fail_broken_body(self) -> None:
        """Behind a body that has not ended there can only be what the parser could not read of it: it tells nobody."""
        if self._messages and self._request is not None and not self._request.payload.is_eof():
            self._request.payload.set_exception(web.RequestPayloadError("not framed as HTTP"))

    async def _discard(self, payload: StreamReader) -> bool:
        """Reads the rest of a body for a moment: a client that still sends would see a reset instead of its answer."""
        with contextlib.suppress(TimeoutError, HttpProcessingError, web.RequestPayloadError):
            async with asyncio.timeout(LINGER_S):
                while not payload.is_eof():
                    await payload.readany()
        return payload.is_eof()

    def put(self, data: bytes) -> None:
        """Raises ConnectionError when the client has left."""
        if self.transport is None or self.transport.is_closing():
            raise ConnectionResetError("the client has left")
        self._written += len(data)
        self.transport.write(data)

    async def drained(self) -> None:
        if self._drain_waiter is not None and self._drain_waiter.cancelled():
            self._drain_waiter = None  # a deadline ended this wait once: the next must not end with it
        await self._drain_helper()

    @property
    def between_requests(self) -> bool:
        """It has been answered and is kept open for the next request."""
        return self._waiter is not None and self._request_count > 0 and not self._messages

    def last_answer(self) -> None:
        """What is served now is the last thing on this connection."""
        if self._request is not None:
            self._request.keep_alive = False

    def busy(self, transport: asyncio.Transport) -> bool:
        """A request is served, or not all of its answer has left."""
        return self._request is not None or bool(self._messages) or transport.get_write_buffer_size() > 0

    def end(self, transport: asyncio.Transport) -> asyncio.Task[None] | None:
        """Now, whatever is under way; returns the task whose end is to be awaited."""
        task = self._task_handler
        if task is not None:
            task.cancel()
        if transport.get_write_buffer_size():
            transport.abort()  # to close it would wait for the reader
        self.force_close()
        return task

    def sweep(self, now: float, transport: asyncio.Transport) -> None:
        """Closes a connection whose headers take too long, whose body drips, or whose answers nobody reads."""
        if self._unread_for(now, transport) > READ_IDLE_S:
            transport.abort()  # to close it would wait for the reader
            return
        if self._headers_since is not None:
            if now - self._headers_since > HEADER_DEADLINE_S:
                self.force_close()
            return
        if self._request is None or self._request.payload.is_eof():
            self._body_since, self._body_bytes = None, 0
            return
        if self._body_since is None:
            self._body_since = now
            return
        spent = now - self._body_since
        if spent > BODY_GRACE_S and self._body_bytes < spent * MIN_BODY_BYTES_PER_S and not self._reading_paused:
            self.force_close()

    def _unread_for(self, now: float, transport: asyncio.Transport) -> float:
        """For how many seconds the client has taken nothing of what waits for it.

        The kernel's queue counts too: it holds megabytes, and a slow reader that moves it does not move ours for long.
        """
        waiting = transport.get_write_buffer_size()
        if not waiting:
            self._stalled_since = None
            return 0.0
        taken = self._written - waiting - _unsent(transport)
        if self._stalled_since is None or taken > self._taken:
            self._stalled_since, self._taken = now, taken
        return now - self._stalled_since


def _unsent(transport: asyncio.Transport) -> int:
    """Bytes in the kernel that the client has not acknowledged; 0 on a system that does not tell."""
    with contextlib.suppress(OSError, ValueError):
        fd = transport.get_extra_info("socket").fileno()
        return int.from_bytes(fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    return 0


class Edge(web.Server):
    """aiohttp's server with EdgeHandler connections; `handler_cancellation` so that a client's leaving cancels.

    `most` connections at a time: a call takes a second one, to a backend, which must not fail for want of files.

    `refuse` makes the answer to what cannot be handled, and counts it.

    State: `draining`, from when on each connection ends behind its answer, and until when that is waited for.
    """

    def __init__(
        self, handle: Callable[[HttpRequest], Awaitable[None]], refuse: Callable[[GatewayError], Answer], most: int
    ) -> None:
        super().__init__(cast(Any, handle), handler_cancellation=True)
        self.handle = handle
        self.refuse = refuse
        self.draining = False
        self._most = most
        self._drain_until = 0.0

    def full(self) -> bool:
        """Once one that waits between two requests has had to make room, if there is any."""
        if len(self._connections) < self._most:
            return False
        for connection, _ in self._all():
            if connection.between_requests:
                connection.force_close()
                return False
        return True

    def __call__(self) -> RequestHandler:
        return EdgeHandler(self, loop=self._loop, access_log=None, keepalive_timeout=KEEPALIVE_S, auto_decompress=False)

    async def drain(self, within_s: float) -> None:
        """Waits until no request is served, but not longer, nor after `hurry`. Who connects is still answered."""
        self.draining = True
        self._drain_until = self._loop.time() + within_s
        for connection, _ in self._all():
            connection.last_answer()
        while self._loop.time() < self._drain_until:
            if not any(connection.busy(transport) for connection, transport in self._all()):
                break
            await asyncio.sleep(DRAIN_LOOK_S)

    def hurry(self) -> None:
        self._drain_until = 0.0

    async def shutdown(self, timeout: float | None = None) -> None:
        """Ends all connections, after the synchronous end of each call. aiohttp's own waits twice for each."""
        tasks = [task for connection, transport in self._all() if (task := connection.end(transport)) is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=timeout)
        self._connections.clear()

    def _all(self) -> list[tuple[EdgeHandler, asyncio.Transport]]:
        return cast(list[tuple[EdgeHandler, asyncio.Transport]], list(self._connections.items()))

    def sweep(self) -> None:
        """Asked for every SWEEP_S."""
        now = self._loop.time()
        for connection, transport in self._all():
            connection.sweep(now, transport)
