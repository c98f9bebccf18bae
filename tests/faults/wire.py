"""Bytes on a socket, both ways, where an HTTP client would tidy them up or hide how the connection ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from tests.conftest import KEY

HOST = "127.0.0.1"
CHAT = "/v1/chat/completions"
ASKED: dict[str, Any] = {"model": "small", "messages": [{"role": "user", "content": "hello there"}]}
Conversation = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass(slots=True)
class Got:
    """All that came back: the first answer taken apart, whether the peer closed, and after how long."""

    raw: bytes
    closed: bool
    seconds: float

    @property
    def status(self) -> int:
        return int(self.raw.split(b" ", 2)[1]) if self.raw.startswith(b"HTTP/") else 0

    @property
    def head(self) -> bytes:
        return self.raw.partition(b"\r\n\r\n")[0]

    @property
    def body(self) -> bytes:
        return self.raw.partition(b"\r\n\r\n")[2]

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.json()["error"]["code"])

    @property
    def answers(self) -> int:
        return len(re.findall(rb"HTTP/\d\.\d \d{3} ", self.raw))


def request(
    path: str = CHAT, *, method: str = "POST", body: Any = None, headers: str = "", key: str | None = KEY
) -> bytes:
    """A request as a client would write it; `headers` are whole lines, each with its CRLF."""
    data = body if isinstance(body, bytes) else json.dumps(ASKED if body is None else body).encode()
    if method == "GET":
        data = b""
    credential = f"Authorization: Bearer {key}\r\n" if key is not None else ""
    head = f"{method} {path} HTTP/1.1\r\nHost: gateway\r\n{credential}{headers}Content-Length: {len(data)}\r\n\r\n"
    return head.encode("latin-1") + data


async def send(port: int, data: bytes, *, wait_s: float = 1.0, half_close: bool = False) -> Got:
    """Sends all of `data`, then reads until the peer closes or nothing more comes for `wait_s`."""
    started = time.perf_counter()
    reader, writer = await asyncio.open_connection(HOST, port)
    raw, closed = b"", False
    try:
        with contextlib.suppress(ConnectionError):
            writer.write(data)
            await writer.drain()
            if half_close:
                writer.write_eof()
        try:
            while True:
                part = await asyncio.wait_for(reader.read(65536), wait_s)
                if not part:
                    closed = True
                    break
                raw += part
        except TimeoutError:
            pass
        except ConnectionError:
            closed = True
        return Got(raw, closed, time.perf_counter() - started)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def serving(conversation: Conversation) -> AsyncIterator[int]:
    """A server on loopback that holds `conversation` with each connection; yields its port."""
    tasks: set[asyncio.Task[None]] = set()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await conversation(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(hold, HOST, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def read_request(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """(head, body) of a request with a content-length."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    return head, await reader.readexactly(length)
