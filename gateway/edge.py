"""aiohttp's RequestHandler with what it lacks: a header deadline, a body rate, a bound on connections, JSON errors."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, cast

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from gateway.errors import GatewayError, InvalidValue, NoBackend, encoded

HEADER_DEADLINE_S = 20.0  # from the first byte of a connection or request to its last header
BODY_GRACE_S = 10.0
MIN_BODY_BYTES_PER_S = 500
KEEPALIVE_S = 75.0
SWEEP_S = 1.0
FULL_RETRY_S = 1.0
_log = logging.getLogger("gateway.edge")


def error_response(error: GatewayError, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        status=error.status,
        body=encoded(error),
        headers={"content-type": "application/json", **error.headers(), **(headers or {})},
    )


def _full() -> bytes:
    error = NoBackend("The gateway has all the connections it can have.", retry_after_s=FULL_RETRY_S)
    fields = {"content-type": "application/json", **error.headers(), "connection": "close"}
    body = encoded(error)
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {error.status} Service Unavailable\r\n{lines}content-length: {len(body)}\r\n\r\n".encode() + body


_FULL = _full()


class EdgeHandler(RequestHandler):
    """One connection. Added state: since when headers are awaited, and the bytes of the body since its start."""

    __slots__ = ("_body_bytes", "_body_since", "_edge", "_headers_since", "_refused")

    def __init__(self, manager: Edge, **kwargs: Any) -> None:
        super().__init__(manager, **kwargs)
        self._headers_since: float | None = None
        self._body_since: float | None = None
        self._body_bytes = 0
        self._edge = manager
        self._refused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._edge.full():
            self._refused = True
            writable = cast(asyncio.WriteTransport, transport)  # uvloop's is one without inheriting from it
            writable.write(_FULL)
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
            self._headers_since = None
            self._body_bytes += len(data)
        elif self._headers_since is None:
            self._headers_since = self._loop.time()

    @property
    def between_requests(self) -> bool:
        """It has been answered and is kept open for the next request."""
        return self._keepalive_handle is not None and self.transport is not None and not self.transport.is_closing()

    def sweep(self, now: float) -> None:
        """Closes a connection whose headers take too long or whose body drips."""
        if self._headers_since is not None:
            if now - self._headers_since > HEADER_DEADLINE_S:
                self.force_close()
            return
        request = self._current_request
        if request is None or request._payload.is_eof():
            self._body_since, self._body_bytes = None, 0
            return
        if self._body_since is None:
            self._body_since = now
            return
        spent = now - self._body_since
        if spent > BODY_GRACE_S and self._body_bytes < spent * MIN_BODY_BYTES_PER_S and not self._reading_paused:
            self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What the HTTP parser refuses, and what nobody foresaw; the text of neither goes out."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun, no other can be sent")
        error: GatewayError
        if status == 400:
            error = InvalidValue("The request is not valid HTTP.")
        else:
            _log.error("a call failed unexpectedly", exc_info=exc)
            error = GatewayError("The gateway failed. The request id helps to find out why.")
        response = error_response(error)
        response.force_close()
        return response


class Edge(web.Server):
    """aiohttp's server with EdgeHandler connections; `handler_cancellation` so that a client's leaving cancels.

    `most` connections at a time: a call takes a second one, to a backend, which must not fail for want of files.
    """

    def __init__(self, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], most: int) -> None:
        super().__init__(handler, handler_cancellation=True)
        self._most = most

    def full(self) -> bool:
        """Once one that waits between two requests has had to make room, if there is any."""
        if len(self._connections) < self._most:
            return False
        for connection in self._connections:
            assert isinstance(connection, EdgeHandler)
            if connection.between_requests:
                connection.force_close()
                return False
        return True

    def __call__(self) -> RequestHandler:
        return EdgeHandler(
            self,
            loop=self._loop,
            access_log=None,
            keepalive_timeout=KEEPALIVE_S,
            auto_decompress=False,
            lingering_time=1.0,
        )

    async def sweep_forever(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            now = self._loop.time()
            for connection in list(self.connections):
                assert isinstance(connection, EdgeHandler)
                connection.sweep(now)
