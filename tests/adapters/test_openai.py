from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.adapters.openai import AnswerReader, StreamReader, request_body
from gateway.adapters.usage import in_openai_places, normalise
from gateway.call import Call, Usage
from gateway.config.model import Model, Quirks
from gateway.dialects.chat import DONE
from gateway.errors import AttemptFailed

MODEL = Model("m", (), context=1000, max_output=100, price={}, rates={})


def call(endpoint: str = "chat", *, stream: bool = True, wants_usage: bool = False, **body: Any) -> Call:
    return Call("r", endpoint, "m", {"model": "m", **body}, stream, wants_usage, None, 1, 10, 0, frozenset(), None)


def event(choices: list[Any], **more: Any) -> bytes:
    return b"data: " + orjson.dumps({"choices": choices, **more}) + b"\n\n"


ROLE = event([{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}], usage=None)
HI = event([{"index": 0, "delta": {"content": "hi"}, "finish_reason": None}])
STOP = event([{"index": 0, "delta": {}, "finish_reason": "stop"}])
USAGE = event([], usage={"prompt_tokens": 9, "completion_tokens": 2})
ERROR = b'data: {"error": {"message": "x"}}\n\n'


@pytest.mark.parametrize("step", [1, 7, 10_000])
@pytest.mark.parametrize("wants", [True, False])
def test_a_stream(step: int, wants: bool) -> None:
    reader, out = StreamReader(call(wants_usage=wants), MODEL), b""
    data = b": hello\n\n" + ROLE + HI + HI + STOP + USAGE + DONE + b"data: junk"
    for start in range(0, len(data), step):
        out += reader.feed(data[start : start + step])
    assert out == b": hello\n\n" + ROLE + HI + HI + STOP
    assert reader.flush() + reader.tail() == (USAGE if wants else b"") + DONE
    assert (reader.started, reader.done, reader.passed_text()) == (True, True, "hihi")
    assert reader.usage == Usage({"input": 9, "output": 2, "calls": 1})


def test_usage_in_the_last_choice() -> None:
    """https://platform.kimi.ai/docs/api/chat"""
    used = {"prompt_tokens": 19, "completion_tokens": 13, "total_tokens": 32}
    last = event([{"index": 0, "delta": {}, "finish_reason": "stop", "usage": used}])
    reader = StreamReader(call(), MODEL)
    assert reader.feed(ROLE + HI + last + DONE) == ROLE + HI + last
    assert reader.usage == Usage({"input": 19, "output": 13, "calls": 1})


def test_the_start_is_held_back() -> None:
    reader = StreamReader(call(), MODEL)
    assert (reader.feed(ROLE), reader.started) == (b"", False)
    assert (reader.feed(HI), reader.started) == (ROLE + HI, True)


@pytest.mark.parametrize("bad", [ERROR, b"data: <html>\n\n", b"data: []\n\n", DONE])
def test_a_bad_start_is_broken(bad: bytes) -> None:
    with pytest.raises(AttemptFailed):
        StreamReader(call(), MODEL).feed(bad)


def test_an_error_after_content_is_broken() -> None:
    reader = StreamReader(call(), MODEL)
    reader.feed(HI)
    with pytest.raises(AttemptFailed):
        reader.feed(ERROR)


@pytest.mark.parametrize(("data", "whole"), [(HI, False), (HI + STOP, True), (HI + STOP[:-2], True), (b"", False)])
def test_end_without_done(data: bytes, whole: bool) -> None:
    reader = StreamReader(call(), MODEL)
    reader.feed(data)
    assert reader.complete_at_eof() is whole


GOLDEN: list[tuple[Any, dict[str, int], tuple[str, ...]]] = [
    ({"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4},
      "completion_tokens_details": {"reasoning_tokens": 3}},
     {"input": 6, "input_cached": 4, "output": 2, "output_reasoning": 3}, ()),
    ({"prompt_tokens": 10, "completion_tokens": 5, "prompt_cache_hit_tokens": 8, "prompt_cache_miss_tokens": 2},
     {"input": 2, "input_cached": 8, "output": 5}, ()),
    # https://api-docs.deepseek.com/guides/kv_cache, with the reasoning of its thinking mode
    ({"prompt_tokens": 900, "completion_tokens": 90, "prompt_cache_hit_tokens": 832, "prompt_cache_miss_tokens": 68,
      "completion_tokens_details": {"reasoning_tokens": 70}},
     {"input": 68, "input_cached": 832, "output": 20, "output_reasoning": 70}, ()),
    # https://platform.kimi.ai/docs/api/chat
    ({"prompt_tokens": 19, "completion_tokens": 13, "total_tokens": 32, "cached_tokens": 12},
     {"input": 7, "input_cached": 12, "output": 13}, ()),
    # https://www.alibabacloud.com/help/en/model-studio/user-guide/context-cache: a cache written, then read
    ({"prompt_tokens": 628, "completion_tokens": 44, "total_tokens": 672, "prompt_tokens_details": {
        "text_tokens": 628, "cache_creation_input_tokens": 613, "cache_type": "ephemeral", "cached_tokens": 0}},
     {"input": 15, "input_cache_write": 613, "output": 44}, ()),
    ({"prompt_tokens": 628, "completion_tokens": 45, "total_tokens": 673, "prompt_tokens_details": {
        "text_tokens": 628, "cache_creation_input_tokens": 0, "cache_type": "ephemeral", "cached_tokens": 613}},
     {"input": 15, "input_cached": 613, "output": 45}, ()),
    # https://platform.minimax.io/docs/api-reference/text-chat
    ({"total_tokens": 120, "total_characters": 0, "prompt_tokens": 26, "completion_tokens": 94,
      "completion_tokens_details": {"reasoning_tokens": 85}},
     {"input": 26, "output": 9, "output_reasoning": 85}, ()),
    # SGLang
    ({"prompt_tokens": 30, "completion_tokens": 40, "total_tokens": 70, "prompt_tokens_details": None,
      "reasoning_tokens": 25}, {"input": 30, "output": 15, "output_reasoning": 25}, ()),
    # OpenAI, and the middle form: what was written to a cache for five minutes, and for an hour
    ({"prompt_tokens": 100, "completion_tokens": 5, "prompt_tokens_details": {
        "cached_tokens": 40, "cache_write_tokens": 30, "cache_write_1h_tokens": 20, "image_tokens": 3}},
     {"input": 7, "input_cached": 40, "input_cache_write": 30, "input_cache_write_1h": 20, "input_image": 3,
      "output": 5}, ()),
    ({"prompt_tokens": 10, "completion_tokens": 1, "prompt_tokens_details": {"cache_write_tokens": 11}},
     {"input_cache_write": 10, "output": 1}, ("bad_usage",)),
    ({"prompt_tokens": 0, "completion_tokens": 0}, {}, ("zero_usage",)),
    ({"prompt_tokens": 2**63, "completion_tokens": 2**63}, {"input": 1250, "output": 100}, ("bad_usage",)),
    ({"prompt_tokens": -1, "completion_tokens": 7.5}, {"output": 7}, ("bad_usage",)),
    ({"prompt_tokens": 3, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 9}},
     {"input_cached": 3, "output": 1}, ("bad_usage",)),
]  # fmt: skip


@pytest.mark.parametrize(("given", "expected", "flags"), GOLDEN)
def test_usage_in_the_middle_form_is_the_same_usage(
    given: Any, expected: dict[str, int], flags: tuple[str, ...]
) -> None:
    told = in_openai_places(given)
    assert told is not None
    assert not {"cached_tokens", "prompt_cache_hit_tokens", "reasoning_tokens"} & told.keys()
    found = normalise(told, context=1000, max_output=100, choices=1, endpoint="chat")
    assert found == normalise(given, context=1000, max_output=100, choices=1, endpoint="chat")


@pytest.mark.parametrize(("given", "expected", "flags"), GOLDEN)
def test_usage(given: Any, expected: dict[str, int], flags: tuple[str, ...]) -> None:
    found = normalise(given, context=1000, max_output=100, choices=1, endpoint="chat")
    calls = {} if flags == ("zero_usage",) else {"calls": 1}  # nothing used, nothing called
    assert found == Usage({**expected, **calls}, "reported", flags)


@pytest.mark.parametrize(
    "given",
    [
        None,
        "9",
        {},
        {"prompt_tokens": 1, "completion_tokens": None},
        {"prompt_tokens": "7", "completion_tokens": 3},
        {"prompt_tokens": 7, "completion_tokens": "3"},
        {"prompt_tokens": True, "completion_tokens": 3},
    ],
)
def test_no_usage(given: Any) -> None:
    assert normalise(given, context=1, max_output=1, choices=1, endpoint="chat") is None


def test_an_error_with_status_200_has_the_status_that_it_means() -> None:
    body = orjson.dumps({"choices": None, "base_resp": {"status_code": 1002, "status_msg": "rate limit"}})
    with pytest.raises(AttemptFailed) as failure:
        AnswerReader(call(stream=False), MODEL).read(200, body)
    assert (failure.value.kind, failure.value.backend_status) == ("status", 429)
    with pytest.raises(AttemptFailed) as failure:
        StreamReader(call(), MODEL).feed(b"data: " + body + b"\n\n")
    assert failure.value.backend_status == 429


def test_a_good_answer_may_say_so() -> None:
    body = orjson.dumps({"choices": [], "base_resp": {"status_code": 0, "status_msg": ""}})
    assert AnswerReader(call(stream=False), MODEL).read(200, body)[0] == body


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"error": {}}', b"\xff"])
def test_a_broken_answer(body: bytes) -> None:
    with pytest.raises(AttemptFailed):
        AnswerReader(call(stream=False), MODEL).read(200, body)


def test_request_body() -> None:
    asked = call(x=1, max_completion_tokens=9)
    sent = orjson.loads(request_body(asked, "M", 5, Quirks()))
    assert sent == {"model": "M", "x": 1, "max_completion_tokens": 5, "stream_options": {"include_usage": True}}
    assert asked.body == {"model": "m", "x": 1, "max_completion_tokens": 9}
    assert orjson.loads(request_body(call(), "M", 5, Quirks(False, "f"))) == {"model": "M", "f": 5}
    plain = call("completions", stream=False)
    assert orjson.loads(request_body(plain, "M", 500, Quirks()))["max_tokens"] == 16


def test_a_body_is_made_fit_for_a_known_provider() -> None:
    asked = call(max_tokens=9, seed=5, user="u", messages=[{"role": "developer", "content": "x"}])
    sent = orjson.loads(request_body(asked, "M", 5, Quirks(like="mistral")))
    assert sent == {
        "model": "M",
        "max_tokens": 5,
        "random_seed": 5,
        "messages": [{"role": "system", "content": "x"}],
    }
    sent = orjson.loads(request_body(asked, "M", 5, Quirks(like="volcano")))
    assert sent["max_completion_tokens"] == 5
    assert "max_tokens" not in sent
    assert sent["stream_options"] == {"include_usage": True}
    sent = orjson.loads(request_body(asked, "M", 5, Quirks(like="volcano", max_tokens_field="f", include_usage=False)))
    assert sent["f"] == 5
    assert sent.keys().isdisjoint({"max_tokens", "max_completion_tokens", "stream_options"})


def test_completions_are_as_they_are() -> None:
    asked = call("completions", stream=False, prompt="x", logprobs=5, seed=1, max_tokens=9)
    sent = orjson.loads(request_body(asked, "M", 5, Quirks(like="zhipu")))
    assert sent == {"model": "M", "prompt": "x", "logprobs": 5, "seed": 1, "max_tokens": 5}


@pytest.mark.parametrize(
    "called", [{"function": {"name": "f", "arguments": "xyz"}}, {"custom": {"name": "f", "input": "xyz"}}]
)
def test_what_is_written_into_a_call_of_any_tool_is_output(called: Any) -> None:
    reader = StreamReader(call(), MODEL)
    reader.feed(event([{"index": 0, "delta": {"tool_calls": [{"index": 0, "id": "c", **called}]}}]))
    assert reader.passed_text() == "fxyz"
    whole = AnswerReader(call(stream=False), MODEL)
    whole.read(200, orjson.dumps({"choices": [{"message": {"content": None, "tool_calls": [{"id": "c", **called}]}}]}))
    assert whole.passed_text() == "fxyz"
