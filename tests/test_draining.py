"""Clients that leave, where `on_disconnect` is drain: the backend is read to its end, and exactly that is charged."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest

from gateway import draining
from gateway.app import App
from gateway.charging.audit import audit
from gateway.config.load import load
from gateway.demo.scripted import Reply, ScriptedBackend, refusal
from tests.conftest import KEY, World
from tests.test_once import CHUNK, LAST, SSE, WHOLE

ROUTES = """
version: 1
currency: CNY
storage: {{ledger: "sqlite:{ledger}"}}
defaults:
  timeout: {{connect: 1s, first_token: 2s, idle: 2s, total: 5s}}
  retry: {{attempts: 2, backoff: 10ms..20ms}}
backends:
  a: {{kind: openai, base_url: "{a}", on_disconnect: drain, limits: {{concurrency: 50}}}}
  b: {{kind: openai, base_url: "{b}"}}
models:
  small: {{via: [a], context: 4k, max_output: 1k, price: {{input: 1, output: 2}}}}
  large: {{via: [b], context: 4k, max_output: 1k, price: {{input: 2, output: 8}}}}
routes:
  auto: {{pick: [small], policy: ordered, fallback: {{error: [large]}}}}
  other: {{pick: [large], policy: ordered}}
  kept: {{pick: [small], policy: ordered, cache: short}}
cache:
  short: {{mode: exact, ttl: 10m, sampled: true}}
plans:
  pro: {{grants: [{{credits: 1M, every: month}}]}}
tenants:
  demo: {{plan: pro, keys: ["sha256:{key}"]}}
"""


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with ScriptedBackend() as a, ScriptedBackend() as b:
        routes = tmp_path / "routes.yaml"
        key = hashlib.sha256(KEY.encode()).hexdigest()
        routes.write_text(ROUTES.format(ledger=tmp_path / "moma.db", a=a.base_url, b=b.base_url, key=key))
        app = App(load(routes))
        await app.start("127.0.0.1", 0)
        headers = {"authorization": f"Bearer {KEY}"}
        async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=0)) as http:
            yield World(app, a, b, http, tmp_path)
        await app.aclose()
    assert audit(str(tmp_path / "moma.db")) == []


async def leave(world: World, **body: Any) -> None:
    """After three tenths of a second."""
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(world.chat(**body), 0.3)


async def drained(world: World, count: int) -> None:
    """Once the gateway has noticed that the client is gone."""
    for _ in range(200):
        if world.app._parts.drains.count == count:
            return
        await asyncio.sleep(0.01)
    assert world.app._parts.drains.count == count


async def ended(world: World) -> list[dict[str, Any]]:
    for _ in range(300):
        if not world.app.ledger.open_holds and not world.app._parts.caches._tasks:
            break
        await asyncio.sleep(0.01)
    await world.written()
    world.app.ledger.check_invariants()
    assert world.app.ledger.open_holds == 0
    assert world.app._parts.drains.count == 0
    return await world.charges()


def slow(stream: bool, go_on: asyncio.Event) -> Reply:
    if stream:
        return Reply(headers=SSE, stream=[CHUNK, go_on, CHUNK, LAST])
    return Reply(before=(go_on,), body=WHOLE)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["small", "auto", "kept"])
async def test_who_leaves_pays_what_the_backend_says(world: World, model: str, stream: bool) -> None:
    go_on = asyncio.Event()
    world.a.script(lambda _: slow(stream, go_on))
    await leave(world, model=model, stream=stream)
    await drained(world, 1)
    go_on.set()
    (record,) = await ended(world)
    assert (record["usage"], record["usage_source"], record["flags"]) == (
        {"input": 5, "output": 2, "calls": 1}, "reported", [],
    )  # fmt: skip
    assert not world.a.requests[0].disconnected


async def test_another_backend_is_cancelled_as_ever(world: World) -> None:
    world.b.script(lambda _: slow(True, asyncio.Event()))
    await leave(world, model="other", stream=True)
    (record,) = await ended(world)
    assert "estimated" in record["flags"]
    assert world.b.requests[0].disconnected


async def test_the_backend_that_answers_decides(world: World) -> None:
    """Not the one that was tried before it."""
    world.a.script(lambda _: refusal(503))
    world.b.script(lambda _: slow(True, asyncio.Event()))
    await leave(world, model="auto", stream=True)
    await ended(world)
    assert world.b.requests[0].disconnected


async def test_only_so_many_are_read_on_for_nobody(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draining, "MAX_DRAINED", 2)
    go_on = asyncio.Event()
    world.a.script(lambda _: slow(True, go_on))
    await asyncio.gather(*(leave(world, stream=True) for _ in range(5)))
    await drained(world, 2)
    go_on.set()
    records = await ended(world)
    assert sorted(record["usage_source"] for record in records) == ["estimated"] * 3 + ["reported"] * 2


async def test_and_only_for_so_long(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draining, "DRAIN_S", 0.2)
    world.a.script(lambda _: slow(True, asyncio.Event()))
    await leave(world, stream=True)
    (record,) = await ended(world)
    assert (record["usage_source"], "estimated" in record["flags"]) == ("estimated", True)
    assert world.a.requests[0].disconnected


async def test_a_backend_that_breaks_while_it_is_drained_is_charged_in_part(world: World) -> None:
    go_on = asyncio.Event()
    world.a.script(lambda _: Reply(headers=SSE, stream=[CHUNK, go_on]))
    await leave(world, stream=True)
    await drained(world, 1)
    go_on.set()
    (record,) = await ended(world)
    assert "partial" in record["flags"]


async def test_a_shutdown_ends_what_is_drained(world: World) -> None:
    world.a.script(lambda _: slow(True, asyncio.Event()))
    await leave(world, stream=True)
    await world.app.aclose()
    assert world.app._parts.drains.count == 0


async def test_who_stays_notices_nothing(world: World) -> None:
    status, body, headers = await world.chat()
    assert (status, headers["x-moma-cache"], headers["x-moma-backend"]) == (200, "bypass", "a")
    assert float(headers["x-moma-credits"]) == body["usage"]["total_tokens"]
    async with openai.AsyncOpenAI(base_url=f"{world.url}/v1", api_key=KEY, max_retries=0) as client:
        messages: Any = [{"role": "user", "content": "hello there"}]
        stream = await client.chat.completions.create(
            model="auto", messages=messages, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        assert chunks[-1].usage is not None
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        world.a.script(lambda _: refusal(400, "no", "bad"))
        with pytest.raises(openai.BadRequestError):
            await client.chat.completions.create(model="small", messages=messages)
        world.a.script(lambda _: Reply(headers=SSE, stream=[CHUNK]))
        with pytest.raises(openai.APIError):
            async for _ in await client.chat.completions.create(model="small", messages=messages, stream=True):
                pass
    assert [record["status"] for record in await ended(world)] == ["settled", "settled", "voided", "settled"]


async def test_a_call_that_others_join_and_leave_meanwhile_is_drained_once(world: World) -> None:
    """Each that leaves it last would else take a place of its own, and one would be given back."""
    going = asyncio.Event()
    world.a.script(lambda _: Reply(headers=SSE, stream=[CHUNK, going, LAST]))
    await leave(world, model="kept", stream=True)
    await drained(world, 1)
    await leave(world, model="kept", stream=True)
    await asyncio.sleep(0.05)
    assert (world.app._parts.drains.count, len(world.a.requests)) == (1, 1)
    going.set()
    await drained(world, 0)


async def test_who_joins_a_call_that_is_drained_reads_it_to_its_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draining, "DRAIN_S", 0.6)
    going = asyncio.Event()
    world.a.script(lambda _: Reply(headers=SSE, stream=[CHUNK, going, LAST]))
    await leave(world, model="kept", stream=True)
    body = {"model": "kept", "messages": [{"role": "user", "content": "hello there"}], "stream": True}
    async with world.http.post(f"{world.url}/v1/chat/completions", json=body) as answer:
        await asyncio.sleep(0.8)  # the time for reading on for nobody is over
        going.set()
        assert (await answer.read()).endswith(b"data: [DONE]\n\n")
    await drained(world, 0)


async def test_an_idempotency_key_is_taken_while_its_call_goes_on_for_nobody(world: World) -> None:
    """Its client has given it too little time, and asks again: one call is made, and one is charged."""
    going = asyncio.Event()
    world.a.script([Reply(before=(going,), body=WHOLE), Reply(body=WHOLE)])
    asked = {"model": "small", "messages": [{"role": "user", "content": "hello there"}]}

    async def ask(**headers: str) -> int:
        headers = {"Idempotency-Key": "k-1", **headers}
        async with world.http.post(f"{world.url}/v1/chat/completions", json=asked, headers=headers) as answer:
            await answer.read()
            return answer.status

    assert await ask(**{"x-stainless-read-timeout": "0.2"}) == 504
    assert await ask() == 409
    going.set()
    [record] = await ended(world)
    assert float(record["charged"]) > 0
    assert await ask() == 409  # its answer is gone, and it was charged
    assert len(world.a.requests) == 1
