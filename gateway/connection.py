"""One HTTP/1.1 connection of a client: requests one after another. Parsing is httptools' (llhttp, strict).

Who sends too slowly, or reads nothing, is found by `sweep`, so that no request needs a timer of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import sys
import termios
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, cast

import httptools

from gateway.call import Answer
from gateway.errors import GatewayError, InvalidValue, NoBackend
from gateway.request import HttpRequest, headers_of

HEADER_DEADLINE_S: Final = 20.0  # from the first byte of a connection or request to its last header
BODY_GRACE_S: Final = 10.0
MIN_BODY_BYTES_PER_S: Final = 500
READ_IDLE_S: Final = 60.0  # a client at 1 kB/s opens its window every 8 kB on a network, every 64 kB on loopback
KEEPALIVE_S: Final = 75.0
LINGER_S: Final = 1.0
FULL_RETRY_S: Final = 1.0
MAX_FRAMING_BYTES: Final = 32 * 1024  # of a request that are not its body: headers, trailers, extensions of chunks
CHUNK_BYTES: Final = 8  # of framing that each byte of a body may bring: who sends byte by byte needs six
MAX_WAITING: Final = 8  # requests that were sent without waiting for the answers before
STEP_BYTES: Final = 4096  # of a read are parsed at a time: a large one must not become thousands of requests
_NO_HTTP: Final = "The request is not valid HTTP."
_log = logging.getLogger("gateway.connection")


class Server(Protocol):
    """What a connection asks of the edge it belongs to."""

    draining: bool
    handle: Callable[[HttpRequest], Awaitable[None]]
    refuse: Callable[[GatewayError], Answer]

    def opened(self, connection: Connection) -> bool: ...

    def closed(self, connection: Connection) -> None: ...


class Connection(asyncio.Protocol):
    """State: the head as it is parsed, requests that wait and the one that is served, and what is wrong with what came.

    `_body_head` is parsed in front of the body behind an upgrade, and is no request.

    `_since` is when the head that is awaited began, or the wait for it; of `_written` bytes the client had taken
    `_taken` when it last took any; `_unparsed` is what waits for the requests before it.
    """

    def __init__(self, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        self.writing_paused = False
        self.transport: asyncio.Transport | None = None
        self._server = server
        self._loop = loop
        self._task: asyncio.Task[None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._drain_waiter: asyncio.Future[None] | None = None
        self._in_head = True
        self._framing = 0
        self._target = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._body_head = b""
        self._incoming: HttpRequest | None = None  # the body of this one comes
        self._left = 0  # bytes of it, when its length is known
        self._requests: deque[HttpRequest] = deque()
        self._request: HttpRequest | None = None
        self._served = 0
        self._wrong = ""
        self._unparsed = b""
        self._reading_paused = False
        self._since = loop.time()
        self._body_since: float | None = None
        self._body_bytes = 0
        self._written = self._taken = 0
        self._stalled_since: float | None = None
        self._parser = httptools.HttpRequestParser(self)  # last: it looks up the callbacks now

    # -- asyncio's side ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one without inheriting from it
        if self._server.opened(self):
            self._task = self._loop.create_task(self._serve_all())
            return
        self._wrong = "no room"
        full = NoBackend("The gateway has all the connections it can have.", retry_after_s=FULL_RETRY_S)
        self.transport.write(_farewell(self._server.refuse(full), "Service Unavailable"))
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Who leaves cancels what is done for them."""
        self.transport = None
        self._server.closed(self)
        if self._drain_waiter is not None and not self._drain_waiter.done():
            self._drain_waiter.set_exception(ConnectionResetError("the client has left"))
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        self._body_bytes += len(data)
        if self._unparsed:
            self._unparsed += data
        else:
            self._parse(data)

    def pause_writing(self) -> None:
        self.writing_paused = True

    def resume_writing(self) -> None:
        self.writing_paused = False
        if self._drain_waiter is not None and not self._drain_waiter.done():
            self._drain_waiter.set_result(None)

    # -- parsing -----------------------------------------------------------------------------------------------------

    def _parse(self, data: bytes) -> None:
        """All of it that can be taken now; the rest waits until requests before it have been served."""
        while data and not self._wrong:
            if len(self._requests) >= MAX_WAITING:
                self._unparsed = data
                self.pause()
                return
            size = max(STEP_BYTES, self._left)
            data = self._step(data[:size]) + data[size:]

    def _step(self, data: bytes) -> bytes:
        """Returns what the parser left over."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:  # not taken up: what follows is HTTP still, or wrong
            return self._body_head + data[upgrade.args[0] :]
        except httptools.HttpParserError:
            self._fail(_NO_HTTP)
            return b""
        self._framing += len(data)
        if self._framing > MAX_FRAMING_BYTES:
            self._fail(f"The headers are longer than {MAX_FRAMING_BYTES} bytes.")
        return b""

    def _fail(self, why: str) -> None:
        """Nothing that comes after this is looked at. What came before is answered still."""
        self._wrong = why
        if self._incoming is not None:
            self._incoming.content.fail()
        self._wake()

    # httptools calls these, and loses what they raise.

    def on_message_begin(self) -> None:
        if self._body_head:
            return
        if not self._in_head:  # that of a connection's first request has begun with the connection
            self._in_head = True
            self._since = self._loop.time()
        self._framing = 0
        self._target = b""
        self._fields = []

    def on_url(self, part: bytes) -> None:
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((name, value))  # those of a trailer are not looked at

    def on_headers_complete(self) -> None:
        if self._body_head:
            self._body_head = b""
            return
        parser, headers = self._parser, headers_of(self._fields)
        self._in_head = False
        method, target = parser.get_method().decode("ascii"), self._target.decode("utf-8", "surrogateescape")
        keep_alive = parser.should_keep_alive() and method != "CONNECT"
        request = HttpRequest(self, method, target, parser.get_http_version(), headers, keep_alive)
        self._incoming = request
        self._left = int(headers.get("content-length", 0))
        if parser.should_upgrade():
            self._body_head = _body_head(headers)
        self._requests.append(request)
        self._wake()

    def on_body(self, data: bytes) -> None:
        self._framing -= len(data) * CHUNK_BYTES
        if self._left:
            self._left -= len(data)
        if self._incoming is not None:
            self._incoming.content.feed(data)

    def on_message_complete(self) -> None:
        if self._incoming is not None and not self._body_head:
            self._incoming.content.end()
            self._incoming = None

    # -- serving -----------------------------------------------------------------------------------------------------

    async def _serve_all(self) -> None:
        """Requests one after another, in the connection's own task."""
        try:
            while (request := await self._next()) is not None:
                if not await self._serve(request):
                    break
        except ConnectionError:  # the client has left
            pass
        except Exception:
            _log.exception("a connection failed unexpectedly")
        finally:
            self._task = None
            if self.transport is not None:
                self.transport.close()

    async def _next(self) -> HttpRequest | None:
        """None when nothing that can be answered follows."""
        while not self._requests:
            if self._wrong:
                self.put(_farewell(self._server.refuse(InvalidValue(self._wrong)), "Bad Request"))
                return None
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._requests.popleft()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _serve(self, request: HttpRequest) -> bool:
        """Whether the connection can serve another request."""
        self._request = request
        if self._server.draining:
            request.keep_alive = False
        try:
            await self._server.handle(request)
            if self.writing_paused:  # a call has ended before all of it was read: the next one waits
                await self.drained()
        finally:
            self._request = None
            self._served += 1
        # A client that still sends its body would see a reset instead of its answer: it is read off for a moment.
        whole = request.content.ended or await request.content.discard(LINGER_S)
        if not (whole and request.keep_alive):
            return False
        self._since = self._loop.time()
        self._go_on()
        return True

    def _go_on(self) -> None:
        """Takes up what waited for the requests before it."""
        if self._unparsed:
            data, self._unparsed = self._unparsed, b""
            self._parse(data)
        if not self._unparsed:
            self.resume()

    # -- what a request needs of it ----------------------------------------------------------------------------------

    @property
    def remote(self) -> str:
        peer = self.transport.get_extra_info("peername") if self.transport is not None else None
        return str(peer[0]) if peer else ""

    def put(self, data: bytes) -> None:
        """Raises ConnectionError when the client has left."""
        if self.transport is None or self.transport.is_closing():
            raise ConnectionResetError("the client has left")
        self._written += len(data)
        self.transport.write(data)

    async def drained(self) -> None:
        """The client has taken most of what waited for it. Raises ConnectionError when it has left."""
        if self.transport is None:
            raise ConnectionResetError("the client has left")
        if self.writing_paused:
            self._drain_waiter = self._loop.create_future()
            await self._drain_waiter

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def pause(self) -> None:
        if not self._reading_paused and self.transport is not None and not self.transport.is_closing():
            self._reading_paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        if self._reading_paused and self.transport is not None and not self.transport.is_closing():
            self._reading_paused = False
            self.transport.resume_reading()

    # -- what the edge asks of it ------------------------------------------------------------------------------------

    @property
    def between_requests(self) -> bool:
        """It has been answered and is kept open for the next request."""
        return self._served > 0 and self._waiter is not None and not self._requests

    @property
    def busy(self) -> bool:
        """A request is served, or not all of its answer has left."""
        if self.transport is None:
            return False
        return self._request is not None or bool(self._requests) or self.transport.get_write_buffer_size() > 0

    def last_answer(self) -> None:
        """What is served now is the last thing on this connection."""
        if self._request is not None:
            self._request.keep_alive = False

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()

    def end(self) -> asyncio.Task[None] | None:
        """Now, whatever is under way; returns the task whose end is to be awaited."""
        task = self._task
        if task is not None:
            task.cancel()
        if self.transport is not None:
            if self.transport.get_write_buffer_size():
                self.transport.abort()  # to close it would wait for the reader
            else:
                self.transport.close()
        return task

    def sweep(self, now: float) -> None:
        """Closes a connection that takes too long to say what it wants, whose body drips, or who reads nothing."""
        transport = self.transport
        if transport is None:
            return
        if self._unread_for(now, transport) > READ_IDLE_S:
            transport.abort()  # to close it would wait for the reader
        elif self._request is not None or self._requests:
            self._sweep_body(now, transport)
        elif now - self._since > (HEADER_DEADLINE_S if self._in_head else KEEPALIVE_S):
            transport.close()

    def _sweep_body(self, now: float, transport: asyncio.Transport) -> None:
        if self._request is None or self._request.content.ended:
            self._body_since = None
            return
        if self._body_since is None:
            self._body_since, self._body_bytes = now, 0
            return
        spent = now - self._body_since
        if spent > BODY_GRACE_S and self._body_bytes < spent * MIN_BODY_BYTES_PER_S and not self._reading_paused:
            transport.close()

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


def _farewell(refusal: Answer, reason: str) -> bytes:
    """An answer for a connection that is closed without a look at what it asks."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in refusal.headers.items())
    head = f"HTTP/1.1 {refusal.status} {reason}\r\n{lines}connection: close\r\ncontent-length: {len(refusal.body)}"
    return f"{head}\r\n\r\n".encode() + refusal.body


def _body_head(headers: dict[str, str]) -> bytes:
    """A head for the body of a request that asks for another protocol, b"" when it has none.

    httptools stops there and takes no body, which must not be taken for another request.
    """
    for name in ("transfer-encoding", "content-length"):
        if headers.get(name, "0") != "0":
            return f"POST / HTTP/1.1\r\n{name}: {headers[name]}\r\n\r\n".encode()
    return b""


def _unsent(transport: asyncio.Transport) -> int:
    """Bytes in the kernel that the client has not acknowledged; 0 on a system that does not tell."""
    with contextlib.suppress(OSError, ValueError):
        fd = transport.get_extra_info("socket").fileno()
        return int.from_bytes(fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    return 0
