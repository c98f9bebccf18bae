"""What of a chat body Anthropic's Messages API cannot express; all else it can."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.adapters.anthropic import beyond, request
from tests.adapters.anthropic_pieces import (
    ADAPTIVE,
    ALLOWED,
    CLOCK,
    EPHEMERAL,
    HI,
    LATE,
    NEW,
    OLD,
    PDF,
    PNG,
    REDACTED,
    SIGNED,
    WEATHER,
    YES,
    budget,
    called,
    text,
)


def user(*parts: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(parts)}]}


def assistant(**said: Any) -> dict[str, Any]:
    return {"messages": [HI, {"role": "assistant", "content": "x", **said}, HI]}


BEYOND: list[tuple[dict[str, Any], str]] = [
    ({"n": 2}, "n"),
    ({"logprobs": True}, "logprobs"),
    ({"logit_bias": {"5": 1}}, "logit_bias"),
    ({"frequency_penalty": 0.1}, "frequency_penalty"),
    ({"presence_penalty": -1}, "presence_penalty"),
    ({"seed": 0}, "seed"),
    ({"audio": {"voice": "a"}}, "audio"),
    ({"modalities": ["text", "audio"]}, "modalities"),
    ({"prediction": {"type": "content"}}, "prediction"),
    ({"store": True}, "store"),
    ({"functions": [{"name": "f"}]}, "functions"),
    ({"web_search_options": {"a": 1}}, "web_search_options"),
    ({"never_heard_of": 5}, "never_heard_of"),
    ({"temperature": 1.5}, "temperature"),
    ({"temperature": "hot"}, "temperature"),
    ({"top_k": 0.5}, "top_k"),
    ({"stop": ["\n"]}, "stop"),
    ({"stop": 5}, "stop"),
    ({"user": 5}, "user"),
    ({"safety_identifier": "x" * 257}, "safety_identifier"),
    ({"service_tier": "flex"}, "service_tier"),
    ({"service_tier": ["auto"]}, "service_tier"),
    ({"verbosity": "low"}, "verbosity"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "n"}}}, "response_format"),
    ({"response_format": "json"}, "response_format"),
    ({"tools": {"a": 1}}, "tools"),
    ({"tools": [CLOCK, {"type": "custom", "custom": {"name": "c"}}]}, "tools[1]"),
    ({"tools": [{"type": "function", "function": {"name": 5}}]}, "tools[0]"),
    ({"tools": [{"type": "function", "function": {"name": "f", "parameters": "x"}}]}, "tools[0]"),
    ({"tools": [{"type": "function", "function": {"name": "f", "more": "x"}}]}, "tools[0]"),
    ({"tools": [CLOCK], "tool_choice": "maybe"}, "tool_choice"),
    ({"tools": [CLOCK], "tool_choice": {"type": "custom", "custom": {"name": "c"}}}, "tool_choice"),
    ({"tools": [WEATHER], "tool_choice": {"type": "allowed_tools", "allowed_tools": ALLOWED}}, "tool_choice"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"thinking": {"type": "much"}}, "thinking"),
    ({"thinking": {"type": ["enabled"]}}, "thinking"),
    ({"thinking": budget(1000)}, "thinking.budget_tokens"),
    ({"thinking": budget(2000), "max_tokens": 2000}, "thinking.budget_tokens"),
    ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
    ({"reasoning_effort": "heroic"}, "reasoning_effort"),
    ({"reasoning_effort": 5}, "reasoning_effort"),
    ({"reasoning_effort": "low", "temperature": 0.7}, "temperature"),
    ({"thinking": ADAPTIVE, "top_p": 0.5}, "top_p"),
    ({"thinking": ADAPTIVE, "top_p": 0}, "top_p"),
    ({"thinking": ADAPTIVE, "top_k": 5}, "top_k"),
    ({"thinking": budget(2000), "tools": [CLOCK], "tool_choice": "required"}, "tool_choice"),
    ({"messages": None}, "messages"),
    ({"messages": [LATE]}, "messages"),
    ({"messages": [HI, YES]}, "messages[1]"),
    ({"messages": [HI, YES, LATE]}, "messages[1]"),
    ({"messages": [HI, 5]}, "messages[1]"),
    ({"messages": [{"role": "function", "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": ["user"], "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": "x", "name": "me"}]}, "messages[0].name"),
    ({"messages": [{"role": "user", "content": {"a": 1}}]}, "messages[0].content"),
    ({"messages": [HI, {"role": "tool", "content": "x"}]}, "messages[1].tool_call_id"),
    ({"messages": [{"role": "system", "content": [{"type": "image_url", "image_url": {"url": PNG}}]}, HI]},
     "messages[0].content[0]"),
    (user(text("a"), {"type": "input_audio", "input_audio": {}}), "messages[0].content[1]"),
    (user({"type": ["text"]}), "messages[0].content[0]"),
    (user(text("a", more=1)), "messages[0].content[0]"),
    (user({"type": "text", "text": 5}), "messages[0].content[0]"),
    (user({"type": "image_url", "image_url": PNG}), "messages[0].content[0]"),
    (user({"type": "image_url", "image_url": {"url": PDF}}), "messages[0].content[0]"),
    (user({"type": "image_url", "image_url": {"url": "data:image/tiff;base64,"}}), "messages[0].content[0]"),
    (user({"type": "image_url", "image_url": {"url": PNG, "detail": "low"}}), "messages[0].content[0]"),
    (user({"type": "file", "file": {"file_id": "f1"}}), "messages[0].content[0]"),
    (user({"type": "file", "file": {"file_data": PNG}}), "messages[0].content[0]"),
    (user({"type": "file", "file": {"file_data": PDF, "more": 1}}), "messages[0].content[0]"),
    (user({"type": "file", "file": {"file_data": PDF}, "more": 1}), "messages[0].content[0]"),
    (user({"type": "file", "file": {"file_data": PDF, "filename": 5}}), "messages[0].content[0]"),
    (user({"type": "image_url", "image_url": {"url": PNG, "more": 1}}), "messages[0].content[0]"),
    (user({"type": "image_url", "image_url": {"url": PNG}, "more": 1}), "messages[0].content[0]"),
    (user({"type": "image_url", "image_url": {"url": "http://x.example/a.png"}}), "messages[0].content[0]"),
    (assistant(audio={"id": "a"}), "messages[1].audio"),
    (assistant(function_call={"name": "f"}), "messages[1].function_call"),
    (assistant(refusal=5), "messages[1].refusal"),
    (assistant(thinking_blocks=5), "messages[1].thinking_blocks"),
    (assistant(tool_calls=[{"type": "custom"}]), "messages[1].tool_calls[0]"),
    (assistant(tool_calls=[called("f", "{}", "")]), "messages[1].tool_calls[0]"),
    (assistant(tool_calls=[called("f", "{}"), called("f", "[1]")]), "messages[1].tool_calls[1].function.arguments"),
    (assistant(tool_calls=[called("f", '{"a"')]), "messages[1].tool_calls[0].function.arguments"),
]  # fmt: skip


@pytest.mark.parametrize(("said", "param"), BEYOND)
def test_what_cannot_be_expressed_is_named(said: dict[str, Any], param: str) -> None:
    assert beyond({"model": "m", "messages": [HI], **said}) == param


WORDS = st.sampled_from(["hi", " ", "call_1", ""])
SOME_WORDS = st.sampled_from(["hi", "call_1"])


def an_object(required: dict[str, Any], **optional: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(required, optional=optional)


MARK = st.just(EPHEMERAL)
TEXT = an_object({"type": st.just("text"), "text": WORDS}, cache_control=MARK)
IMAGE = an_object({
    "type": st.just("image_url"), "image_url": an_object({"url": st.sampled_from([PNG, "https://x.example"])}),
})  # fmt: skip
FILE = an_object({"type": st.just("file"), "file": an_object({"file_data": st.just(PDF)}, filename=WORDS)})
REFUSAL = an_object({"type": st.just("refusal"), "refusal": SOME_WORDS})


def content(*parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(WORDS, st.none(), st.lists(st.one_of(*parts), max_size=3))


CALL = an_object({
    "id": SOME_WORDS, "type": st.just("function"),
    "function": an_object({"name": WORDS, "arguments": st.sampled_from(["", "{}", '{"a":[1]}'])}),
})  # fmt: skip
BLOCK = st.sampled_from([SIGNED, REDACTED, {"type": "thinking", "signature": "EqQB"}])
SYSTEM = an_object({"role": st.sampled_from(["system", "developer"]), "content": content(TEXT)})
ASKED = an_object({"role": st.just("user"), "content": content(TEXT, IMAGE, FILE)})
RESULT = an_object(
    {"role": st.just("tool"), "content": content(TEXT, IMAGE, FILE), "tool_call_id": SOME_WORDS},
    is_error=st.booleans(), cache_control=MARK,
)  # fmt: skip
ANSWERED = an_object(
    {"role": st.just("assistant")}, content=content(TEXT, REFUSAL), refusal=WORDS, reasoning_content=WORDS,
    tool_calls=st.lists(CALL, max_size=2), thinking_blocks=st.lists(BLOCK, max_size=2),
)  # fmt: skip
MESSAGES = st.tuples(
    st.lists(st.one_of(SYSTEM, ASKED, RESULT, ANSWERED), max_size=6), st.one_of(ASKED, RESULT)
).map(lambda drawn: [*drawn[0], drawn[1]])  # fmt: skip
BODY = an_object(
    {"messages": MESSAGES},
    top_p=st.floats(0.95, 1), stop=st.sampled_from(["END", ["a", "b"], []]), user=WORDS, service_tier=st.just("auto"),
    max_tokens=st.integers(1, 4000), parallel_tool_calls=st.booleans(), temperature=st.sampled_from([0.5, 1, None]),
    thinking=st.sampled_from([None, ADAPTIVE, budget(1024), budget(3000), {"type": "disabled"}]),
    reasoning_effort=st.sampled_from([None, "none", "low", "max"]),
    tools=st.lists(st.sampled_from([WEATHER, CLOCK]), max_size=2),
    tool_choice=st.sampled_from(["auto", "none", "required", {"type": "allowed_tools", "allowed_tools": ALLOWED}]),
    response_format=st.just({"type": "json_schema", "json_schema": {"schema": {}}}),
)  # fmt: skip
NAMES = st.sampled_from(["type", "text", "function", "name", "arguments", "url", "id", "allowed_tools", "schema"])
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 5000) | st.floats(0, 2) | st.sampled_from(["", "a", "auto", "{}", PNG]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Each value within, as its holder and its name or number."""
    names: list[Any] = list(value) if isinstance(value, dict) else list(range(len(value)))
    found = [(value, name) for name in names]
    for name in names:
        if isinstance(value[name], dict | list):
            found += places(value[name])
    return found


@st.composite
def spoilt(draw: st.DrawFn) -> dict[str, Any]:
    """A body with one value that may be anything."""
    body: dict[str, Any] = orjson.loads(orjson.dumps(draw(BODY)))
    holder, name = draw(st.sampled_from(places(body)))
    holder[name] = draw(JUNK)
    return body


@given(BODY | spoilt(), st.sampled_from([NEW, OLD]), st.integers(1, 5000))
def test_what_can_be_expressed_is(body: dict[str, Any], as_name: str, max_tokens: int) -> None:
    if beyond(body) is not None:
        return
    made = orjson.loads(orjson.dumps(request(body, as_name, max_tokens, stream=False)))
    roles = [turn["role"] for turn in made["messages"]]
    assert all(before != after for before, after in pairwise(roles))
    assert all(turn["content"] for turn in made["messages"])
    assert made.get("thinking", {}).get("budget_tokens", 0) < max_tokens
    assert len(made.get("tools", [])) >= ("tool_choice" in made)
