"""Restarts behind one listening socket: no call fails, those that come meanwhile wait in the socket."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from gateway.charging.audit import audit
from gateway.demo.scripted import ScriptedBackend
from tests.chaos.gateway_process import GatewayProcess
from tests.chaos.test_reloads import ONLY_LONG
from tests.chaos.traffic import Traffic
from tests.conftest import ADMIN_KEY

PATIENT = ("first_token: 1s, idle: 1s, total: 5s", "first_token: 10s, idle: 10s, total: 30s")
DRAIN_S, STREAMS, CALLS_PER_S = 5.0, 50, 100
READY = b"GET /readyz HTTP/1.1\r\nhost: g\r\n\r\n"
LATEST_END_S = DRAIN_S + 3.0  # and the time that it takes to say farewell, on a machine that does other things too


class Parent:
    """What holds the socket, and starts a gateway when the one before has ended. State: the gateway that runs."""

    def __init__(self, gateway: GatewayProcess, folder: Path) -> None:
        self._routes = gateway.routes
        self._log = folder / "gateway.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.ends_s: list[float] = []
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    async def start(self) -> None:
        """Returns when it answers; who asks before waits in the socket."""
        self._process = self._spawn()
        async with aiohttp.ClientSession() as http, http.get(f"{self.url}/readyz") as answer:
            assert answer.status == 200

    def _spawn(self) -> subprocess.Popen[bytes]:
        fd = self.listener.fileno()
        environment = {**os.environ, "MOMA_TEST_ADMIN_KEY": ADMIN_KEY, "MOMA_TEST_BACKEND_KEY": "backend-secret"}
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "gateway", "serve", "-c", str(self._routes), "--fd", str(fd)],
                stdout=log, stderr=log, env=environment, pass_fds=[fd],
            )  # fmt: skip

    async def stop(self) -> None:
        process = self._process
        assert process is not None
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        while process.poll() is None:
            await asyncio.sleep(0.005)
            assert time.monotonic() - began < LATEST_END_S, "it did not end"
        self.ends_s.append(time.monotonic() - began)
        assert process.returncode == 0, self._log.read_text()[-4000:]

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self.listener.close()


@pytest.fixture
async def parent(tmp_path: Path) -> AsyncIterator[tuple[Parent, Traffic, GatewayProcess]]:
    traffic = Traffic(stream_s=1.0, rng=random.Random(7))
    async with ScriptedBackend() as backend:
        backend.script(traffic.reply)
        gateway = GatewayProcess(tmp_path, backend.base_url, backend.base_url)
        text = gateway.routes.read_text().replace(*PATIENT).replace("server: {", f"server: {{drain: {DRAIN_S:g}s, ")
        gateway.routes.write_text(text)
        parent = Parent(gateway, tmp_path)
        yield parent, traffic, gateway
        parent.kill()


@pytest.mark.parametrize(
    ("restarts", "stream_s"), [(2, 1.0), pytest.param(20, 3.0, marks=[pytest.mark.long, ONLY_LONG])]
)
async def test_restarts_under_load(
    parent: tuple[Parent, Traffic, GatewayProcess], restarts: int, stream_s: float
) -> None:
    holder, traffic, gateway = parent
    traffic.stream_s = stream_s
    running, rng, began = True, random.Random(8), time.monotonic()
    await holder.start()
    load = [asyncio.create_task(traffic.streams(holder.url, lambda: running, kept=False)) for _ in range(STREAMS)]
    load.append(asyncio.create_task(traffic.calls(holder.url, CALLS_PER_S, lambda: running)))
    try:
        for _ in range(restarts):
            await asyncio.sleep(stream_s * rng.uniform(0.3, 1.3))
            await holder.stop()
            await holder.start()
        await asyncio.sleep(stream_s)
    finally:
        running = False
        took_s = time.monotonic() - began
        await asyncio.gather(*load, return_exceptions=True)
    await holder.stop()
    assert traffic.failed == []
    assert traffic.complete["calls"] > took_s * CALLS_PER_S * 0.8
    assert traffic.complete["streams"] >= STREAMS * restarts
    assert audit(gateway.ledger) == []
    print(
        f"\n{restarts} restarts in {took_s:.0f} s: {traffic.complete['calls']} calls and {traffic.complete['streams']} "
        f"streams complete, {len(traffic.failed)} failed; from SIGTERM to the end at most {max(holder.ends_s):.2f} s; "
        f"the longest wait for a whole answer {traffic.slowest_s:.2f} s"
    )


async def test_who_uses_a_connection_at_once_again_is_served_over_it(
    parent: tuple[Parent, Traffic, GatewayProcess],
) -> None:
    """The head of the stream has allowed it, and was sent before anybody knew of a shutdown."""
    holder, traffic, gateway = parent
    traffic.stream_s, running = 0.5, True
    await holder.start()
    load = [asyncio.create_task(traffic.streams(holder.url, lambda: running)) for _ in range(STREAMS)]
    for _ in range(2):
        await asyncio.sleep(2.3 * traffic.stream_s)
        await holder.stop()
        await holder.start()
    await asyncio.sleep(2 * traffic.stream_s)
    running = False
    await asyncio.gather(*load)
    await holder.stop()
    assert traffic.failed == []
    assert traffic.complete["streams"] >= STREAMS * 3
    assert audit(gateway.ledger) == []


async def test_a_stream_that_outlasts_the_drain_is_cut_and_the_end_comes_in_time(
    parent: tuple[Parent, Traffic, GatewayProcess],
) -> None:
    holder, traffic, gateway = parent
    traffic.stream_s = 30.0
    gateway.routes.write_text(gateway.routes.read_text().replace("drain: 5s", "drain: 500ms"))
    await holder.start()
    stream = asyncio.create_task(traffic.streams(holder.url, lambda: not traffic.failed))
    await asyncio.sleep(0.5)
    await holder.stop()
    await stream
    assert len(traffic.failed) == 1
    assert "shutting_down" in traffic.failed[0]
    assert holder.ends_s[0] < 0.5 + 2.0


async def test_connections_without_a_call_end_it_late_but_not_for_long(
    parent: tuple[Parent, Traffic, GatewayProcess],
) -> None:
    """Each may be about to send: it has a second for that."""
    holder, traffic, _ = parent
    await holder.start()
    await traffic.calls(holder.url, 5, iter([True, True, False]).__next__)
    silent, asking = [await asyncio.open_connection(*holder.listener.getsockname()) for _ in range(2)]
    await asyncio.sleep(0.1)
    stop = asyncio.create_task(holder.stop())
    with contextlib.suppress(ConnectionError):
        while not asking[0].at_eof():  # until it knows that it is to end
            asking[1].write(READY)
            await asking[0].read(4096)
            await asyncio.sleep(0.01)
    silent[1].write(READY)
    last = await silent[0].read()
    assert last.startswith(b"HTTP/1.1 503")
    assert b"connection: close" in last
    await stop
    assert holder.ends_s[0] < 3.0
    silent[1].close()
    asking[1].close()
