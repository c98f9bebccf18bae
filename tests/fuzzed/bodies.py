"""A body of each endpoint that says much of what can be said there, and values that nobody expects in its places."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

JSON = dict[str, Any]
Place = tuple[str | int, ...]

_SCHEMA: Final = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
_PIXEL: Final = "iVBORw0KGgo="
_URL: Final = f"data:image/png;base64,{_PIXEL}"
_FUNCTION: Final = {"name": "weather", "description": "of a city", "parameters": _SCHEMA, "strict": True}
_CALL: Final = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Ulm"}'}}
BODIES: Final[dict[str, JSON]] = {
    "chat/completions": {
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": [
                {"type": "text", "text": "hello"},
                {"type": "image_url", "image_url": {"url": _URL}},
            ]},
            {"role": "assistant", "content": None, "tool_calls": [_CALL]},
            {"role": "tool", "tool_call_id": "call_1", "content": "sun"},
            {"role": "user", "content": "and tomorrow?"},
        ],
        "tools": [{"type": "function", "function": _FUNCTION}],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "parallel_tool_calls": True, "stop": ["END"], "max_completion_tokens": 10,
        "n": 1, "stream_options": {"include_usage": True}, "user": "u", "reasoning_effort": "low",
        "response_format": {"type": "json_schema", "json_schema": {"name": "place", "schema": _SCHEMA}},
    },
    "messages": {
        "max_tokens": 10, "system": [{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}],
        "messages": [
            {"role": "user", "content": [
                {"type": "text", "text": "hello"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": _PIXEL}},
            ]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
                {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Ulm"}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "sun"}]}
            ]},
        ],
        "tools": [{"name": "weather", "description": "of a city", "input_schema": _SCHEMA}],
        "tool_choice": {"type": "tool", "name": "weather"},
        "temperature": 0.5, "top_p": 0.9, "top_k": 5, "stop_sequences": ["END"], "metadata": {"user_id": "u"},
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "output_config": {"format": {"type": "json_schema", "schema": _SCHEMA}, "effort": "low"},
    },
    "responses": {
        "instructions": "be brief", "max_output_tokens": 10, "user": "u",
        "input": [
            {"role": "user", "content": [
                {"type": "input_text", "text": "hello"},
                {"type": "input_image", "image_url": _URL},
            ]},
            {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}],
                "encrypted_content": "c2ln"},
            {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": "{}", "id": "fc_1"},
            {"type": "function_call_output", "call_id": "call_1", "output": "sun"},
            {"type": "message", "role": "assistant", "id": "msg_1", "content": [
                {"type": "output_text", "text": "it will be fine", "annotations": []}
            ]},
            {"role": "user", "content": "and tomorrow?"},
        ],
        "tools": [{"type": "function", **_FUNCTION}], "tool_choice": {"type": "function", "name": "weather"},
        "text": {"format": {"type": "json_schema", "name": "place", "schema": _SCHEMA}},
        "reasoning": {"effort": "low", "summary": "auto"}, "metadata": {"a": "b"}, "store": True,
    },
    "completions": {
        "prompt": ["hello", "there"], "max_tokens": 10, "n": 1, "best_of": 1, "stop": ["END"], "echo": False,
        "suffix": "s", "logprobs": 1, "temperature": 0.5, "stream_options": {"include_usage": True},
    },
    "embeddings": {"input": ["hello", "there"], "dimensions": 4, "encoding_format": "base64", "user": "u"},
    "rerank": {"query": "sun", "documents": ["rain", {"text": "sun"}], "top_n": 1, "return_documents": True},
    "images/generations": {
        "prompt": "a cat", "n": 1, "size": "auto", "quality": "low", "partial_images": 1, "response_format": "b64_json",
    },
    "audio/speech": {
        "input": "hello", "voice": "alloy", "instructions": "slowly", "response_format": "pcm", "speed": 1.0,
        "stream_format": "audio",
    },
}  # fmt: skip

# What only backends can be asked for that speak as OpenAI does.
ONLY_PLAIN: Final[dict[str, JSON]] = {
    "chat/completions": {
        "temperature": 0.5, "top_p": 0.9, "seed": 1, "metadata": {"a": "b"},
        "logprobs": True, "top_logprobs": 2, "logit_bias": {"1": 1},
        "verbosity": "low", "prediction": {"type": "content", "content": "x"}, "functions": [_FUNCTION],
        "function_call": {"name": "weather"}, "audio": {"voice": "alloy", "format": "wav"}, "modalities": ["text"],
    },
    "messages": {"service_tier": "auto"},
    "responses": {
        "temperature": 0.5, "top_p": 0.9, "include": ["message.output_text.logprobs"], "top_logprobs": 2,
        "parallel_tool_calls": True,
        "service_tier": "auto", "truncation": "disabled", "prompt_cache_key": "k", "stream_options": {},
        "previous_response_id": None, "background": False, "safety_identifier": "s",
    },
}  # fmt: skip
NESTED: Final = "[" * 55 + "]" * 55  # with what is around it just below the bound
NESTED_OBJECT: Final = '{"a":' * 55 + "1" + "}" * 55
DEEP: Final = '{"a":' * 600 + "1" + "}" * 600  # orjson reads it and cannot write it
TEXTS: Final = (DEEP, '{"a": "\\ud800"}', '{"a": 1e999}', "[1]", "null", '{"a": 1, "a": 2}', NESTED)  # within texts
VALUES: Final = (
    "null", "true", "0", "-1", "1.5", "-0.0", "1e308", "1e999", "9" * 40, str(2**63), str(2**64), "9" * 5000, "NaN",
    '""', '" "', '"x"', '"\\u0000"', '"\\ud800"', '"\\udc00\\ud800"', '"1e999"', '"true"', "[]", "{}", "[null]", "[[]]",
    "[{}]", '{"": ""}', '{"type": "text"}', '[{"type": "text"}]', '{"a": 1, "a": 2}', '{"type": {}}', '["a", 1]',
    NESTED, NESTED_OBJECT, *(json.dumps(text) for text in TEXTS), '"' + "x" * 10_000 + '"', "[" + "1," * 5000 + "1]",
)  # fmt: skip


def places(value: Any, before: Place = ()) -> Iterator[Place]:
    """Of all that is in it."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, one in inner:
        yield (*before, name)
        yield from places(one, (*before, name))


def replaced(value: Any, place: Place, by: Any) -> Any:
    """A copy with another value there."""
    if not place:
        return by
    first, *rest = place
    if isinstance(value, dict):
        return {name: replaced(one, tuple(rest), by) if name == first else one for name, one in value.items()}
    return [replaced(one, tuple(rest), by) if number == first else one for number, one in enumerate(value)]
