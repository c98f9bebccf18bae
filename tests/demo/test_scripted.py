"""Every way a scripted backend can go wrong, seen from a client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio

from gateway.demo.backend import DONE, event
from gateway.demo.scripted import CLOSED, HANG, RESET, Fault, Reply, ScriptedBackend, Seen, refusal

ONE = event({"choices": []})


@pytest_asyncio.fixture
async def backend() -> AsyncIterator[ScriptedBackend]:
    async with ScriptedBackend() as running:
        yield running


@pytest_asyncio.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def test_replies_in_order_then_honest(backend: ScriptedBackend, client: aiohttp.ClientSession) -> None:
    backend.script([refusal(429, retry_after="1"), Reply(body={"a": 1}), Reply(body=b"raw", status=500)])
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    async with client.post(f"{backend.base_url}/chat/completions", json=body) as response:
        assert (response.status, response.headers["retry-after"]) == (429, "1")
    async with client.post(f"{backend.base_url}/chat/completions", json=body) as response:
        assert await response.json() == {"a": 1}
    async with client.post(f"{backend.base_url}/chat/completions", json=body) as response:
        assert (response.status, await response.read()) == (500, b"raw")
    async with client.post(f"{backend.base_url}/chat/completions", json=body) as response:
        assert (await response.json())["object"] == "chat.completion"
    assert [seen.body for seen in backend.requests] == [body] * 4
    assert backend.requests[0].headers["content-type"] == "application/json"
    assert backend.in_flight == 0


async def test_a_function_chooses(backend: ScriptedBackend, client: aiohttp.ClientSession) -> None:
    def choose(seen: Seen) -> Reply | None:
        return refusal(503) if seen.method == "POST" else None

    backend.script(choose)
    assert (await client.post(backend.url)).status == 503
    assert (await client.get(f"{backend.base_url}/models")).status == 200


@pytest.mark.parametrize("reply", [RESET, CLOSED])
async def test_broken_before_headers(backend: ScriptedBackend, client: aiohttp.ClientSession, reply: Reply) -> None:
    backend.script([reply, reply])  # aiohttp itself repeats a GET once, but not a POST
    with pytest.raises((aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)):
        await client.post(backend.url)
    assert not backend.requests[0].disconnected


@pytest.mark.parametrize("fault", [Fault.RESET, Fault.EOF])
async def test_broken_mid_stream(backend: ScriptedBackend, client: aiohttp.ClientSession, fault: Fault) -> None:
    backend.script([Reply(stream=[ONE, 0.01, fault])])
    async with client.post(backend.url) as response:
        assert await response.content.readuntil(b"\n\n") == ONE
        with pytest.raises((aiohttp.ClientPayloadError, aiohttp.ClientOSError)):
            await response.read()
    assert not backend.requests[0].disconnected


async def test_hang_before_headers_and_the_client_leaves(
    backend: ScriptedBackend, client: aiohttp.ClientSession
) -> None:
    backend.script([HANG])
    with pytest.raises(TimeoutError):
        await client.post(backend.url, timeout=aiohttp.ClientTimeout(total=0.05))
    seen = backend.requests[0]
    await asyncio.wait_for(seen.ended.wait(), 1)
    assert seen.disconnected_at is not None
    assert seen.disconnected_at > seen.started_at


async def test_hang_mid_stream_and_the_client_leaves(backend: ScriptedBackend, client: aiohttp.ClientSession) -> None:
    backend.script([Reply(stream=[ONE, Fault.HANG])])
    response = await client.post(backend.url)
    assert await response.content.readuntil(b"\n\n") == ONE
    assert backend.in_flight == 1
    response.close()
    await asyncio.wait_for(backend.requests[0].ended.wait(), 1)
    assert backend.requests[0].disconnected


async def test_an_event_holds_the_stream(backend: ScriptedBackend, client: aiohttp.ClientSession) -> None:
    gate = asyncio.Event()
    backend.script([Reply(stream=[ONE, gate, DONE])])
    async with client.post(backend.url) as response:
        assert await response.content.readuntil(b"\n\n") == ONE
        gate.set()
        assert await response.read() == DONE
    assert not backend.requests[0].disconnected


async def test_closing_ends_what_hangs(client: aiohttp.ClientSession) -> None:
    async with ScriptedBackend() as backend:
        backend.script([Reply(stream=[ONE, Fault.HANG])])
        response = await client.post(backend.url)
    with pytest.raises((aiohttp.ClientPayloadError, aiohttp.ClientOSError)):
        await response.read()
    assert not backend.requests[0].disconnected
