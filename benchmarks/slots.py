"""Backends with a bottleneck: each answer takes a while. `python -m benchmarks.slots SECONDS PORT...`.

POST /mode/ok, /mode/503 and /mode/hang change what it does; GET / tells how many calls it had, and how many at once.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import cast

import orjson
import uvloop

from benchmarks.upstream import WHOLE

_WHOLE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(WHOLE), WHOLE)
_NO = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"


class State:
    def __init__(self, takes_s: float) -> None:
        self.takes_s = takes_s
        self.mode = "ok"
        self.calls = self.at_once = self.most = 0


class Slots(asyncio.Protocol):
    """One connection; one request at a time, as the gateway sends them."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._buffer = b""
        self._busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one without inheriting from it

    def connection_lost(self, exc: Exception | None) -> None:
        self._ends()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end].lower()
        start = head.find(b"content-length:")
        length = int(head[start + 15 :].split(b"\r\n", 1)[0]) if start >= 0 else 0
        if len(self._buffer) >= end + 4 + length:
            self._buffer = b""
            self._request(head.split(b" ", 2)[1].decode())

    def _request(self, path: str) -> None:
        state = self._state
        if path.startswith("/mode/"):
            state.mode = path.removeprefix("/mode/")
        if not path.startswith("/v1/"):
            body = orjson.dumps({"calls": state.calls, "most": state.most})
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            return
        state.calls += 1
        state.at_once += 1
        state.most = max(state.most, state.at_once)
        self._busy = True
        if state.mode == "503":
            self._answer(_NO)
        elif state.mode != "hang":
            asyncio.get_running_loop().call_later(state.takes_s, self._answer, _WHOLE)

    def _answer(self, answer: bytes) -> None:
        self._ends()
        if not self._transport.is_closing():
            self._transport.write(answer)

    def _ends(self) -> None:
        if self._busy:
            self._busy = False
            self._state.at_once -= 1


async def serve(takes_s: float, ports: Sequence[int]) -> None:
    for port in ports:
        await _listen(State(takes_s), port)
    await asyncio.Event().wait()


async def _listen(state: State, port: int) -> None:
    await asyncio.get_running_loop().create_server(lambda: Slots(state), "127.0.0.1", port)


if __name__ == "__main__":
    uvloop.run(serve(float(sys.argv[1]), [int(port) for port in sys.argv[2:]]))
