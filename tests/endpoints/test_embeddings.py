"""Embeddings with all that the API has: base64, lists, tokens, dimensions."""

from __future__ import annotations

import base64
import struct
from typing import Any

import openai
import pytest

from tests.conftest import World
from tests.endpoints.conftest import Post


@pytest.mark.parametrize(
    ("given", "vectors", "tokens"),
    [("a b", 1, 2), (["a", "b c"], 2, 3), ([1, 2, 3], 1, 3), ([[1, 2], [3]], 2, 3)],
)
async def test_every_form_of_input(
    world: World, sdk: openai.AsyncOpenAI, given: Any, vectors: int, tokens: int
) -> None:
    made = await sdk.embeddings.create(model="vectors", input=given)
    assert [one.index for one in made.data] == list(range(vectors))
    assert world.a.requests[0].body["encoding_format"] == "base64"  # as the SDK asks, and unpacks
    [record] = await world.charges()
    assert record["usage"] == {"input": tokens, "calls": 1}
    assert record["charged"] == str(tokens)


async def test_base64_and_numbers_are_the_same_vector(sdk: openai.AsyncOpenAI, post: Post) -> None:
    as_numbers = await sdk.embeddings.create(model="vectors", input="a", encoding_format="float", dimensions=8)
    async with post("embeddings", model="vectors", input="a", encoding_format="base64", dimensions=8) as answer:
        packed = (await answer.json())["data"][0]["embedding"]
    unpacked = struct.unpack("<8f", base64.b64decode(packed))
    assert unpacked == pytest.approx(as_numbers.data[0].embedding)


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"input": []}, "input"), ({"input": ["a", 1]}, "input"), ({"input": "a", "dimensions": 0}, "dimensions")],
)
async def test_bad_fields_are_named(post: Post, fields: dict[str, Any], param: str) -> None:
    async with post("embeddings", model="vectors", **fields) as answer:
        error = (await answer.json())["error"]
    assert (answer.status, error["param"]) == (400, param)


async def test_embeddings_are_cached_where_the_route_says_so(world: World, post: Post) -> None:
    kept = []
    for _ in range(2):
        async with post("embeddings", model="sure", input=["a", "b"]) as answer:
            kept.append((answer.status, answer.headers["x-moma-cache"]))
    assert kept == [(200, "miss"), (200, "hit")]
