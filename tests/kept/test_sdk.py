"""Kept responses, as OpenAI's own SDK asks for them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from openai import AsyncOpenAI, BadRequestError, NotFoundError

from gateway.config.model import Responses
from gateway.dialects import responses
from gateway.errors import GatewayError
from gateway.kept.responses import KeptResponses
from tests.charging.fakes import FakeClock
from tests.dialects.test_responses_stream import USAGE

MANY = 20_000_000


class Server:
    """What the gateway's server does with them, for one tenant and a backend that says what it was asked."""

    def __init__(self, path: Path) -> None:
        self.kept = KeptResponses(str(path), Responses(), FakeClock(), lambda outcome: None)
        self.made = 0
        self.app = web.Application(middlewares=[_errors])
        self.app.add_routes([
            web.post("/v1/responses", self.create),
            web.get("/v1/responses/{id}", self.find),
            web.delete("/v1/responses/{id}", self.forget),
            web.get("/v1/responses/{id}/input_items", self.items),
        ])  # fmt: skip

    async def create(self, request: web.Request) -> web.Response:
        original = await request.json()
        whole, own = await self.kept.resolve("one", original, MANY)
        chat, _ = responses.body(whole)
        heard = " ".join(message["content"] for message in chat["messages"])
        self.made += 1
        head = {"id": f"chatcmpl-{self.made}", "created": 1, "model": "served"}
        if not original.get("stream"):
            choice = {"index": 0, "message": {"content": f"({heard})"}, "finish_reason": "stop"}
            response = responses.answer({**head, "choices": [choice], "usage": USAGE}, original)
            self.kept.keep("one", original, own, response)
            return web.json_response(response)
        encoder = responses.Encoder(original)
        choice = {"index": 0, "delta": {"content": f"({heard})"}, "finish_reason": "stop"}
        stream = encoder.feed({**head, "choices": [choice]}) + encoder.end(USAGE)
        assert encoder.response is not None
        self.kept.keep("one", original, own, encoder.response)
        return web.Response(body=stream, content_type="text/event-stream")

    async def find(self, request: web.Request) -> web.Response:
        return web.json_response(await self.kept.find("one", request.match_info["id"]))

    async def forget(self, request: web.Request) -> web.Response:
        return web.json_response(await self.kept.forget("one", request.match_info["id"]))

    async def items(self, request: web.Request) -> web.Response:
        query = dict(request.query)
        return web.json_response(await self.kept.input_items("one", request.match_info["id"], query, MANY))


@web.middleware
async def _errors(request: web.Request, handler: Any) -> web.StreamResponse:
    try:
        answer: web.StreamResponse = await handler(request)
    except GatewayError as error:
        return web.json_response(error.body(), status=error.status)
    return answer


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[AsyncOpenAI]:
    made = Server(tmp_path / "kept")
    async with (
        TestServer(made.app, host="127.0.0.1") as server,
        AsyncOpenAI(base_url=str(server.make_url("/v1")), api_key="sk-x", max_retries=0) as sdk,
    ):
        yield sdk
    await made.kept.aclose()


async def test_a_conversation_of_three_turns_by_id(client: AsyncOpenAI) -> None:
    first = await client.responses.create(model="m", input="a", metadata={"k": "v"})
    assert first.output_text == "(a)"
    second = await client.responses.create(model="m", input="b", previous_response_id=first.id)
    assert second.output_text == "(a (a) b)"
    async with client.responses.stream(model="m", input="c", previous_response_id=second.id) as stream:
        third = await stream.get_final_response()
    assert third.output_text == "(a (a) b (a (a) b) c)"
    again = await client.responses.retrieve(third.id)
    assert (again.output_text, again.previous_response_id) == (third.output_text, second.id)
    assert (await client.responses.retrieve(first.id)).metadata == {"k": "v"}
    items: list[Any] = [item async for item in client.responses.input_items.list(second.id, order="asc", limit=1)]
    assert [item.content[0].text for item in items] == ["a", "(a)", "b"]


async def test_what_was_deleted_is_not_found(client: AsyncOpenAI) -> None:
    first = await client.responses.create(model="m", input="a")
    await client.responses.delete(first.id)
    with pytest.raises(NotFoundError):
        await client.responses.retrieve(first.id)
    with pytest.raises(BadRequestError) as refused:
        await client.responses.create(model="m", input="b", previous_response_id=first.id)
    assert refused.value.code == "previous_response_not_found"
