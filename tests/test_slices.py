"""Long streams on small packages over real sockets: they hold slices, and a package that ends ends them properly."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import openai
import orjson
import pytest

from gateway.app import App
from gateway.charging.audit import audit
from gateway.config.load import load
from gateway.demo.scripted import Fault, Reply, ScriptedBackend, refusal
from gateway.slices import SLICE_TOKENS, Slices
from tests.charging import manage
from tests.conftest import KEY, World

ROUTES = """
version: 1
currency: CNY
storage: {{ledger: "sqlite:{ledger}"}}
defaults:
  timeout: {{connect: 1s, first_token: 3s, idle: 3s, total: 30s}}
  retry: {{attempts: 2, backoff: 10ms..20ms}}
backends:
  a: {{kind: openai, base_url: "{a}"}}
  b: {{kind: openai, base_url: "{b}"}}
  free: {{kind: openai, base_url: "{a}", on_disconnect: free}}
  drain: {{kind: openai, base_url: "{a}", on_disconnect: drain}}
models:
  small: {{via: [a], context: 128k, max_output: 64k, price: {{input: 1, output: 2}}}}
  large: {{via: [b], context: 128k, max_output: 64k, price: {{input: 2, output: 8}}}}
  free: {{via: [free], context: 128k, max_output: 64k, price: {{input: 1, output: 2}}}}
  drain: {{via: [drain], context: 128k, max_output: 64k, price: {{input: 1, output: 2}}}}
routes:
  auto: {{pick: [small], policy: ordered, fallback: {{error: [large]}}}}
  kept: {{pick: [small], policy: ordered, cache: short}}
cache:
  short: {{mode: exact, ttl: 10m, sampled: true}}
plans:
  pro: {{grants: [{{credits: 6k, every: month}}]}}
tenants:
  demo: {{plan: pro, keys: ["sha256:{key}"]}}
"""
WALLET = 6_000
SSE = {"content-type": "text/event-stream"}


def piece(text: str, **more: Any) -> bytes:
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return b"data: " + orjson.dumps({**chunk, "choices": [{"index": 0, "delta": {"content": text}, **more}]}) + b"\n\n"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with ScriptedBackend() as a, ScriptedBackend() as b:
        routes = tmp_path / "routes.yaml"
        key = hashlib.sha256(KEY.encode()).hexdigest()
        routes.write_text(ROUTES.format(ledger=tmp_path / "moma.db", a=a.base_url, b=b.base_url, key=key))
        app = App(load(routes))
        await app.start("127.0.0.1", 0)
        while not app._parts.tokenizer.ready:
            await asyncio.sleep(0.01)
        headers = {"authorization": f"Bearer {KEY}"}
        async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=0)) as http:
            yield World(app, a, b, http, tmp_path)
        await app.aclose()
    assert audit(str(tmp_path / "moma.db")) == []


async def ended(world: World) -> list[dict[str, Any]]:
    for _ in range(300):
        if not world.app.ledger.open_holds and not world.app._parts.caches._tasks:
            break
        await asyncio.sleep(0.01)
    await world.written()
    world.app.ledger.check_invariants()
    assert world.app.ledger.open_holds == 0
    return await world.charges()


async def stream(world: World, **body: Any) -> tuple[str, list[dict[str, Any]]]:
    """All of a stream as it came: the text, and its chunks without [DONE]."""
    asked = {"model": "small", "stream": True, "messages": [{"role": "user", "content": "hello there"}], **body}
    async with world.http.post(f"{world.url}/v1/chat/completions", json=asked) as answer:
        assert answer.status == 200
        text = await answer.text()
    events = [event.removeprefix("data: ") for event in text.split("\n\n") if event and event != "data: [DONE]"]
    return text, [orjson.loads(event) for event in events]


async def test_a_package_that_ends_in_mid_stream_looks_like_a_length(world: World) -> None:
    async with openai.AsyncOpenAI(api_key=KEY, base_url=f"{world.url}/v1", max_retries=0) as client:
        chunks = await client.chat.completions.create(
            model="small",
            stream=True,
            stream_options={"include_usage": True},
            max_tokens=50_000,
            messages=[{"role": "user", "content": "hello there"}],
            extra_body={"min_tokens": 20_000},
        )
        seen = [chunk async for chunk in chunks]
    last, usage = seen[-2], seen[-1].usage
    assert (last.choices[0].finish_reason, last.model_extra) == ("length", {"x_moma": {"reason": "quota_exhausted"}})
    assert {chunk.id for chunk in seen} == {seen[0].id}
    written = sum(bool(chunk.choices and chunk.choices[0].delta.content) for chunk in seen)
    [record] = await ended(world)
    assert (record["status"], record["flags"]) == ("settled", ["estimated", "quota_exhausted"])
    metrics = world.app.metrics.registry
    assert metrics.get_sample_value("moma_limit_refusals_total", {"kind": "quota"}) == 1
    assert not metrics.get_sample_value("moma_usage_missing_total", {"backend": "a"})
    assert usage is not None
    assert record["usage"] == {"input": usage.prompt_tokens, "output": usage.completion_tokens, "calls": 1}
    assert abs(usage.completion_tokens - written) < 5  # one event a token
    assert WALLET - 500 < float(record["charged"]) <= WALLET
    assert record["overage"] == "0"
    [seen_by_backend] = world.a.requests
    assert seen_by_backend.body["max_tokens"] == 50_000
    [account] = world.app.ledger.tenants()
    assert (account.debt_uc, account.loss_uc) == (0, 0)


async def test_a_stream_that_ends_by_itself_pays_what_it_used_and_frees_the_rest(world: World) -> None:
    text, chunks = await stream(world, max_tokens=50_000, min_tokens=3_000)
    assert text.endswith("data: [DONE]\n\n")
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    [record] = await ended(world)
    assert (record["flags"], record["usage"]["output"]) == ([], 3_000)
    assert float(record["reserved"]) > 3_000
    used = record["usage"]["input"] + 3_000
    assert (await usage_of(world))["available"] == str(WALLET - used)


async def test_the_backend_is_stopped(world: World) -> None:
    world.a.script([Reply(headers=SSE, stream=[*[piece("word ")] * (WALLET + 10), Fault.HANG])])
    _, chunks = await stream(world, max_tokens=50_000)
    assert chunks[-1]["x_moma"] == {"reason": "quota_exhausted"}
    await asyncio.wait_for(world.a.requests[0].ended.wait(), 1)
    assert world.a.requests[0].disconnected


async def usage_of(world: World) -> dict[str, Any]:
    async with world.http.get(f"{world.url}/v1/usage") as answer:
        found: dict[str, Any] = await answer.json()
    return found


async def test_a_large_ceiling_leaves_room_for_others(world: World) -> None:
    go_on = asyncio.Event()
    world.a.script([Reply(headers=SSE, stream=[piece("a"), go_on])])
    first = asyncio.create_task(stream(world, max_tokens=50_000))
    while not world.app.ledger.open_holds:
        await asyncio.sleep(0.01)
    assert 2_000 < float((await usage_of(world))["reserved"]) < 2_300
    _, chunks = await stream(world, max_tokens=10)
    assert chunks
    go_on.set()
    await first


async def test_a_whole_answer_is_held_whole(world: World) -> None:
    status, _, headers = await world.chat(max_tokens=50_000)
    assert status == 200
    assert int(headers["x-moma-max-tokens"]) < WALLET


async def test_what_is_topped_up_in_mid_stream_is_used(world: World) -> None:
    go_on = asyncio.Event()
    pieces = [piece("some words of it ") for _ in range(40)]
    world.a.script(
        [Reply(headers=SSE, stream=[*(pieces * 12), go_on, *(pieces * 20), piece("", finish_reason="stop")])]
    )
    running = asyncio.create_task(stream(world, max_tokens=50_000))
    for _ in range(500):
        if float((await usage_of(world))["reserved"]) > 4_000:
            break
        await asyncio.sleep(0.01)
    await manage.add_grant(world.app.ledger, "demo", 10**12)[1]
    go_on.set()
    _, chunks = await running
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    [record] = await ended(world)
    assert "quota_exhausted" not in record["flags"]


async def test_a_fallback_before_the_first_byte_keeps_its_slice(world: World) -> None:
    world.a.script(lambda _: refusal(503))
    _, chunks = await stream(world, model="auto", max_tokens=50_000, min_tokens=20_000)
    assert chunks[-1]["x_moma"] == {"reason": "quota_exhausted"}
    records = await ended(world)
    assert [(record["backend"], record["overage"]) for record in records] == [("b", "0")]


async def test_several_choices_end_together(world: World) -> None:
    _, chunks = await stream(world, max_tokens=20_000, min_tokens=10_000, n=2)
    ends = [choice["index"] for choice in chunks[-1]["choices"] if choice["finish_reason"] == "length"]
    begun = {choice["index"] for chunk in chunks for choice in chunk["choices"]}
    assert set(ends) | {
        choice["index"] for chunk in chunks[:-1] for choice in chunk["choices"] if choice.get("finish_reason")
    } == {0, 1}
    assert begun == {0, 1}
    [record] = await ended(world)
    assert float(record["charged"]) <= WALLET


async def test_a_completion_ends_in_its_own_shape(world: World) -> None:
    asked = {"model": "small", "stream": True, "prompt": "hello", "max_tokens": 50_000, "min_tokens": 20_000}
    async with world.http.post(f"{world.url}/v1/completions", json=asked) as answer:
        text = await answer.text()
    *_, last, done, _ = text.split("\n\n")
    chunk = orjson.loads(last.removeprefix("data: "))
    assert done == "data: [DONE]"
    assert chunk["object"] == "text_completion"
    assert chunk["choices"] == [{"index": 0, "text": "", "finish_reason": "length"}]


@pytest.mark.parametrize("model", ["small", "free", "drain"])
async def test_who_leaves_a_sliced_stream_holds_nothing_more(world: World, model: str) -> None:
    go_on = asyncio.Event()
    end = piece("", finish_reason="stop") + (
        b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":41}}\n\ndata: [DONE]\n\n'
    )
    world.a.script([Reply(headers=SSE, stream=[*[piece("word ")] * 20, go_on, *[piece("word ")] * 20, end])])
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(stream(world, model=model, max_tokens=50_000), 0.4)
    await asyncio.sleep(0.1)
    go_on.set()
    [record] = await ended(world)
    charged = {"small": 20 + 2, "free": 0, "drain": 46}[model]
    assert abs(float(record["charged"]) - charged) <= 3
    assert (await usage_of(world))["reserved"] == "0"


async def test_an_exhausted_package_drains_no_further_than_it_pays(world: World) -> None:
    asked = {"max_tokens": 50_000, "min_tokens": 40_000}
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(stream(world, model="drain", **asked), 0.05)
    [record] = await ended(world)
    assert record["overage"] == "0"
    assert float(record["charged"]) <= WALLET


async def test_a_cut_answer_is_kept_for_nobody_and_a_whole_one_is(world: World) -> None:
    short = {"model": "kept", "max_tokens": 40_000, "min_tokens": 100}
    _, first = await stream(world, **short)
    _, again = await stream(world, **short)
    assert first[-1]["choices"][0]["finish_reason"] == again[-1]["choices"][0]["finish_reason"] == "stop"
    assert len(world.a.requests) == 1
    cut = {"model": "kept", "max_tokens": 50_000, "min_tokens": 20_000}
    asked = [stream(world, stream_options={"include_usage": True}, **cut) for _ in range(2)]
    found = await asyncio.gather(*asked)
    for text, chunks in found:
        assert text.endswith("data: [DONE]\n\n")
        assert chunks[-1]["usage"]["completion_tokens"] > 0
        assert chunks[-2]["x_moma"] == {"reason": "quota_exhausted"}
    assert len(world.a.requests) == 3
    records = await ended(world)
    assert sum(float(record["charged"]) for record in records) <= WALLET
    assert {record["overage"] for record in records} == {"0"}


async def test_many_streams_at_once_on_one_package_spend_no_more_than_it_has(world: World) -> None:
    async def one() -> str:
        asked = {"model": "small", "stream": True, "messages": [{"role": "user", "content": "hi"}],
                 "max_tokens": 50_000, "min_tokens": 5_000}  # fmt: skip
        async with world.http.post(f"{world.url}/v1/chat/completions", json=asked) as answer:
            text = await answer.text()
            return "refused" if answer.status == 429 else "cut" if "quota_exhausted" in text else "whole"

    ends = await asyncio.gather(*(one() for _ in range(10)))
    records = await ended(world)
    assert "refused" in ends
    assert "cut" in ends
    assert sum(float(record["charged"]) for record in records) <= WALLET
    [account] = world.app.ledger.tenants()
    assert (account.debt_uc, account.loss_uc) == (0, 0)


# -- the count alone -------------------------------------------------------------------------------------------------


@dataclass
class Text:
    """A stream that has written so many tokens, of which three are counted for each."""

    tokens: int = 0
    ended: bool = False

    def written(self) -> tuple[int, int]:
        return self.tokens, 3 * self.tokens

    def passed_text(self) -> str:
        return "x" * self.tokens


class Purse:
    """What there is to hold, how often it was asked for, and how often all text was counted."""

    def __init__(self, left: int) -> None:
        self.left = left
        self.asked = self.counted = 0

    def extend(self, tokens: int) -> int:
        self.asked += 1
        more = min(tokens, self.left)
        self.left -= more
        return more

    async def count(self, text: str) -> int:
        self.counted += 1
        return len(text)


async def write(purse: Purse, most: int = 100_000, choices: int = 1, until: int = 1_000_000) -> tuple[int, Slices]:
    """How far a stream comes that writes a token at a time, and what is held then."""
    text = Text()
    slices = Slices(purse.extend, purse.count, choices, SLICE_TOKENS * choices, most * choices)
    while text.tokens < until:
        text.tokens += 1
        if not await slices.cover(text):  # type: ignore[arg-type]
            break
    return text.tokens, slices


async def test_a_quarter_of_what_is_held_is_free_while_there_is_more() -> None:
    for until in (100, 512, 513, 5_000, 20_000):
        _, slices = await write(Purse(10**9), until=until)
        assert 3 * until <= slices.held * 3 // 4 + 3
        assert slices.held <= max(SLICE_TOKENS, 4 * until + SLICE_TOKENS)


async def test_what_is_left_is_used_and_the_text_is_counted_a_few_times() -> None:
    purse = Purse(7_000)
    written, slices = await write(purse)
    assert slices.held == SLICE_TOKENS + 7_000
    assert slices.held - 64 <= written <= slices.held
    assert purse.counted < 15
    assert purse.asked < 150


async def test_what_is_held_whole_is_ended_by_its_backend() -> None:
    purse = Purse(10**9)
    written, slices = await write(purse, most=5_000, until=50_000)
    assert (written, purse.counted) == (50_000, 0)
    assert slices.held >= 5_000


async def test_a_slice_is_of_each_choice() -> None:
    purse = Purse(10**9)
    _, slices = await write(purse, choices=4, until=3_000)
    assert slices.held == 2 * 4 * SLICE_TOKENS
    assert purse.asked == 1


async def test_a_stream_that_has_ended_is_not_cut() -> None:
    slices = Slices(Purse(0).extend, Purse(0).count, 1, 100, 1_000)
    assert not await slices.cover(Text(200))  # type: ignore[arg-type]
    assert await slices.cover(Text(200, ended=True))  # type: ignore[arg-type]


async def test_a_cut_stream_is_replayed_for_its_idempotency_key(world: World) -> None:
    asked = {"model": "small", "stream": True, "messages": [{"role": "user", "content": "hello there"}],
             "max_tokens": 50_000, "min_tokens": 20_000}  # fmt: skip
    found = []
    for _ in range(2):
        async with world.http.post(
            f"{world.url}/v1/chat/completions", json=asked, headers={"Idempotency-Key": "k-1"}
        ) as answer:
            found.append(await answer.text())
    assert found[0] == found[1]
    assert found[0].endswith("data: [DONE]\n\n")
    assert len(await ended(world)) == 1
