"""One HTTP request: what it says, its body within bounds, and the way back to who sent it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

from gateway.errors import InvalidValue, RequestTooLarge

READ_AHEAD_BYTES: Final = 128 * 1024  # of a body that nobody has asked for yet
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_CREDENTIALS: Final = ("authorization", "x-api-key")
_NO_KEY: Final = "\0"  # what no header can hold


class Connection(Protocol):
    """What a request needs of the connection it came on."""

    writing_paused: bool

    @property
    def remote(self) -> str: ...

    def put(self, data: bytes) -> None: ...

    async def drained(self) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def abort(self) -> None: ...


class Body:
    """What follows the headers, as it comes.

    State: the parts and their size, how many of its bytes are waited for, by whom, and whether it has ended or broken.
    """

    __slots__ = ("_connection", "_parts", "_size", "_waiter", "_wanted", "broken", "ended")

    def __init__(self, connection: Connection) -> None:
        self.ended = self.broken = False
        self._connection = connection
        self._parts: list[bytes] = []
        self._size = 0
        self._wanted = READ_AHEAD_BYTES
        self._waiter: asyncio.Future[None] | None = None

    async def read(self, limit: int) -> bytes:
        """All of it, refused as soon as it is longer than `limit`. Raises RequestTooLarge or InvalidValue."""
        if not self.ended:
            await self._until(limit)
        if self._size > limit:
            raise too_large(limit)
        if self.broken:
            raise InvalidValue("The body is not valid HTTP.")
        parts, self._parts = self._parts, []  # what was taken is not kept twice
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def some(self) -> bytes:
        """What has come since; b"" at the end. Raises InvalidValue."""
        if not self._parts:
            await self._until(0)
        if self.broken:
            raise InvalidValue("The body is not valid HTTP.")
        data = b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        return data

    async def discard(self, within_s: float) -> bool:
        """Reads it off, for a moment; whether that was all."""
        try:
            async with asyncio.timeout(within_s):
                while not (self.ended or self.broken):
                    self._parts.clear()
                    self._size = 0
                    await self._until(READ_AHEAD_BYTES)
        except TimeoutError:
            return False
        return self.ended

    async def _until(self, size: int) -> None:
        """It has ended or broken, or there is more of it than `size`."""
        self._wanted = size
        self._connection.resume()
        while not (self.ended or self.broken or self._size > size):
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    # -- the connection's side --------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        self._parts.append(data)
        self._size += len(data)
        if self._size > self._wanted:
            self._connection.pause()
            self._wake()

    def end(self) -> None:
        self.ended = True
        self._wake()

    def fail(self) -> None:
        if not self.ended:
            self.broken = True
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class HttpRequest:
    """A request whose headers are there; names of headers are in lower case. `path` is decoded, without the query.

    State: `keep_alive`, which whoever answers takes back when the end of the connection ends the answer.
    """

    __slots__ = ("_connection", "_query", "content", "headers", "keep_alive", "method", "path", "version")

    def __init__(
        self, connection: Connection, method: str, target: str, version: str, headers: dict[str, str], keep_alive: bool
    ) -> None:
        self.method = method
        self.version = version
        self.headers = headers
        self.keep_alive = keep_alive
        self.content = Body(connection)
        self._connection = connection
        self.path, self._query = _split(target)

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(self._query, keep_blank_values=True))

    @property
    def remote(self) -> str:
        """The client's address, or ""."""
        return self._connection.remote

    async def body(self, limit: int) -> bytes:
        """All of it, refused before it is larger than `limit`. Raises RequestTooLarge or InvalidValue."""
        self.expect(limit)
        return await self.content.read(limit)

    def expect(self, limit: int) -> None:
        """Has the client go on with a body that may be read. Raises RequestTooLarge or InvalidValue."""
        headers = self.headers
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise InvalidValue("Compressed bodies are not accepted. Send the body as it is.")
        if int(headers.get("content-length", 0)) > limit:  # the parser has let nothing but digits pass
            raise too_large(limit)
        if headers.get("expect", "").lower() == "100-continue":
            self._connection.put(_CONTINUE)  # nothing of the answer can have gone out yet

    def end(self, data: bytes) -> None:
        """Writes without a wait: nothing follows that the client could hold up. Raises as `write`."""
        self._connection.put(data)

    def abort(self) -> None:
        """Cuts the connection, so that what was sent is known not to be whole."""
        self._connection.abort()

    async def write(self, data: bytes) -> None:
        """Waits while the client has more than it reads. Raises ConnectionError when it has left."""
        self._connection.put(data)
        if self._connection.writing_paused:
            await self._connection.drained()


def too_large(limit: int) -> RequestTooLarge:
    return RequestTooLarge(f"The body is larger than {limit} bytes, the limit of this gateway.")


def headers_of(fields: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    """The last of a name counts, but a credential that is sent twice is none."""
    headers = {name.lower().decode("ascii"): value.decode("utf-8", "surrogateescape") for name, value in fields}
    if len(headers) < len(fields):
        names = [name.lower().decode("ascii") for name, _ in fields]
        headers |= {name: _NO_KEY for name in _CREDENTIALS if names.count(name) > 1}
    return headers


def _split(target: str) -> tuple[str, str]:
    """Decoded path, and query. A proxy's form of a target has a scheme and a host in front."""
    if not target.startswith("/"):
        try:
            parts = urlsplit(target)
        except ValueError:  # an address in brackets that is none
            return target, ""
        return unquote(parts.path), parts.query
    path, _, query = target.partition("?")
    return unquote(path), query
