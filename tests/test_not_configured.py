"""A path whose endpoint no model of routes.yaml serves."""

from __future__ import annotations

import random

import pytest

from gateway.config.model import Plan
from gateway.errors import NotConfigured
from gateway.routing.live import Live
from gateway.routing.router import Router
from tests.conftest import World
from tests.virtual import backend, config, model

LEFT_OUT = ("rerank", "images/generations", "audio/speech", "audio/transcriptions", "audio/translations")


@pytest.mark.parametrize("path", LEFT_OUT)
async def test_it_is_not_there_and_says_so(world: World, path: str) -> None:
    async with world.http.post(f"{world.url}/v1/{path}", json={"model": "small"}) as answer:
        error = (await answer.json())["error"]
    assert (answer.status, error["code"], error["type"]) == (404, "not_configured", "invalid_request_error")
    assert "routes.yaml" in error["message"]


async def test_strangers_hear_nothing_of_it(world: World) -> None:
    headers = {"authorization": "Bearer wrong"}
    async with world.http.post(f"{world.url}/v1/rerank", json={}, headers=headers) as answer:
        assert answer.status == 401


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
def test_chat_may_be_left_out_too(endpoint: str) -> None:
    only = config([backend("a")], [model("e", "a", endpoints=frozenset({"embeddings"}))], [], plan=Plan("p"))
    router = Router(only, random.Random(1), Live(only.breaker))
    assert isinstance(router.why_not(endpoint), NotConfigured)
    assert router.why_not("embeddings") is None
