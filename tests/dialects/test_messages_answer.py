from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.call import JSON
from gateway.dialects.messages import answer, error, error_event, finished
from gateway.errors import InvalidKey, InvalidValue, NoBackend, QuotaExhausted, RateLimited
from gateway.sse import event_data


def completion(message: JSON, finish: str | None = "stop", **more: Any) -> JSON:
    choice = {"index": 0, "message": {"role": "assistant", "content": None, **message}, "finish_reason": finish}
    return {"id": "chatcmpl-7", "object": "chat.completion", "model": "m-1", "choices": [{**choice, **more}]}


def call(arguments: str, **more: Any) -> JSON:
    return {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": arguments}, **more}


def content(message: JSON, original: JSON | None = None) -> Any:
    return answer(completion(message), original or {})["content"]


def test_a_plain_answer() -> None:
    value = {
        **completion({"content": "Hello."}),
        "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
    }
    assert answer(value, {}) == {
        "id": "msg_7",
        "type": "message",
        "role": "assistant",
        "model": "m-1",
        "content": [{"type": "text", "text": "Hello."}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 9, "output_tokens": 3},
    }


def test_an_id_of_anthropics_own_stays() -> None:
    assert answer({**completion({}), "id": "msg_01"}, {})["id"] == "msg_01"


def test_reasoning_text_and_calls_in_their_order() -> None:
    message = {"content": "Let me see.", "reasoning_content": "Hm.", "tool_calls": [call('{"city": "Köln"}'), call("")]}
    assert content(message) == [
        {"type": "thinking", "thinking": "Hm.", "signature": ""},
        {"type": "text", "text": "Let me see."},
        {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Köln"}},
        {"type": "tool_use", "id": "call_1", "name": "weather", "input": {}},
    ]


def test_reasoning_by_the_other_name() -> None:
    assert content({"reasoning": "Hm."}) == [{"type": "thinking", "thinking": "Hm.", "signature": ""}]


SIGNED = {"type": "thinking", "thinking": "Hm.", "signature": "sig"}
REDACTED = {"type": "redacted_thinking", "data": "xyz"}
OMITTED: JSON = {"thinking": {"type": "adaptive", "display": "omitted"}}


def test_signed_reasoning_is_given_as_it_came() -> None:
    assert content({"reasoning_content": "Hm.", "thinking_blocks": [SIGNED, REDACTED]}) == [SIGNED, REDACTED]


def test_reasoning_behind_the_last_signature_is_not_lost() -> None:
    message = {"reasoning_content": "Hm. So.", "thinking_blocks": [SIGNED]}
    assert content(message) == [SIGNED, {"type": "thinking", "thinking": " So.", "signature": ""}]


def test_thinking_that_shall_not_be_shown_leaves_its_signature() -> None:
    blocks = {"thinking_blocks": [SIGNED, REDACTED], "content": "So."}
    assert content(blocks, OMITTED) == [{**SIGNED, "thinking": ""}, REDACTED, {"type": "text", "text": "So."}]
    assert content({"reasoning_content": "Hm.", "content": "So."}, OMITTED) == [{"type": "text", "text": "So."}]


@pytest.mark.parametrize("arguments", ['{"city": "Kö', "[1]", "42"])
def test_what_is_no_object_is_handed_on_as_it_was_written(arguments: str) -> None:
    assert content({"tool_calls": [call(arguments)]})[0]["input"] == {"INVALID_JSON": arguments}


def test_a_call_without_an_id_gets_one() -> None:
    assert [block["id"] for block in content({"tool_calls": [call("{}", id=None), call("{}", id="")]})] == [
        "toolu_7_0",
        "toolu_7_1",
    ]


def test_pages_that_are_cited() -> None:
    page = {"url": "https://x", "title": "X", "start_index": 4, "end_index": 7}
    message = {"content": "See foo.", "annotations": [{"type": "url_citation", "url_citation": page}]}
    assert content(message)[0]["citations"] == [
        {
            "type": "web_search_result_location",
            "url": "https://x",
            "title": "X",
            "cited_text": "foo",
            "encrypted_index": "",
        }
    ]


@pytest.mark.parametrize(
    ("finish", "more", "expected"),
    [
        ("stop", {}, ("end_turn", None)),
        ("stop", {"stop_reason": "END"}, ("stop_sequence", "END")),
        ("stop", {"stop_reason": "</s>"}, ("end_turn", None)),
        ("stop", {"stop_reason": 151643}, ("end_turn", None)),
        ("length", {"stop_reason": "END"}, ("max_tokens", None)),
        ("tool_calls", {}, ("tool_use", None)),
        ("content_filter", {}, ("refusal", None)),
        ("abort", {}, ("abort", None)),
        (None, {}, (None, None)),
    ],
)
def test_why_it_ended(finish: str | None, more: JSON, expected: tuple[str | None, str | None]) -> None:
    given = answer(completion({"content": "x"}, finish, **more), {"stop_sequences": ["END"]})
    assert (given["stop_reason"], given["stop_sequence"]) == expected
    assert finished(given) == (expected[0] in ("end_turn", "tool_use", "stop_sequence"))


@pytest.mark.parametrize(("finish", "expected"), [("stop", "tool_use"), (None, "tool_use"), ("length", "max_tokens")])
def test_a_call_says_itself_why_it_ended(finish: str | None, expected: str) -> None:
    assert answer(completion({"tool_calls": [call("{}")]}, finish), {})["stop_reason"] == expected


def test_a_refusal() -> None:
    given = answer(completion({"refusal": "I would rather not."}), {})
    assert (given["content"], given["stop_reason"]) == ([{"type": "text", "text": "I would rather not."}], "refusal")
    assert not finished(given)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (None, {"input_tokens": 0, "output_tokens": 0}),
        ({"prompt_tokens": 7, "completion_tokens": 0, "prompt_tokens_details": None},
         {"input_tokens": 7, "output_tokens": 0}),
        (
            {"prompt_tokens": 100, "completion_tokens": 9, "prompt_tokens_details": {"cached_tokens": 0}},
            {"input_tokens": 100, "cache_read_input_tokens": 0, "output_tokens": 9},
        ),
        (
            {
                "prompt_tokens": 100,
                "completion_tokens": 9,
                "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 20, "cache_write_1h_tokens": 5},
                "completion_tokens_details": {"reasoning_tokens": 4},
            },
            {
                "input_tokens": 15,
                "cache_read_input_tokens": 60,
                "cache_creation_input_tokens": 25,
                "cache_creation": {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 5},
                "output_tokens": 9,
                "output_tokens_details": {"thinking_tokens": 4},
            },
        ),
        ({"prompt_tokens": 5, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 9}},
         {"input_tokens": 0, "cache_read_input_tokens": 9, "output_tokens": 1}),
        ({"prompt_tokens": "5", "completion_tokens": -1}, {"input_tokens": 0, "output_tokens": 0}),
    ],
)  # fmt: skip
def test_usage(said: Any, expected: JSON) -> None:
    assert answer({**completion({}), "usage": said}, {})["usage"] == expected


@pytest.mark.parametrize(
    "value", [{}, {"choices": []}, {"choices": [None]}, {"choices": [{"message": {"content": [1]}}]}]
)
def test_an_answer_of_no_shape_is_empty(value: JSON) -> None:
    assert answer(value, {"thinking": "yes"})["content"] == []


# -- errors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, "invalid_request_error"), (401, "authentication_error"), (402, "billing_error"),
        (403, "permission_error"), (404, "not_found_error"), (405, "invalid_request_error"),
        (409, "conflict_error"), (413, "request_too_large"), (422, "invalid_request_error"),
        (429, "rate_limit_error"), (500, "api_error"), (502, "api_error"), (503, "overloaded_error"),
        (504, "timeout_error"), (529, "overloaded_error"),
    ],
)  # fmt: skip
def test_an_error_has_anthropics_type(status: int, expected: str) -> None:
    value = {"message": "No.", "type": "whatever", "param": None, "code": "a_code"}
    details = {"error_code": "a_code"}
    assert error(value, status) == {
        "type": "error",
        "error": {"type": expected, "message": "No.", "details": details, "param": None, "code": "a_code"},
        "request_id": None,
    }


def test_an_error_keeps_what_the_gateway_says() -> None:
    refusal = QuotaExhausted("Nothing is left.", limit="credits", used="5")
    assert error({**refusal.body()["error"], "request_id": "req-1"}, refusal.status) == {
        "type": "error",
        "error": {
            "type": "billing_error",
            "message": "Nothing is left.",
            "details": {"error_code": "insufficient_quota"},
            "param": None,
            "code": "insufficient_quota",
            "limit": "credits",
            "used": "5",
        },
        "request_id": "req-1",
    }


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (InvalidKey("x"), "authentication_error"),
        (RateLimited("x", kind="rpm", retry_after_s=1), "rate_limit_error"),
        (NoBackend("x"), "overloaded_error"),
    ],
)
def test_an_error_in_a_stream(raised: Any, expected: str) -> None:
    given = error_event(raised.body()["error"], raised.status)
    assert given.startswith(b"event: error\ndata: {")
    assert given.endswith(b"}\n\n")
    assert orjson.loads(event_data(given) or b"") == error(raised.body()["error"], raised.status)
    assert orjson.loads(event_data(given) or b"")["error"]["type"] == expected


def test_who_asks_for_a_thread_hears_that_there_is_none() -> None:
    refused = InvalidValue("Not here.", param="thread").body()["error"]
    assert error(refused, 400)["error"]["details"] == {
        "error_code": "thread_unsupported_request",
        "unsupported": ["thread"],
    }


def test_a_code_that_is_no_text_does_no_harm() -> None:
    assert error({"message": None, "code": [1]}, 400)["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("said", "code", "expected"),
    [
        ("The input is longer.", "context_length_exceeded", "prompt is too long: The input is longer."),
        ("Prompt is too long: 9 > 8", "context_length_exceeded", "Prompt is too long: 9 > 8"),
        ("The input is longer.", "invalid_value", "The input is longer."),
    ],
)
def test_agents_know_an_input_that_is_too_long_by_anthropics_words(said: str, code: str, expected: str) -> None:
    assert error({"message": said, "code": code}, 400)["error"]["message"] == expected
