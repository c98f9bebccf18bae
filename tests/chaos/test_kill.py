"""kill -9 of the whole gateway under load: every complete answer has its one charge, and nothing is charged twice."""

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
from tests.conftest import KEY

CLIENTS = 16
INPUT_RATE, OUTPUT_RATE = 1_000_000, 2_000_000  # of the model `small`, in micro-credits per token
ONLY_LONG = pytest.mark.skipif(os.environ.get("MOMA_LONG") != "1", reason="MOMA_LONG=1 runs it")


class Load:
    """Clients that never stop. State: `complete` (request id -> what it must cost), `going` and the random numbers."""

    def __init__(self, rng: random.Random) -> None:
        self.complete: dict[str, int] = {}
        self.twice: list[str] = []
        self.going = asyncio.Event()
        self.resting = 0
        self._rng = rng

    def reply(self, seen: Seen) -> Reply | None:
        """Usage that differs from call to call; one in five takes long enough for its hold to be written."""
        rng = self._rng
        pause = rng.choice((0.0, 0.0, 0.0, 0.005, 0.08))
        usage = {"prompt_tokens": rng.randint(1, 30), "completion_tokens": rng.randint(1, 200)}
        if not seen.body.get("stream"):
            message = {"role": "assistant", "content": "ok"}
            whole = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}
            return Reply(body={"id": "x", "object": "chat.completion", **whole}, before=(pause,))
        words = [_event({"choices": [{"index": 0, "delta": {"content": "word "}}]}) for _ in range(3)]
        last = _event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        total = _event({"choices": [], "usage": usage}) + b"data: [DONE]\n\n"
        return Reply(stream=[words[0], pause, *words[1:], last, total])

    async def client(self, url: str, number: int) -> None:
        headers = {"authorization": f"Bearer {KEY}"}
        async with aiohttp.ClientSession(headers=headers) as http:
            while True:
                if not self.going.is_set():
                    self.resting += 1
                    await self.going.wait()
                    self.resting -= 1
                try:
                    await self._one(http, url, stream=number % 2 == 0)
                except (aiohttp.ClientError, ConnectionError, TimeoutError):
                    await asyncio.sleep(0.005)

    async def _one(self, http: aiohttp.ClientSession, url: str, *, stream: bool) -> None:
        asked = {"model": "small", "max_tokens": 300, "messages": [{"role": "user", "content": "hello"}]}
        if stream:
            asked |= {"stream": True, "stream_options": {"include_usage": True}}
        async with http.post(f"{url}/v1/chat/completions", json=asked) as answer:
            body = await answer.read()  # raises unless the last byte came
            if answer.status != 200:
                return
            if stream:
                if not body.endswith(b"data: [DONE]\n\n"):
                    return
                body = body.split(b"\n\n")[-3].removeprefix(b"data: ")
            usage = json.loads(body)["usage"]
            request_id = answer.headers["x-request-id"]
            if request_id in self.complete:
                self.twice.append(request_id)
            cost = usage["prompt_tokens"] * INPUT_RATE + usage["completion_tokens"] * OUTPUT_RATE
            self.complete[request_id] = cost


def _event(value: object) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


class Books:
    """The ledger's file after a kill and a restart, compared with what the clients saw."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.charges = 0
        self.missing: list[str] = []
        self.wrong: list[str] = []
        self.doubled: list[str] = []

    def check(self, complete: dict[str, int]) -> None:
        with contextlib.closing(sqlite3.connect(f"file:{self._path}?mode=ro", uri=True)) as connection:
            rows = connection.execute("SELECT request_id, charged, status, flags FROM records").fetchall()
            assert connection.execute("SELECT charge_id FROM holds").fetchall() == []
        charged = {request_id: uc for request_id, uc, status, flags in rows if status == "settled" and flags == "[]"}
        self.charges = len(rows)
        self.doubled = [name for name, times in Counter(row[0] for row in rows).items() if times > 1]
        self.missing = sorted(complete.keys() - charged.keys())
        self.wrong = [name for name, uc in complete.items() if name in charged and charged[name] != uc]
        assert (self.missing, self.wrong, self.doubled) == ([], [], [])
        assert audit(self._path) == []


@pytest.mark.parametrize("kills", [20, pytest.param(200, marks=[pytest.mark.long, ONLY_LONG])])
async def test_kill_9_under_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kills: int) -> None:
    rng = random.Random(3)
    load_ = Load(rng)
    async with ScriptedBackend() as backend:
        backend.script(load_.reply)
        gateway = GatewayProcess(tmp_path, backend.base_url, backend.base_url)
        books = Books(gateway.ledger)
        await gateway.start()
        clients = [asyncio.create_task(load_.client(gateway.url, number)) for number in range(CLIENTS)]
        try:
            for _ in range(kills):
                load_.going.set()
                await asyncio.sleep(rng.uniform(0.02, 0.5))
                gateway.kill()
                load_.going.clear()
                await _until_all_rest(load_)
                backend.requests.clear()
                await gateway.start()
                assert (await gateway.usage())["reserved"] == "0"
                books.check(load_.complete)
        finally:
            gateway.kill()
            for task in clients:
                task.cancel()
            await asyncio.gather(*clients, return_exceptions=True)
    await _invariants(tmp_path, monkeypatch)
    assert load_.twice == []
    assert len(load_.complete) > kills * 5, "the gateway was never under load"
    print(
        f"\n{kills} kills, {len(load_.complete)} complete answers, {books.charges} charges, "
        f"{len(books.missing)} missing, {len(books.wrong)} wrong, {len(books.doubled)} doubled; "
        f"restart to ready: worst {max(gateway.starts_s[1:]):.2f} s"
    )


async def _until_all_rest(load_: Load) -> None:
    async with asyncio.timeout(10):
        while load_.resting < CLIENTS:
            await asyncio.sleep(0.002)


async def _invariants(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The image that the last file gives."""
    monkeypatch.setenv("MOMA_TEST_ADMIN_KEY", "x")
    monkeypatch.setenv("MOMA_TEST_BACKEND_KEY", "x")
    ledger = await open_config_ledger(load(folder / "routes.yaml"), LoopClock(asyncio.get_running_loop()))
    assert ledger.open_holds == 0
    ledger.check_invariants()
    await ledger.aclose()
