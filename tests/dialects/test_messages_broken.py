"""Whatever clients and backends send: a client's mistake is named, a backend's is taken as it is."""

from __future__ import annotations

import contextlib
import copy
import random
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from gateway.call import JSON
from gateway.dialects.messages import Encoder, answer, body, finished, replay, whole
from gateway.errors import InvalidValue
from tests.dialects.test_messages_kept import EVENTS, WHOLE, stream
from tests.dialects.test_messages_stream import HEAD, SAID, calls, chunk, deltas_of, message_of, opened

JUNK: list[Any] = [
    None,
    True,
    -1,
    2**63,
    1.5,
    "",
    "x",
    [],
    [None],
    [[]],
    {},
    {"type": "text"},
    {"type": ["text"]},
    [{"type": 1}],
]
REQUEST: JSON = {
    "model": "m",
    "max_tokens": 10,
    "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "a"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}},
                {
                    "type": "document",
                    "title": "t",
                    "source": {"type": "content", "content": [{"type": "text", "text": "b"}]},
                },
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "sig"},
                {"type": "text", "text": "c", "citations": [{"encrypted_index": ""}]},
                {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}, "caller": {"type": "direct"}},
            ],
        },
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "d"}]}],
        },
    ],
    "tools": [{"name": "f", "description": "d", "input_schema": {"type": "object"}, "strict": True}],
    "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
    "thinking": {"type": "enabled", "budget_tokens": 2048, "display": "summarized"},
    "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {}}},
    "context_management": {"edits": [{"type": "clear_thinking_20251015"}]},
    "metadata": {"user_id": "u"},
    "stop_sequences": ["END"],
    "temperature": 1,
    "stream": True,
}


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every holder in it, with each of its names or places."""
    for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield value, name
        if isinstance(inner, dict | list):
            yield from places(inner)


def broken(value: Any, chance: random.Random) -> Any:
    value = copy.deepcopy(value)
    for _ in range(chance.randrange(1, 3)):
        holder, name = chance.choice(list(places(value)))
        if isinstance(holder, dict) and chance.random() < 0.3:
            holder.pop(name, None)
        else:
            holder[name] = copy.deepcopy(chance.choice(JUNK))
    return value


def refusal(request: JSON) -> InvalidValue | None:
    try:
        orjson.dumps(body(request)[0])
    except InvalidValue as refused:
        return refused
    return None


@pytest.mark.parametrize("seed", range(20))
def test_a_broken_request_is_refused_by_name_or_taken(seed: int) -> None:
    chance = random.Random(seed)
    taken = 0
    for _ in range(100):
        refused = refusal(broken(REQUEST, chance))
        assert refused is None or (refused.param and refused.param in refused.message)
        taken += refused is None
    assert 0 < taken < 100


@pytest.mark.parametrize("seed", range(20))
def test_a_broken_answer_is_an_answer(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(50):
        message = {**message_of(chance), "tool_calls": [opened(0, "f", "{}")], "refusal": None, "annotations": [{}]}
        value = broken({**HEAD, "choices": [{"message": message, "finish_reason": "stop"}], "usage": SAID}, chance)
        given = answer(value, {})
        assert (given["type"], type(given["content"])) == ("message", list)
        assert all(type(given["usage"][name]) is int for name in ("input_tokens", "output_tokens"))
        orjson.dumps(given)


@pytest.mark.parametrize("seed", range(20))
def test_broken_chunks_make_a_stream_in_order(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(20):
        encoder = Encoder({})
        chunks = [chunk(delta) for delta in deltas_of(message_of(chance), chance)] + [calls(opened(9, "g", "{}"))]
        given = b"".join([encoder.feed(broken(one, chance) if chance.random() < 0.3 else one) for one in chunks])
        given += encoder.end(SAID)
        assert given.endswith(b'event: message_stop\ndata: {"type":"message_stop"}\n\n')
        assert whole(given) is not None or b"input_json_delta" in given  # a call may have lost a part of its arguments


@pytest.mark.parametrize("seed", range(20))
def test_a_broken_stream_is_a_message_or_unclear(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(50):
        values = broken(EVENTS, chance)
        with contextlib.suppress(
            TypeError, KeyError, AttributeError
        ):  # such values are no events: `stream` cannot say them
            whole(stream(values))
        again = broken(WHOLE, chance)
        replayed = replay(again)
        assert replayed is None or replayed.endswith(b"\n\n")
        assert finished(again) in (True, False)
