"""Requests of the Responses API as chat bodies: what is the same, what is named as lost, what is refused."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.call import JSON
from gateway.dialects.responses import body
from gateway.dialects.responses_history import listed
from gateway.dialects.responses_reasoning import reasoning_item
from gateway.errors import InvalidValue

BLOCKS = [{"type": "thinking", "thinking": "hm", "signature": "s1"}, {"type": "redacted_thinking", "data": "xyz"}]
CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}", "id": "fc_1", "status": "completed"}
CHAT_CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TOOL = {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True}
CHAT_TOOL = {
    "type": "function",
    "function": {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True},
}


def said(text: str, role: str = "user") -> JSON:
    return {"role": role, "content": text}


def messages(items: Any, **more: Any) -> Any:
    chat, beyond = body({"model": "m", "input": items, **more})
    assert beyond == ()
    return chat["messages"]


def chat_settings(**fields: Any) -> JSON:
    chat, beyond = body({"model": "m", "input": "hi", **fields})
    assert beyond == ()
    assert chat.pop("messages") == [said("hi")]
    assert chat.pop("model") == "m"
    return chat


ITEMS: list[tuple[str, Any, list[JSON]]] = [
    ("a text", "hi", [said("hi")]),
    ("a message without a type", [{"role": "user", "content": "hi"}], [said("hi")]),
    (
        "one text part is a text",
        [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}],
        [said("hi")],
    ),
    (
        "parts",
        [
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "look"},
                    {"type": "input_image", "image_url": "https://x/y.png", "detail": "low"},
                    {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "auto"},
                    {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,AA=="},
                    {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
                ],
            }
        ],
        [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "look"},
                    {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
                    {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AA=="}},
                    {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
                ],
            }
        ],
    ),
    (
        "a developer is the system",
        [said("be kind", "developer"), said("be brief", "system"), said("hi")],
        [said("be kind", "system"), said("be brief", "system"), said("hi")],
    ),
    (
        "an answer of before",
        [
            said("hi"),
            {
                "type": "message",
                "id": "msg_1",
                "role": "assistant",
                "status": "completed",
                "phase": "final_answer",
                "content": [
                    {"type": "output_text", "text": "he", "annotations": [], "logprobs": []},
                    {"type": "output_text", "text": "llo"},
                ],
            },
            said("more"),
        ],
        [said("hi"), said("hello", "assistant"), said("more")],
    ),
    (
        "a refusal of before",
        [{"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}, said("why?")],
        [{"role": "assistant", "content": "", "refusal": "no"}, said("why?")],
    ),
    (
        "a turn with reasoning, a text and two calls is one message",
        [
            said("hi"),
            {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "think"}]},
            said("I look", "assistant"),
            CALL,
            {**CALL, "call_id": "c2"},
            {"type": "function_call_output", "call_id": "c1", "output": "42"},
            {
                "type": "function_call_output",
                "call_id": "c2",
                "output": [
                    {"type": "input_text", "text": "see"},
                    {"type": "input_image", "image_url": "https://x/y.png"},
                ],
            },
        ],
        [
            said("hi"),
            {
                "role": "assistant",
                "reasoning_content": "think",
                "content": "I look",
                "tool_calls": [CHAT_CALL, {**CHAT_CALL, "id": "c2"}],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "42"},
            {
                "role": "tool",
                "tool_call_id": "c2",
                "content": [
                    {"type": "text", "text": "see"},
                    {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
                ],
            },
        ],
    ),
    (
        "a call alone has no content",
        [said("hi"), CALL, {"type": "function_call_output", "call_id": "c1", "output": "42"}],
        [
            said("hi"),
            {"role": "assistant", "content": None, "tool_calls": [CHAT_CALL]},
            {"role": "tool", "tool_call_id": "c1", "content": "42"},
        ],
    ),
    (
        "calls stay together, whatever was said or thought in between",
        [CALL, said("and", "assistant"), {"type": "reasoning", "summary": [], "id": "r"}, {**CALL, "call_id": "c2"}],
        [{"role": "assistant", "content": "and", "tool_calls": [CHAT_CALL, {**CHAT_CALL, "id": "c2"}]}],
    ),
    (
        "two messages of the assistant are two",
        [said("a", "assistant"), said("b", "assistant")],
        [said("a", "assistant"), said("b", "assistant")],
    ),
    (
        "signed reasoning comes back as it was",
        [reasoning_item("rs_1", ["hm"], BLOCKS, "completed"), CALL],
        [
            {
                "role": "assistant",
                "reasoning_content": "hm",
                "thinking_blocks": BLOCKS,
                "tool_calls": [CHAT_CALL],
                "content": None,
            }
        ],
    ),
    (
        "what others have encrypted is for them alone; the text of reasoning goes before its summary",
        [
            {
                "type": "reasoning",
                "id": "rs_1",
                "encrypted_content": "gAAAAAB",
                "summary": [{"type": "summary_text", "text": "short"}],
                "content": [{"type": "reasoning_text", "text": "long"}],
            },
            said("so", "assistant"),
        ],
        [{"role": "assistant", "reasoning_content": "long", "content": "so"}],
    ),
    (
        "reasoning that led to nothing is left out",
        [said("hi"), {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "x"}]}, said("so?")],
        [said("hi"), said("so?")],
    ),
]


@pytest.mark.parametrize(("items", "expected"), [case[1:] for case in ITEMS], ids=[case[0] for case in ITEMS])
def test_items_are_messages(items: Any, expected: list[JSON]) -> None:
    assert messages(items) == expected


def test_a_turn_of_many_items_takes_time_by_their_number() -> None:
    thought = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "x" * 500}]}
    began = time.process_time()
    (message,) = messages([thought, CALL] * 15_000)
    assert len(message["tool_calls"]) == 15_000
    assert len(message["reasoning_content"]) == 15_000 * 501 - 1
    assert time.process_time() - began < 5  # by its square it is minutes


def test_instructions_come_first() -> None:
    assert messages("hi", instructions="be kind") == [said("be kind", "system"), said("hi")]


SETTINGS: list[tuple[JSON, JSON]] = [
    (
        {
            "temperature": 0,
            "top_p": 0.5,
            "stream": True,
            "user": "u",
            "safety_identifier": "s",
            "prompt_cache_key": "k",
        },
        {
            "temperature": 0,
            "top_p": 0.5,
            "stream": True,
            "user": "u",
            "safety_identifier": "s",
            "prompt_cache_key": "k",
        },
    ),
    ({"max_output_tokens": 16}, {"max_tokens": 16}),
    ({"tools": [TOOL]}, {"tools": [CHAT_TOOL]}),
    (
        {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False},
        {"tools": [CHAT_TOOL], "tool_choice": "required", "parallel_tool_calls": False},
    ),
    (
        {"tools": [TOOL], "tool_choice": {"type": "function", "name": "f"}},
        {"tools": [CHAT_TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}},
    ),
    (
        {
            "tools": [TOOL],
            "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]},
        },
        {
            "tools": [CHAT_TOOL],
            "tool_choice": {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "f"}}]},
            },
        },
    ),
    ({"tools": [], "tool_choice": "auto", "parallel_tool_calls": True}, {}),
    ({"text": {"format": {"type": "text"}, "verbosity": "medium"}}, {}),
    ({"text": {"format": {"type": "json_object"}}}, {"response_format": {"type": "json_object"}}),
    (
        {"text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}}},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True},
            }
        },
    ),
    ({"text": {"verbosity": "low"}}, {"verbosity": "low"}),
    ({"reasoning": {"effort": "high", "summary": "auto", "context": "auto"}}, {"reasoning_effort": "high"}),
    ({"reasoning": {}}, {}),
    ({"include": ["reasoning.encrypted_content"]}, {}),
    (
        {"include": ["message.output_text.logprobs"], "top_logprobs": 2},
        {"logprobs": True, "top_logprobs": 2},
    ),
    ({"top_logprobs": 0}, {}),
    ({"service_tier": "auto", "truncation": "disabled", "background": False}, {}),
    ({"service_tier": "flex"}, {"service_tier": "flex"}),
    (
        {
            "store": False,
            "metadata": {"a": "b"},
            "client_metadata": {"x-codex-installation-id": "4e3c"},
            "max_tool_calls": 3,
            "prompt_cache_retention": "24h",
            "stream_options": {"include_obfuscation": False},
        },
        {},
    ),
    ({"unheard_of": None, "another": False, "third": []}, {}),
]


@pytest.mark.parametrize(("fields", "expected"), SETTINGS)
def test_settings_are_those_of_chat(fields: JSON, expected: JSON) -> None:
    assert chat_settings(**fields) == expected


BEYOND: list[tuple[JSON, str]] = [
    *(
        ({"tools": [TOOL, {"type": kind}]}, "tools[1]")
        for kind in ("web_search", "file_search", "computer", "mcp", "code_interpreter", "image_generation", "custom")
    ),
    ({"tools": [{**TOOL, "defer_loading": True}]}, "tools[0].defer_loading"),
    ({"tool_choice": {"type": "file_search"}}, "tool_choice"),
    (
        {"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "mcp"}]}},
        "tool_choice.tools[0]",
    ),
    ({"truncation": "auto"}, "truncation"),
    ({"prompt": {"id": "pmpt_1"}}, "prompt"),
    ({"context_management": [{"type": "compaction"}]}, "context_management"),
    ({"unheard_of": 0}, "unheard_of"),
    ({"x" * 1000: 1}, "x" * 64),
    ({"reasoning": {"mode": "pro"}}, "reasoning.mode"),
    ({"text": {"style": "x"}}, "text.style"),
    ({"stream_options": {"pace": 1}}, "stream_options.pace"),
    ({"input": [{"type": "web_search_call", "id": "ws_1"}]}, "input[0]"),
    ({"input": [{"role": "user", "content": "a", "mood": "good"}]}, "input[0].mood"),
    ({"input": [{"role": "user", "content": [{"type": "input_text", "text": "a", "x": 1}]}]}, "input[0].content[0].x"),
    (
        {"input": [{"role": "assistant", "content": [{"type": "output_text", "text": "a", "x": 1}]}]},
        "input[0].content[0].x",
    ),
    (
        {"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", "namespace": "mcp"}]},
        "input[0].namespace",
    ),
    ({"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]}, "input[0].content[0]"),
    ({"input": [{"role": "user", "content": [{"type": "input_file", "file_url": "u"}]}]}, "input[0].content[0]"),
    (
        {
            "input": [
                {
                    "type": "function_call_output",
                    "call_id": "c",
                    "output": [{"type": "input_file", "file_data": "data:,"}],
                }
            ]
        },
        "input[0].output[0]",
    ),
]


@pytest.mark.parametrize(("fields", "param"), BEYOND)
def test_what_chat_cannot_express_is_named(fields: JSON, param: str) -> None:
    assert body({"model": "m", "input": "hi", **fields})[1] == (param,)


INVALID: list[tuple[JSON, str]] = [
    ({"input": None}, "input"),
    ({"input": []}, "input"),
    ({"input": 7}, "input"),
    ({"input": ["hi"]}, "input[0]"),
    ({"input": [{"role": "robot", "content": "hi"}]}, "input[0].role"),
    ({"input": [{"role": "user", "content": None}]}, "input[0].content"),
    ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text"),
    ({"input": [{"role": "assistant", "content": [{"type": "input_image"}]}]}, "input[0].content[0].type"),
    ({"input": [{**CALL, "arguments": {}}]}, "input[0].arguments"),
    ({"input": [{"type": "function_call_output", "call_id": "c"}]}, "input[0].output"),
    ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]"),
    ({"input": [{"id": "msg_1"}]}, "input[0]"),
    ({"input": [{"type": "reasoning", "summary": [{}]}]}, "input[0].summary"),
    ({"input": [{"type": "reasoning", "encrypted_content": "moma1.!!"}]}, "input[0].encrypted_content"),
    ({"input": [{"type": "reasoning", "encrypted_content": "moma1.W3t9XQ=="}]}, "input[0].encrypted_content"),
    ({"instructions": [1]}, "instructions"),
    ({"tools": {}}, "tools"),
    ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools[0].name"),
    ({"tool_choice": "any"}, "tool_choice"),
    ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
    ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema"),
    ({"include": ["everything"]}, "include[0]"),
    ({"max_output_tokens": 0}, "max_output_tokens"),
    ({"max_output_tokens": True}, "max_output_tokens"),
    ({"max_output_tokens": 10**7}, "max_output_tokens"),
    ({"top_logprobs": 21}, "top_logprobs"),
    ({"background": True}, "background"),
    ({"conversation": "conv_1"}, "conversation"),
    ({"previous_response_id": 1}, "previous_response_id"),
    ({"store": 1}, "store"),
    ({"metadata": {"a": 1}}, "metadata"),
    ({"metadata": {str(n): "" for n in range(17)}}, "metadata"),
]


@pytest.mark.parametrize(("fields", "param"), INVALID)
def test_bad_input_is_refused_by_name(fields: JSON, param: str) -> None:
    with pytest.raises(InvalidValue) as refused:
        body({"model": "m", "input": "hi", **fields})
    assert refused.value.param == param


NAMES = st.sampled_from([
    "input", "instructions", "tools", "tool_choice", "text", "format", "type", "role", "content", "output", "summary",
    "reasoning", "include", "name", "call_id", "arguments", "encrypted_content", "metadata", "stream_options", "mode",
])  # fmt: skip
WORDS = st.sampled_from([
    "message", "function_call", "function_call_output", "reasoning", "item_reference", "user", "assistant",
    "input_text", "input_image", "function", "allowed_tools", "json_schema", "auto", "moma1.bnVsbA==",
])  # fmt: skip
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.text(max_size=3) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=25,
)


ROUGH_PARTS = st.fixed_dictionaries(
    {"type": st.sampled_from(["input_text", "output_text"]), "text": st.text(max_size=2)}
)
ROUGH_ITEMS = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["message", "function_call", "function_call_output", "reasoning", None]),
        "role": st.sampled_from(["user", "assistant", "developer"]),
        "content": st.text(max_size=3) | st.lists(ROUGH_PARTS, max_size=2),
        "call_id": st.just("c"),
        "name": st.just("f"),
        "arguments": st.just("{}"),
        "output": st.just("o"),
        "summary": st.just([{"type": "summary_text", "text": "hm"}]),
        "id": WORDS | st.integers() | st.none(),
    },
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(NAMES, ANY_JSON, max_size=8) | st.fixed_dictionaries({"input": st.lists(ROUGH_ITEMS, max_size=4)})
)
def test_whatever_comes_it_is_translated_or_refused(original: JSON) -> None:
    before = repr(original)
    with contextlib.suppress(InvalidValue):
        chat, beyond = body(original)
        assert all(isinstance(name, str) for name in beyond)
        assert all(message["role"] in ("system", "user", "assistant", "tool") for message in chat["messages"])
        if not beyond and isinstance(original.get("input"), list):  # what was accepted can be kept, and says the same
            assert body({**original, "input": listed(original["input"], "resp_x")}) == (chat, beyond)
    assert repr(original) == before
