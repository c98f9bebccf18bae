from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.adapters import openai_answers
from gateway.adapters.openai_errors import error, in_ok
from gateway.call import JSON
from gateway.errors import AttemptFailed
from gateway.sse import EventSplitter


def test_an_answer_in_the_words_of_the_middle_form() -> None:
    said = {"role": "assistant", "content": "4", "reasoning": "2 + 2"}
    value = {
        "id": "x",
        "choices": [{"index": 0, "message": said, "finish_reason": "sensitive"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 5, "cached_tokens": 4, "reasoning_tokens": 3},
    }
    assert openai_answers.answer(value) == {
        "id": "x",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "4", "reasoning_content": "2 + 2"},
                "finish_reason": "content_filter",
            }
        ],
        "usage": {
            "prompt_tokens": 9,
            "completion_tokens": 5,
            "prompt_tokens_details": {"cached_tokens": 4},
            "completion_tokens_details": {"reasoning_tokens": 3},
        },
    }


def test_reasoning_that_is_told_twice_is_one() -> None:
    said = {"role": "assistant", "reasoning": "b", "reasoning_content": "a"}
    value = {"choices": [{"index": 0, "message": said, "finish_reason": "stop"}]}
    found = openai_answers.answer(value)
    assert found["choices"][0]["message"] == {"role": "assistant", "reasoning_content": "a"}
    assert found["usage"] is None


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("stop", "stop"), ("length", "length"), ("tool_calls", "tool_calls"), ("content_filter", "content_filter"),
        ("model_context_window_exceeded", "length"), ("model_length", "length"), ("eos_token", "stop"), (None, None),
    ],
)  # fmt: skip
def test_why_it_ended(theirs: str | None, ours: str | None) -> None:
    value = {"choices": [{"index": 0, "message": {}, "finish_reason": theirs}]}
    assert openai_answers.answer(value)["choices"][0]["finish_reason"] == ours


BROKEN: list[Any] = [
    {},
    {"choices": []},
    {"choices": ["x"]},
    {"choices": [{"index": 0, "message": {}, "finish_reason": "network_error"}]},
    {"choices": [{"index": 0, "message": {}, "finish_reason": "insufficient_system_resource"}]},
]


@pytest.mark.parametrize("value", BROKEN)
def test_what_is_no_answer_is_broken(value: Any) -> None:
    with pytest.raises(AttemptFailed) as failure:
        openai_answers.answer(value)
    assert failure.value.kind == "broken"


def chunk(delta: JSON, reason: str | None = None, **more: Any) -> JSON:
    return {"id": "x", "model": "M", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}], **more}


def events(*values: JSON, end: bytes = b"data: [DONE]\n\n") -> bytes:
    return b"".join(b"data: " + orjson.dumps(value) + b"\n\n" for value in values) + end


def decoded(data: bytes, step: int = 10_000) -> tuple[list[JSON], openai_answers.Decoder]:
    splitter, decoder, chunks = EventSplitter(), openai_answers.Decoder(), []
    for start in range(0, len(data), step):
        for event in splitter.feed(data[start : start + step]):
            chunks += decoder.feed(event)
    return chunks, decoder


SAID = {"prompt_tokens": 9, "completion_tokens": 2}
HEAD = {"id": "x", "model": "M"}
# Usage in a chunk of its own, beside the last choices, and in each chunk.
STREAMS = [
    events(chunk({"role": "assistant"}), chunk({"reasoning": "hm"}), chunk({"content": "a"}), chunk({}, "stop"),
           {**HEAD, "choices": [], "usage": SAID}),
    events(chunk({"role": "assistant"}), chunk({"reasoning": "hm"}), chunk({"content": "a"}),
           chunk({}, "stop", usage=SAID)),
    events(chunk({"role": "assistant"}, usage={"prompt_tokens": 9, "completion_tokens": 0}),
           chunk({"reasoning_content": "hm"}, usage={"prompt_tokens": 9, "completion_tokens": 1}),
           chunk({"content": "a"}, usage=SAID), chunk({}, "stop", usage=SAID)),
    events({"id": "", "choices": [], "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": {}}]},
           chunk({"role": "assistant"}), chunk({"reasoning": "hm"}), chunk({"content": "a"}), chunk({}, "eos"),
           {**HEAD, "choices": [], "usage": SAID}),
]  # fmt: skip


@pytest.mark.parametrize("step", [1, 7, 10_000])
@pytest.mark.parametrize("data", STREAMS)
def test_a_stream(data: bytes, step: int) -> None:
    chunks, decoder = decoded(b": hi\n\n" + data + b"data: trailing", step)
    assert decoder.done
    usages = [chunk for chunk in chunks if not chunk["choices"]]
    assert [chunk for chunk in chunks if chunk["choices"]] == [
        chunk({"role": "assistant"}),
        chunk({"reasoning_content": "hm"}),
        chunk({"content": "a"}),
        chunk({}, "stop"),
    ]
    assert usages[-1] == {**HEAD, "choices": [], "usage": SAID}


def test_a_stream_without_its_end_is_not_done() -> None:
    chunks, decoder = decoded(events(chunk({"content": "a"}), chunk({}, "stop"), end=b""))
    assert len(chunks) == 2
    assert not decoder.done


@pytest.mark.parametrize(
    "bad",
    [
        b'event: error\ndata: {"choices": []}\n\n',
        b"data: <html>\n\n",
        b"data: 5\n\n",
        b'data: {"error": {"message": "x"}}\n\n',
    ],
)
def test_a_stream_of_nonsense_is_broken(bad: bytes) -> None:
    with pytest.raises(AttemptFailed):
        openai_answers.Decoder().feed(bad)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        # https://api-docs.deepseek.com/quick_start/error_codes
        ({"error": {"message": "Insufficient Balance", "type": "unknown_error", "param": None,
                    "code": "invalid_request_error"}},
         ("Insufficient Balance", "unknown_error", "invalid_request_error", None)),
        # https://docs.z.ai/api-reference/api-code
        ({"error": {"code": "1261", "message": "Prompt exceeds max length"}},
         ("Prompt exceeds max length", None, "1261", None)),
        # Bailian's own dialect, which some of its errors keep
        ({"code": "InvalidParameter", "message": "Range of input length should be [1, 129024]", "request_id": "x"},
         ("Range of input length should be [1, 129024]", None, "InvalidParameter", None)),
        # Mistral, for a field that it does not know
        ({"object": "error", "type": "invalid_request_error", "param": None, "code": None, "message": {"detail": [
            {"type": "extra_forbidden", "loc": ["body", "max_completion_tokens"],
             "msg": "Extra inputs are not permitted", "input": 32000}]}},
         ("max_completion_tokens: Extra inputs are not permitted", "invalid_request_error", None,
          "max_completion_tokens")),
        ({"detail": [{"loc": ["body", "messages", 0, "role"], "msg": "bad"}, {"loc": [], "msg": "worse"}]},
         ("messages.0.role: bad; worse", None, None, "messages.0.role")),
        ({"detail": "Not Found"}, ("Not Found", None, None, None)),
        # llama.cpp: the code is the status
        ({"error": {"code": 400, "message": "too long", "type": "exceed_context_size_error", "n_ctx": 4096}},
         ("too long", "exceed_context_size_error", None, None)),
        ({"base_resp": {"status_code": 2013, "status_msg": "invalid params"}}, ("invalid params", None, "2013", None)),
        ({"error": "a text"}, ("a text", None, None, None)),
        # https://learn.microsoft.com/azure/ai-foundry/openai/concepts/content-filter
        ({"error": {"message": "The response was filtered", "type": None, "param": "prompt", "code": "content_filter",
                    "status": 400, "innererror": {"code": "ResponsibleAIPolicyViolation"}}},
         ("The response was filtered", None, "content_filter", "prompt")),
    ],
)  # fmt: skip
def test_errors(body: Any, expected: tuple[str | None, ...]) -> None:
    assert tuple(error(orjson.dumps(body))[name] for name in ("message", "type", "code", "param")) == expected


@pytest.mark.parametrize("body", [b"", b"<html>", b"5", b"[]", b"{}", b'{"error": 5}', b'{"detail": [5]}'])
def test_an_error_that_says_nothing(body: bytes) -> None:
    assert error(body) == {}


@pytest.mark.parametrize(
    ("code", "status"), [(1002, 429), (1039, 429), (1004, 401), (1008, 402), (1026, 400), (2013, 400), (1000, 500)]
)
def test_an_error_with_status_200_has_the_status_that_it_means(code: int, status: int) -> None:
    failure = in_ok({"base_resp": {"status_code": code, "status_msg": "no"}})
    assert failure is not None
    assert (failure.kind, failure.backend_status) == ("status", status)
    assert error(failure.answer_body)["message"] == "no"


@pytest.mark.parametrize("value", [{}, {"base_resp": None}, {"base_resp": {"status_code": 0, "status_msg": ""}}])
def test_a_good_answer_is_no_error(value: JSON) -> None:
    assert in_ok(value) is None
