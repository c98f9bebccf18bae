from __future__ import annotations

import base64
import struct
from typing import Any

import orjson
import pytest

from gateway.adapters import gemini_embeddings
from gateway.adapters.gemini_kind import Gemini
from gateway.call import JSON, Call, Usage
from gateway.config.model import Model, Quirks
from gateway.errors import AttemptFailed

BODY = {"model": "e", "input": ["a", "b"]}
ANSWER = {"embeddings": [{"values": [0.5, 1]}, {"values": [0, -0.5]}], "usageMetadata": {"promptTokenCount": 2}}


def test_texts_go_as_one_batch() -> None:
    body = {**BODY, "dimensions": 768, "encoding_format": "float", "user": "u"}
    assert gemini_embeddings.beyond(body) is None
    assert gemini_embeddings.path("gemini-embedding-001") == "/models/gemini-embedding-001:batchEmbedContents"
    assert gemini_embeddings.request(body, "gemini-embedding-001") == {
        "requests": [
            {
                "model": "models/gemini-embedding-001",
                "outputDimensionality": 768,
                "content": {"parts": [{"text": text}]},
            }
            for text in "ab"
        ]
    }


def test_one_text() -> None:
    (sent,) = gemini_embeddings.request({"model": "e", "input": "a"}, "g")["requests"]
    assert sent == {"model": "models/g", "content": {"parts": [{"text": "a"}]}}


def test_the_answer() -> None:
    assert gemini_embeddings.answer(ANSWER, BODY) == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [0.5, 1]},
            {"object": "embedding", "index": 1, "embedding": [0, -0.5]},
        ],
        "model": "e",
        "usage": {"prompt_tokens": 2, "total_tokens": 2},
    }


def test_the_answer_as_base64() -> None:
    found = gemini_embeddings.answer(ANSWER, {**BODY, "encoding_format": "base64"})
    assert struct.unpack("<2f", base64.b64decode(found["data"][1]["embedding"])) == (0.0, -0.5)


def test_usage_that_is_not_said_is_none() -> None:
    assert gemini_embeddings.answer({"embeddings": ANSWER["embeddings"]}, BODY)["usage"] is None


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({**BODY, "input": [1, 2]}, "input"),
        ({**BODY, "input": [[1], [2]]}, "input"),
        ({**BODY, "input": ["a"] * 101}, "input"),
        ({**BODY, "encoding_format": "int8"}, "encoding_format"),
        ({**BODY, "task": "query"}, "task"),
    ],
)
def test_what_cannot_be_expressed_is_named(body: JSON, param: str) -> None:
    assert gemini_embeddings.beyond(body) == param


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"error": {"code": 500}},
        {"embeddings": [{"values": [1]}]},
        {"embeddings": [{"values": ["x"]}, {"values": []}]},
        {"embeddings": [1, 2]},
    ],
)
def test_what_is_no_answer_is_broken(value: Any) -> None:
    with pytest.raises(AttemptFailed) as failure:
        gemini_embeddings.answer(value, BODY)
    assert failure.value.kind == "broken"


def test_numbers_that_are_too_large_are_broken() -> None:
    value = {"embeddings": [{"values": [1e300]}, {"values": []}]}
    with pytest.raises(AttemptFailed):
        gemini_embeddings.answer(value, {**BODY, "encoding_format": "base64"})


def test_calls_for_embeddings_go_their_own_way() -> None:
    adapter, model = Gemini(), Model("e", (), context=1000, max_output=1, price={}, rates={})
    call = Call("r", "embeddings", "e", BODY, False, False, None, 2, 10, 0, frozenset(), None)
    assert adapter.beyond(call) is None
    assert adapter.url("https://g", call, "x") == "https://g/models/x:batchEmbedContents"
    assert len(orjson.loads(adapter.body(call, "x", None, Quirks()))["requests"]) == 2
    body, usage = adapter.answer(call, model).read(200, orjson.dumps(ANSWER))
    assert orjson.loads(body) == gemini_embeddings.answer(ANSWER, BODY)
    assert usage == Usage({"input": 2, "calls": 1})
    chat = Call("r", "chat", "m", {"messages": []}, False, False, None, 1, 10, 0, frozenset(), None)
    assert adapter.url("https://g", chat, "x") == "https://g/models/x:generateContent"
