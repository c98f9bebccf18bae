"""A closed-loop load: N connections, each sends its next call when the answer of the last is complete."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import cast

import orjson

MESSAGES = [
    {"role": "system", "content": "You are a helpful assistant. " * 8},
    {"role": "user", "content": "Tell me about the fox and the dog. " * 14},
]


@dataclass(frozen=True)
class Load:
    """`end` is what every complete answer ends with on the wire; `last` is in the last event of each stream."""

    name: str
    body: bytes
    end: bytes
    path: str = "/v1/chat/completions"
    last: bytes = b"data: [DONE]"


def chat(model: str, *, stream: bool) -> bytes:
    """A chat body of 0.9 KB."""
    body: dict[str, object] = {"model": model, "messages": MESSAGES, "max_tokens": 256, "temperature": 0.7}
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return orjson.dumps(body)


STREAM_END = b"0\r\n\r\n"
W1 = Load("W1", chat("m", stream=False), b"}")
W2 = Load("W2", chat("m", stream=True), STREAM_END)


def request(load: Load, key: str) -> bytes:
    head = (
        f"POST {load.path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(load.body)}\r\n\r\n"
    )
    return head.encode() + load.body


class Connection(asyncio.Protocol):
    """Sends `request` until `budget` runs dry. State: bytes of the answer so far."""

    def __init__(self, request: bytes, load: Load, budget: list[int], done: asyncio.Future[None]) -> None:
        self._request = request
        self._stream = load.end == STREAM_END
        self._last = load.last
        self._budget = budget
        self._done = done
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one without inheriting from it
        self._next()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            if self._complete():
                self._buffer = b""
                self._next()
        except AssertionError as error:
            self._transport.close()
            if not self._done.done():
                self._done.set_exception(error)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(exc or ConnectionError("the server closed the connection"))

    def _next(self) -> None:
        if self._budget[0] > 0:
            self._budget[0] -= 1
            self._transport.write(self._request)
        else:
            if not self._done.done():
                self._done.set_result(None)
            self._transport.close()

    def _complete(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        assert self._buffer.startswith(b"HTTP/1.1 200"), self._buffer[:300]
        if self._stream:
            if not self._buffer.endswith(STREAM_END):
                return False
            assert self._last in self._buffer, "a stream without its last event"
            return True
        head = self._buffer[:end].lower()
        length = int(head[head.index(b"content-length:") + 15 :].split(b"\r\n", 1)[0])
        return len(self._buffer) >= end + 4 + length


async def run(port: int, load: Load, key: str, calls: int, connections: int) -> None:
    """All `calls` complete with 200, or an error."""
    loop = asyncio.get_running_loop()
    budget, message = [calls], request(load, key)
    waiting = []
    for _ in range(connections):
        done: asyncio.Future[None] = loop.create_future()
        await loop.create_connection(lambda d=done: Connection(message, load, budget, d), "127.0.0.1", port)  # type: ignore[misc]
        waiting.append(done)
    await asyncio.gather(*waiting)
