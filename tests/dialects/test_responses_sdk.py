"""What the dialect says, read by OpenAI's own SDK over a real connection."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from openai import APIError, AsyncOpenAI, BadRequestError
from pydantic import BaseModel

from gateway.call import JSON
from gateway.dialects import responses
from gateway.errors import InvalidValue
from gateway.sse import split_events
from tests.dialects.test_responses_stream import TURN, USAGE, chunk, encoded


class Backend:
    """Answers with the dialect's bytes what a scripted chat backend would have said. `asked` are the chat bodies."""

    def __init__(self) -> None:
        self.asked: list[JSON] = []
        self.chunks: list[JSON] = []
        self.message: JSON = {}
        self.broken = False

    async def answer(self, request: web.Request) -> web.Response:
        original = await request.json()
        try:
            chat, beyond = responses.body(original)
        except InvalidValue as error:
            return web.json_response(responses.error(error.body()["error"], 400), status=400)
        assert not beyond
        self.asked.append(chat)
        if not original.get("stream"):
            choice = {"index": 0, "message": self.message, "finish_reason": "stop"}
            value = {"id": "chatcmpl-abc", "created": 17, "model": "served", "choices": [choice], "usage": USAGE}
            return web.json_response(responses.answer(value, original))
        stream = encoded(self.chunks, original=original)
        if self.broken:
            cut = stream[: stream.rindex(b"event: ")]
            stream = cut + responses.error_event({"message": "gone", "code": "backend_error"}, 502)
        return web.Response(body=stream, content_type="text/event-stream")


@pytest.fixture
async def backend() -> AsyncIterator[tuple[Backend, AsyncOpenAI]]:
    made = Backend()
    app = web.Application()
    app.router.add_post("/v1/responses", made.answer)
    async with (
        TestServer(app, host="127.0.0.1") as server,
        AsyncOpenAI(base_url=str(server.make_url("/v1")), api_key="sk-x", max_retries=0) as client,
    ):
        yield made, client


Pair = tuple[Backend, AsyncOpenAI]
TOOL: Any = {
    "type": "function",
    "name": "f",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"a": {"type": "integer"}},
        "required": ["a"],
        "additionalProperties": False,
    },
}


class Found(BaseModel):
    a: int


async def test_a_whole_answer(backend: Pair) -> None:
    made, client = backend
    made.message = {"role": "assistant", "content": "Hello", "reasoning_content": "I think"}
    response = await client.responses.create(model="m", input="hi", instructions="be kind")
    assert response.output_text == "Hello"
    assert [item.type for item in response.output] == ["reasoning", "message"]
    assert response.usage is not None
    assert response.usage.input_tokens_details.cached_tokens == 4
    assert made.asked[0]["messages"][0] == {"role": "system", "content": "be kind"}


async def test_the_stream_helper_puts_a_response_together(backend: Pair) -> None:
    made, client = backend
    made.chunks = TURN
    seen = []
    async with client.responses.stream(model="m", input="hi", tools=[TOOL]) as stream:
        async for event in stream:
            seen.append(event.type)
            if event.type == "response.output_text.delta":
                assert "Hello".startswith(event.snapshot)
        response = await stream.get_final_response()
    assert response.output_text == "Hello"
    assert [item.type for item in response.output] == ["reasoning", "message", "function_call"]
    call: Any = response.output[2]
    assert call.parsed_arguments == {"a": 1}
    assert (seen[0], seen[-1]) == ("response.created", "response.completed")


async def test_structured_output_is_parsed(backend: Pair) -> None:
    made, client = backend
    made.message = {"role": "assistant", "content": '{"a": 7}'}
    whole = await client.responses.parse(model="m", input="hi", text_format=Found)
    assert whole.output_parsed == Found(a=7)
    assert made.asked[0]["response_format"]["json_schema"]["name"] == "Found"
    made.chunks = [chunk(content='{"a":'), chunk(content=" 7}"), chunk(finish="stop")]
    async with client.responses.stream(model="m", input="hi", text_format=Found) as stream:
        assert (await stream.get_final_response()).output_parsed == Found(a=7)


async def test_three_turns_with_a_tool(backend: Pair) -> None:
    """The client sends back what it got, as the SDK gave it."""
    made, client = backend
    made.chunks = TURN
    history: list[Any] = [{"role": "user", "content": "hi"}]
    for turn in range(3):
        async with client.responses.stream(model="m", input=history, tools=[TOOL]) as stream:
            response = await stream.get_final_response()
        history += [item.model_dump(exclude={"parsed_arguments"}) for item in response.output]
        history.append({"type": "function_call_output", "call_id": "c0", "output": str(turn)})
    roles = [message["role"] for message in made.asked[-1]["messages"]]
    assert roles == ["user", "assistant", "tool", "assistant", "tool"]
    assert made.asked[-1]["messages"][1]["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"a":1}'}


async def test_an_answer_that_was_cut_is_incomplete(backend: Pair) -> None:
    made, client = backend
    made.chunks = [chunk(content="Hel"), chunk(finish="length")]
    last = None
    async for event in await client.responses.create(model="m", input="hi", stream=True):
        last = event
    assert last is not None
    assert last.type == "response.incomplete"
    assert last.response.incomplete_details is not None
    assert last.response.incomplete_details.reason == "max_output_tokens"


async def test_a_stream_that_breaks_raises(backend: Pair) -> None:
    made, client = backend
    made.chunks, made.broken = TURN, True
    stream = await client.responses.create(model="m", input="hi", stream=True)
    seen = [await anext(stream) for _ in range(len(split_events(encoded(TURN))) - 1)]
    assert seen[-1].type == "response.output_item.done"
    with pytest.raises(APIError, match="gone"):
        await anext(stream)


async def test_bad_input_is_a_bad_request(backend: Pair) -> None:
    _, client = backend
    with pytest.raises(BadRequestError) as refused:
        await client.responses.create(model="m", input="hi", background=True)
    assert refused.value.param == "background"
    assert orjson.loads(refused.value.response.content)["error"]["code"] == "invalid_value"
