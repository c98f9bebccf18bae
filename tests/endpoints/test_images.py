"""Images end to end: counted, in tokens where the backend says so, whole and in parts."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import openai
import pytest

from gateway.demo.backend import event
from gateway.demo.scripted import HANG, Fault, Reply
from tests.conftest import World
from tests.endpoints.conftest import Post
from tests.test_spine import settled

PARTIAL = event({"type": "image_generation.partial_image", "partial_image_index": 0, "b64_json": "AAAA"})


async def test_the_sdk_gets_images_which_are_charged_as_tokens_and_each(world: World, sdk: openai.AsyncOpenAI) -> None:
    made = await sdk.images.generate(model="painter", prompt="a red fox", n=2, size="1024x1024")
    assert made.data is not None
    assert all(base64.b64decode(image.b64_json or "").startswith(b"\x89PNG") for image in made.data)
    [seen] = world.a.requests
    assert seen.path == "/v1/images/generations"
    assert seen.body == {"model": "gpt-image-1", "prompt": "a red fox", "n": 2, "size": "1024x1024"}
    [record] = await world.charges()
    assert record["usage"] == {"input": 3, "output": 200, "images": 2, "calls": 1}
    assert float(record["charged"]) == 3 * 1 + 200 * 3 + 2 * 50
    assert record["usage_source"] == "reported"


async def test_a_backend_without_tokens_is_charged_by_the_image(world: World, post: Post) -> None:
    world.a.script([Reply(body={"created": 1, "data": [{"url": "https://x.test/1.png"}]})])
    async with post("images/generations", model="painter", prompt="sea") as answer:
        assert answer.status == 200
    [record] = await world.charges()
    assert record["usage"] == {"images": 1, "calls": 1}
    assert float(record["charged"]) == 50


async def test_what_is_held_covers_all_that_may_be_charged(world: World, post: Post) -> None:
    most = {"input_tokens": 10**9, "input_tokens_details": {"image_tokens": 10**9}, "output_tokens": 10**9}
    world.a.script([Reply(body={"data": [{"b64_json": "AA"}] * 9, "usage": most})])
    async with post("images/generations", model="painter", prompt="sea", n=3) as answer:
        assert answer.status == 200
    [record] = await world.charges()
    assert "bad_usage" in record["flags"]
    assert record["usage"]["images"] == 3
    assert record["usage"]["output"] == 3 * 1000
    assert float(record["reserved"]) >= 3 * 50 + 3 * 1000 * 3


async def test_images_by_another_name_are_held_and_charged(world: World, post: Post) -> None:
    world.a.script([Reply(body={"data": [{"b64_json": "AA"}] * 4})])
    async with post("images/generations", model="painter", prompt="sea", batch_size=4) as answer:
        assert answer.status == 200
    [record] = await world.charges()
    assert record["usage"] == {"images": 4, "calls": 1}


async def test_partial_images_come_as_events(world: World, sdk: openai.AsyncOpenAI) -> None:
    stream = await sdk.images.generate(model="painter", prompt="a red fox", stream=True, partial_images=2)
    kinds = [part.type async for part in stream]
    assert kinds == ["image_generation.partial_image"] * 2 + ["image_generation.completed"]
    [record] = await world.charges()
    assert record["usage"] == {"input": 3, "output": 100, "images": 1, "calls": 1}


async def test_an_image_that_was_seen_in_part_is_charged_when_its_client_leaves(world: World, post: Post) -> None:
    world.a.script([Reply(stream=[PARTIAL, Fault.HANG])])
    async with post("images/generations", model="painter", prompt="sea", stream=True) as answer:
        await answer.content.readany()
    await settled(world)
    [record] = await world.charges()
    assert record["usage"]["images"] == 1
    assert world.a.requests[0].disconnected


async def test_a_client_that_leaves_before_an_image_pays_for_none(world: World, post: Post) -> None:
    world.a.script([HANG])
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3), post("images/generations", model="painter", prompt="sea"):
            pass
    await settled(world)
    [record] = await world.charges()
    assert "images" not in record["usage"]


async def test_a_stream_that_breaks_ends_with_an_error(world: World, post: Post) -> None:
    world.a.script([Reply(stream=[PARTIAL, Fault.EOF])])
    async with post("images/generations", model="painter", prompt="sea", stream=True) as answer:
        text = await answer.text()
    assert text.startswith(PARTIAL.decode())
    assert '"code":"backend_error"' in text
    await settled(world)


async def test_images_are_not_kept_by_a_cache(world: World, post: Post) -> None:
    for _ in range(2):
        async with post("images/generations", model="sure", prompt="sea") as answer:
            assert (answer.status, answer.headers["x-moma-cache"]) == (200, "bypass")


async def test_an_answer_of_many_megabytes_passes(world: World, post: Post) -> None:
    image = base64.b64encode(bytes(12_000_000)).decode()
    world.a.script([Reply(body={"created": 1, "data": [{"b64_json": image}] * 2})])
    async with post("images/generations", model="painter", prompt="sea", n=2) as answer:
        body = await answer.json()
    assert [len(one["b64_json"]) for one in body["data"]] == [16_000_000] * 2


BAD: list[tuple[dict[str, Any], str]] = [
    ({"prompt": None}, "prompt"),
    ({"prompt": "a" * 32_001}, "prompt"),
    ({"n": 0}, "n"),
    ({"n": 11}, "n"),
    ({"n": "2"}, "n"),
    ({"batch_size": 11}, "batch_size"),
    ({"stream": 1}, "stream"),
    ({"partial_images": 4}, "partial_images"),
]


@pytest.mark.parametrize(("fields", "param"), BAD)
async def test_bad_fields_are_named(post: Post, fields: dict[str, Any], param: str) -> None:
    async with post("images/generations", **{"model": "painter", "prompt": "sea", **fields}) as answer:
        error = (await answer.json())["error"]
    assert (answer.status, error["code"], error["param"]) == (400, "invalid_value", param)
