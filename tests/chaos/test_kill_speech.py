"""kill -9 and shutdown in the middle of speech: no hold is left, and the books add up."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import aiohttp

from gateway.app import open_config_ledger
from gateway.charging.audit import audit
from gateway.clock import LoopClock
from gateway.config.load import load
from gateway.demo.scripted import Fault, Reply, ScriptedBackend
from tests.chaos.gateway_process import GatewayProcess
from tests.conftest import KEY

SPEAKER = """  speaker: {via: [a], context: 4k, max_output: 1, endpoints: [speech], price: {input: 1, output: 1},
    rates: {input: 1, audio_ms: 1}}
routes:"""


async def test_kill_9_in_the_middle_of_speech_leaves_no_hold(tmp_path: Path) -> None:
    async with ScriptedBackend() as a, ScriptedBackend() as b:
        a.script(lambda _: Reply(headers={"content-type": "audio/pcm"}, stream=[bytes(48_000), Fault.HANG]))
        process = GatewayProcess(tmp_path, a.base_url, b.base_url)
        process.routes.write_text(process.routes.read_text().replace("routes:", SPEAKER, 1))
        await process.start()
        heard = asyncio.Event()
        listening = asyncio.create_task(listen(process.url, heard))
        await asyncio.wait_for(heard.wait(), 5)
        process.kill()
        await listening
    ledger = await open_config_ledger(load(process.routes), LoopClock(asyncio.get_running_loop()))
    ledger.check_invariants()
    assert ledger.open_holds == 0
    await ledger.aclose()
    assert audit(process.ledger) == []


async def listen(url: str, heard: asyncio.Event) -> None:
    asked = {"model": "speaker", "input": "hello", "voice": "v", "response_format": "pcm"}
    headers = {"authorization": f"Bearer {KEY}"}
    with contextlib.suppress(aiohttp.ClientError, ConnectionError):
        async with (
            aiohttp.ClientSession(headers=headers) as http,
            http.post(f"{url}/v1/audio/speech", json=asked) as answer,
        ):
            async for _ in answer.content.iter_any():
                heard.set()
