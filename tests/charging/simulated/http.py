"""A request without a socket, as the server takes it, and what its client gets of the answer."""

from __future__ import annotations

import asyncio
import random
from typing import Any
from urllib.parse import parse_qsl

import orjson

END = b"0\r\n\r\n"
READING_S = (0.0, 0.0, 0.0, 0.001, 0.5)


class SimRequest:
    """State: what was `received`, and whether the client, or the process, is `gone`: then nobody gets a byte."""

    def __init__(self, method: str, target: str, headers: dict[str, str], body: bytes, rng: random.Random) -> None:
        self.method, self.version, self.remote = method, "1.1", "127.0.0.1"
        self.path, _, query = target.partition("?")
        self.query = dict(parse_qsl(query))
        self.headers = headers
        self.keep_alive = True
        self.received = b""
        self.gone = False
        self.slow = rng.random() < 0.1
        self._body = body
        self._rng = rng

    async def body(self, limit: int) -> bytes:
        return self._body

    def end(self, data: bytes) -> None:
        if self.gone:
            raise ConnectionError
        self.received += data

    async def write(self, data: bytes) -> None:
        self.end(data)
        if self.slow:
            await asyncio.sleep(self._rng.choice(READING_S))


class Answer:
    """`complete`: its last byte came, and where it is a stream, that says so."""

    def __init__(self, received: bytes) -> None:
        head, _, body = received.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        self.status = int(lines[0].split()[1]) if received else 0
        self.headers = dict(line.split(": ", 1) for line in lines[1:])
        self.stream = "transfer-encoding" in self.headers
        if self.stream:
            self.body, ended = _joined(body)
            self.complete = ended and self.body.endswith(b"data: [DONE]\n\n")
        else:
            self.body = body
            self.complete = bool(received) and len(body) == int(self.headers.get("content-length", 0))

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def words(self) -> int:
        """Words of a stream, of which each is a token at the least."""
        return self.body.count(b"word")

    @property
    def code(self) -> str:
        """Of an error."""
        return "" if self.stream or not self.body or self.status < 400 else str(self.json["error"]["code"])


def _joined(chunked: bytes) -> tuple[bytes, bool]:
    """The chunks, and whether they have ended."""
    parts: list[bytes] = []
    at = 0
    while (eol := chunked.find(b"\r\n", at)) >= 0:
        size = int(chunked[at:eol], 16)
        if not size:
            return b"".join(parts), True
        parts.append(chunked[eol + 2 : eol + 2 + size])
        at = eol + 2 + size + 2
    return b"".join(parts), False
