from __future__ import annotations

import random
from typing import Any

import orjson
import pytest

from gateway.call import JSON
from gateway.dialects.messages import Encoder, answer, finished, replay, whole
from gateway.dialects.messages_stream import event
from gateway.sse import event_data, split_events

HEAD = {"id": "chatcmpl-7", "object": "chat.completion.chunk", "model": "m-1"}
SAID = {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}


def chunk(delta: JSON, finish: str | None = None, **more: Any) -> JSON:
    return {**HEAD, "choices": [{"index": 0, "delta": delta, "finish_reason": finish, **more}]}


def called(index: Any, arguments: str = "", **more: Any) -> JSON:
    return {"index": index, "function": {"arguments": arguments}, **more}


def opened(index: Any, name: str = "f", arguments: str = "") -> JSON:
    return {
        "index": index,
        "id": f"call_{name}",
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def calls(*parts: JSON) -> JSON:
    return chunk({"tool_calls": list(parts)})


def events(stream: bytes) -> list[JSON]:
    """The events of a stream, each of whose names is its type."""
    values = []
    for raw in split_events(stream):
        value = orjson.loads(event_data(raw) or b"")
        assert raw == event(value)
        values.append(value)
    return values


def encoded(*chunks: JSON, original: JSON | None = None, said: JSON | None = SAID) -> bytes:
    encoder = Encoder(original or {})
    return b"".join([encoder.feed(one) for one in chunks]) + encoder.end(said)


def blocks(stream: bytes) -> Any:
    """The content that the stream stands for, which is in Anthropic's order."""
    message = whole(stream)
    assert message is not None
    return message["content"]


def short(stream: bytes) -> list[str]:
    """An event as a word: its index, and what it is about."""
    words = []
    for value in events(stream):
        kind = value["type"].removeprefix("content_block_").removeprefix("message_")
        about: JSON = value.get("content_block") or (value.get("delta") if "index" in value else None) or {}
        said = [about.get(name) for name in ("text", "thinking", "signature", "partial_json", "name")]
        text = [str(one) for one in said if one]
        words.append(" ".join([kind, *([str(value["index"])] if "index" in value else []), *text]))
    return words


def test_a_plain_stream() -> None:
    usage = {"input_tokens": 5, "cache_read_input_tokens": 4, "output_tokens": 3}
    chunks = [chunk({"role": "assistant", "content": ""}), chunk({"content": "Hel"}), chunk({"content": "lo."})]
    assert events(encoded(*chunks, chunk({}, "stop"), {**HEAD, "choices": [], "usage": SAID})) == [
        {
            "type": "message_start",
            "message": {
                "id": "msg_7", "type": "message", "role": "assistant", "model": "m-1", "content": [],
                "stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 0, "output_tokens": 0},
            },
        },
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hel"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "lo."}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": usage},
        {"type": "message_stop"},
    ]  # fmt: skip


def test_text_is_sent_as_it_comes() -> None:
    encoder = Encoder({})
    assert short(encoder.feed(chunk({"role": "assistant"}))) == ["start"]
    assert short(encoder.feed(chunk({"content": "a"}))) == ["start 0", "delta 0 a"]
    assert short(encoder.feed(chunk({"content": "b"}))) == ["delta 0 b"]
    assert short(encoder.feed(chunk({}, "stop"))) == ["stop 0"]
    assert short(encoder.end(SAID)) == ["delta", "stop"]


def test_what_comes_before_the_answer_does_not_begin_it() -> None:
    # Azure says first what its filter found in the prompt, without an id.
    encoder = Encoder({})
    assert encoder.feed({"id": "", "model": "", "choices": [], "prompt_filter_results": []}) == b""
    assert events(encoder.feed(chunk({"role": "assistant"})))[0]["message"]["id"] == "msg_7"


def test_a_stream_of_nothing_has_a_beginning_and_an_end() -> None:
    assert short(encoded(said=None)) == ["start", "delta", "stop"]


def test_usage_that_is_known_at_the_beginning_is_said_there() -> None:
    first = {**chunk({"role": "assistant"}), "usage": {"prompt_tokens": 9, "completion_tokens": 1}}
    given = events(encoded(first, chunk({"content": "a"}, "stop"), said=None))
    assert given[0]["message"]["usage"] == {"input_tokens": 9, "output_tokens": 1}
    assert given[-2]["usage"] == {"input_tokens": 9, "output_tokens": 1}


def test_thinking_then_text() -> None:
    signature = {"thinking_blocks": [{"type": "thinking", "signature": "sig"}]}
    redacted = {"thinking_blocks": [{"type": "redacted_thinking", "data": "xyz"}]}
    thought = [chunk({"reasoning_content": "H"}), chunk({"reasoning_content": "m."}), chunk(signature)]
    stream = encoded(
        *thought, chunk({"reasoning_content": "So"}), chunk(signature), chunk(redacted), chunk({"content": "a"}, "stop")
    )
    assert blocks(stream) == [
        {"type": "thinking", "thinking": "Hm.", "signature": "sig"},
        {"type": "thinking", "thinking": "So", "signature": "sig"},
        {"type": "redacted_thinking", "data": "xyz"},
        {"type": "text", "text": "a"},
    ]


def test_reasoning_by_the_other_name_and_unsigned() -> None:
    assert blocks(encoded(chunk({"reasoning": "Hm."}), chunk({"content": "a"}, "stop"))) == [
        {"type": "thinking", "thinking": "Hm.", "signature": ""},
        {"type": "text", "text": "a"},
    ]


def test_thinking_that_shall_not_be_shown_leaves_its_signature() -> None:
    original = {"thinking": {"type": "adaptive", "display": "omitted"}}
    signature = {"thinking_blocks": [{"type": "thinking", "signature": "sig"}]}
    chunks = [chunk({"reasoning_content": "Hm."}), chunk(signature), chunk({"content": "a"}, "stop")]
    assert blocks(encoded(*chunks, original=original)) == [
        {"type": "thinking", "thinking": "", "signature": "sig"},
        {"type": "text", "text": "a"},
    ]
    assert blocks(encoded(chunks[0], chunks[2], original=original)) == [{"type": "text", "text": "a"}]


def test_a_call() -> None:
    chunks = [
        chunk({"content": "Let me see."}),
        calls(opened(0, "weather")),
        calls(called(0, '{"a"')),
        calls(called(0, ": 1}")),
    ]
    stream = encoded(*chunks, chunk({}, "tool_calls"))
    assert short(stream)[1:-2] == [
        "start 0", "delta 0 Let me see.", "stop 0", "start 1 weather", 'delta 1 {"a"', "delta 1 : 1}", "stop 1",
    ]  # fmt: skip
    assert blocks(stream)[1] == {"type": "tool_use", "id": "call_weather", "name": "weather", "input": {"a": 1}}
    assert events(stream)[-2]["delta"]["stop_reason"] == "tool_use"


def test_calls_one_after_the_other_are_sent_as_they_come() -> None:
    encoder = Encoder({})
    encoder.feed(calls(opened(0, "f", '{"a": 1}')))
    assert short(encoder.feed(calls(opened(1, "g")))) == ["stop 0", "start 1 g"]
    assert short(encoder.feed(calls(called(1, "{")))) == ["delta 1 {"]


def test_calls_that_interleave_wait_for_the_one_before() -> None:
    encoder = Encoder({})
    assert short(encoder.feed(calls(opened(0, "f"), opened(1, "g"), called(0, '{"a"'), called(1, "{")))) == [
        "start", "start 0 f", 'delta 0 {"a"',
    ]  # fmt: skip
    assert encoder.feed(calls(called(1, "}"))) == b""
    assert short(encoder.feed(calls(called(0, ": 1}")))) == ["delta 0 : 1}"]
    assert short(encoder.feed(calls(opened(2, "h")))) == [
        "stop 0", "start 1 g", "delta 1 {", "delta 1 }", "stop 1", "start 2 h",
    ]  # fmt: skip
    assert short(encoder.feed(chunk({}, "tool_calls"))) == ["stop 2"]


def test_text_behind_a_call_waits_for_it_too() -> None:
    stream = encoded(
        calls(opened(0, "f", '{"a"')),
        chunk({"content": "b"}),
        calls(called(0, ": 1}")),
        chunk({"content": "c"}, "stop"),
    )
    assert blocks(stream) == [
        {"type": "tool_use", "id": "call_f", "name": "f", "input": {"a": 1}},
        {"type": "text", "text": "bc"},
    ]


def test_calls_of_one_index_are_told_apart_by_their_ids() -> None:
    stream = encoded(calls(opened(0, "f", "{}")), calls(opened(0, "g", "{}")), calls(opened(None, "h", "{}")))
    assert [block["name"] for block in blocks(stream)] == ["f", "g", "h"]


def test_an_id_that_is_said_again_is_the_same_call() -> None:
    stream = encoded(calls(opened(0, "f", '{"a"')), calls(opened(0, "f", ": 1}")))
    assert blocks(stream) == [{"type": "tool_use", "id": "call_f", "name": "f", "input": {"a": 1}}]


def test_a_call_begins_when_it_has_a_name() -> None:
    encoder = Encoder({})
    assert short(encoder.feed(calls({"index": 0, "id": "call_1"}))) == ["start"]
    assert short(encoder.feed(calls(called(0, "{}")))) == []
    assert short(encoder.feed(calls({"index": 0, "function": {"name": "f"}}))) == ["start 0 f", "delta 0 {}"]


def test_a_call_without_an_id_gets_one() -> None:
    assert blocks(encoded(calls({"index": 0, "function": {"name": "f", "arguments": ""}})))[0] == {
        "type": "tool_use", "id": "toolu_7_0", "name": "f", "input": {},
    }  # fmt: skip


def test_a_call_that_was_cut_is_no_whole_answer() -> None:
    stream = encoded(calls(opened(0, "f", '{"a"')), chunk({}, "length"))
    assert events(stream)[-2]["delta"]["stop_reason"] == "max_tokens"
    assert whole(stream) is None


def test_a_stop_sequence() -> None:
    stream = encoded(
        chunk({"content": "a"}), chunk({}, "stop", stop_reason="END"), original={"stop_sequences": ["END"]}
    )
    assert events(stream)[-2]["delta"] == {"stop_reason": "stop_sequence", "stop_sequence": "END"}


def test_a_refusal() -> None:
    stream = encoded(chunk({"refusal": "No"}), chunk({"refusal": "."}), chunk({}, "stop"))
    assert blocks(stream) == [{"type": "text", "text": "No."}]
    assert events(stream)[-2]["delta"]["stop_reason"] == "refusal"


def test_pages_that_are_cited() -> None:
    page = {"url": "https://x", "title": "X", "start_index": 4, "end_index": 7}
    cited = {"annotations": [{"type": "url_citation", "url_citation": page}]}
    assert blocks(encoded(chunk({"content": "See "}), chunk({"content": "foo."}), chunk(cited, "stop"))) == [
        answer({"choices": [{"message": {"content": "See foo.", **cited}}]}, {})["content"][0]
    ]


def test_the_end_of_a_package_is_marked() -> None:
    stream = encoded({**chunk({}, "length"), "x_moma": {"reason": "quota_exhausted"}})
    assert events(stream)[-2]["x_moma"] == {"reason": "quota_exhausted"}
    assert events(stream)[-2]["delta"]["stop_reason"] == "max_tokens"


# -- any stream ---------------------------------------------------------------------------------------------------


def pieces(text: str, chance: random.Random) -> list[str]:
    cuts = sorted(chance.sample(range(len(text) + 1), min(len(text) + 1, chance.randrange(4))))
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def message_of(chance: random.Random) -> JSON:
    message: JSON = {"role": "assistant", "content": chance.choice([None, "", "Ja, 好。", "x" * 50])}
    if chance.random() < 0.5:
        message["reasoning_content"] = "Hm, so …"
        if chance.random() < 0.5:
            message["thinking_blocks"] = [{"type": "thinking", "thinking": "Hm, so …", "signature": "sig"}]
    if chance.random() < 0.7:
        arguments = ["", "{}", '{"a": "}{", "b": [1, 2.5, {"c": null}]}', '{"city": "Köln"}']
        message["tool_calls"] = [
            {
                "id": f"call_{place}",
                "type": "function",
                "function": {"name": f"f{place}", "arguments": chance.choice(arguments)},
            }
            for place in range(chance.randrange(1, 4))
        ]
    return message


def deltas_of(message: JSON, chance: random.Random) -> list[JSON]:
    """As a backend might stream it: calls begin in their order, and what they say interleaves."""
    deltas: list[JSON] = [
        {"reasoning_content": text} for text in pieces(message.get("reasoning_content") or "", chance)
    ]
    signed = message.get("thinking_blocks") or []
    deltas += [{"thinking_blocks": [{"type": "thinking", "signature": one["signature"]}]} for one in signed]
    deltas += [{"content": text} for text in pieces(message["content"] or "", chance)]
    made = message.get("tool_calls") or []
    lines = [
        [called(place, text) for text in pieces(one["function"]["arguments"], chance)] for place, one in enumerate(made)
    ]
    begun = 0
    while begun < len(made) or any(lines):
        ready = [place for place in range(begun) if lines[place]]
        if begun < len(made) and (not ready or chance.random() < 0.5):
            deltas.append({"tool_calls": [opened(begun, f"f{begun}") | {"id": f"call_{begun}"}]})
            begun += 1
        elif ready:
            deltas.append({"tool_calls": [lines[chance.choice(ready)].pop(0)]})
    return deltas


@pytest.mark.parametrize("seed", range(300))
def test_a_stream_means_what_the_whole_answer_means(seed: int) -> None:
    chance = random.Random(seed)
    message = message_of(chance)
    finish = "tool_calls" if "tool_calls" in message else "stop"
    stream = encoded(*[chunk(delta) for delta in deltas_of(message, chance)], chunk({}, finish))
    expected = answer({**HEAD, "choices": [{"message": message, "finish_reason": finish}], "usage": SAID}, {})
    assert whole(stream) == expected
    assert finished(expected)
    again = replay(expected)
    assert again is not None
    assert whole(again) == expected
