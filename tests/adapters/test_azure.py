from __future__ import annotations

import orjson
import pytest

from gateway.adapters import azure
from gateway.config.model import Quirks
from gateway.errors import AttemptFailed

BODY = {"model": "m", "messages": [{"role": "developer", "content": "x"}]}
FILTERED = {"hate": {"filtered": False, "severity": "safe"}}


@pytest.mark.parametrize(
    ("endpoint", "api_version", "expected"),
    [
        ("chat", None, "/chat/completions"),
        ("embeddings", None, "/embeddings"),
        ("chat", "2024-10-21", "/deployments/my%20gpt%2F4/chat/completions?api-version=2024-10-21"),
        ("completions", "2024-10-21", "/deployments/my%20gpt%2F4/completions?api-version=2024-10-21"),
        ("embeddings", "preview", "/deployments/my%20gpt%2F4/embeddings?api-version=preview"),
    ],
)
def test_paths(endpoint: str, api_version: str | None, expected: str) -> None:
    assert azure.path("my gpt/4", True, endpoint=endpoint, api_version=api_version) == expected


def test_the_key_has_a_header_of_its_own() -> None:
    assert azure.credentials("k") == {"api-key": "k"}
    assert azure.credentials(None) == {}


def test_the_request_is_openai_s() -> None:
    assert azure.request(BODY, "gpt", 9, Quirks(), stream=True) == {
        **BODY,
        "model": "gpt",
        "stream": True,
        "max_completion_tokens": 9,
        "stream_options": {"include_usage": True},
    }
    older = Quirks(include_usage=False, max_tokens_field="max_tokens")
    assert azure.request(BODY, "gpt", 9, older, stream=True) == {
        **BODY,
        "model": "gpt",
        "stream": True,
        "max_tokens": 9,
    }
    assert azure.beyond({**BODY, "top_k": 5}, Quirks()) == "top_k"
    assert azure.beyond(BODY, Quirks()) is None


def test_the_answer_keeps_what_the_filter_found() -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}
    value = {"choices": [{**choice, "content_filter_results": FILTERED}], "usage": None}
    assert azure.answer(value)["choices"] == value["choices"]


def test_a_stream_begins_with_what_the_filter_found_in_the_prompt() -> None:
    decoder = azure.Decoder()
    first = {"choices": [], "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": FILTERED}]}
    assert decoder.feed(b"data: " + orjson.dumps(first) + b"\n\n") == []
    delta = {"index": 0, "delta": {"content": "x"}, "finish_reason": None, "content_filter_results": FILTERED}
    (chunk,) = decoder.feed(b"data: " + orjson.dumps({"choices": [delta]}) + b"\n\n")
    assert chunk["choices"] == [delta]
    assert decoder.feed(b"data: [DONE]\n\n") == []
    assert decoder.done


def test_a_prompt_that_the_filter_stopped() -> None:
    said = {
        "message": "The response was filtered due to the prompt triggering the content management policy.",
        "type": None,
        "param": "prompt",
        "code": "content_filter",
        "status": 400,
        "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": FILTERED},
    }
    found = azure.error(orjson.dumps({"error": said}))
    assert (found["message"], found["code"], found["param"]) == (said["message"], "content_filter", "prompt")
    assert azure.error(b'{"statusCode": 401, "message": "Access denied"}')["message"] == "Access denied"
    with pytest.raises(AttemptFailed):
        azure.answer({"error": said})
