"""An open-loop load: calls come at random times at a given rate, whatever becomes of those before them."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import cast

from benchmarks.load import chat

PATIENCE_S = 20.0  # after the last call was sent


@dataclass(slots=True)
class Sent:
    """One call. Times in seconds of the process clock; `status` is 0 where no answer came."""

    tenant: str
    due: float
    at: float
    ended: float = 0.0
    status: int = 0
    advised: bool = False  # it has retry-after and retry-after-ms

    @property
    def took_ms(self) -> float:
        return (self.ended - self.at) * 1000


class Connection(asyncio.Protocol):
    """One exchange at a time. State: the call under way, and what of its answer is there."""

    def __init__(self, free: list[Connection], answered: Callable[[], None]) -> None:
        self._free = free
        self._answered = answered
        self._call: Sent | None = None
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one without inheriting from it

    def connection_lost(self, exc: Exception | None) -> None:
        if self in self._free:
            self._free.remove(self)

    def send(self, call: Sent, request: bytes) -> None:
        self._call = call
        self._transport.write(request)

    def close(self) -> None:
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0 or self._call is None:
            return
        head = self._buffer[:end].lower()
        length = int(head[head.index(b"content-length:") + 15 :].split(b"\r\n", 1)[0])
        if len(self._buffer) < end + 4 + length:
            return
        call, self._call, self._buffer = self._call, None, b""
        call.ended, call.status = time.perf_counter(), int(head[9:12])
        call.advised = b"\r\nretry-after: " in head and b"\r\nretry-after-ms: " in head
        if b"connection: close" in head:
            self._transport.close()
        else:
            self._free.append(self)
        self._answered()


def arrivals(rates: dict[str, float], seconds: float, seed: int) -> list[tuple[float, str]]:
    """(time, tenant) of a Poisson process for each."""
    rng = random.Random(seed)
    out: list[tuple[float, str]] = []
    for tenant, rate in rates.items():
        at = 0.0
        while rate and (at := at + rng.expovariate(rate)) < seconds:
            out.append((at, tenant))
    return sorted(out)


async def run(port: int, rates: dict[str, float], seconds: float, seed: int = 1) -> list[Sent]:
    """All calls; tenant `t` has the key `sk-t`."""
    free: list[Connection] = []
    every: list[Connection] = []
    opening: set[asyncio.Task[None]] = set()
    complete, left = asyncio.Event(), 0  # below zero once all are sent
    requests = {tenant: _request(tenant) for tenant in rates}
    loop = asyncio.get_running_loop()

    async def by_new(call: Sent) -> None:
        _, connection = await loop.create_connection(lambda: Connection(free, answered), "127.0.0.1", port)
        every.append(connection)
        connection.send(call, requests[call.tenant])

    def answered() -> None:
        nonlocal left
        left += 1
        if not left:
            complete.set()

    calls: list[Sent] = []
    started = time.perf_counter()
    try:
        for due, tenant in arrivals(rates, seconds, seed):
            if (early_s := started + due - time.perf_counter()) > 0:
                await asyncio.sleep(early_s)
            call = Sent(tenant, started + due, time.perf_counter())
            calls.append(call)
            if free:
                free.pop().send(call, requests[tenant])
            else:
                task = loop.create_task(by_new(call))
                opening.add(task)
                task.add_done_callback(opening.discard)
        left -= len(calls)
        if left:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(complete.wait(), PATIENCE_S)
    finally:  # who is cancelled takes its calls along
        for connection in every:
            connection.close()
    return calls


def _request(tenant: str) -> bytes:
    body = chat("m", stream=False)
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer sk-{tenant}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def percentile(values: Iterable[float], share: float) -> float:
    ordered: Sequence[float] = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0
