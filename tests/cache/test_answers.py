"""A stream to the answer it stands for and back, for every shape of the API; and what is not put together."""

from __future__ import annotations

import random
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.cache.answers import assembled, finished, replayed
from gateway.dialects.chat import DONE
from tests.virtual import STREAM, WORD, event

USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


def data(*choices: dict[str, Any], **more: Any) -> bytes:
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": list(choices), **more}
    return b"data: " + orjson.dumps(chunk) + b"\n\n"


def delta(finish: str | None = None, index: int = 0, **fields: Any) -> dict[str, Any]:
    return {"index": index, "delta": fields, "finish_reason": finish}


def put_together(*events: bytes, endpoint: str = "chat") -> Any:
    return assembled(b"".join([*events, DONE]), USAGE, endpoint)


def test_texts_are_joined_and_the_usage_of_the_backend_is_kept() -> None:
    assert assembled(b"".join(STREAM), USAGE, "chat") == {
        "id": "c",
        "object": "chat.completion",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "word word "}, "finish_reason": "stop"},
        ],
        "usage": USAGE,
    }


def test_choices_come_in_their_order_each_with_its_own_text() -> None:
    answer = put_together(
        data(delta(index=1, role="assistant", content="b")),
        data(delta(index=0, role="assistant", content="a"), delta(index=1, content="B")),
        data(delta("stop", index=1)),
        data(delta("length", index=0)),
    )
    assert [(c["index"], c["message"]["content"], c["finish_reason"]) for c in answer["choices"]] == [
        (0, "a", "length"),
        (1, "bB", "stop"),
    ]


def test_tool_calls_are_put_together_by_their_index() -> None:
    call_1 = {"index": 1, "id": "c1", "type": "function", "function": {"name": "g", "arguments": ""}}
    answer = put_together(
        data(delta(role="assistant", content=None)),
        data(
            delta(tool_calls=[{"index": 0, "id": "c0", "type": "function", "function": {"name": "f", "arguments": ""}}])
        ),
        data(delta(tool_calls=[{"index": 0, "function": {"arguments": '{"a"'}}, call_1])),
        data(delta(tool_calls=[{"index": 1, "function": {"arguments": "{}"}}])),
        data(delta(tool_calls=[{"index": 0, "id": "", "function": {"name": None, "arguments": ":1}"}}])),
        data(delta("tool_calls")),
    )
    message = answer["choices"][0]["message"]
    assert message["content"] is None
    assert message["tool_calls"] == [
        {"id": "c0", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
        {"id": "c1", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]


def test_logprobs_are_one_list() -> None:
    def probability(token: str) -> dict[str, Any]:
        return {"content": [{"token": token, "logprob": -0.5, "top_logprobs": []}], "refusal": None}

    answer = put_together(
        data({**delta(role="assistant", content="a"), "logprobs": probability("a")}),
        data({**delta(content="b"), "logprobs": probability("b")}),
        data({**delta("stop"), "logprobs": None}),
    )
    logprobs = answer["choices"][0]["logprobs"]
    assert [entry["token"] for entry in logprobs["content"]] == ["a", "b"]
    assert logprobs["refusal"] is None


def test_reasoning_refusals_and_fields_of_backends_are_kept() -> None:
    answer = put_together(
        data(delta(role="assistant", content="", reasoning_content="h"), system_fingerprint="f"),
        data(delta(reasoning_content="m", refusal=None), system_fingerprint="f", obfuscation="xyz"),
        data(delta(content="no", refusal="n"), obfuscation="ab"),
        data({**delta("stop"), "stop_reason": 13}, timings={"ms": 4}),
    )
    message = answer["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"], message["refusal"]) == ("no", "hm", "n")
    assert (answer["system_fingerprint"], answer["timings"], answer["choices"][0]["stop_reason"]) == (
        "f",
        {"ms": 4},
        13,
    )
    assert "obfuscation" not in answer


def test_completions_are_put_together() -> None:
    probability = {"tokens": ["a"], "token_logprobs": [-1.0], "top_logprobs": None, "text_offset": [0]}
    answer = put_together(
        data({"index": 0, "text": "a", "logprobs": probability, "finish_reason": None}),
        data({"index": 0, "text": "b", "logprobs": probability, "finish_reason": "stop"}),
        endpoint="completions",
    )
    [choice] = answer["choices"]
    assert (answer["object"], choice["text"], choice["logprobs"]["tokens"]) == ("text_completion", "ab", ["a", "a"])


@pytest.mark.parametrize(
    "events",
    [
        [data(delta(content="a", annotations=[{"url": "x"}]))],
        [data(delta(content="a", audio={"data": "AA"}))],
        [data(delta(content=["a"]))],
        [data(delta(tool_calls=[{"id": "no index"}]))],
        [data(delta(tool_calls=[{"index": 1, "id": "x"}]))],
        [data(delta(content="a"), system_fingerprint="f"), data(delta("stop"), system_fingerprint="g")],
        [data({**delta(content="a"), "logprobs": {"score": 1}})],
        [data({**delta(content="a"), "index": "0"})],
        [data({"index": 0, "finish_reason": "stop"})],
        [b"data: {not json}\n\n"],
        [b"data: [1]\n\n"],
        [b": only a comment\n\n"],
        [
            data(delta(content="a")),
            b'data: {"choices": [{"index": 0, "delta": {"x": ' + b"[" * 300 + b"]" * 300 + b"}}]}\n\n",
        ],
    ],
)
def test_what_would_be_a_guess_is_not_put_together(events: list[bytes]) -> None:
    assert put_together(*events) is None


def test_fields_that_say_nothing_are_no_obstacle() -> None:
    answer = put_together(data(delta(role="assistant", content="a", annotations=None)), data(delta("stop")))
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "a"}


# -- and back -----------------------------------------------------------------------------------------------------

texts = st.text(max_size=20)
functions = st.fixed_dictionaries({"name": texts.filter(bool), "arguments": texts})
calls = st.fixed_dictionaries({"id": texts.filter(bool), "type": st.just("function"), "function": functions})
message = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": st.none() | texts},
    optional={
        "reasoning_content": texts,
        "refusal": st.none() | texts,
        "tool_calls": st.lists(calls, min_size=1, max_size=3),
    },
)
probabilities = st.none() | st.fixed_dictionaries(
    {"content": st.lists(st.fixed_dictionaries({"token": texts, "logprob": st.floats(-9, 0)}), max_size=3)}
)


@st.composite
def answers(draw: st.DrawFn) -> dict[str, Any]:
    choices = [
        {
            "index": index,
            "message": draw(message),
            "logprobs": draw(probabilities),
            "finish_reason": draw(st.sampled_from(["stop", "length", "tool_calls"])),
        }
        for index in range(draw(st.integers(1, 3)))
    ]
    head = {"id": "x", "object": "chat.completion", "created": 5, "model": "m", "system_fingerprint": "f"}
    return {**head, "choices": choices, "usage": USAGE}


@settings(max_examples=300, deadline=None)
@given(answers(), st.booleans())
def test_a_whole_answer_becomes_a_stream_and_the_same_answer_again(answer: dict[str, Any], wants_usage: bool) -> None:
    stream = replayed(answer, "chat", wants_usage=wants_usage)
    assert stream is not None
    assert assembled(stream, answer["usage"], "chat") == answer
    chunks = [orjson.loads(line[6:]) for line in stream.split(b"\n\n")[:-2]]
    assert stream.endswith(DONE)
    assert sum(not chunk["choices"] for chunk in chunks) == wants_usage
    assert all(("usage" in chunk) == wants_usage for chunk in chunks)


def test_a_completion_becomes_a_stream_and_the_same_answer_again() -> None:
    choice = {"index": 0, "text": "ab", "logprobs": None, "finish_reason": "stop"}
    answer = {"id": "x", "object": "text_completion", "created": 5, "model": "m", "choices": [choice], "usage": USAGE}
    stream = replayed(answer, "completions", wants_usage=True)
    assert stream is not None
    assert assembled(stream, USAGE, "completions") == answer


def test_what_was_thought_is_streamed_before_what_was_said() -> None:
    said = {"role": "assistant", "content": "yes", "reasoning_content": "hm"}
    choice = {"index": 0, "message": said, "finish_reason": "stop"}
    stream = replayed({"id": "x", "object": "chat.completion", "choices": [choice]}, "chat", wants_usage=False)
    assert stream is not None
    assert stream.index(b"hm") < stream.index(b"yes") < stream.index(b'"stop"')


def test_an_answer_of_no_known_shape_is_not_streamed() -> None:
    assert replayed({"choices": [{"message": {}}]}, "chat", wants_usage=False) is None
    assert replayed({"choices": [1]}, "chat", wants_usage=False) is None


@pytest.mark.parametrize("seed", range(20))
def test_however_a_stream_is_cut_into_deltas_the_answer_is_the_same(seed: int) -> None:
    rng = random.Random(seed)
    text = "".join(rng.choice("ab \n\u00e9\u4e2d") for _ in range(60))
    events, at = [data(delta(role="assistant", content=""))], 0
    while at < len(text):
        size = rng.randrange(1, 9)
        events.append(data(delta(content=text[at : at + size])))
        at += size
    answer = put_together(*events, data(delta("stop")))
    assert answer["choices"][0]["message"]["content"] == text


# -- what may be kept ---------------------------------------------------------------------------------------------


def ended(*reasons: str | None) -> dict[str, Any]:
    return {"choices": [{"index": place, "finish_reason": reason} for place, reason in enumerate(reasons)]}


@pytest.mark.parametrize(
    ("answer", "choices", "whole"),
    [
        (ended("stop"), 1, True),
        (ended("length", "tool_calls"), 2, True),
        (ended("stop"), 2, False),
        (ended("content_filter"), 1, False),
        (ended("stop", "content_filter"), 2, False),
        (ended(None), 1, False),
        (ended("insufficient_system_resource"), 1, False),
        ({"choices": None}, 1, False),
        ({"choices": [1]}, 1, False),
    ],
)
def test_only_an_answer_that_ended_well_may_be_kept(answer: dict[str, Any], choices: int, whole: bool) -> None:
    assert finished(answer, "chat", choices) is whole


def test_embeddings_are_kept_with_one_for_each_text() -> None:
    assert finished({"data": [{}, {}]}, "embeddings", 2)
    assert not finished({"data": [{}]}, "embeddings", 2)
    assert event({"content": "word "}) == WORD
