"""JSON within texts, where no bound of the body sees it, and what backends say that cannot be written again."""

from __future__ import annotations

import base64
import copy
import json
from typing import Any

import pytest

from gateway.demo.backend import DONE, event
from gateway.demo.scripted import Reply, ScriptedBackend
from tests.conftest import World
from tests.fuzzed.bodies import BODIES, DEEP, JSON, TEXTS
from tests.fuzzed.conftest import KINDS

WIDE = '{"a": [' + "[]," * 100_000 + "1]}"
DEEP_VALUE = json.loads(DEEP)


async def post(world: World, path: str, body: JSON) -> tuple[int, Any]:
    async with world.http.post(f"{world.url}/v1/{path}", json=body) as answer:
        data = await answer.read()
    return answer.status, json.loads(data) if data[:1] == b"{" else data


def with_arguments(path: str, text: str, calls: int = 1) -> JSON:
    body = copy.deepcopy(BODIES[path])
    if path == "responses":
        body["input"][2]["arguments"] = text
    else:
        called = body["messages"][2]["tool_calls"]
        called[0]["function"]["arguments"] = text
        called *= calls
    return body


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", ["chat/completions", "responses"])
async def test_arguments_of_tools_that_are_hostile(world: World, path: str, kind: str, stream: bool) -> None:
    """Who only passes them on need not read them."""
    for text in (*TEXTS, "", " ", "nope", "[" * 100_000, "9" * 5000):
        status, said = await post(world, path, {"model": kind, "stream": stream, **with_arguments(path, text)})
        if kind in ("plain", "azure") or text in ("", '{"a": 1, "a": 2}'):
            assert status == 200, (text[:50], said)
        else:
            assert (status, said["error"]["code"]) == (400, "invalid_value"), (text[:50], said)
    assert world.app.ledger.open_holds == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_the_arguments_of_all_calls_together_are_bounded(world: World, kind: str) -> None:
    half = '{"a": [' + "[]," * 60_000 + "1]}"
    for calls, text in ((1, WIDE), (2, half)):
        status, said = await post(
            world, "chat/completions", {"model": kind, **with_arguments("chat/completions", text, calls)}
        )
        assert (status, said["error"]["param"]) == (400, "messages")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "packed",
    [
        f'[{{"type": "thinking", "thinking": "a", "signature": "b", "x": {DEEP}}}]',
        f'[{{"type": "thinking", "thinking": "a", "signature": "b", "x": {WIDE}}}]',
        "[" * 1000, "1", "[1]", '[{"type": {}}]',
    ],
    ids=["deep", "wide", "lists", "number", "numbers", "type"],
)  # fmt: skip
async def test_reasoning_that_somebody_has_forged_is_refused(world: World, kind: str, packed: str) -> None:
    body = copy.deepcopy(BODIES["responses"])
    body["input"][1]["encrypted_content"] = "moma1." + base64.urlsafe_b64encode(packed.encode()).decode()
    status, said = await post(world, "responses", {"model": kind, **body})
    assert (status, said["error"]["param"]) == (400, "input[1].encrypted_content")


def deep_chat() -> list[Reply]:
    message = {"role": "assistant", "content": "a", "extra": DEEP_VALUE}
    calls = [{"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": DEEP}}]
    chunk = {"id": "x", "choices": [{"index": 0, "delta": message, "finish_reason": None}]}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    last = {"id": "x", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": usage}
    called = {"role": "assistant", "content": None, "tool_calls": calls}
    return [
        Reply(body={"id": "x", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}),
        Reply(body={"id": "x", "choices": [{"index": 0, "message": called, "finish_reason": "stop"}], "usage": usage}),
        Reply(stream=[event(chunk), event(last), DONE]),
        Reply(stream=[event({**chunk, "choices": [{"index": 0, "delta": called}]}), event(last), DONE]),
        Reply(400, body={"error": {"message": DEEP_VALUE, "type": DEEP_VALUE, "code": "x", "param": None}}),
        Reply(400, body={"error": {"message": "a", "type": DEEP_VALUE, "code": DEEP_VALUE, "param": DEEP_VALUE}}),
    ]


def deep_anthropic() -> list[Reply]:
    head = {"id": "m", "type": "message", "role": "assistant", "usage": {"input_tokens": 1, "output_tokens": 1}}
    block = {"type": "tool_use", "id": "t", "name": "f", "input": DEEP_VALUE}
    delta = {"type": "input_json_delta", "partial_json": DEEP}
    steps: list[JSON] = [
        {"type": "message_start", "message": {**head, "content": []}},
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 2}},
        {"type": "message_stop"},
    ]
    shallow = [{**steps[1], "content_block": {**block, "input": {}}} if step is steps[1] else step for step in steps]
    return [
        Reply(body={**head, "content": [block], "stop_reason": "tool_use"}),
        Reply(stream=[event(step) for step in steps]),
        Reply(stream=[event(step) for step in shallow]),
        Reply(400, body={"type": "error", "error": {"type": DEEP_VALUE, "message": "a"}}),
    ]


@pytest.mark.parametrize("path", ["chat/completions", "messages", "responses"])
@pytest.mark.parametrize("kind", ["plain", "anthropic"])
async def test_backends_that_say_what_is_deep_do_not_break_the_gateway(
    world: World, kind: str, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    backend: ScriptedBackend = world.a if kind == "plain" else world.b
    for reply in deep_chat() if kind == "plain" else deep_anthropic():
        backend.script([reply])
        body = {"model": kind, "stream": reply.stream is not None, **BODIES[path]}
        status, said = await post(world, path, body)
        assert status in (200, 400, 502), said
        assert b"internal_error" not in json.dumps(said).encode() if isinstance(said, dict) else said
    assert not caplog.records
    assert world.app.ledger.open_holds == 0
