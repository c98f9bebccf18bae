"""One HTTP request: what it says, its body within bounds, and the way back to who sent it."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from aiohttp import HttpVersion, StreamReader, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import RawRequestMessage
from multidict import CIMultiDictProxy

from gateway.errors import InvalidValue, RequestTooLarge

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Connection(Protocol):
    """What a request needs of the connection it came on."""

    transport: asyncio.Transport | None

    @property
    def writing_paused(self) -> bool: ...

    def put(self, data: bytes) -> None: ...

    async def drained(self) -> None: ...


class HttpRequest:
    """A request whose headers are there; names of headers are in lower case.

    State: `keep_alive`, which whoever answers takes back when the end of the connection ends the answer.
    """

    __slots__ = ("_connection", "_message", "headers", "keep_alive", "payload")

    def __init__(self, connection: Connection, message: RawRequestMessage, payload: StreamReader) -> None:
        self.headers = _lower(message.headers)
        self.keep_alive = not message.should_close
        self._connection = connection
        self._message = message
        self.payload = payload

    @property
    def method(self) -> str:
        return self._message.method

    @property
    def path(self) -> str:
        """Decoded, without the query."""
        return self._message.url.path

    @property
    def query(self) -> dict[str, str]:
        return dict(self._message.url.query)

    @property
    def version(self) -> HttpVersion:
        return self._message.version

    @property
    def remote(self) -> str:
        """The client's address, or ""."""
        transport = self._connection.transport
        peer = transport.get_extra_info("peername") if transport is not None else None
        return str(peer[0]) if peer else ""

    async def body(self, limit: int) -> bytes:
        """All of it, refused before it is larger than `limit`. Raises RequestTooLarge or InvalidValue."""
        headers, payload = self.headers, self.payload
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise InvalidValue("Compressed bodies are not accepted. Send the body as it is.")
        if int(headers.get("content-length", 0)) > limit:  # the parser has let nothing but digits pass
            raise _too_large(limit)
        if headers.get("expect", "").lower() == "100-continue":
            self._connection.put(_CONTINUE)  # nothing of the answer can have gone out yet
        try:
            return await self._read(payload, limit)
        except (HttpProcessingError, web.RequestPayloadError):
            self.keep_alive = False
            raise InvalidValue("The body is not valid HTTP.") from None

    async def _read(self, payload: StreamReader, limit: int) -> bytes:
        parts: list[bytes] = []
        size = 0
        while True:
            whole = payload.is_eof()
            part = payload.read_nowait() if whole else await payload.readany()
            size += len(part)
            if size > limit:
                raise _too_large(limit)
            parts.append(part)
            if whole or not part:
                return parts[0] if len(parts) == 1 else b"".join(parts)

    def end(self, data: bytes) -> None:
        """Writes without a wait: nothing follows that the client could hold up. Raises as `write`."""
        self._connection.put(data)

    async def write(self, data: bytes) -> None:
        """Waits while the client has more than it reads. Raises ConnectionError when it has left."""
        self._connection.put(data)
        if self._connection.writing_paused:
            await self._connection.drained()


def _too_large(limit: int) -> RequestTooLarge:
    return RequestTooLarge(f"The body is larger than {limit} bytes, the limit of this gateway.")


def _lower(sent: CIMultiDictProxy[str]) -> dict[str, str]:
    """A credential that is sent twice is none."""
    headers = {name.lower(): value for name, value in sent.items()}
    if len(headers) < len(sent):  # something was sent twice
        credentials = [len(sent.getall(name, ())) for name in ("authorization", "x-api-key")]
        if max(credentials) > 1:
            headers.pop("authorization", None)
            headers.pop("x-api-key", None)
    return headers
