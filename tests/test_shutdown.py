"""The end of a gateway: red at once, no new calls, streams drain, what is left hears why and is charged."""

from __future__ import annotations

import asyncio
import dataclasses
import signal
import time
from pathlib import Path

import aiohttp
import pytest

from gateway.charging.ledger import open_ledger
from gateway.clock import LoopClock
from gateway.demo.scripted import HANG, Fault, Reply, ScriptedBackend
from tests.conftest import World
from tests.faults.wire import HOST, request, send
from tests.test_app import KEY, PROMPT, READY_S, Process, url_of

WORD = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"word "},"finish_reason":null}]}\n\n'
STOP = b'data: {"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
ASKED = {"model": "small", "stream": True, "messages": [{"role": "user", "content": PROMPT}]}
GET_READY = b"GET /readyz HTTP/1.1\r\nHost: g\r\n\r\n"


def draining_in(world: World, seconds: float) -> asyncio.Task[None]:
    front = world.app._front
    config = front.generation.config
    config = dataclasses.replace(config, server=dataclasses.replace(config.server, drain_s=seconds))
    front.generation = dataclasses.replace(front.generation, config=config)
    return asyncio.create_task(world.app.aclose())


async def begun(http: aiohttp.ClientSession, url: str) -> aiohttp.ClientResponse:
    """A stream whose first event has come."""
    answer = await http.post(f"{url}/v1/chat/completions", json=ASKED)
    assert await answer.content.readuntil(b"\n\n") == WORD
    return answer


async def test_the_log_says_that_it_ends_and_what_is_under_way(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "gateway.app")
    world.a.script([Reply(stream=[WORD, 0.2, STOP])])
    stream = await begun(world.http, world.url)
    await draining_in(world, 2.5)
    assert "shutting down: calls under way (1) have 2.5 s" in caplog.text
    stream.close()


async def test_a_stream_drains_while_new_calls_are_refused_and_readiness_is_red(world: World) -> None:
    go = asyncio.Event()
    world.a.script([Reply(stream=[WORD, go, WORD, STOP])])
    kept = await asyncio.open_connection(HOST, world.app.port)
    kept[1].write(GET_READY)
    assert (await kept[0].readuntil(b"}")).startswith(b"HTTP/1.1 200")
    stream = await begun(world.http, world.url)
    closing = draining_in(world, 10)
    await asyncio.sleep(0.05)
    red = await send(world.app.port, GET_READY)
    assert (red.status, red.closed, red.json()["reasons"]) == (503, True, ["shutting down"])
    kept[1].write(request())
    refused = await asyncio.wait_for(kept[0].read(), 1)  # the connection ends behind its answer
    assert refused.startswith(b"HTTP/1.1 503")
    assert b"connection: close" in refused
    assert b'"shutting_down"' in refused
    kept[1].close()
    go.set()
    assert (await stream.read()).endswith(b"data: [DONE]\n\n")
    async with asyncio.timeout(1):
        await closing


async def test_a_stream_that_outlasts_the_drain_ends_with_an_error_and_is_charged(world: World) -> None:
    world.a.script([Reply(stream=[WORD, Fault.HANG])])
    stream = await begun(world.http, world.url)
    started = time.monotonic()
    closing = draining_in(world, 0.5)
    rest = await stream.read()
    assert b'"shutting_down"' in rest
    assert b"[DONE]" not in rest
    await closing
    assert 0.5 <= time.monotonic() - started < 1.0
    ledger = await open_ledger(str(world.path / "moma.db"), LoopClock(asyncio.get_running_loop()), "UTC", {})
    [charge] = ledger.charges("demo", 0, 10)["data"]
    await ledger.aclose()
    assert charge["status"] == "settled"
    assert charge["usage"]["output"] > 0
    series = {labels[3:]: count.value for labels, count in world.app.metrics.requests._series.items()}
    assert series == {("failed", 503): 1}


@pytest.mark.parametrize("stream", [False, True])
async def test_who_has_seen_nothing_yet_hears_why_and_pays_nothing(world: World, stream: bool) -> None:
    world.a.script(lambda _: HANG)
    call = asyncio.create_task(world.chat(stream=stream))
    while not world.a.requests:
        await asyncio.sleep(0.01)
    closing = draining_in(world, 0.1)
    status, body, headers = await call
    assert (status, body["error"]["code"], headers["connection"]) == (503, "shutting_down", "close")
    await closing
    assert len(world.a.requests) == 1


async def test_a_call_that_waits_for_nothing_known_is_cut_and_its_hold_given_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever does not end by itself: its `finally` runs before the ledger closes."""
    ended, began = [], asyncio.Event()

    async def stuck(*_: object) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(world.app.ledger.healthy)

    monkeypatch.setattr(world.app._front.generation.pipeline, "handle", stuck)
    call = asyncio.create_task(world.chat())
    await began.wait()
    monkeypatch.setattr("gateway.app.FAREWELL_S", 0.1)
    await draining_in(world, 0.1)
    assert ended == [True]
    with pytest.raises(aiohttp.ClientError):
        await call


async def test_an_idle_gateway_ends_at_once_whoever_is_connected(world: World) -> None:
    silent, half, kept = [await asyncio.open_connection(HOST, world.app.port) for _ in range(3)]
    half[1].write(b"GET /healthz HT")
    kept[1].write(GET_READY)
    await kept[0].readuntil(b"}")
    async with asyncio.timeout(0.5):
        await draining_in(world, 10)
    for reader, writer in (silent, half, kept):
        assert await reader.read() == b""
        writer.close()


async def test_a_second_signal_ends_streams_at_once(tmp_path: Path) -> None:
    moma = Process(tmp_path)
    headers = {"authorization": f"Bearer {KEY}"}
    async with ScriptedBackend() as backend, aiohttp.ClientSession(headers=headers) as http:
        moma.write(a=backend.base_url)
        backend.script([Reply(stream=[WORD, Fault.HANG])])
        process = await moma.start()
        stream = await begun(http, await url_of(process))
        process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.3)
        early = process.returncode
        assert early is None
        process.send_signal(signal.SIGINT)
        started = time.monotonic()
        rest = await stream.read()
        await asyncio.wait_for(process.communicate(), READY_S)
    assert time.monotonic() - started < 1.5
    assert process.returncode == 0
    assert b'"shutting_down"' in rest
    ledger = await open_ledger(str(tmp_path / "moma.db"), LoopClock(asyncio.get_running_loop()), "UTC", {})
    assert [charge["status"] for charge in ledger.charges("demo", 0, 10)["data"]] == ["settled"]
    await ledger.aclose()
