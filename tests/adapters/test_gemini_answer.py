from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.adapters import gemini
from gateway.adapters.gemini_usage import usage
from gateway.adapters.usage import normalise
from gateway.call import JSON, Usage
from gateway.errors import AttemptFailed
from gateway.sse import EventSplitter

USAGE = {"promptTokenCount": 34, "candidatesTokenCount": 418, "thoughtsTokenCount": 438, "totalTokenCount": 890}


def said(*parts: JSON, reason: str | None = "STOP", index: int = 0, **more: Any) -> JSON:
    candidate = {"content": {"role": "model", "parts": list(parts)}, "index": index, **more}
    return candidate if reason is None else {**candidate, "finishReason": reason}


def response(*candidates: JSON, **more: Any) -> JSON:
    return {"candidates": list(candidates), "modelVersion": "gemini-3-flash", "responseId": "r1", **more}


def choice(*parts: JSON, **more: Any) -> JSON:
    return dict(gemini.answer(response(said(*parts, **more)))["choices"][0])


def test_a_text() -> None:
    assert gemini.answer(response(said({"text": "Hi"}, {"text": " there"}), usageMetadata=USAGE)) == {
        "id": "r1",
        "object": "chat.completion",
        "created": 0,
        "model": "gemini-3-flash",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hi there", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 34,
            "completion_tokens": 856,
            "total_tokens": 890,
            "prompt_tokens_details": {},
            "completion_tokens_details": {"reasoning_tokens": 438},
        },
    }


def test_thoughts_and_signed_calls() -> None:
    found = choice(
        {"text": "Which city? ", "thought": True},
        {"text": "Paris.", "thought": True},
        {"functionCall": {"id": "f1", "name": "weather", "args": {"city": "Paris"}}, "thoughtSignature": "c2ln"},
        {"functionCall": {"name": "time"}},
    )
    made = found["message"]["tool_calls"][1]["id"]
    assert made.startswith("call_")
    assert len(made) == 29
    assert found == {
        "index": 0,
        "message": {
            "role": "assistant",
            "content": None, "refusal": None,
            "reasoning_content": "Which city? Paris.",
            "thinking_blocks": [
                {"type": "thinking", "thinking": "Which city? Paris.", "signature": "gemini:0:c2ln"}
            ],
            "tool_calls": [
                {
                    "id": "f1",
                    "type": "function",
                    "function": {"name": "weather", "arguments": '{"city":"Paris"}'},
                    "extra_content": {"google": {"thought_signature": "c2ln"}},
                },
                {"id": made, "type": "function", "function": {"name": "time", "arguments": "{}"}},
            ],
        },
        "logprobs": None,
        "finish_reason": "tool_calls",
    }  # fmt: skip


def test_an_id_that_is_made_is_the_same_each_time_and_another_for_another_call() -> None:
    def ids(response_id: str) -> list[str]:
        value = {**response(said(*[{"functionCall": {"name": "time"}}] * 2)), "responseId": response_id}
        return [call["id"] for call in gemini.answer(value)["choices"][0]["message"]["tool_calls"]]

    assert ids("r1") == ids("r1")
    assert len({*ids("r1"), *ids("r2")}) == 4


def test_what_a_signature_says_leads_back_to_its_part() -> None:
    spoken = choice({"text": "So.", "thoughtSignature": "dGV4dA=="}, {"functionCall": {"id": "f1", "name": "time"}})
    body = {"messages": [{"role": "user", "content": "?"}, spoken["message"]]}
    assert gemini.beyond(body) is None
    parts = gemini.request(body, "gemini-2.5-pro", 9, stream=False)["contents"][1]["parts"]
    assert parts == [
        {"text": "So.", "thoughtSignature": "dGV4dA=="},
        {"functionCall": {"id": "f1", "name": "time", "args": {}}},
    ]


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("STOP", "stop"), ("MAX_TOKENS", "length"), ("SAFETY", "content_filter"), ("RECITATION", "content_filter"),
        ("PROHIBITED_CONTENT", "content_filter"), ("SPII", "content_filter"), ("A_LATER_ONE", "content_filter"),
    ],
)  # fmt: skip
def test_why_it_ended(reason: str, expected: str) -> None:
    assert choice({"text": "x"}, reason=reason)["finish_reason"] == expected


def test_a_call_that_was_cut_is_no_call_to_make() -> None:
    assert choice({"functionCall": {"name": "time"}}, reason="MAX_TOKENS")["finish_reason"] == "length"


def test_a_blocked_prompt_is_filtered() -> None:
    value = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 9}}
    found = gemini.answer(value)
    assert (found["choices"][0]["finish_reason"], found["choices"][0]["message"]["content"]) == ("content_filter", None)
    assert (found["usage"]["prompt_tokens"], found["usage"]["completion_tokens"]) == (9, 0)


def test_several_candidates_and_log_probabilities() -> None:
    result = {
        "chosenCandidates": [{"token": "Hé", "tokenId": 5, "logProbability": -0.5}],
        "topCandidates": [{"candidates": [{"token": "Hé", "logProbability": -0.5}, {"token": "Yo"}]}],
    }
    value = response(said({"text": "Hé"}, logprobsResult=result), said({"text": "Yo"}, index=1))
    first, second = gemini.answer(value)["choices"]
    top = [
        {"token": "Hé", "logprob": -0.5, "bytes": [72, 195, 169]},
        {"token": "Yo", "logprob": 0.0, "bytes": [89, 111]},
    ]
    assert first["logprobs"] == {"content": [{**top[0], "top_logprobs": top}], "refusal": None}
    assert (second["index"], second["message"]["content"], second["logprobs"]) == (1, "Yo", None)


BROKEN: list[Any] = [
    [],
    {},
    {"candidates": {}},
    {"candidates": ["x"]},
    {"error": {"code": 500, "message": "x", "status": "INTERNAL"}},
    response(said({"text": "x"}, reason="MALFORMED_FUNCTION_CALL")),
    response(said({"inlineData": {"mimeType": "image/png", "data": ""}})),
    response(said({"functionCall": {"args": {}}})),
    response(said({"functionCall": "time"})),
    response(said("x")),  # type: ignore[arg-type]
    response(said({"text": "x"}, index=-1)),
    response(said({"text": "x"}, index="0")),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("value", BROKEN)
def test_what_is_no_answer_is_broken(value: Any) -> None:
    with pytest.raises(AttemptFailed) as failure:
        gemini.answer(value)
    assert failure.value.kind == "broken"


@pytest.mark.parametrize("value", [value for value in BROKEN if value != {}])
def test_what_is_no_answer_breaks_a_stream(value: Any) -> None:
    with pytest.raises(AttemptFailed) as failure:
        gemini.Decoder().feed(b"data: " + orjson.dumps(value) + b"\n\n")
    assert failure.value.kind == "broken"


# What the API has answered, with where it is shown.
GOLDEN: list[tuple[str, JSON, dict[str, int]]] = [
    ("https://firebase.google.com/docs/ai-logic/server-prompt-templates/get-started",
     {**USAGE, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 34}]},
     {"input": 34, "output": 418, "output_reasoning": 438}),
    ("thoughts used up the output: the few tokens behind them were cut",
     {"promptTokenCount": 844, "candidatesTokenCount": 46, "totalTokenCount": 2040, "thoughtsTokenCount": 1150,
      "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 844}], "serviceTier": "standard"},
     {"input": 844, "output": 46, "output_reasoning": 1150}),
    ("thoughts used up all of it: a 0 is left out",
     {"promptTokenCount": 844, "totalTokenCount": 1844, "thoughtsTokenCount": 1000},
     {"input": 844, "output_reasoning": 1000}),
    ("a cached image is cached, and no image besides",
     {"promptTokenCount": 9660, "candidatesTokenCount": 7, "totalTokenCount": 9667, "cachedContentTokenCount": 9651,
      "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 9402}, {"modality": "IMAGE", "tokenCount": 258}],
      "cacheTokensDetails": [{"modality": "TEXT", "tokenCount": 9393}, {"modality": "IMAGE", "tokenCount": 258}]},
     {"input": 9, "input_cached": 9651, "output": 7}),
    ("audio and an image of which nothing is cached, and results of Google's own tools",
     {"promptTokenCount": 500, "candidatesTokenCount": 30, "toolUsePromptTokenCount": 20, "totalTokenCount": 550,
      "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 42}, {"modality": "AUDIO", "tokenCount": 200},
                              {"modality": "IMAGE", "tokenCount": 258}],
      "candidatesTokensDetails": [{"modality": "TEXT", "tokenCount": 5}, {"modality": "AUDIO", "tokenCount": 25}]},
     {"input": 62, "input_audio": 200, "input_image": 258, "output": 5, "output_audio": 25}),
]  # fmt: skip


@pytest.mark.parametrize(("metadata", "expected"), [row[1:] for row in GOLDEN], ids=[row[0] for row in GOLDEN])
def test_usage_in_buckets(metadata: JSON, expected: dict[str, int]) -> None:
    found = normalise(usage(metadata), context=100_000, max_output=5000, choices=1, endpoint="chat")
    assert found == Usage({**expected, "calls": 1})
    assert found.input_tokens + found.output_tokens == metadata["totalTokenCount"]


@pytest.mark.parametrize("metadata", [None, {}, {"trafficType": "ON_DEMAND"}, [], {"promptTokenCount": None}])
def test_no_usage(metadata: Any) -> None:
    assert usage(metadata) is None


def test_usage_that_is_no_number_is_not_taken_for_one() -> None:
    said = usage({"promptTokenCount": 5, "candidatesTokenCount": "7"})
    assert normalise(said, context=100, max_output=100, choices=1, endpoint="chat") is None


def events(*values: JSON) -> bytes:
    return b"".join(b"data: " + orjson.dumps(value) + b"\r\n\r\n" for value in values)


def decoded(data: bytes, step: int) -> tuple[list[JSON], gemini.Decoder]:
    splitter, decoder, chunks = EventSplitter(), gemini.Decoder(), []
    for start in range(0, len(data), step):
        for event in splitter.feed(data[start : start + step]):
            chunks += decoder.feed(event)
    return chunks, decoder


def choices_of(chunks: list[JSON]) -> list[tuple[JSON, str | None]]:
    return [(choice["delta"], choice["finish_reason"]) for chunk in chunks for choice in chunk["choices"]]


STREAM = events(
    response(said({"text": "Hello!"}, reason=None), usageMetadata={"trafficType": "ON_DEMAND"}),
    response(said({"text": " How can"}, reason=None), usageMetadata={"promptTokenCount": 1, "totalTokenCount": 1}),
    response(
        said({"text": "", "thoughtSignature": "AY89"}),
        usageMetadata={"promptTokenCount": 1, "candidatesTokenCount": 9, "totalTokenCount": 10},
    ),
)


@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_a_stream(step: int) -> None:
    chunks, decoder = decoded(b": hello\n\n" + STREAM + b"data: trailing", step)
    assert choices_of(chunks) == [
        ({"role": "assistant", "content": ""}, None),
        ({"content": "Hello!"}, None),
        ({"content": " How can"}, None),
        ({"thinking_blocks": [{"type": "thinking", "signature": "gemini:text:AY89"}]}, None),
        ({}, "stop"),
    ]
    assert decoder.done
    last = chunks[-1]
    assert (last["choices"], last["usage"]["prompt_tokens"], last["usage"]["completion_tokens"]) == ([], 1, 9)
    assert {(chunk["id"], chunk["object"], chunk["model"]) for chunk in chunks} == {
        ("r1", "chat.completion.chunk", "gemini-3-flash")
    }


def test_a_stream_is_not_done_before_its_end() -> None:
    chunks, decoder = decoded(events(response(said({"text": "x"}, reason=None), usageMetadata=USAGE)), 10_000)
    assert not decoder.done
    assert all("usage" not in chunk for chunk in chunks)


def test_thoughts_and_calls_in_a_stream() -> None:
    data = events(
        response(said({"text": "Hm.", "thought": True}, reason=None)),
        response(said({"functionCall": {"id": "a", "name": "time"}, "thoughtSignature": "c2ln"}, reason=None)),
        response(said({"functionCall": {"id": "b", "name": "time"}})),
    )
    chunks, decoder = decoded(data, 10_000)
    first, second = ({"id": name, "type": "function", "function": {"name": "time", "arguments": "{}"}} for name in "ab")
    assert choices_of(chunks)[1:] == [
        ({"reasoning_content": "Hm."}, None),
        ({"thinking_blocks": [{"type": "thinking", "signature": "gemini:0:c2ln"}]}, None),
        ({"tool_calls": [{"index": 0, **first, "extra_content": {"google": {"thought_signature": "c2ln"}}}]}, None),
        ({"tool_calls": [{"index": 1, **second}]}, None),
        ({}, "tool_calls"),
    ]
    assert decoder.done


def test_several_candidates_end_each_for_itself() -> None:
    decoder = gemini.Decoder()
    decoder.feed(events(response(said({"text": "a"}, reason=None), said({"text": "b"}, index=1, reason=None))))
    chunks = decoder.feed(events(response(said({"text": "a"}))))
    assert [choice["index"] for chunk in chunks for choice in chunk["choices"]] == [0, 0]  # and no usage
    chunks = decoder.feed(events(response(said({"text": "b"}, index=1), usageMetadata=USAGE)))
    assert [choice["index"] for chunk in chunks for choice in chunk["choices"]] == [1, 1]
    assert decoder.done


def test_a_blocked_prompt_in_a_stream() -> None:
    data = events({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": {"promptTokenCount": 4}})
    chunks, decoder = decoded(data, 10_000)
    assert choices_of(chunks) == [({"role": "assistant", "content": ""}, None), ({}, "content_filter")]
    assert decoder.done
    assert chunks[-1]["usage"]["prompt_tokens"] == 4


def test_log_probabilities_in_a_stream() -> None:
    result = {"chosenCandidates": [{"token": "a", "logProbability": -1}]}
    chunks, _ = decoded(events(response(said({"text": "a"}, logprobsResult=result))), 10_000)
    found = [choice["logprobs"] for chunk in chunks for choice in chunk["choices"] if choice["logprobs"]]
    assert found == [
        {"content": [{"token": "a", "logprob": -1, "bytes": [97], "top_logprobs": []}], "refusal": None}
    ]  # fmt: skip


def test_sources_are_annotations_in_characters() -> None:
    metadata = {
        "citationSources": [
            {"startIndex": 3, "endIndex": 6, "uri": "https://a.org"},
            {"endIndex": 2, "uri": "https://b.org", "license": "mit"},
            {"startIndex": 1, "endIndex": 2},
            "x",
        ]
    }
    cited = [
        {"type": "url_citation", "url_citation": {"start_index": start, "end_index": end, "url": url, "title": ""}}
        for start, end, url in ((2, 4, "https://a.org"), (0, 1, "https://b.org"))
    ]
    assert choice({"text": "é!"}, {"text": "éa"}, citationMetadata=metadata)["message"]["annotations"] == cited
    data = events(
        response(said({"text": "é!"}, reason=None)),
        response(said({"text": "éa"}, reason=None, citationMetadata=metadata)),
        response(said({"text": ""})),
    )
    chunks, _ = decoded(data, 10_000)
    assert choices_of(chunks)[-2:] == [({"annotations": cited}, None), ({}, "stop")]
    assert "annotations" not in choice({"text": "x"}, citationMetadata="x")["message"]


@pytest.mark.parametrize("bad", [b"data: <html>\n\n", b"data: 5\n\n", b'data: {"error": {"code": 503}}\n\n'])
def test_a_stream_of_nonsense_is_broken(bad: bytes) -> None:
    with pytest.raises(AttemptFailed):
        gemini.Decoder().feed(bad)


TOO_MUCH = {
    "error": {
        "code": 429,
        "message": "You exceeded your current quota.",
        "status": "RESOURCE_EXHAUSTED",
        "details": [
            {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": []},
            {"@type": "type.googleapis.com/google.rpc.Help", "links": []},
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "21.5s"},
        ],
    }
}


@pytest.mark.parametrize("body", [TOO_MUCH, [TOO_MUCH]])
def test_a_quota_that_is_used_up(body: Any) -> None:
    data = orjson.dumps(body)
    assert gemini.error(data) == {
        "message": "You exceeded your current quota.",
        "type": "rate_limit_error",
        "code": "resource_exhausted",
        "param": None,
        "retry_after_s": 21.5,
    }


def test_an_input_that_is_too_long() -> None:
    text = "The input token count (1048590) exceeds the maximum number of tokens allowed (1048576)."
    data = orjson.dumps({"error": {"code": 400, "message": text, "status": "INVALID_ARGUMENT"}})
    assert gemini.error(data) == {
        "message": text,
        "type": "invalid_request_error",
        "code": "context_length_exceeded",
        "param": None,
    }


@pytest.mark.parametrize("body", [b"", b"<html>", b"5", b"[]", b'{"error": "x"}', b'{"error": {"message": 5}}'])
def test_an_error_that_says_nothing(body: bytes) -> None:
    assert gemini.error(body) == {}
