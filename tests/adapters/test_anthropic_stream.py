"""Streams of Anthropic's Messages API: events in, chunks out, however the bytes come."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletionChunk

from gateway.adapters.anthropic import Decoder
from gateway.errors import AttemptFailed
from gateway.sse import EventSplitter

JSON = dict[str, Any]


def event(kind: str, **more: Any) -> bytes:
    return f"event: {kind}\ndata: ".encode() + orjson.dumps({"type": kind, **more}) + b"\n\n"


def start(**usage: Any) -> bytes:
    message: JSON = {"id": "msg_1", "type": "message", "role": "assistant", "content": [], "model": "claude-opus-4-8",
               "stop_reason": None, "stop_sequence": None, "usage": usage}  # fmt: skip
    return event("message_start", message=message)


def block(index: int, begun: JSON, *deltas: JSON) -> bytes:
    data = event("content_block_start", index=index, content_block=begun)
    for delta in deltas:
        data += event("content_block_delta", index=index, delta=delta)
    return data + event("content_block_stop", index=index)


def text(index: int, *pieces: str) -> bytes:
    return block(index, {"type": "text", "text": ""}, *({"type": "text_delta", "text": piece} for piece in pieces))


def tool(index: int, call_id: str, name: str, *pieces: str, given_input: JSON | None = None) -> bytes:
    begun = {"type": "tool_use", "id": call_id, "name": name, "input": given_input or {}}
    return block(index, begun, *({"type": "input_json_delta", "partial_json": piece} for piece in pieces))


def end(stop_reason: str | None = "end_turn", stop_sequence: str | None = None, **usage: Any) -> bytes:
    said = {"stop_reason": stop_reason, "stop_sequence": stop_sequence}
    return event("message_delta", delta=said, usage=usage) + event("message_stop")


def chunks(*deltas: JSON, finish: JSON | None = None, usage: JSON) -> list[JSON]:
    head = {"id": "msg_1", "object": "chat.completion.chunk", "created": 0, "model": "claude-opus-4-8"}
    said: list[JSON] = [{"role": "assistant", "content": ""}, *deltas]
    choices: list[JSON] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in said]
    choices.append({"index": 0, "delta": {}, **(finish or {"finish_reason": "stop"})})
    return [*({**head, "choices": [choice]} for choice in choices), {**head, "choices": [], "usage": usage}]


def used(prompt: int, completion: int, **more: Any) -> JSON:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion, **more}


def call(index: int, arguments: str, **named: Any) -> JSON:
    name = {"name": named.pop("name")} if named else {}
    return {"tool_calls": [{"index": index, **named, "function": {**name, "arguments": arguments}}]}


def feed(decoder: Decoder, data: bytes, step: int = 100_000) -> list[JSON]:
    splitter, made = EventSplitter(), list[JSON]()
    for first in range(0, len(data), step):
        for raw in splitter.feed(data[first : first + step]):
            made += decoder.feed(raw)
    return made


PING = event("ping")
PAGE = {"type": "web_search_result_location", "url": "https://x.example", "title": "X"}
# The first two have the figures of https://platform.claude.com/docs/en/build-with-claude/streaming.
STREAMS: list[tuple[str, bytes, list[JSON]]] = [
    ("text", start(input_tokens=25, output_tokens=1) + PING + text(0, "Hello", "", "!") + end(output_tokens=15),
     chunks({"content": "Hello"}, {"content": "!"}, usage=used(25, 15))),
    ("tools", start(input_tokens=472, output_tokens=2) + text(0, "Okay")
     + tool(1, "toolu_1", "weather", "", '{"city":', ' "Paris"}') + tool(2, "toolu_2", "clock", "")
     + end("tool_use", output_tokens=89),
     chunks({"content": "Okay"}, call(0, "", id="toolu_1", type="function", name="weather"), call(0, '{"city":'),
            call(0, ' "Paris"}'), call(1, "", id="toolu_2", type="function", name="clock"), call(1, "{}"),
            finish={"finish_reason": "tool_calls"}, usage=used(472, 89))),
    ("an input that comes whole", start(input_tokens=1) + tool(0, "t", "f", given_input={"a": 1})
     + end("tool_use", output_tokens=2),
     chunks(call(0, "", id="t", type="function", name="f"), call(0, '{"a":1}'),
            finish={"finish_reason": "tool_calls"}, usage=used(1, 2))),
    ("thinking", start(input_tokens=5, output_tokens=0)
     + block(0, {"type": "thinking", "thinking": "", "signature": ""}, {"type": "thinking_delta", "thinking": "27"},
             {"type": "thinking_delta", "thinking": " * 453"}, {"type": "signature_delta", "signature": "EqQB"})
     + block(1, {"type": "redacted_thinking", "data": "Eroe"}) + text(2, "12231")
     + end(output_tokens=9, output_tokens_details={"thinking_tokens": 6}),
     chunks({"reasoning_content": "27"}, {"reasoning_content": " * 453"},
            {"thinking_blocks": [{"type": "thinking", "signature": "EqQB"}]},
            {"thinking_blocks": [{"type": "redacted_thinking", "data": "Eroe"}]}, {"content": "12231"},
            usage=used(5, 9, completion_tokens_details={"reasoning_tokens": 6}))),
    ("a search by the API itself", start(input_tokens=2679, output_tokens=3) + text(0, "I search")
     + block(1, {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
             {"type": "input_json_delta", "partial_json": '{"query"'})
     + block(2, {"type": "web_search_tool_result", "tool_use_id": "s", "content": []})
     + block(3, {"type": "text", "text": "", "citations": []}, {"type": "citations_delta", "citation": PAGE},
             {"type": "citations_delta", "citation": {"type": "page_location"}}, {"type": "text_delta", "text": "sun"})
     + end(input_tokens=10682, cache_read_input_tokens=0, output_tokens=510,
           server_tool_use={"web_search_requests": 1}),
     chunks({"content": "I search"}, {"content": "sun"},
            {"annotations": [{"type": "url_citation", "url_citation": {
                "start_index": 8, "end_index": 11, "url": "https://x.example", "title": "X"}}]},
            usage=used(10682, 510, prompt_tokens_details={"cached_tokens": 0}))),
    ("a prompt that is written to the cache", start(
        input_tokens=3, cache_creation_input_tokens=30, cache_read_input_tokens=None, output_tokens=1,
        cache_creation={"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
     ) + text(0, "x") + end("stop_sequence", "END", input_tokens=3, cache_creation_input_tokens=30, output_tokens=4),
     chunks({"content": "x"}, finish={"finish_reason": "stop", "stop_reason": "END"},
            usage=used(33, 4, prompt_tokens_details={"cache_write_tokens": 10, "cache_write_1h_tokens": 20}))),
    ("what is yet to come", start(input_tokens=1) + event("news", of="the API")
     + block(0, {"type": "hologram"}, {"type": "hologram_delta"})
     + block(1, {"type": "text", "text": "a"}, {"type": "b"}) + end("max_tokens", output_tokens=2),
     chunks({"content": "a"}, finish={"finish_reason": "length"}, usage=used(1, 2))),
]  # fmt: skip


@pytest.mark.parametrize(("data", "expected"), [row[1:] for row in STREAMS], ids=[row[0] for row in STREAMS])
@pytest.mark.parametrize("step", [1, 7, 100_000])
@pytest.mark.parametrize("trailing", [b"", b"data: [DONE]\n\n", event("error", error={}), b"data: cut"])
def test_streams(data: bytes, expected: list[JSON], step: int, trailing: bytes) -> None:
    decoder = Decoder()
    assert feed(decoder, data + trailing, step) == expected
    assert decoder.done


@pytest.mark.parametrize("data", [row[1] for row in STREAMS], ids=[row[0] for row in STREAMS])
def test_a_stream_that_is_cut_is_not_done(data: bytes) -> None:
    decoder, events = Decoder(), EventSplitter().feed(data)
    for raw in events[:-1]:
        decoder.feed(raw)
    assert not decoder.done


@pytest.mark.parametrize("data", [row[1] for row in STREAMS], ids=[row[0] for row in STREAMS])
def test_chunks_are_those_of_openai_s_sdk(data: bytes) -> None:
    for chunk in feed(Decoder(), data):
        ChatCompletionChunk.model_validate(chunk)


def test_a_refusal_says_why() -> None:
    decoder = Decoder()
    decoder.feed(start(input_tokens=1))
    said = {"stop_reason": "refusal", "stop_details": {"type": "refusal", "explanation": "Not that."}}
    (chunk,) = decoder.feed(event("message_delta", delta=said, usage={"output_tokens": 1}))
    assert chunk["choices"][0]["delta"] == {"refusal": "Not that."}
    assert chunk["choices"][0]["finish_reason"] == "content_filter"


def test_a_stream_without_usage_has_no_chunk_of_it() -> None:
    decoder = Decoder()
    decoder.feed(start())
    decoder.feed(event("message_delta", delta={"stop_reason": "end_turn"}))
    assert decoder.feed(event("message_stop")) == []
    assert decoder.done


def test_the_first_tokens_are_not_taken_for_all() -> None:
    made = feed(Decoder(), start(input_tokens=25, output_tokens=1) + text(0, "a long answer") + end())
    assert made[-1]["usage"] == {"prompt_tokens": 25, "completion_tokens": None}


OVERLOADED = event("error", error={"type": "overloaded_error", "message": "Overloaded"})
DELTA = event("content_block_delta", index=0, delta={"type": "text_delta", "text": "x"})
OPEN = event("content_block_start", index=0, content_block={"type": "text", "text": ""})


@pytest.mark.parametrize(
    "data",
    [
        OVERLOADED, start() + OVERLOADED, start() + text(0, "x") + OVERLOADED, b"data: <html>\n\n", b"data: []\n\n",
        OPEN, event("message_stop"), start() + DELTA, start() + text(0, "x") + DELTA, start() + OPEN + event(
            "content_block_delta", index=1, delta={"type": "text_delta", "text": "x"}),
        start() + OPEN + event("content_block_delta", index=0, delta={"type": "text_delta"}),
        start() + OPEN + event("content_block_delta", index=0), start() + event("content_block_start", index=0),
        start() + event("message_stop"), start() + end(None), event("message_start"), start() + block(0, {"type": 5}),
        start() + block(0, {"type": "tool_use", "id": "t"}), start() + event("message_delta", delta={"stop_reason": 5}),
    ],
)  # fmt: skip
def test_nonsense_and_errors_are_broken(data: bytes) -> None:
    decoder = Decoder()
    with pytest.raises(AttemptFailed) as failed:
        feed(decoder, data)
    assert failed.value.kind == "broken"
    assert not decoder.done


JUNK = st.recursive(
    st.none() | st.integers(0, 2) | st.sampled_from(["", "text", "tool_use", "thinking", "x"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(
        st.sampled_from(["type", "text", "citation", "stop_reason", "usage", "id", "name", "input_tokens"]), inner,
        max_size=3,
    ),
    max_leaves=5,
)  # fmt: skip
EVENTS = st.lists(
    st.sampled_from([raw for _, data, _ in STREAMS for raw in EventSplitter().feed(data)])
    | st.builds(
        lambda kind, fields: event(kind, **fields),
        st.sampled_from(["message_start", "content_block_start", "content_block_delta", "message_delta"]),
        st.dictionaries(st.sampled_from(["message", "content_block", "delta", "index", "usage"]), JUNK, max_size=3),
    ),
    max_size=12,
)


@given(EVENTS)
def test_any_order_of_any_events_is_chunks_or_broken(events: list[bytes]) -> None:
    decoder = Decoder()
    decoder.feed(start())
    for raw in events:
        try:
            made = decoder.feed(raw)
        except AttemptFailed:
            return
        assert all(chunk["object"] == "chat.completion.chunk" for chunk in orjson.loads(orjson.dumps(made)))
