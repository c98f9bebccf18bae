"""What Anthropic's SDKs look at beside the dialect's bodies."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import World

HELLO = {"model": "small", "max_tokens": 20, "messages": [{"role": "user", "content": "hello"}]}


@pytest.mark.parametrize("more", [{}, {"stream": True}, {"model": "none"}])
async def test_the_request_id_is_where_they_look_for_it(world: World, more: dict[str, Any]) -> None:
    async with world.http.post(f"{world.url}/v1/messages", json=HELLO | more) as answer:
        assert answer.headers["request-id"] == answer.headers["x-request-id"]
    async with world.http.post(f"{world.url}/v1/messages/count_tokens", json=HELLO) as answer:
        assert answer.headers["request-id"] == answer.headers["x-request-id"]


async def test_others_have_one_request_id(world: World) -> None:
    _, _, headers = await world.chat()
    assert "request-id" not in headers
