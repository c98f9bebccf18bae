"""What a cache keeps: streams of Anthropic's own as well as those that are made here."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.call import JSON
from gateway.dialects.messages import finished, replay, whole
from gateway.dialects.messages_stream import event

CITED = {
    "type": "web_search_result_location",
    "url": "https://x",
    "title": "X",
    "cited_text": "a",
    "encrypted_index": "Eo",
}
RESULT = {
    "type": "web_search_tool_result",
    "tool_use_id": "s",
    "content": [{"type": "web_search_result", "url": "https://x"}],
}
USAGE: JSON = {"input_tokens": 9, "cache_creation_input_tokens": 0, "output_tokens": 1, "service_tier": "standard"}
START: JSON = {
    "id": "msg_01", "type": "message", "role": "assistant", "model": "claude", "content": [],
    "stop_reason": None, "stop_sequence": None, "usage": USAGE,
}  # fmt: skip
# A message with a tool that Anthropic runs, as its API streams it.
EVENTS: list[JSON] = [
    {"type": "message_start", "message": START},
    {"type": "ping"},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "H"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "m."}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "sig"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1,
     "content_block": {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": ""}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"query"'}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": ':"x"}'}},
    {"type": "content_block_stop", "index": 1},
    {"type": "content_block_start", "index": 2, "content_block": RESULT},
    {"type": "content_block_stop", "index": 2},
    {"type": "content_block_start", "index": 3, "content_block": {"type": "text", "text": "", "citations": []}},
    {"type": "content_block_delta", "index": 3, "delta": {"type": "text_delta", "text": "a"}},
    {"type": "content_block_delta", "index": 3, "delta": {"type": "citations_delta", "citation": CITED}},
    {"type": "content_block_stop", "index": 3},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None},
     "usage": {"input_tokens": None, "output_tokens": 30, "server_tool_use": {"web_search_requests": 1}},
     "context_management": {"applied_edits": []}},
    {"type": "message_stop"},
]  # fmt: skip
WHOLE: JSON = {
    **START,
    "content": [
        {"type": "thinking", "thinking": "Hm.", "signature": "sig"},
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "x"}},
        RESULT,
        {"type": "text", "text": "a", "citations": [CITED]},
    ],
    "stop_reason": "end_turn",
    "usage": {**USAGE, "output_tokens": 30, "server_tool_use": {"web_search_requests": 1}},
    "context_management": {"applied_edits": []},
}


def stream(values: list[JSON]) -> bytes:
    return b"".join([event(value) for value in values])


def test_a_stream_of_anthropics_own() -> None:
    assert whole(stream(EVENTS)) == WHOLE
    assert whole(b": comment\n\n" + stream(EVENTS).replace(b"\n", b"\r\n")) == WHOLE


def test_a_message_comes_again_as_a_stream() -> None:
    again = replay(WHOLE)
    assert again is not None
    assert whole(again) == WHOLE
    assert again.startswith(b"event: message_start\n")
    assert b'"output_tokens":0' in again.split(b"\n\n")[0]


@pytest.mark.parametrize("cut", range(len(EVENTS)))
def test_a_stream_that_was_cut_is_no_message(cut: int) -> None:
    assert whole(stream(EVENTS[:cut])) is None


@pytest.mark.parametrize("missing", [0, 2, 6, 7, 14, 17, 19])
def test_a_stream_with_a_gap_is_unclear(missing: int) -> None:
    assert whole(stream(EVENTS[:missing] + EVENTS[missing + 1 :])) is None


@pytest.mark.parametrize(
    "value",
    [
        {"type": "error", "error": {"type": "overloaded_error", "message": "x"}},
        {"type": "what_is_new"},
        {},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "compaction_delta", "content": "x"}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "thinking_delta", "thinking": "x"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": None}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": "{}"}},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
    ],
)
def test_what_nobody_here_knows_is_unclear(value: Any) -> None:
    raw = b"data: %b\n\n" % orjson.dumps(value)
    assert whole(stream(EVENTS[:4]) + raw + stream(EVENTS[4:])) is None


def test_an_input_that_is_no_object_is_unclear() -> None:
    for written in ("[1]", '{"a"'):
        delta = {"type": "input_json_delta", "partial_json": written}
        broken = [*EVENTS[:9], {"type": "content_block_delta", "index": 1, "delta": delta}, *EVENTS[11:]]
        assert whole(stream(broken)) is None


def test_what_is_no_json_is_unclear() -> None:
    assert whole(b"data: nonsense\n\n") is None
    assert whole(b"data: []\n\n") is None
    assert whole(b"") is None


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {**WHOLE, "content": None},
        {**WHOLE, "content": [1]},
        {**WHOLE, "content": [{"type": "text"}]},
        {**WHOLE, "usage": None},
    ],
)
def test_a_message_of_no_shape_does_not_come_again(answer: JSON) -> None:
    assert replay(answer) is None


@pytest.mark.parametrize(
    ("reason", "expected"),
    [("end_turn", True), ("tool_use", True), ("stop_sequence", True), ("max_tokens", False), ("pause_turn", False),
     ("refusal", False), ("model_context_window_exceeded", False), (None, False), ("what_is_new", False)],
)  # fmt: skip
def test_only_what_ended_properly_is_kept(reason: str | None, expected: bool) -> None:
    assert finished({**WHOLE, "stop_reason": reason}) is expected


def test_an_error_is_not_kept() -> None:
    assert not finished({"type": "error", "error": {"type": "api_error", "message": "x"}})
