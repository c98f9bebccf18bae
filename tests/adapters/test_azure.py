from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.adapters.azure import Azure
from gateway.adapters.openai_answers import Decoder, answer
from gateway.call import Call, Pieces
from gateway.config.model import Quirks

MESSAGES = [{"role": "developer", "content": "x"}]
FILTERED = {"hate": {"filtered": False, "severity": "safe"}}


def call(endpoint: str = "chat", *, dialect: str = "", **body: Any) -> Call:
    made = Call("r", endpoint, "m", {"model": "m", **body}, True, False, None, 1, 10, 0, frozenset(), None)
    made.dialect = dialect
    return made


@pytest.mark.parametrize(
    ("endpoint", "api_version", "expected"),
    [
        ("chat", None, "https://r/chat/completions"),
        ("embeddings", None, "https://r/embeddings"),
        ("chat", "2024-10-21", "https://r/deployments/my%20gpt%2F4/chat/completions?api-version=2024-10-21"),
        ("completions", "2024-10-21", "https://r/deployments/my%20gpt%2F4/completions?api-version=2024-10-21"),
        ("embeddings", "preview", "https://r/deployments/my%20gpt%2F4/embeddings?api-version=preview"),
    ],
)
def test_paths(endpoint: str, api_version: str | None, expected: str) -> None:
    assert Azure(api_version=api_version).url("https://r", call(endpoint), "my gpt/4") == expected


def read(body: bytes | Pieces) -> Any:
    assert isinstance(body, bytes)
    return orjson.loads(body)


def test_the_key_has_a_header_of_its_own() -> None:
    assert Azure().headers(call(), "k") == {"api-key": "k"}
    assert Azure().headers(call(), None) == {}


def test_what_a_chat_client_says_passes() -> None:
    sent = read(Azure().body(call(messages=MESSAGES, max_tokens=50), "gpt", 9, Quirks()))
    assert sent == {
        "model": "gpt",
        "messages": MESSAGES,
        "max_tokens": 9,
        "stream_options": {"include_usage": True},
    }


def test_another_dialect_is_put_in_openai_s_words() -> None:
    asked = call(dialect="messages", messages=MESSAGES, max_tokens=50)
    assert read(Azure().body(asked, "gpt", 9, Quirks())) == {
        "model": "gpt",
        "messages": MESSAGES,
        "max_completion_tokens": 9,
        "stream_options": {"include_usage": True},
    }
    older = Quirks(include_usage=False, max_tokens_field="max_tokens")
    sent = read(Azure().body(asked, "gpt", 9, older))
    assert sent == {"model": "gpt", "messages": MESSAGES, "max_tokens": 9}


def test_what_the_filter_found_is_no_usage() -> None:
    decoder = Decoder()
    first = {"choices": [], "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": FILTERED}]}
    assert decoder.feed(b"data: " + orjson.dumps(first) + b"\n\n") == []
    delta = {"index": 0, "delta": {"content": "x"}, "finish_reason": None, "content_filter_results": FILTERED}
    (chunk,) = decoder.feed(b"data: " + orjson.dumps({"choices": [delta]}) + b"\n\n")
    assert chunk["choices"] == [delta]
    choice = {"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "content_filter"}
    value = {"choices": [{**choice, "content_filter_results": FILTERED}], "usage": None}
    assert answer(value)["choices"] == value["choices"]
