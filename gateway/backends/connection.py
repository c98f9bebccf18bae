"""One HTTP/1.1 connection to a backend and the answer that comes over it. Parsing is httptools' (llhttp, strict)."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from typing import Final, cast

import httptools

from gateway.call import Pieces
from gateway.clock import Clock
from gateway.errors import AttemptFailed

MAX_HEAD_BYTES: Final = 64 * 1024
MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024
LEAVE_S: Final = 1.0  # some backends never end an answer whose last event has come
PAUSE_BYTES: Final = 128 * 1024  # unread beyond this, the backend is paused: what bounds a slow reader's memory


class Stale(Exception):
    """A kept connection turned out to be closed before a byte of the answer came: ask again over a new one."""


class HttpExchange:
    """An answer as it comes. `status` is 0 until its head is there.

    State: the unread parts and their size, whether it ended or failed, and the future of who waits for more.
    """

    __slots__ = (
        "_connection", "_error", "_inflate", "_loop", "_parts", "_size", "_waiter", "ended", "headers", "status",
    )  # fmt: skip

    def __init__(self, connection: Connection, loop: asyncio.AbstractEventLoop) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.ended = False
        self._connection = connection
        self._loop = loop
        self._parts: list[bytes] = []
        self._size = 0
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._inflate: zlib._Decompress | None = None

    async def head(self) -> None:
        """Until status and headers are there. Raises AttemptFailed or Stale."""
        while not self.status:
            if self._error is not None:
                raise self._error
            await self._more()

    async def chunk(self) -> bytes:
        """What has come since the last chunk; b"" at the end. Raises AttemptFailed("broken")."""
        while not self._parts:
            if self._error is not None:
                raise self._error
            if self.ended:
                return b""
            await self._more()
        parts = self._parts
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        self._size = 0
        if not self.ended:
            self._connection.resume()
        return data

    async def read(self) -> bytes:
        """All of it. Raises AttemptFailed("broken"), also when it is longer than MAX_ANSWER_BYTES."""
        first = await self.chunk()
        if self.ended and not self._parts:
            return first
        parts, size = [first], len(first)
        while part := await self.chunk():
            size += len(part)
            if size > MAX_ANSWER_BYTES:
                self.close()
                raise AttemptFailed("broken", f"the answer is longer than {MAX_ANSWER_BYTES} bytes")
            parts.append(part)
        return b"".join(parts)

    def close(self) -> None:
        if not self.ended:
            self._connection.abort()

    def leave(self) -> None:
        if not self.ended:
            self._connection.close_in(LEAVE_S, self)

    # -- the connection's side ----------------------------------------------------------------------------------

    def begin(self, status: int, headers: dict[str, str]) -> None:
        self.headers = headers
        self.status = status
        if headers.get("content-encoding", "identity").lower() != "identity":
            self._inflate = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # gzip or zlib, by its header
        self._wake()

    def feed(self, data: bytes) -> bool:
        """Takes a part of the body; False when there is more unread than one should read ahead."""
        if self._inflate is not None:
            data = self._inflate.decompress(data, MAX_ANSWER_BYTES)  # asked for or not; a bomb ends at the bound
            if self._inflate.unconsumed_tail:
                raise zlib.error("longer than an answer may be")
        if data:
            self._parts.append(data)
            self._size += len(data)
            self._wake()
        return self._size <= PAUSE_BYTES

    def end(self) -> None:
        self.ended = True
        self._wake()

    def fail(self, error: Exception) -> None:
        if not self.ended and self._error is None:
            self._error = error
            self._wake()

    async def _more(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Connection(asyncio.Protocol):
    """One exchange at a time; `released` is called when it may serve the next, `lost` when it never will.

    State: the transport, the exchange in progress, the head as it is parsed, and what `_failed` found wrong in it;
    whether a body is still `_pouring`, and the transport too `_full` to take more of it until it is `_drained`.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, clock: Clock,
        released: Callable[[Connection], None], lost: Callable[[Connection], None],
    ) -> None:  # fmt: skip
        self.idle_since = 0.0
        self.gone: asyncio.Future[None] = loop.create_future()
        self._loop = loop
        self._clock = clock
        self._released = released
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._exchange: HttpExchange | None = None
        self._headers: dict[str, str] = {}
        self._bodies: list[bytes] = []
        self.on_body = self._bodies.append  # servers send a chunk per event: they are looked at once per read
        self._used = False  # it has served an exchange before this one
        self._received = 0
        self._paused = False
        self._failed = ""
        self._pouring = self._full = False
        self._drained: asyncio.Future[None] | None = None
        self._parser = httptools.HttpResponseParser(self)  # last: it looks up the callbacks now

    def send(self, message: bytes) -> HttpExchange:
        assert self._transport is not None
        assert self._exchange is None, "one exchange at a time"
        exchange = self._exchange = HttpExchange(self, self._loop)
        self._received = 0
        self._transport.write(message)
        return exchange

    async def pour(self, rest: Pieces) -> None:
        """What follows a message, no faster than it is taken. An answer that comes before its end stops it, and then
        the connection cannot serve another exchange."""
        exchange = self._exchange
        self._pouring = True
        async for piece in rest.pieces():
            if self._transport is None or exchange is None or exchange.status or exchange.ended:
                return  # `head` tells what happened
            self._transport.write(piece)
            if self._full:
                self._drained = self._loop.create_future()
                await self._drained
        self._pouring = False

    def resume(self) -> None:
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()

    def close_in(self, delay_s: float, exchange: HttpExchange) -> None:
        self._clock.call_at(self._clock.now() + delay_s, exchange.close)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # -- asyncio's side -----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one without inheriting from it

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def data_received(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None:
            self.abort()  # nobody asked
            return
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._failed = self._failed or "is not valid HTTP"
        self._pass_on(exchange)
        if not exchange.status and self._received > MAX_HEAD_BYTES:
            self._failed = f"has more than {MAX_HEAD_BYTES} bytes of headers"
        if self._failed:
            exchange.fail(AttemptFailed("broken", f"the backend's answer {self._failed}"))
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        exchange, self._exchange, self._transport = self._exchange, None, None
        self.resume_writing()
        self._lost(self)
        self.gone.set_result(None)
        if exchange is None:
            return
        if exc is None and exchange.status and not _framed(exchange.headers):
            exchange.end()  # a body without a length ends with its connection
        elif self._used and not self._received:
            exchange.fail(Stale())
        else:
            why = "closed" if exc is None else type(exc).__name__
            exchange.fail(AttemptFailed("broken", f"the answer broke off ({why})"))

    def _pass_on(self, exchange: HttpExchange) -> None:
        """The body as far as it has come."""
        bodies = self._bodies
        if not bodies:
            return
        data = bodies[0] if len(bodies) == 1 else b"".join(bodies)
        bodies.clear()
        if exchange.ended or self._failed:
            return
        try:
            go_on = exchange.feed(data)
        except zlib.error:
            self._failed = "cannot be decompressed"
            return
        if not go_on and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    # -- httptools' side; it loses what these raise ---------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._headers = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._exchange is None or self._exchange.status:
            return  # trailers
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        known = self._headers.get(key)
        self._headers[key] = text if known is None else f"{known}, {text}"

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self._exchange is None:
            self._failed = "is followed by another"
        elif status >= 200:
            self._exchange.begin(status, self._headers)

    def on_message_complete(self) -> None:
        exchange = self._exchange
        if exchange is None or not exchange.status:
            return  # 1xx: the answer follows
        self._pass_on(exchange)
        if self._failed:
            return
        self._exchange = None
        self._used = True
        exchange.end()
        self.resume()
        if self._pouring:
            self.abort()
        elif self._parser.should_keep_alive():  # only in here it tells the truth
            self._released(self)
        elif self._transport is not None:
            self._transport.close()


def _framed(headers: dict[str, str]) -> bool:
    return "content-length" in headers or "chunked" in headers.get("transfer-encoding", "").lower()
