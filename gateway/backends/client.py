"""The hop to a backend: one request, its status, headers and chunks. Foreign exceptions end here.

Ours because a reverse proxy is made of it: ClientSession costs more than all else that a call needs.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol
from urllib.parse import quote, urlsplit

from gateway.backends.connection import Connection, HttpExchange, Stale
from gateway.call import Pieces
from gateway.clock import Clock
from gateway.deadline import Deadlines
from gateway.errors import AttemptFailed

IDLE_S: Final = 60.0
MAX_IDLE: Final = 512  # per origin; a connection more is closed after its call
_SAFE: Final = "/%:=&?~@!$'()*+,;"


class Exchange(Protocol):
    """An answer that has begun. `close` is synchronous and cuts the connection unless all was read.

    `leave`: what follows is of no interest, but its end may still come, so that the connection can be kept.
    """

    status: int
    headers: dict[str, str]  # names in lower case

    async def read(self) -> bytes: ...

    async def chunk(self) -> bytes:
        """The next bytes; b"" at the end."""

    def close(self) -> None: ...

    def leave(self) -> None: ...


class Client(Protocol):
    """`get` is the same hop for a request without a body; nothing is charged for it."""

    async def get(self, url: str, headers: Mapping[str, str]) -> Exchange: ...

    async def send(
        self, url: str, headers: Mapping[str, str], body: bytes | Pieces, sending: Callable[[], None]
    ) -> Exchange:
        """Raises AttemptFailed of kind connect or broken; deadlines are the caller's.

        `sending` is called when there is a connection, before the first byte goes over it.
        """

    async def aclose(self) -> None: ...


class Origin:
    """A host and port. State: its idle connections, the one that was used last at the end, and whether it is `gone`."""

    __slots__ = ("gone", "host", "idle", "port", "tls")

    def __init__(self, host: str, port: int, *, tls: bool) -> None:
        self.host = host
        self.port = port
        self.tls = tls
        self.gone = False
        self.idle: dict[Connection, None] = {}


class HttpClient:
    """HTTP/1.1 with kept connections: no redirects, no cookies, no proxy from the environment.

    State: origins and the unchanging part of a request's head, by URL (there are as many as routes.yaml has), the
    addresses that it has now, and all open connections.
    """

    def __init__(self, connect_s: float, clock: Clock, deadlines: Deadlines) -> None:
        self._connect_s = connect_s
        self._clock = clock
        self._deadlines = deadlines
        self._loop = asyncio.get_running_loop()
        self._targets: dict[str, tuple[Origin, str]] = {}
        self._origins: dict[tuple[str, str, int], Origin] = {}
        self._open: set[Connection] = set()
        self._tls: ssl.SSLContext | None = None
        self._wanted: set[tuple[str, str, int] | None] = set()  # empty until the first change of the configuration

    async def send(
        self, url: str, headers: Mapping[str, str], body: bytes | Pieces, sending: Callable[[], None]
    ) -> Exchange:
        origin, start = self._targets.get(url) or self._target(url)
        if isinstance(body, bytes):
            return await self._sent(origin, _head(start, headers, len(body)) + body, sending)
        return await self._sent(origin, _head(start, headers, body.size), sending, body)

    async def get(self, url: str, headers: Mapping[str, str]) -> Exchange:
        origin, start = self._target(url)
        message = _head(start.replace("POST", "GET", 1), headers, 0)
        return await self._sent(origin, message, lambda: None)

    async def _sent(
        self, origin: Origin, message: bytes, sending: Callable[[], None], rest: Pieces | None = None
    ) -> Exchange:
        if connection := self._idle(origin):
            try:
                return await _exchange(connection, message, sending, rest)
            except Stale:  # the backend gave the connection up just as it was used again
                pass
        try:
            return await _exchange(await self._connect(origin), message, sending, rest)
        except Stale as error:  # pragma: no cover - a new connection is never stale
            raise AttemptFailed("broken", "no answer") from error

    def follow(self, connect_s: float, base_urls: Iterable[str]) -> None:
        """Other backends from now on. Connections to those that stay are kept, others are closed behind their calls."""
        self._connect_s = connect_s
        self._targets.clear()  # found again with the next call
        self._wanted = {_address(url) for url in base_urls}
        for key in self._origins.keys() - self._wanted:
            origin = self._origins.pop(key)
            origin.gone = True
            for connection in list(origin.idle):
                connection.abort()

    async def aclose(self) -> None:
        for connection in list(self._open):
            connection.abort()
        for connection in list(self._open):
            await connection.gone

    def _target(self, url: str) -> tuple[Origin, str]:
        """Raises AttemptFailed("connect") for what is not an http(s) URL."""
        address = _address(url)
        if address is None:
            raise AttemptFailed("connect", "the base_url is not a URL")
        parts, (scheme, host, port) = urlsplit(url), address
        origin = self._origins.setdefault(address, Origin(host, port, tls=scheme == "https"))
        origin.gone = bool(self._wanted) and address not in self._wanted  # a call that began before asks it once more
        path = quote(parts.path + (f"?{parts.query}" if parts.query else ""), safe=_SAFE)
        named = f"[{host}]" if ":" in host else host.encode("idna").decode()
        where = named if parts.port is None else f"{named}:{port}"
        start = f"POST {path} HTTP/1.1\r\nhost: {where}\r\naccept: */*\r\naccept-encoding: identity\r\n"
        self._targets[url] = origin, start
        return origin, start

    def _idle(self, origin: Origin) -> Connection | None:
        if not origin.idle:
            return None
        connection, _ = origin.idle.popitem()  # the warmest; those at the other end get to age
        if self._clock.now() - connection.idle_since > IDLE_S:
            connection.abort()
            return None
        return connection

    async def _connect(self, origin: Origin) -> Connection:
        def released(connection: Connection) -> None:
            if origin.gone:
                connection.abort()
                return
            now = connection.idle_since = self._clock.now()
            origin.idle[connection] = None
            oldest = next(iter(origin.idle))
            if len(origin.idle) > MAX_IDLE or now - oldest.idle_since > IDLE_S:
                del origin.idle[oldest]
                oldest.abort()

        def lost(connection: Connection) -> None:
            origin.idle.pop(connection, None)
            self._open.discard(connection)

        def made() -> Connection:
            return Connection(self._loop, self._clock, released, lost)

        if origin.tls and self._tls is None:
            self._tls = ssl.create_default_context()
        try:
            with self._deadlines.start(self._connect_s):
                _, connection = await self._loop.create_connection(
                    made, origin.host, origin.port, ssl=self._tls if origin.tls else None
                )
        except AttemptFailed as error:
            raise AttemptFailed("connect", "could not connect in time") from error
        except (OSError, ValueError) as error:  # a host that is no name is a ValueError
            raise AttemptFailed("connect", f"could not connect ({type(error).__name__})") from error
        self._open.add(connection)
        return connection


def _address(url: str) -> tuple[str, str, int] | None:
    """Scheme, host and port; None for what is not an http(s) URL."""
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return None
    return (parts.scheme, parts.hostname, port) if parts.hostname else None


async def _exchange(
    connection: Connection, message: bytes, sending: Callable[[], None], rest: Pieces | None
) -> HttpExchange:
    try:
        sending()
        exchange = connection.send(message)
        if rest is not None:
            await connection.pour(rest)
        await exchange.head()
    except BaseException:
        connection.abort()
        raise
    return exchange


def _head(start: str, headers: Mapping[str, str], length: int) -> bytes:
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if lines.count("\n") != len(headers) or "\0" in lines:
        raise AttemptFailed("connect", "a header or key of this backend holds a line break")
    try:
        return f"{start}{lines}content-length: {length}\r\n\r\n".encode("latin-1")
    except UnicodeEncodeError:
        raise AttemptFailed("connect", "a header or key of this backend is not ASCII") from None
