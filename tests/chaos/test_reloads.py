"""Hundreds of reloads under load, many of them of files that are none: no call fails, streams survive, memory stays."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from gateway.charging.audit import audit
from gateway.demo.scripted import ScriptedBackend
from tests.chaos.gateway_process import GatewayProcess
from tests.chaos.traffic import Traffic
from tests.conftest import ADMIN_KEY

ONLY_LONG = pytest.mark.skipif(os.environ.get("MOMA_LONG") != "1", reason="MOMA_LONG=1 runs it")
ADMIN = {"authorization": f"Bearer {ADMIN_KEY}"}
PATIENT = ("first_token: 1s, idle: 1s, total: 5s", "first_token: 10s, idle: 10s, total: 30s")
GROWTH = 24 * 2**20  # of RSS: what a load takes meanwhile, not per load


class Edits:
    """What becomes of routes.yaml: a number of the kinds in turn. Good ones differ each time."""

    def __init__(self, routes: Path) -> None:
        self._routes = routes
        self._good = routes.read_text()
        self._numbers = itertools.count(3)
        self.kinds: list[Callable[[], int]] = [
            self.good, self.broken, self.good, self.empty, self.half, self.huge, self.good, self.bomb, self.slow,
        ]  # fmt: skip

    def good(self) -> int:
        self._replace(self._next())
        return 200

    def slow(self) -> int:
        """An editor that empties the file and writes it in two pieces."""
        text = self._next()
        with self._routes.open("w") as file:
            file.flush()
            time.sleep(0.01)
            file.write(text[: len(text) // 2])
            file.flush()
            time.sleep(0.01)
            file.write(text[len(text) // 2 :])
        return 200

    def broken(self) -> int:
        self._replace(self._good.replace("backends:", "bakends:"))
        return 422

    def empty(self) -> int:
        self._routes.write_text("")
        return 422

    def half(self) -> int:
        self._routes.write_text(self._good[: self._good.index("max_output")])
        return 422

    def huge(self) -> int:
        self._replace("version: 1\nmodels:\n" + "".join(f"  m{number}: {{}}\n" for number in range(49_000)))
        return 422

    def bomb(self) -> int:
        lines = [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 12)]
        self._replace("l0: &l0 [x]\n" + "\n".join(lines))
        return 422

    def _next(self) -> str:
        number = next(self._numbers)
        text = re.sub("output: 12}", f"output: {number}}}", self._good)
        return text.replace("rpm: 2", f"rpm: {number}")

    def _replace(self, text: str) -> None:
        fresh = self._routes.with_suffix(".new")
        fresh.write_text(text)
        os.replace(fresh, self._routes)


async def reload(http: aiohttp.ClientSession, url: str) -> tuple[int, dict[str, Any]]:
    async with http.post(f"{url}/admin/v1/reload", headers=ADMIN) as answer:
        return answer.status, await answer.json()


@pytest.mark.parametrize("reloads", [54, pytest.param(504, marks=[pytest.mark.long, ONLY_LONG])])
async def test_reloads_under_load(tmp_path: Path, reloads: int) -> None:
    traffic = Traffic(stream_s=1.0, rng=random.Random(5))
    seen: Counter[tuple[str, int]] = Counter()
    async with ScriptedBackend() as backend, aiohttp.ClientSession() as http:
        backend.script(traffic.reply)
        gateway = GatewayProcess(tmp_path, backend.base_url, backend.base_url)
        gateway.routes.write_text(gateway.routes.read_text().replace(*PATIENT))
        await gateway.start()
        edits, running = Edits(gateway.routes), True
        load = [asyncio.create_task(traffic.streams(gateway.url, lambda: running)) for _ in range(20)]
        load.append(asyncio.create_task(traffic.calls(gateway.url, 30, lambda: running)))
        memory, process, began = [], psutil.Process(gateway.pid), time.monotonic()
        try:
            for number in range(reloads):
                kind = edits.kinds[number % len(edits.kinds)]
                wanted = await asyncio.to_thread(kind)
                status, value = await reload(http, gateway.url)
                assert status == wanted, (kind.__name__, value)
                seen[kind.__name__, status] += 1
                backend.requests.clear()
                memory.append(process.memory_info().rss)
            took_s = time.monotonic() - began
        finally:
            running = False
            await asyncio.gather(*load, return_exceptions=True)
            gateway.kill()
    assert traffic.failed == []
    assert traffic.complete["streams"] > 20
    assert traffic.complete["calls"] > took_s * 15
    assert len(traffic.generations) > reloads // 6, "calls were served by many of them"
    settled = memory[len(edits.kinds) * 2]
    assert memory[-1] - settled < GROWTH
    assert audit(gateway.ledger) == []
    print(
        f"\n{reloads} reloads in {took_s:.1f} s ({dict(seen)}): {traffic.complete['calls']} calls and "
        f"{traffic.complete['streams']} streams complete, {len(traffic.failed)} failed, slowest call "
        f"{traffic.slowest_s:.2f} s; RSS {settled / 2**20:.1f} -> {memory[-1] / 2**20:.1f} MiB"
    )


@pytest.mark.parametrize("seconds", [2, pytest.param(20, marks=[pytest.mark.long, ONLY_LONG])])
async def test_a_hundred_reloads_a_second(tmp_path: Path, seconds: int) -> None:
    """Asked for by the admin API and by signals, while the file is renamed over thirty times a second."""
    traffic = Traffic(stream_s=0.5, rng=random.Random(6))
    async with ScriptedBackend() as backend, aiohttp.ClientSession() as http:
        backend.script(traffic.reply)
        gateway = GatewayProcess(tmp_path, backend.base_url, backend.base_url)
        gateway.routes.write_text(gateway.routes.read_text().replace(*PATIENT))
        await gateway.start()
        edits, running = Edits(gateway.routes), True
        load = [asyncio.create_task(traffic.streams(gateway.url, lambda: running)) for _ in range(10)]
        load.append(asyncio.create_task(traffic.calls(gateway.url, 30, lambda: running)))
        asked: list[asyncio.Task[tuple[int, dict[str, Any]]]] = []
        try:
            for number in range(seconds * 50):
                if number % 5 == 0 and number % 50 < 30:  # with a pause, in which it is the same for a moment
                    edits.good()
                os.kill(gateway.pid, signal.SIGHUP)
                asked.append(asyncio.create_task(reload(http, gateway.url)))
                await asyncio.sleep(0.02)
            answers = await asyncio.gather(*asked)
            last = await reload(http, gateway.url)
        finally:
            running = False
            await asyncio.gather(*load, return_exceptions=True)
            gateway.kill()
    assert traffic.failed == []
    assert {status for status, _ in answers} <= {200, 422}
    assert answers[-1][0] == last[0] == 200
    assert last[1]["result"] == "unchanged", "what was written last is in force"
    print(f"\n{len(answers)} asked and {len(answers)} signals in {seconds} s: generation {last[1]['generation']}")
