"""The honest answers, read with the OpenAI SDK where its types matter."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from openai import AsyncOpenAI

from gateway.demo.answers import count, minimal
from gateway.demo.backend import DONE, answer
from gateway.demo.scripted import ScriptedBackend

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "Hello, 世界!"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def ask(path: str, **body: Any) -> dict[str, Any]:
    reply = answer("POST", path, json.dumps({"model": "m"} | body).encode())
    assert reply.body is not None
    return reply.body


def events(**body: Any) -> list[dict[str, Any]]:
    reply = answer("POST", CHAT, json.dumps({"model": "m", "stream": True} | body).encode())
    assert reply.events is not None
    assert reply.events[-1] == DONE
    return [json.loads(event.removeprefix(b"data: ")) for event in reply.events[:-1]]


def test_counts_words_han_characters_and_marks() -> None:
    assert count("Hello, 世界!") == 5


def test_chat_echoes_and_counts() -> None:
    body = ask(CHAT, messages=HELLO)
    assert body["choices"][0]["message"]["content"] == "You said: Hello, 世界!"
    assert body["usage"]["prompt_tokens"] == 3 + 5
    assert body["usage"]["completion_tokens"] == 3 + 5
    assert body["usage"]["total_tokens"] == 16


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_limit_cuts(field: str) -> None:
    body = ask(CHAT, messages=HELLO, **{field: 2})
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["completion_tokens"] == 2


def test_min_tokens_lengthens() -> None:
    assert ask(CHAT, messages=HELLO, min_tokens=50)["usage"]["completion_tokens"] == 50


def test_n_choices_are_all_counted() -> None:
    body = ask(CHAT, messages=HELLO, n=3)
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert body["usage"]["completion_tokens"] == 3 * 8


def test_stream_has_a_usage_chunk_only_if_asked() -> None:
    with_usage = events(messages=HELLO, stream_options={"include_usage": True})
    assert with_usage[-1]["choices"] == []
    assert with_usage[-1]["usage"]["completion_tokens"] == 8
    text = "".join(event["choices"][0]["delta"].get("content", "") for event in with_usage[:-1])
    assert text == "You said: Hello, 世界!"
    assert all("usage" not in event for event in events(messages=HELLO))


def test_tools_are_called_once_and_their_result_is_answered() -> None:
    call = ask(CHAT, messages=HELLO, tools=[WEATHER])["choices"][0]
    assert call["finish_reason"] == "tool_calls"
    assert call["message"]["tool_calls"][0]["function"] == {"name": "weather", "arguments": '{"city": ""}'}
    result = {"role": "tool", "tool_call_id": "x", "content": "rain"}
    after = ask(CHAT, messages=[*HELLO, call["message"], result], tools=[WEATHER])
    assert after["choices"][0]["finish_reason"] == "stop"


def test_minimal_value_fits_its_schema() -> None:
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {
            "kind": {"enum": ["a", "b"]},
            "size": {"type": "integer", "minimum": 3},
            "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}, "minItems": 2},
            "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        },
        "required": ["kind", "size", "tags", "note"],
        "$defs": {"tag": {"type": "string", "minLength": 2}},
    }
    jsonschema.validate(minimal(schema), schema)
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    content = ask(CHAT, messages=HELLO, response_format=form)["choices"][0]["message"]["content"]
    jsonschema.validate(json.loads(content), schema)


def test_completions_answer_each_prompt() -> None:
    body = ask("/v1/completions", prompt=["one", "two"], max_tokens=9)
    assert [choice["text"] for choice in body["choices"]] == ["You said: one", "You said: two"]
    assert body["usage"]["prompt_tokens"] == 2


@pytest.mark.parametrize(
    ("path", "raw"),
    [
        (CHAT, b"{"),
        (CHAT, b"[]"),
        (CHAT, b'{"messages": []}'),
        (CHAT, b'{"messages": ["x"]}'),
        (CHAT, b'{"messages": [{"role": "user", "content": "x"}], "n": 0.5}'),
        ("/v1/embeddings", b'{"input": 3}'),
    ],
)
def test_malformed_is_400(path: str, raw: bytes) -> None:
    assert answer("POST", path, raw).status == 400


async def test_sdk_understands_everything() -> None:
    async with ScriptedBackend() as backend, AsyncOpenAI(base_url=backend.base_url, api_key="x") as client:
        assert [model.id async for model in client.models.list()] == ["large"]
        floats = await client.embeddings.create(model="m", input=["a", "b"], encoding_format="float")
        packed = await client.embeddings.create(model="m", input=["a", "b"])  # the SDK asks for base64
        assert packed.data[1].embedding == pytest.approx(floats.data[1].embedding)
        stream = await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "hi"}], stream=True
        )
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        assert text == "You said: hi"
