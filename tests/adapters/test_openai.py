from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.adapters.openai import AnswerReader, StreamReader, request_body
from gateway.adapters.usage import normalise
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
    ({"prompt_tokens": 0, "completion_tokens": 0}, {}, ("zero_usage",)),
    ({"prompt_tokens": 2**63, "completion_tokens": 2**63}, {"input": 1250, "output": 100}, ("bad_usage",)),
    ({"prompt_tokens": -1, "completion_tokens": 7.5}, {"output": 7}, ("bad_usage",)),
    ({"prompt_tokens": 3, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 9}},
     {"input_cached": 3, "output": 1}, ("bad_usage",)),
]  # fmt: skip


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


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"error": {}}', b"\xff"])
def test_a_broken_answer(body: bytes) -> None:
    with pytest.raises(AttemptFailed):
        AnswerReader(call(stream=False), MODEL).read(200, body)


def test_request_body() -> None:
    asked = call(x=1, max_completion_tokens=9)
    sent = orjson.loads(request_body(asked, asked.body, "M", 5, Quirks()))
    assert sent == {"model": "M", "x": 1, "max_completion_tokens": 5, "stream_options": {"include_usage": True}}
    assert asked.body == {"model": "m", "x": 1, "max_completion_tokens": 9}
    assert orjson.loads(request_body(call(), call().body, "M", 5, Quirks(False, "f"))) == {"model": "M", "f": 5}
    plain = call("completions", stream=False)
    assert orjson.loads(request_body(plain, plain.body, "M", 500, Quirks()))["max_tokens"] == 16
