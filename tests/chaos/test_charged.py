"""What a call costs when the backend says nothing of it, or when the client leaves between two attempts."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.demo.scripted import Reply, refusal
from tests.conftest import World

TEXT = "one two three four"
CHAT = {
    "id": "x",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}],
}
VECTORS = {"object": "list", "data": [{"index": 0, "embedding": [0.123456] * 64}], "model": "m"}


async def one_record(world: World) -> dict[str, Any]:
    async with asyncio.timeout(5):
        while not (records := await world.charges()):
            await asyncio.sleep(0.01)
    [record] = records
    return record


@pytest.mark.parametrize(
    ("path", "asked", "answer", "output"),
    [
        ("chat/completions", {"messages": [{"role": "user", "content": "hi"}]}, CHAT, 4),
        ("embeddings", {"input": "hi"}, VECTORS, None),
    ],
)
async def test_without_usage_the_text_is_counted_not_its_json(
    world: World, path: str, asked: dict[str, Any], answer: dict[str, Any], output: int | None
) -> None:
    await asyncio.to_thread(world.app._parts.tokenizer.load)
    world.a.script([Reply(body=answer)])
    async with world.http.post(f"{world.url}/v1/{path}", json={"model": "small", **asked}) as got:
        assert got.status == 200
    record = await one_record(world)
    assert record["flags"] == ["estimated"]
    assert record["usage"].get("output") == output


async def test_a_client_that_leaves_while_nothing_is_asked_of_a_backend_pays_nothing(world: World) -> None:
    """The attempt was answered with an error, the next one has not begun: nobody works for this call."""
    world.a.script(lambda _: refusal(503, retry_after="0.09"))
    asked = {"model": "small", "messages": [{"role": "user", "content": "hi"}]}
    call = asyncio.create_task(world.http.post(f"{world.url}/v1/chat/completions", json=asked).__aenter__())
    while not (world.a.requests and world.a.requests[0].ended.is_set()):
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.02)
    call.cancel()
    record = await one_record(world)
    assert len(world.a.requests) == 1
    assert (record["status"], record["charged"]) == ("voided", "0")
