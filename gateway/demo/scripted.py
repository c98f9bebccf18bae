"""A real local backend whose replies a test writes down: wrong, late, cut off or never.

    async with ScriptedBackend() as backend:
        backend.script([Reply(status=429, headers={"retry-after": "1"}), Reply(stream=[event(a), 0.1, Fault.RESET])])

A request that finds no reply in the script is answered honestly (`gateway.demo.backend`). All requests are recorded.
"""

from __future__ import annotations

import asyncio
import enum
import json
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web

from gateway.demo.backend import HOST, MAX_BODY_BYTES, answer, error, send

SHUTDOWN_S = 0.05  # a test that ends does not wait for handlers that hang


class Fault(enum.Enum):
    """How a reply goes wrong at this point."""

    HANG = "says nothing more and keeps the connection"
    RESET = "TCP reset"
    EOF = "the connection is closed although more was promised"


Pause = float | asyncio.Event | Fault  # seconds, wait until set, or a fault
Step = bytes | Pause


@dataclass(frozen=True)
class Reply:
    """`before` happens ahead of the status line; then `body` (bytes as they are, anything else as JSON) or `stream`."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    stream: Sequence[Step] | None = None
    before: Sequence[Pause] = ()


HANG = Reply(before=(Fault.HANG,))
RESET = Reply(before=(Fault.RESET,))
CLOSED = Reply(before=(Fault.EOF,))


def refusal(status: int, message: str = "scripted", code: str = "scripted", **headers: str) -> Reply:
    """An error in OpenAI's shape; `retry_after="1"` becomes the header `retry-after`."""
    return Reply(status, {name.replace("_", "-"): value for name, value in headers.items()}, error(message, code))


@dataclass(slots=True)
class Seen:
    """A request as it arrived, and how it ended. Times are the event loop's; `disconnected_at` if the client left."""

    method: str
    path: str
    headers: Mapping[str, str]
    raw: bytes
    started_at: float
    disconnected_at: float | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    cut: bool = False  # we broke the connection, so the client did not leave

    @property
    def body(self) -> Any:
        return json.loads(self.raw)

    @property
    def disconnected(self) -> bool:
        return self.disconnected_at is not None


Script = Callable[[Seen], Reply | None]


class ScriptedBackend:
    """Serves on 127.0.0.1. Mutable: `requests`, the script (`_replies`, then `_choose`), `_runner`, `url`."""

    def __init__(self) -> None:
        self.requests: list[Seen] = []
        self.url = ""  # without /v1
        self._replies: deque[Reply] = deque()
        self._choose: Script | None = None
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_route("*", "/{tail:.*}", self._handle)
        self._runner = web.AppRunner(
            app, handler_cancellation=True, access_log=None, shutdown_timeout=SHUTDOWN_S, auto_decompress=False
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, HOST, 0).start()
        self.url = f"http://{HOST}:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        runner, self._runner = self._runner, None
        assert runner is not None
        await runner.cleanup()

    @property
    def base_url(self) -> str:
        """What goes into routes.yaml."""
        return f"{self.url}/v1"

    @property
    def in_flight(self) -> int:
        return sum(not seen.ended.is_set() for seen in self.requests)

    def script(self, what: Script | Iterable[Reply]) -> None:
        """Replies in order, or a function of the request; None from it, or the end of the list, is an honest answer."""
        self._choose, self._replies = (what, deque()) if callable(what) else (None, deque(what))

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        now = asyncio.get_running_loop().time
        seen = Seen(request.method, request.path, request.headers, b"", now())
        self.requests.append(seen)
        try:
            seen.raw = await request.read()
            return await self._reply(request, seen)
        except (asyncio.CancelledError, ConnectionError):
            if not seen.cut and self._runner is not None:
                seen.disconnected_at = now()
            raise
        finally:
            seen.ended.set()

    async def _reply(self, request: web.Request, seen: Seen) -> web.StreamResponse:
        reply = self._next(seen)
        if reply is None:
            return await send(request, answer(seen.method, seen.path, seen.raw))
        for pause in reply.before:
            await _pause(request, seen, pause)
        if reply.stream is None:
            return _whole(reply)
        return await _stream(request, seen, reply)

    def _next(self, seen: Seen) -> Reply | None:
        if self._choose is not None:
            return self._choose(seen)
        return self._replies.popleft() if self._replies else None


def _whole(reply: Reply) -> web.Response:
    if isinstance(reply.body, bytes):
        return web.Response(status=reply.status, headers=reply.headers, body=reply.body)
    return web.json_response(reply.body, status=reply.status, headers=reply.headers)


async def _stream(request: web.Request, seen: Seen, reply: Reply) -> web.StreamResponse:
    response = web.StreamResponse(
        status=reply.status, headers={"content-type": "text/event-stream"} | dict(reply.headers)
    )
    await response.prepare(request)
    for step in reply.stream or ():
        if isinstance(step, bytes):
            await response.write(step)
        else:
            await _pause(request, seen, step)
    await response.write_eof()
    return response


async def _pause(request: web.Request, seen: Seen, pause: Pause) -> None:
    if isinstance(pause, asyncio.Event):
        await pause.wait()
    elif isinstance(pause, Fault):
        await _break(request, seen, pause)
    else:
        await asyncio.sleep(pause)


async def _break(request: web.Request, seen: Seen, fault: Fault) -> None:
    """Never returns: losing the connection cancels the handler."""
    transport = request.transport
    if fault is not Fault.HANG and transport is not None:
        seen.cut = True
        if fault is Fault.RESET:
            # With a linger of zero seconds the kernel sends a reset instead of a proper end.
            linger = struct.pack("ii", 1, 0)
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            transport.abort()
        else:
            transport.close()
    await asyncio.Event().wait()
