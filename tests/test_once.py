"""Idempotency-Key over real sockets: one answer and one charge, whatever the client, the backend and the process do."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import pytest

from gateway.app import App
from gateway.call import Answer, Request, Sink
from gateway.charging.audit import audit
from gateway.charging.image import ONCE_MS
from gateway.config.load import load
from gateway.config.model import Plan
from gateway.demo.scripted import Reply, refusal
from gateway.errors import Conflict, InvalidValue, KeyReused
from gateway.once import HEADER, KEPT_BYTES, KEPT_S, Once
from gateway.tenants import Caller
from tests.charging import manage
from tests.charging.fakes import FakeClock, opened, quote, settle
from tests.conftest import World
from tests.virtual import ListSink, VirtualClock

CHUNK = b'data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"word "}}]}\n\n'
LAST = (
    b'data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    b'data: {"id":"c","object":"chat.completion.chunk","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2,'
    b'"total_tokens":7}}\n\ndata: [DONE]\n\n'
)
SSE = {"content-type": "text/event-stream"}


async def ask(world: World, key: str | None = "k-1", **body: Any) -> tuple[int, bytes, dict[str, str]]:
    asked = {"model": "small", "messages": [{"role": "user", "content": "hello there"}], **body}
    headers = {} if key is None else {"Idempotency-Key": key}
    async with world.http.post(f"{world.url}/v1/chat/completions", json=asked, headers=headers) as answer:
        return answer.status, await answer.read(), {name.lower(): value for name, value in answer.headers.items()}


async def done(world: World) -> None:
    for _ in range(300):
        if not world.app.ledger.open_holds and not world.app._once._tasks:
            break
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.02)
    assert world.app.ledger.open_holds == 0
    world.app.ledger.check_invariants()


@pytest.mark.parametrize("stream", [False, True])
async def test_the_same_key_gets_the_same_answer_and_pays_once(world: World, stream: bool) -> None:
    first = await ask(world, stream=stream)
    again = await ask(world, stream=stream)
    assert (first[0], again[0], first[1] == again[1]) == (200, 200, True)
    assert ("x-moma-replayed" in first[2], again[2]["x-moma-replayed"]) == (False, "true")
    assert first[2]["x-request-id"] != again[2]["x-request-id"]
    assert len(world.a.requests) == 1
    await done(world)
    assert len(await world.charges()) == 1
    other = await ask(world, "k-2", stream=stream)
    assert (other[0], len(world.a.requests)) == (200, 2)


async def test_another_call_with_the_same_key_is_refused(world: World) -> None:
    await ask(world)
    status, body, _ = await ask(world, temperature=0)
    assert (status, b"idempotency_key_reused" in body) == (422, True)
    assert (await ask(world))[0] == 200


async def test_a_hundred_at_once_are_one_call(world: World) -> None:
    world.a.script(lambda _: Reply(headers=SSE, stream=[CHUNK, 0.3, LAST]))
    answers = await asyncio.gather(*(ask(world, stream=True) for _ in range(100)))
    statuses = sorted(status for status, _, _ in answers)
    assert statuses == [200] + [409] * 99
    refused = next(headers for status, _, headers in answers if status == 409)
    assert refused["retry-after"] == "1"
    assert len(world.a.requests) == 1
    await done(world)
    assert len(await world.charges()) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_finds_its_answer_when_it_comes_back(world: World, stream: bool) -> None:
    reached = asyncio.Event()
    if stream:
        world.a.script(lambda _: Reply(headers=SSE, stream=[CHUNK, reached, CHUNK, LAST]))
    else:
        world.a.script([Reply(before=(reached,), body=WHOLE)])
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(ask(world, stream=stream), 0.3)
    assert (await ask(world, stream=stream))[0] == 409
    reached.set()
    await done(world)
    status, body, _ = await ask(world, stream=stream)
    assert (status, body.count(b"word")) == (200, 2 if stream else 1)
    assert len(world.a.requests) == 1
    (record,) = await world.charges()
    assert (record["flags"], record["usage_source"]) == ([], "reported")


WHOLE = {
    "id": "c", "object": "chat.completion", "created": 1, "model": "small",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "word"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
}  # fmt: skip


async def test_a_call_that_failed_may_be_tried_again(world: World) -> None:
    world.a.script(lambda _: refusal(500))
    assert (await ask(world))[0] == 502
    world.a.script([])
    assert (await ask(world))[0] == 200
    await done(world)
    assert [float(record["charged"]) > 0 for record in await world.charges()].count(True) == 1


async def test_a_stream_that_broke_is_not_given_again(world: World) -> None:
    broken = Reply(headers=SSE, stream=[CHUNK])
    world.a.script([broken])
    _, body, _ = await ask(world, stream=True)
    assert b"[DONE]" not in body
    status, body, headers = await ask(world, stream=True)
    assert (status, b"[DONE]" in body, "x-moma-replayed" in headers) == (200, True, False)


async def test_after_a_restart_the_answer_is_gone_and_nothing_is_charged_again(world: World) -> None:
    await ask(world)
    await done(world)
    await world.app.aclose()
    app = App(load(world.path / "routes.yaml"))
    await app.start("127.0.0.1", 0)
    restarted = World(app, world.a, world.b, world.http, world.path)
    try:
        status, body, _ = await ask(restarted)
        assert (status, b"its answer is gone" in body) == (409, True)
        assert (await ask(restarted, "k-2"))[0] == 200
        await done(restarted)
        assert len(await restarted.charges()) == 2
    finally:
        await app.aclose()
    assert audit(str(world.path / "moma.db")) == []


async def test_a_shutdown_ends_what_nobody_waits_for(world: World) -> None:
    never = asyncio.Event()
    world.a.script(lambda _: Reply(headers=SSE, stream=[CHUNK, never]))
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(ask(world, stream=True), 0.3)
    assert len(world.app._once._tasks) == 1
    await world.app.aclose()
    assert world.app._once._tasks == {}
    assert audit(str(world.path / "moma.db")) == []


@pytest.mark.parametrize("key", ["", "x" * 256, "sch\u00f6n"])
async def test_a_bad_key_is_refused(world: World, key: str) -> None:
    asked = {"model": "small", "messages": [{"role": "user", "content": "x"}]}
    reader, writer = await asyncio.open_connection("127.0.0.1", world.app.port)
    body = str(asked).replace("'", '"').encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: {world.http.headers['authorization']}\r\n"
        f"idempotency-key: {key}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    answer = await reader.readuntil(b"\r\n")
    writer.close()
    assert b" 400 " in answer
    assert world.a.requests == []


# -- the store ----------------------------------------------------------------------------------------------------


def caller(tenant: str) -> Caller:
    return Caller(tenant, Plan("p"), (tenant,))


def request(key: str = "k", body: bytes = b"{}", endpoint: str = "chat") -> Request:
    return Request("r", endpoint, {HEADER: key}, body)


class Calls:
    """Serves each call with an answer of so many bytes."""

    def __init__(self, size: int = 10) -> None:
        self.served: list[str] = []
        self.size = size

    async def __call__(self, request: Request, sink: Sink) -> None:
        self.served.append(request.once)
        await sink.send(Answer(200, {}, b"x" * self.size))


async def test_tenants_and_endpoints_do_not_share_keys() -> None:
    once, calls = Once(VirtualClock()), Calls()
    for tenant in ("a", "b"):
        await once.handle(caller(tenant), request(), ListSink(), calls)
    assert len(set(calls.served)) == 2
    with pytest.raises(KeyReused):
        await once.handle(caller("a"), request(endpoint="embeddings"), ListSink(), calls)
    with pytest.raises(InvalidValue):
        await once.handle(caller("a"), request("x" * 256), ListSink(), calls)
    assert len(calls.served) == 2


async def test_answers_are_kept_for_a_day_and_as_long_as_there_is_room() -> None:
    clock = VirtualClock()
    once, calls = Once(clock), Calls(3_000_000)
    for number in range(40):
        await once.handle(caller("a"), request(f"k{number}"), ListSink(), calls)
    assert once._bytes <= KEPT_BYTES + 3_000_000
    assert once._bytes == sum(recording.size for _, recording in once._known.values())
    await once.handle(caller("a"), request("k39"), ListSink(), calls)
    assert len(calls.served) == 40
    clock.advance(KEPT_S + 1)
    await once.handle(caller("a"), request("k39"), ListSink(), calls)
    assert len(calls.served) == 41
    assert len(once._known) == 1


async def test_the_ledger_forgets_a_key_after_a_day(tmp_path: Any) -> None:
    clock = FakeClock()
    ledger = await opened(tmp_path, clock)

    async def charge(name: str) -> None:
        asked = quote()
        asked.once = hashlib.sha256(b"key").hexdigest()
        await ledger.reserve(name, asked, clamp=False)
        ledger.dispatched(name, "b", "m")
        await settle(ledger, name, 10)

    await charge("c1")
    with pytest.raises(Conflict, match="its answer is gone"):
        await charge("c2")
    clock.advance(ONCE_MS + 1)
    ledger.expire_overdue(clock.ms)
    await manage.add_key(ledger, "t", "00")[1]
    assert ledger._image.once == {}
    await charge("c3")
    await ledger.aclose()
    ledger = await opened(tmp_path, clock)
    with pytest.raises(Conflict):
        await charge("c4")
    await ledger.aclose()
