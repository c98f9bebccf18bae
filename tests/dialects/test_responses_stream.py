"""Chat answers as responses: whole, as a stream, and from one to the other."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from gateway.call import JSON
from gateway.dialects import responses
from gateway.dialects.responses_object import response_of, stem_of
from gateway.errors import AttemptFailed
from gateway.sse import event_data, split_events

ORIGINAL: JSON = {"model": "m", "input": "hi", "tools": [{"type": "function", "name": "f"}], "temperature": 0.5}
HEAD: JSON = {"id": "chatcmpl-abc", "object": "chat.completion.chunk", "created": 17, "model": "served"}
USAGE: JSON = {
    "prompt_tokens": 9,
    "completion_tokens": 5,
    "total_tokens": 14,
    "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2, "cache_write_1h_tokens": 1},
    "completion_tokens_details": {"reasoning_tokens": 3},
}
RESPONSES_USAGE: JSON = {
    "input_tokens": 9,
    "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 3},
    "output_tokens": 5,
    "output_tokens_details": {"reasoning_tokens": 3},
    "total_tokens": 14,
}
EVENTS: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)


def chunk(finish: str | None = None, **delta: Any) -> JSON:
    return {**HEAD, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def call(index: int, **function: Any) -> JSON:
    return {"index": index, "id": f"c{index}", "type": "function", "function": function}


def encoded(chunks: list[JSON], usage: JSON | None = USAGE, original: JSON = ORIGINAL) -> bytes:
    encoder = responses.Encoder(original)
    return b"".join([*(encoder.feed(piece) for piece in chunks), encoder.end(usage)])


def events(stream: bytes) -> list[JSON]:
    found = []
    for event in split_events(stream):
        value = orjson.loads(event_data(event) or b"")
        assert event.startswith(b"event: " + value["type"].encode() + b"\n")
        found.append(value)
    assert [value["sequence_number"] for value in found] == list(range(len(found)))
    return found


def told(stream: bytes) -> list[str]:
    """The types of the events, without the part that all have in common."""
    return [value["type"].removeprefix("response.") for value in events(stream)]


def final(stream: bytes) -> JSON:
    response = responses.whole(stream)
    assert response is not None
    return response


TURN = [
    chunk(role="assistant", content=""),
    chunk(reasoning_content="I "),
    chunk(reasoning_content="think"),
    chunk(content="Hel"),
    chunk(content="lo"),
    chunk(tool_calls=[call(0, name="f", arguments="")]),
    chunk(tool_calls=[{"index": 0, "function": {"arguments": '{"a":'}}]),
    chunk(tool_calls=[{"index": 0, "function": {"arguments": "1}"}}]),
    chunk(finish="tool_calls"),
]


def test_events_come_in_the_order_of_the_api() -> None:
    assert told(encoded(TURN)) == [
        "created", "in_progress",
        "output_item.added", "reasoning_summary_part.added",
        "reasoning_summary_text.delta", "reasoning_summary_text.delta",
        "reasoning_summary_text.done", "reasoning_summary_part.done", "output_item.done",
        "output_item.added", "content_part.added", "output_text.delta", "output_text.delta",
        "output_text.done", "content_part.done", "output_item.done",
        "output_item.added", "function_call_arguments.delta", "function_call_arguments.delta",
        "function_call_arguments.done", "output_item.done",
        "completed",
    ]  # fmt: skip


def test_the_last_event_has_all_of_it() -> None:
    response = final(encoded(TURN))
    assert response["output"] == [
        {
            "id": "rs_abc_0",
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": "I think"}],
            "encrypted_content": None,
            "status": "completed",
        },
        {
            "id": "msg_abc_1",
            "type": "message",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Hello", "annotations": [], "logprobs": []}],
        },
        {
            "id": "fc_abc_2",
            "type": "function_call",
            "status": "completed",
            "call_id": "c0",
            "name": "f",
            "arguments": '{"a":1}',
        },
    ]
    assert response["usage"] == RESPONSES_USAGE
    assert {name: response[name] for name in ("id", "object", "status", "created_at", "model", "error")} == {
        "id": "resp_abc",
        "object": "response",
        "status": "completed",
        "created_at": 17,
        "model": "served",
        "error": None,
    }


def test_a_response_says_what_was_asked() -> None:
    response = final(encoded([chunk(content="x", finish="stop")]))
    assert (response["temperature"], response["top_p"], response["tool_choice"]) == (0.5, 1.0, "auto")
    assert response["tools"] == [{"type": "function", "name": "f", "parameters": None, "strict": None}]
    asked = {
        "instructions": "be kind", "metadata": {"a": "b"}, "previous_response_id": "resp_0", "store": False,
        "max_output_tokens": 20, "parallel_tool_calls": False, "truncation": "disabled", "user": "u", "top_logprobs": 1,
    }  # fmt: skip
    more = {**asked, "text": {"format": {"type": "json_object"}}, "reasoning": {"effort": "low"}}
    response = final(encoded([chunk(content="x", finish="stop")], original={**ORIGINAL, **more}))
    assert {name: response[name] for name in asked} == asked
    assert response["text"] == {"format": {"type": "json_object"}}
    assert response["reasoning"] == {"effort": "low", "summary": None}


@pytest.mark.parametrize(
    ("finish", "status", "details"),
    [
        ("stop", "completed", None),
        ("tool_calls", "completed", None),
        ("length", "incomplete", {"reason": "max_output_tokens"}),
        ("content_filter", "incomplete", {"reason": "content_filter"}),
        ("insufficient_system_resource", "incomplete", None),
        (None, "incomplete", None),
    ],
)
def test_why_an_answer_ended_is_its_status(finish: str | None, status: str, details: JSON | None) -> None:
    response = final(encoded([chunk(content="x"), chunk(finish=finish)]))
    assert (response["status"], response["incomplete_details"]) == (status, details)
    assert response["output"][0]["status"] == status
    assert responses.finished(response) == (status == "completed")


def test_only_the_last_item_of_an_answer_is_cut() -> None:
    response = final(encoded([*TURN[:-1], chunk(finish="length")]))
    assert [item["status"] for item in response["output"]] == ["completed", "completed", "incomplete"]


def test_an_answer_that_says_nothing_is_an_empty_text() -> None:
    (message,) = final(encoded([chunk(role="assistant", content=""), chunk(finish="stop")]))["output"]
    assert message["content"] == [{"type": "output_text", "text": "", "annotations": [], "logprobs": []}]
    assert final(encoded([chunk(role="assistant", content=""), chunk(finish="length")]))["output"] == []


def test_calls_that_are_mixed_are_told_apart() -> None:
    mixed = [
        chunk(tool_calls=[call(0, name="f", arguments="1"), call(1, name="g", arguments="2")]),
        chunk(tool_calls=[{"index": 0, "function": {"arguments": "3"}}]),
        chunk(tool_calls=[{"index": 1, "function": {"arguments": "4"}}]),
        chunk(finish="tool_calls"),
    ]
    response = final(encoded(mixed))
    assert [(item["name"], item["arguments"]) for item in response["output"]] == [("f", "13"), ("g", "24")]


def test_calls_that_nobody_counts_are_told_apart() -> None:
    uncounted = [{**call(0, name="f", arguments="1")}, {**call(1, name="g", arguments="2")}]
    for one in uncounted:
        del one["index"]
    response = final(encoded([chunk(tool_calls=uncounted), chunk(finish="tool_calls")]))
    assert [(item["call_id"], item["name"]) for item in response["output"]] == [("c0", "f"), ("c1", "g")]


def test_calls_that_all_have_one_index_are_told_apart() -> None:
    same = [
        chunk(tool_calls=[{**call(0, name="f", arguments="1"), "id": "x"}]),
        chunk(tool_calls=[{**call(0, arguments="2"), "id": "x"}]),
        chunk(tool_calls=[{"index": 0, "function": {"arguments": "3"}}]),
        chunk(tool_calls=[{**call(0, name="g", arguments="4"), "id": "y"}]),
        chunk(finish="tool_calls"),
    ]
    output = final(encoded(same))["output"]
    assert [(item["call_id"], item["name"], item["arguments"]) for item in output] == [
        ("x", "f", "123"),
        ("y", "g", "4"),
    ]
    assert len({item["id"] for item in output}) == 2


def test_a_refusal_is_a_part_of_its_own() -> None:
    stream = encoded([chunk(content="So: "), chunk(refusal="no"), chunk(finish="stop")])
    assert [kind for kind in told(stream) if kind.startswith("refusal")] == ["refusal.delta", "refusal.done"]
    (message,) = final(stream)["output"]
    assert [part["type"] for part in message["content"]] == ["output_text", "refusal"]


def test_citations_and_probabilities_are_passed_on() -> None:
    cited = {"url": "https://x", "title": "t", "start_index": 0, "end_index": 2}
    token = {"token": "Hi", "logprob": -0.1, "top_logprobs": [{"token": "Hi", "logprob": -0.1, "bytes": [72, 105]}]}
    said = chunk(content="Hi", annotations=[{"type": "url_citation", "url_citation": cited}])
    said["choices"][0]["logprobs"] = {"content": [token]}
    stream = encoded([said, chunk(finish="stop")])
    part = final(stream)["output"][0]["content"][0]
    assert part["annotations"] == [{"type": "url_citation", **cited}]
    assert part["logprobs"] == [{**token, "bytes": []}]
    assert "output_text.annotation.added" in told(stream)


BLOCKS = [
    {"type": "thinking", "thinking": "one", "signature": "s1"},
    {"type": "redacted_thinking", "data": "xyz"},
    {"type": "thinking", "thinking": "two", "signature": "s2"},
]


def test_signed_reasoning_comes_back_to_its_provider() -> None:
    stream = encoded([
        chunk(reasoning_content="o"), chunk(reasoning_content="ne"),
        chunk(thinking_blocks=[{"type": "thinking", "signature": "s1"}]),
        chunk(thinking_blocks=[BLOCKS[1]]),
        chunk(reasoning_content="two"), chunk(thinking_blocks=[{"type": "thinking", "signature": "s2"}]),
        chunk(content="so"), chunk(finish="stop"),
    ])  # fmt: skip
    response = final(stream)
    assert [part["text"] for part in response["output"][0]["summary"]] == ["one", "two"]
    chat, _ = responses.body({"model": "m", "input": response["output"]})
    assert chat["messages"] == [
        {"role": "assistant", "reasoning_content": "one\ntwo", "thinking_blocks": BLOCKS, "content": "so"}
    ]


def test_a_package_that_is_used_up_is_told() -> None:
    last = chunk(finish="length")
    last["choices"][0]["x_moma"] = {"reason": "quota_exhausted"}
    response = final(encoded([chunk(content="x"), last]))
    assert response["x_moma"] == {"reason": "quota_exhausted"}
    assert response["status"] == "incomplete"


def test_no_usage_is_none() -> None:
    assert final(encoded([chunk(content="x", finish="stop")], usage=None))["usage"] is None


def test_a_stream_without_its_last_event_is_not_whole() -> None:
    stream = encoded(TURN)
    pieces = split_events(stream)
    assert responses.whole(b"".join(pieces[:-1])) is None
    assert responses.whole(b"") is None
    broken = b"".join(pieces[:-1]) + responses.error_event({"message": "gone", "code": "backend_error"}, 502, 3)
    assert responses.whole(broken) is None
    assert responses.whole(stream + b"data: nonsense\n\n") is None


def test_an_error_in_a_stream_is_where_clients_look() -> None:
    value = {"message": "gone", "type": "api_error", "param": None, "code": "backend_error"}
    (event,) = [orjson.loads(event_data(responses.error_event(value, 502, 7)) or b"")]
    assert event == {
        "type": "error",
        "sequence_number": 7,
        "code": "backend_error",
        "message": "gone",
        "param": None,
        "error": value,
    }
    assert responses.error(value, 502) == {"error": value}


@pytest.mark.parametrize(
    ("chat", "ours"),
    [
        ("messages[3].content", "input"),
        ("max_tokens", "max_output_tokens"),
        ("response_format.json_schema", "text.format"),
        ("tools[2]", "tools[2]"),
        (None, None),
    ],
)
def test_errors_name_the_fields_of_this_api(chat: str | None, ours: str | None) -> None:
    value = {"message": "m", "type": "invalid_request_error", "param": chat, "code": "invalid_value"}
    assert responses.error(value, 400) == {"error": {**value, "param": ours}}
    assert value["param"] == chat


@pytest.mark.parametrize(
    "bad", [{"choices": [7]}, {"choices": [{"delta": {"content": 7}}]}, {"choices": [{"delta": "x"}]}, {"choices": 7}]
)
def test_what_is_no_chunk_is_a_broken_stream(bad: JSON) -> None:
    with pytest.raises(AttemptFailed):
        responses.Encoder(ORIGINAL).feed({**HEAD, **bad})


@pytest.mark.parametrize("value", [{"choices": []}, {"choices": 7}, {}, {"choices": [{"message": "x"}]}])
def test_what_is_no_answer_is_broken(value: JSON) -> None:
    with pytest.raises(AttemptFailed):
        responses.answer(value, ORIGINAL)


def test_ids_say_which_response_an_item_is_in() -> None:
    assert stem_of("chatcmpl-a_b-c") == "a_b-c"
    assert response_of("msg_a_b-c_12") == "resp_a_b-c"
    assert len({stem_of(odd) for odd in ("a b", "a/b", "x" * 200, None)}) == 4
    assert all(len(stem_of(odd)) == 32 for odd in ("a b", "a/b", "x" * 200, None))
    assert response_of("nonsense") is None


# -- whole and streamed are the same ------------------------------------------------------------------------------

TEXTS = st.text(max_size=6)
TOKENS = st.lists(st.fixed_dictionaries({"token": TEXTS, "logprob": st.just(-0.5), "bytes": st.just([1])}), max_size=2)
CALLS = st.lists(st.fixed_dictionaries({"name": TEXTS, "arguments": TEXTS}), max_size=3)
SOME_BLOCKS = st.lists(
    st.one_of(
        st.fixed_dictionaries({"type": st.just("thinking"), "thinking": TEXTS, "signature": TEXTS}),
        st.fixed_dictionaries({"type": st.just("redacted_thinking"), "data": TEXTS}),
    ),
    max_size=3,
)


@st.composite
def answers(draw: st.DrawFn) -> JSON:
    message: JSON = {"role": "assistant", "content": draw(st.none() | TEXTS)}
    blocks = draw(SOME_BLOCKS)
    if blocks:
        message["thinking_blocks"] = blocks
        message["reasoning_content"] = "".join(block.get("thinking", "") for block in blocks)
    elif draw(st.booleans()):
        message["reasoning_content"] = draw(TEXTS)
    if draw(st.booleans()):
        message["refusal"] = draw(TEXTS)
    if draw(st.booleans()):
        cited = {"url": "u", "title": "t", "start_index": 0, "end_index": 0}
        message["annotations"] = [{"type": "url_citation", "url_citation": cited}]
    calls = draw(CALLS)
    if calls:
        message["tool_calls"] = [
            {"id": f"c{place}", "type": "function", "function": made} for place, made in enumerate(calls)
        ]
    finish = draw(st.sampled_from(["stop", "length", "tool_calls", "content_filter"]))
    choice = {"index": 0, "message": message, "finish_reason": finish, "logprobs": {"content": draw(TOKENS)}}
    return {**HEAD, "object": "chat.completion", "choices": [choice], "usage": draw(st.none() | st.just(USAGE))}


def streamed(value: JSON, cuts: st.DataObject) -> list[JSON]:
    """The chunks that a backend might send of an answer."""
    (choice,) = value["choices"]
    message = choice["message"]
    chunks = [chunk(role="assistant", content="")]
    blocks = message.get("thinking_blocks", ())
    for block in blocks:
        chunks += [chunk(reasoning_content=piece) for piece in cut(block.get("thinking", ""), cuts)]
        sealed = {"type": "thinking", "signature": block["signature"]} if block["type"] == "thinking" else block
        chunks.append(chunk(thinking_blocks=[sealed]))
    if not blocks:
        chunks += [chunk(reasoning_content=piece) for piece in cut(message.get("reasoning_content", ""), cuts)]
    said = [chunk(content=piece) for piece in cut(message["content"] or "", cuts)] or [chunk(content="")]
    said[0]["choices"][0]["logprobs"] = choice["logprobs"]
    chunks += said
    if message.get("annotations"):
        chunks.append(chunk(annotations=message["annotations"]))
    chunks += [chunk(refusal=piece) for piece in cut(message.get("refusal", ""), cuts)]
    for index, made in enumerate(message.get("tool_calls", ())):
        function = made["function"]
        chunks.append(chunk(tool_calls=[call(index, name=function["name"], arguments="")]))
        pieces = cut(function["arguments"], cuts)
        chunks += [chunk(tool_calls=[{"index": index, "function": {"arguments": piece}}]) for piece in pieces]
    return [*chunks, chunk(finish=choice["finish_reason"])]


def cut(text: str, cuts: st.DataObject) -> list[str]:
    if not text:
        return []
    at = cuts.draw(st.integers(0, len(text)))
    return [piece for piece in (text[:at], text[at:]) if piece]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(answers(), st.data())
def test_a_stream_says_what_the_whole_answer_says(value: JSON, cuts: st.DataObject) -> None:
    stream = encoded(streamed(value, cuts), value["usage"])
    whole = responses.answer(value, ORIGINAL)
    assert final(stream) == whole
    replayed = responses.replay(whole)
    assert replayed is not None
    assert final(replayed) == whole
    Response.model_validate(whole)
    for event in events(stream):
        EVENTS.validate_python(event)
    assert_items_are_framed(events(stream))


def assert_items_are_framed(told: list[JSON]) -> None:
    """Deltas come between the beginning and the end of what they are of, and join to what its end says."""
    for event in told:
        kind = event["type"].removeprefix("response.")
        if kind.endswith(".done") and kind != "output_item.done":
            same = [
                other
                for other in told
                if other["type"] == event["type"].replace(".done", ".delta")
                and all(other.get(at) == event.get(at) for at in ("output_index", "content_index", "summary_index"))
            ]
            text = event.get("text", event.get("refusal", event.get("arguments")))
            if text is not None:
                assert "".join(other["delta"] for other in same) == text
                assert all(other["sequence_number"] < event["sequence_number"] for other in same)
    added = [event["output_index"] for event in told if event["type"] == "response.output_item.added"]
    done = sorted(event["output_index"] for event in told if event["type"] == "response.output_item.done")
    assert added == done == list(range(len(added)))


@pytest.mark.parametrize(
    "change",
    [
        {"output": [{"type": "web_search_call", "id": "ws_1"}]},
        {"id": "resp_of somebody else"},
        {"usage": 7, "status": "failed"},
        {"output": [{"type": "reasoning", "id": "rs_abc_0", "summary": [], "encrypted_content": "gAAA"}]},
        {"conversation": {"id": "conv_1"}},
    ],
)
def test_a_response_of_another_make_is_not_replayed(change: JSON) -> None:
    assert responses.replay({**final(encoded(TURN)), **change}) is None
