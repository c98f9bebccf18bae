"""The table of faults, over real sockets: what a backend may do, and what the client and the ledger see of it."""

from __future__ import annotations

import asyncio
import gzip
import socket
import tracemalloc
from typing import Any

import psutil
import pytest

from gateway.demo.scripted import HANG, Fault, Reply, refusal
from tests.conftest import KEY, World

CHOICE = b'{"index":0,"delta":{"content":"word "},"finish_reason":null}'
CHUNK = b'{"id":"c","object":"chat.completion.chunk","choices":[%b]}' % CHOICE
STOP = b'{"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}'
USAGE = b'{"id":"c","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3}}'
ANSWER = {
    "id": "c",
    "object": "chat.completion",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi " * 20}, "finish_reason": "stop"}],
}


def event(data: bytes, end: bytes = b"\n\n") -> bytes:
    return b"data: " + data + end


async def streamed(world: World, model: str = "large") -> tuple[int, bytes]:
    asked = {"model": model, "stream": True, "messages": [{"role": "user", "content": "hello there"}]}
    async with world.http.post(f"{world.url}/v1/chat/completions", json=asked) as answer:
        return answer.status, await answer.read()


async def closed_books(world: World) -> None:
    while world.app.ledger.open_holds:
        await asyncio.sleep(0.01)
    await world.written()
    world.app.ledger.check_invariants()


async def resident(world: World) -> int:
    """Bytes, once the vocabulary is loaded."""
    while not world.app._parts.tokenizer.ready:
        await asyncio.sleep(0.01)
    return int(psutil.Process().memory_info().rss)


def error_of(text: bytes) -> bytes:
    return text.rpartition(b'"code":"')[2].partition(b'"')[0]


@pytest.mark.hasty
async def test_a_backend_that_hangs_before_its_headers(world: World) -> None:
    world.b.script(lambda _: HANG)
    status, body, _ = await world.chat(model="large", stream=True)
    assert (status, body["error"]["code"]) == (504, "deadline_exceeded")
    await asyncio.wait_for(asyncio.gather(*[seen.ended.wait() for seen in world.b.requests]), 5)
    assert all(seen.disconnected for seen in world.b.requests)
    await closed_books(world)
    assert [record["charged"] for record in await world.charges()] == ["0"] * len(await world.charges())


@pytest.mark.parametrize(
    ("end", "code"),
    [
        pytest.param(Fault.HANG, b"deadline_exceeded", marks=pytest.mark.hasty),
        (Fault.RESET, b"backend_error"),
        (Fault.EOF, b"backend_error"),
    ],
)
async def test_a_stream_that_fails_in_the_middle(world: World, end: Fault, code: bytes) -> None:
    world.b.script([Reply(stream=(event(CHUNK), event(CHUNK), end))])
    status, text = await streamed(world)
    assert status == 200
    assert text.count(b"word ") == 2
    assert b"[DONE]" not in text
    assert b'"stop"' not in text
    assert error_of(text) == code
    assert len(world.b.requests) == 1
    await asyncio.wait_for(world.b.requests[0].ended.wait(), 5)
    await closed_books(world)
    [record] = await world.charges()
    assert (record["usage"]["output"], record["usage_source"]) == (3, "estimated")  # "word", " word", " "


NO_ANSWERS = {
    "cut JSON": b'{"choices": [',
    "HTML": b"<html><body>502 Bad Gateway</body></html>",
    "nothing": b"",
    "bad UTF-8": b'{"choices": [{"message": {"content": "\xff\xfe"}}]}',
    "a list": b"[]",
    "null": b"null",
    "no choices": b"{}",
    "choices as text": b'{"choices": "none"}',
    "an error with 200": b'{"error": {"message": "secret-host.internal is down"}}',
}


@pytest.mark.parametrize("name", NO_ANSWERS)
async def test_an_answer_that_is_none(world: World, name: str) -> None:
    world.b.script(lambda _: Reply(body=NO_ANSWERS[name], headers={"content-type": "application/json"}))
    status, body, _ = await world.chat(model="large")
    assert (status, body["error"]["code"]) == (502, "backend_error")
    assert "internal" not in str(body)
    await closed_books(world)
    assert world.app.ledger.usage("demo")["spent"] == "0"


def pieces(data: bytes, step: int) -> tuple[bytes, ...]:
    return tuple(data[at : at + step] for at in range(0, len(data), step))


WHOLE = event(CHUNK) + event(STOP) + event(USAGE) + event(b"[DONE]")
LEGAL = {
    "plain": (WHOLE,),
    "CRLF": (WHOLE.replace(b"\n", b"\r\n"),),
    "CR": (WHOLE.replace(b"\n", b"\r"),),
    "comments": (b": ping\n\n" + event(CHUNK) + b": ping\n\n" + event(STOP) + event(USAGE) + event(b"[DONE]"),),
    "other fields": (b"id: 1\nevent: message\nretry: 5\n" + WHOLE,),
    "several data lines": (
        b"data: " + CHUNK.replace(b',"choices"', b',\ndata: "choices"') + b"\n\n" + WHOLE[len(event(CHUNK)) :],
    ),
    "three bytes at a time": pieces(WHOLE, 3),
    "no DONE": (event(CHUNK) + event(STOP) + event(USAGE),),
    "no DONE, no last line end": ((event(CHUNK) + event(USAGE) + event(STOP)).rstrip(),),
    "no blank after data": (WHOLE.replace(b"data: ", b"data:"),),
    "byte order mark": (b"\xef\xbb\xbf" + WHOLE,),
}


@pytest.mark.parametrize("name", LEGAL)
async def test_a_legal_stream_passes(world: World, name: str) -> None:
    world.b.script([Reply(stream=LEGAL[name])])
    status, text = await streamed(world)
    assert status == 200
    assert text.count(b"word ") == 1
    assert text.endswith(b"data: [DONE]\n\n")
    [record] = await world.charges()
    assert (record["usage"]["input"], record["usage"]["output"], record["usage_source"]) == (7, 3, "reported")


@pytest.mark.parametrize(
    "stream",
    [
        (event(CHUNK),),
        (b"data: {not json\n\n" + event(CHUNK) + event(b"[DONE]"),),
        (event(CHUNK) + event(b'{"error":{}}'),),
        (event(CHUNK), event(b'{"error":{}}')),
        (event(b"[DONE]"),),
    ],
    ids=["no finish", "not JSON at the start", "an error in one block", "an error in the next", "nothing but DONE"],
)
async def test_an_illegal_stream_surfaces(world: World, stream: tuple[bytes, ...]) -> None:
    world.b.script(lambda _: Reply(stream=stream))
    status, text = await streamed(world)
    assert b"backend_error" in text
    assert status == 502 or b"[DONE]" not in text


async def test_a_storm_of_failures_is_no_storm_of_retries(world: World) -> None:
    """1,000 calls against a backend that only says 503."""
    world.b.script(lambda _: refusal(503))
    for _ in range(10):
        statuses = await asyncio.gather(*[world.chat(model="large", max_tokens=16) for _ in range(100)])
        assert {status for status, _, _ in statuses} == {502}
    assert len(world.b.requests) <= 1.1 * 1000 + 10


LIES: dict[str, Any] = {
    "none": None, "text": "many", "a list": [1, 2], "2^63": {"prompt_tokens": 2**63, "completion_tokens": 2**63},
    "negative": {"prompt_tokens": -5, "completion_tokens": -5},
    "fraction": {"prompt_tokens": 1.5, "completion_tokens": 2.5},
    "strings": {"prompt_tokens": "7", "completion_tokens": "3"},
    "true": {"prompt_tokens": True, "completion_tokens": 1},
    "cached beyond all": {"prompt_tokens": 5, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 99}},
    "details as text": {"prompt_tokens": 5, "completion_tokens": 1, "prompt_tokens_details": "x"},
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
async def test_lying_usage_is_never_a_credit(world: World, name: str) -> None:
    world.b.script([Reply(body={**ANSWER, "usage": LIES[name]})])
    status, _, headers = await world.chat(model="large", max_tokens=50)
    assert status == 200
    [record] = await world.charges()
    assert all(n >= 0 for n in record["usage"].values())
    held = float(record["reserved"])
    assert 0 <= float(headers["x-moma-credits"]) <= held
    assert float(world.app.ledger.usage("demo")["available"]) <= 1_000_000
    await closed_books(world)


async def test_floods_are_bounded(world: World) -> None:
    """64 MiB of body, a line of 8 MiB, a bomb: refused, and memory stays below twice the limit."""
    bomb = gzip.compress(bytes(500_000_000), 1)
    floods = [
        Reply(body=b" " * (65 * 1024 * 1024)),
        Reply(stream=(event(CHUNK), b"data: " + b"x" * (8 * 1024 * 1024))),
        Reply(body=bomb, headers={"content-encoding": "gzip"}),
    ]
    for flood in floods:
        world.b.script(lambda _, flood=flood: flood)  # type: ignore[misc]
        before = await resident(world)
        status, text = await streamed(world) if flood.stream else (await world.chat(model="large"))[:2]
        assert status == 502 or error_of(text) == b"backend_error"  # type: ignore[arg-type]
        # The backend of this test is in the same process and keeps its own copies.
        assert await resident(world) - before < 3 * 64 * 1024 * 1024


async def test_slow_readers_hold_the_backend_back(world: World) -> None:
    """Ten streams of 10 MB that nobody reads: what waits here is less than 1 MiB each."""
    world.b.script(lambda _: Reply(stream=(event(CHUNK) * 80,) * 1000))
    payload = b'{"model":"large","stream":true,"messages":[{"role":"user","content":"x"}]}'
    fields = f"host: x\r\nauthorization: Bearer {KEY}\r\ncontent-length: {len(payload)}"
    head = f"POST /v1/chat/completions HTTP/1.1\r\n{fields}\r\n\r\n"
    await resident(world)
    tracemalloc.start()  # resident memory would tell what other tests had freed
    writers = []
    for _ in range(10):
        reader = socket.socket()
        # Or the kernel would take up to 6 MB off a stream before it holds the gateway back.
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024)
        reader.setblocking(False)
        await asyncio.get_running_loop().sock_connect(reader, ("127.0.0.1", world.app.port))
        _, writer = await asyncio.open_connection(sock=reader, limit=1024)
        writer.write(head.encode() + payload)
        writers.append(writer)
    while len(world.b.requests) < 10:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.8)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 10 * 1024 * 1024, "the backend, in this process, included"
    for writer in writers:
        writer.close()
    await closed_books(world)
