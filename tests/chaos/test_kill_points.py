"""kill -9 at each point where it could matter, with the backend's own log as the truth.

Each answer of the backend uses tokens in numbers that no other has, so that a charge tells whose it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import sqlite3
from collections import Counter
from pathlib import Path

import aiohttp
import pytest

from gateway.app import open_config_ledger
from gateway.charging.audit import audit
from gateway.clock import LoopClock
from gateway.config.load import load
from gateway.demo.scripted import Reply, ScriptedBackend, Seen
from tests.chaos.gateway_process import GatewayProcess
from tests.chaos.stopping import AT_START, POINTS
from tests.chaos.traffic import event
from tests.conftest import KEY

CLIENTS = 8
TIMES = 20 if os.environ.get("MOMA_LONG") == "1" else 1
Used = tuple[int, int]


class Truth:
    """State: what the backend has said that each call used, and the complete answers of clients, by request id."""

    def __init__(self, rng: random.Random) -> None:
        self.said: list[Used] = []
        self.complete: dict[str, Used] = {}
        self.stops = asyncio.Event()
        self._rng = rng

    def reply(self, seen: Seen) -> Reply:
        number = len(self.said)
        prompt, output = used = 1 + number % 40, 1 + number // 40
        self.said.append(used)
        usage = {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}
        pause = self._rng.choice((0.0, 0.0, 0.08))  # the second is long enough for a hold to be written
        if not seen.body.get("stream"):
            message = {"role": "assistant", "content": "ok"}
            whole = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}
            return Reply(body={"id": "x", "object": "chat.completion", **whole}, before=(pause,))
        word = event(choices=[{"index": 0, "delta": {"content": "word "}}])
        last = event(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
        return Reply(stream=[word, pause, word, last, event(choices=[], usage=usage) + b"data: [DONE]\n\n"])

    async def client(self, url: str, number: int) -> None:
        headers = {"authorization": f"Bearer {KEY}"}
        async with aiohttp.ClientSession(headers=headers) as http:
            while not self.stops.is_set():
                try:
                    await self._one(http, url, stream=number % 2 == 0)
                except (aiohttp.ClientError, ConnectionError):
                    await asyncio.sleep(0.005)

    async def _one(self, http: aiohttp.ClientSession, url: str, *, stream: bool) -> None:
        asked: dict[str, object] = {
            "model": "small",
            "max_tokens": 900,
            "messages": [{"role": "user", "content": "hello"}],
        }
        if stream:
            asked |= {"stream": True, "stream_options": {"include_usage": True}}
        async with http.post(f"{url}/v1/chat/completions", json=asked) as answer:
            body = await answer.read()  # raises unless the last byte came
            if answer.status != 200 or (stream and not body.endswith(b"data: [DONE]\n\n")):
                return
            usage = json.loads(body.split(b"\n\n")[-3].removeprefix(b"data: ") if stream else body)["usage"]
            self.complete[answer.headers["x-request-id"]] = usage["prompt_tokens"], usage["completion_tokens"]

    def check(self, ledger: str) -> int:
        """0 answered calls without a charge, 0 double, none that no backend has answered; returns how many charges."""
        with contextlib.closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as connection:
            rows = connection.execute("SELECT request_id, usage, charged, flags FROM records").fetchall()
            assert connection.execute("SELECT charge_id FROM holds").fetchall() == []
        requests = Counter(request for request, *_ in rows)
        assert max(requests.values(), default=0) <= 1, "a request was charged twice"
        charged: dict[str, Used] = {}
        for request, usage, uc, flags in rows:
            units = json.loads(usage)
            if uc and "estimated" not in flags:
                charged[request] = units["input"], units["output"]
                assert uc == (units["input"] + 2 * units["output"]) * 1_000_000
        assert {request: charged.get(request) for request in self.complete} == self.complete
        assert max(Counter(charged.values()).values(), default=0) <= 1, "an answer was charged twice"
        assert set(charged.values()) <= set(self.said), "what was charged was said by no backend"
        assert audit(ledger) == []
        return len(rows)


@pytest.mark.parametrize("point", POINTS)
async def test_killed_at(point: str, tmp_path: Path) -> None:
    rng = random.Random(point)
    truth = Truth(rng)
    async with ScriptedBackend() as backend:
        backend.script(truth.reply)
        gateway = GatewayProcess(tmp_path, backend.base_url, backend.base_url)
        for _ in range(TIMES):
            gateway.entry = ("tests.chaos.stopping", point, str(rng.randint(3, 40)))
            await _until_killed(gateway, truth)
            await _opened_again(gateway)
            charges = truth.check(gateway.ledger)
    print(f"\nkilled {point} {TIMES} times: {len(truth.complete)} complete answers, {charges} records")


@pytest.mark.parametrize("point", AT_START)
async def test_killed_while_it_comes_back(point: str, tmp_path: Path) -> None:
    """What a crash has left is closed once, however often the start is cut off."""
    rng = random.Random(point)
    truth = Truth(rng)
    async with ScriptedBackend() as backend:
        backend.script(truth.reply)
        gateway = GatewayProcess(tmp_path, backend.base_url, backend.base_url)
        for _ in range(TIMES):
            gateway.entry = ("tests.chaos.stopping", "in the middle of a stream", str(rng.randint(5, 40)))
            await _until_killed(gateway, truth)
            gateway.entry = ("tests.chaos.stopping", point, "1")
            assert not await gateway.starts()
            assert gateway.killed
            gateway.entry = ("gateway",)
            await gateway.start()
            gateway.kill()
            truth.check(gateway.ledger)


async def _opened_again(gateway: GatewayProcess) -> None:
    """As the next start does, and shut at once."""
    ledger = await open_config_ledger(load(gateway.routes), LoopClock(asyncio.get_running_loop()))
    ledger.check_invariants()
    assert ledger.usage("demo")["reserved"] == "0"
    await ledger.aclose()


async def _until_killed(gateway: GatewayProcess, truth: Truth) -> None:
    truth.stops.clear()
    clients = []
    if await gateway.starts():
        clients = [asyncio.create_task(truth.client(gateway.url, number)) for number in range(CLIENTS)]
    async with asyncio.timeout(20):
        while not gateway.killed:
            await asyncio.sleep(0.005)
    truth.stops.set()
    await asyncio.gather(*clients)
    gateway.kill()
