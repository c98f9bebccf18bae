"""Whole answers, usage and errors of Anthropic's Messages API."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from openai.types.chat import ChatCompletion

from gateway.adapters.anthropic import answer, error, usage
from gateway.errors import AttemptFailed


def message(*content: Any, stop_reason: Any = "end_turn", **more: Any) -> dict[str, Any]:
    return {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-opus-4-8", "content": list(content),
        "stop_reason": stop_reason, "stop_sequence": None, "usage": {"input_tokens": 12, "output_tokens": 6}, **more,
    }  # fmt: skip


def text(words: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": words, **more}


SIGNED = {"type": "thinking", "thinking": "hm", "signature": "EqQB"}
REDACTED = {"type": "redacted_thinking", "data": "Eroe"}
PAGE = {"type": "web_search_result_location", "url": "https://x.example", "title": "X", "cited_text": "c",
        "encrypted_index": "E"}  # fmt: skip
LOCATION = {"type": "page_location", "document_index": 0, "start_page_number": 1, "end_page_number": 2}


def test_an_answer() -> None:
    assert answer(message(text("Hello"), text("!"))) == {
        "id": "msg_1", "object": "chat.completion", "created": 0, "model": "claude-opus-4-8",
        "choices": [{
            "index": 0, "message": {"role": "assistant", "content": "Hello!", "refusal": None}, "logprobs": None,
            "finish_reason": "stop",
        }],
        "usage": {"prompt_tokens": 12, "completion_tokens": 6, "total_tokens": 18},
    }  # fmt: skip


def call(arguments: str) -> dict[str, Any]:
    return {"id": "toolu_1", "type": "function", "function": {"name": "weather", "arguments": arguments}}


MESSAGES: list[tuple[list[Any], dict[str, Any]]] = [
    ([], {"content": ""}),
    ([SIGNED, REDACTED, text("4")],
     {"content": "4", "reasoning_content": "hm", "thinking_blocks": [SIGNED, REDACTED]}),
    ([{"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Paris"}}],
     {"content": None, "tool_calls": [call('{"city":"Paris"}')]}),
    ([text("See"), {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}}],
     {"content": "See", "tool_calls": [call("{}")]}),
    ([text("So: "), text("sun", citations=[PAGE, LOCATION])],
     {"content": "So: sun", "annotations": [{
         "type": "url_citation",
         "url_citation": {"start_index": 4, "end_index": 7, "url": "https://x.example", "title": "X"},
     }]}),
]  # fmt: skip


@pytest.mark.parametrize(("content", "expected"), MESSAGES)
def test_messages(content: list[Any], expected: dict[str, Any]) -> None:
    made = answer(message(*content))
    assert made["choices"][0]["message"] == {"role": "assistant", "refusal": None, **expected}
    ChatCompletion.model_validate(made)


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("end_turn", "stop"), ("stop_sequence", "stop"), ("max_tokens", "length"), ("tool_use", "tool_calls"),
        ("pause_turn", "length"), ("refusal", "content_filter"), ("model_context_window_exceeded", "length"),
        ("yet_to_come", "stop"),
    ],
)  # fmt: skip
def test_stop_reasons(reason: str, expected: str) -> None:
    assert answer(message(stop_reason=reason))["choices"][0]["finish_reason"] == expected


def test_what_stopped_and_why_it_was_refused() -> None:
    stopped = answer(message(stop_reason="stop_sequence", stop_sequence="END"))["choices"][0]
    assert (stopped["finish_reason"], stopped["stop_reason"]) == ("stop", "END")
    details = {"type": "refusal", "category": "cyber", "explanation": "Not that."}
    refused = answer(message(stop_reason="refusal", stop_details=details))["choices"][0]
    assert refused["message"]["refusal"] == "Not that."


@pytest.mark.parametrize(
    "value",
    [
        {}, {"type": "error", "error": {"type": "api_error", "message": "x"}}, message("text"),
        message({"type": "text"}), message(stop_reason=None), message({"type": "tool_use", "id": 5}),
        {**message(), "content": "text"}, message({"type": "thinking", "thinking": 5}),
    ],
)  # fmt: skip
def test_what_is_no_answer_is_broken(value: dict[str, Any]) -> None:
    with pytest.raises(AttemptFailed) as failed:
        answer(value)
    assert failed.value.kind == "broken"


def test_an_answer_without_usage_has_none() -> None:
    assert "usage" not in answer(message(usage=None))


# Examples of https://platform.claude.com/docs/en/build-with-claude/prompt-caching (the first),
# .../build-with-claude/streaming (the second, the third: with a search), .../build-with-claude/working-with-messages.
USAGE: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"input_tokens": 2048, "cache_read_input_tokens": 1800, "cache_creation_input_tokens": 248, "output_tokens": 503,
      "cache_creation": {"ephemeral_5m_input_tokens": 148, "ephemeral_1h_input_tokens": 100}},
     {"prompt_tokens": 4096, "completion_tokens": 503, "total_tokens": 4599,
      "prompt_tokens_details": {"cached_tokens": 1800, "cache_write_tokens": 148, "cache_write_1h_tokens": 100}}),
    ({"input_tokens": 25, "output_tokens": 15}, {"prompt_tokens": 25, "completion_tokens": 15, "total_tokens": 40}),
    ({"input_tokens": 10682, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 510,
      "server_tool_use": {"web_search_requests": 1}},
     {"prompt_tokens": 10682, "completion_tokens": 510, "total_tokens": 11192,
      "prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0}}),
    ({"input_tokens": 12, "output_tokens": 6}, {"prompt_tokens": 12, "completion_tokens": 6, "total_tokens": 18}),
    # The total holds, with or without its parts.
    ({"input_tokens": 1, "output_tokens": 2, "cache_creation_input_tokens": 30},
     {"prompt_tokens": 31, "completion_tokens": 2, "total_tokens": 33,
      "prompt_tokens_details": {"cache_write_tokens": 30}}),
    ({"input_tokens": 1, "output_tokens": 2, "cache_creation": {"ephemeral_5m_input_tokens": 0,
                                                                 "ephemeral_1h_input_tokens": 9}},
     {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12,
      "prompt_tokens_details": {"cache_write_tokens": 0, "cache_write_1h_tokens": 9}}),
    ({"input_tokens": 40, "output_tokens": 300, "output_tokens_details": {"thinking_tokens": 250}},
     {"prompt_tokens": 40, "completion_tokens": 300, "total_tokens": 340,
      "completion_tokens_details": {"reasoning_tokens": 250}}),
    ({"input_tokens": 0, "output_tokens": 0}, {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}),
    # What is no number is not said.
    ({"input_tokens": "9", "output_tokens": True, "cache_read_input_tokens": None, "cache_creation": 5},
     {"prompt_tokens": None, "completion_tokens": None}),
]  # fmt: skip


@pytest.mark.parametrize(("said", "expected"), USAGE)
def test_usage(said: dict[str, Any], expected: dict[str, Any]) -> None:
    assert usage(said) == expected


def refusal(type_: str, words: str) -> bytes:
    return orjson.dumps({"type": "error", "error": {"type": type_, "message": words}, "request_id": "req_1"})


ERRORS: list[tuple[bytes, dict[str, Any]]] = [
    (refusal("overloaded_error", "Overloaded"),
     {"message": "Overloaded", "type": "overloaded_error", "code": None, "param": None}),
    (refusal("invalid_request_error", "prompt is too long: 200251 tokens > 200000 maximum"),
     {"message": "prompt is too long: 200251 tokens > 200000 maximum", "type": "invalid_request_error",
      "code": "context_length_exceeded", "param": None}),
    (refusal("invalid_request_error", "input length and `max_tokens` exceed context limit: 178959 + 64000 > 200000"),
     {"message": "input length and `max_tokens` exceed context limit: 178959 + 64000 > 200000",
      "type": "invalid_request_error", "code": "context_length_exceeded", "param": None}),
    (refusal("invalid_request_error", "messages.0.content.1.text: must not be empty"),
     {"message": "messages.0.content.1.text: must not be empty", "type": "invalid_request_error", "code": None,
      "param": "messages.0.content.1.text"}),
    (b"upstream timed out", {}),
    (b"[]", {}),
    (b'{"error": "x"}', {}),
    (b'{"error": {"type": "api_error"}}', {}),
]  # fmt: skip


@pytest.mark.parametrize(("body", "expected"), ERRORS)
def test_errors(body: bytes, expected: dict[str, Any]) -> None:
    assert error(body) == expected
