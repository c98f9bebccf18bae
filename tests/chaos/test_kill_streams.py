"""kill -9 in mid-stream: what was passed on by the last checkpoint is charged, at most what was delivered."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path

import aiohttp
import orjson

from gateway.app import CHECKPOINT_EVERY_S, open_config_ledger
from gateway.charging.audit import audit
from gateway.clock import LoopClock
from gateway.config.load import load
from gateway.demo.scripted import Reply, ScriptedBackend, Step
from tests.chaos.gateway_process import GatewayProcess
from tests.conftest import KEY

STREAMS = 8
PIECE_S = 0.02
PIECE = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"word "}}]}\n\n'
ROLE = b'data: {"id":"c","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'


async def test_kill_9_in_mid_stream_charges_at_most_what_was_delivered(tmp_path: Path) -> None:
    async with ScriptedBackend() as a, ScriptedBackend() as b:
        steps: list[Step] = [ROLE]
        for _ in range(1000):
            steps += (PIECE, PIECE_S)
        a.script(lambda _: Reply(headers={"content-type": "text/event-stream"}, stream=steps))
        process = GatewayProcess(tmp_path, a.base_url, b.base_url)
        process.routes.write_text(process.routes.read_text().replace("idle: 1s, total: 5s", "idle: 5s, total: 60s"))
        await process.start()
        delivered = [0] * STREAMS
        running = [asyncio.create_task(client(process.url, delivered, number)) for number in range(STREAMS)]
        await asyncio.sleep(CHECKPOINT_EVERY_S + 1.5)
        process.kill()
        await asyncio.gather(*running)
    ledger = await open_config_ledger(load(process.routes), LoopClock(asyncio.get_running_loop()))
    ledger.check_invariants()
    await ledger.aclose()
    assert audit(process.ledger) == []
    with contextlib.closing(sqlite3.connect(process.ledger)) as connection:
        rows = connection.execute("SELECT usage, charged, flags FROM records").fetchall()
    assert len(rows) == STREAMS
    for usage, charged, flags in rows:
        output = orjson.loads(usage)["output"]
        assert orjson.loads(flags) == ["crash", "estimated"]
        assert min(delivered) / 2 < output <= max(delivered)
        assert charged >= 2_000_000 * output
    assert sum(orjson.loads(usage)["output"] for usage, _, _ in rows) <= sum(delivered)


async def client(url: str, delivered: list[int], number: int) -> None:
    """Counts what it gets until the gateway is gone."""
    asked = {"model": "small", "stream": True, "max_tokens": 1000, "messages": [{"role": "user", "content": "hi"}]}
    headers = {"authorization": f"Bearer {KEY}"}
    with contextlib.suppress(aiohttp.ClientError, ConnectionError):
        async with (
            aiohttp.ClientSession(headers=headers) as http,
            http.post(f"{url}/v1/chat/completions", json=asked) as answer,
        ):
            async for line in answer.content:
                delivered[number] += b'"content":"word "' in line
