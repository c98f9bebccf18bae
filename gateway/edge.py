"""aiohttp's RequestHandler with what it lacks: a header deadline, a minimum body rate, JSON errors."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from gateway.errors import GatewayError, InvalidValue, encoded

HEADER_DEADLINE_S = 20.0  # from the first byte of a connection or request to its last header
BODY_GRACE_S = 10.0
MIN_BODY_BYTES_PER_S = 500
KEEPALIVE_S = 75.0
SWEEP_S = 1.0
_log = logging.getLogger("gateway.edge")


def error_response(error: GatewayError, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        status=error.status,
        body=encoded(error),
        headers={"content-type": "application/json", **error.headers(), **(headers or {})},
    )


class EdgeHandler(RequestHandler):
    """One connection. Added state: since when headers are awaited, and the bytes of the body since its start."""

    __slots__ = ("_body_bytes", "_body_since", "_headers_since")

    def __init__(self, manager: Edge, **kwargs: Any) -> None:
        super().__init__(manager, **kwargs)
        self._headers_since: float | None = None
        self._body_since: float | None = None
        self._body_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._headers_since = self._loop.time()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._request_in_progress or self._messages:
            self._headers_since = None
            self._body_bytes += len(data)
        elif self._headers_since is None:
            self._headers_since = self._loop.time()

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
    """aiohttp's server with EdgeHandler connections; `handler_cancellation` so that a client's leaving cancels."""

    def __init__(self, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> None:
        super().__init__(handler, handler_cancellation=True)

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
