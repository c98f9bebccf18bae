"""What a client hears of a backend's refusal: its words, without its hosts and ids."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest

from gateway.backends.client import Exchange
from gateway.backends.failures import hopeless, passed_on, refused, too_long
from gateway.errors import AttemptFailed


def refusal(body: Any, status: int = 400) -> AttemptFailed:
    return AttemptFailed("status", "no", backend_status=status, body=orjson.dumps(body))


PRIVATE = [
    "http://10.0.0.1:8000/v1/chat", "10.0.0.1", "10.0.0.1:8000", "vllm-7.internal", "pod-3.ns.svc.cluster.local",
    "gpu-host:8000", "localhost", "123e4567-e89b-12d3-a456-426614174000", "req_011CSHoEeqs5", "chatcmpl-9f8e7d",
    "org-a1b2c3",
]  # fmt: skip


@pytest.mark.parametrize("private", PRIVATE)
def test_hosts_and_ids_are_removed(private: str) -> None:
    error = {"message": f"failed at {private} now", "type": private, "param": private, "code": private}
    told = orjson.dumps(passed_on(refusal({"error": error})).body()).decode()
    assert private not in told
    assert "failed at [removed] now" in told


@pytest.mark.parametrize(
    "words",
    [
        "This model's maximum context length is 4096 tokens, and you asked for 4100.",
        "messages.0.content: must be a string, e.g. 'hello'; see temperature=0.5 (1:2)",
        "Invalid schema for response_format 'x': additionalProperties is required.",
    ],
)
def test_other_words_stay(words: str) -> None:
    assert passed_on(refusal({"error": {"message": words}})).body()["error"]["message"] == words


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"object": "error", "message": "bare", "type": "BadRequestError", "param": None, "code": 400}, "bare"),
        ({"error": "a text"}, "a text"),
        ({"detail": [{"loc": ["body", "top_k"], "msg": "Extra inputs"}]}, "top_k: Extra inputs"),
        ({"base_resp": {"status_code": 2013, "status_msg": "invalid params"}}, "invalid params"),
        ({"error": {"message": 5}}, "The backend refused the call."),
        (["no"], "The backend refused the call."),
    ],
)
def test_every_shape_of_an_error_is_read(body: Any, message: str) -> None:
    error = passed_on(refusal(body)).body()["error"]
    assert error["message"] == message
    assert set(error) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("param", ["messages[0].content", "tools.0.function.name", "max_tokens"])
def test_a_field_is_named(param: str) -> None:
    assert passed_on(refusal({"error": {"message": "x", "param": param}})).body()["error"]["param"] == param


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"code": "context_length_exceeded"}},
        {"object": "error", "message": "This model's maximum context length is 4096 tokens."},
        {"error": {"code": 400, "message": "the request exceeds the available context size", "type": "x"}},
        {"error": {"type": "exceed_context_size_error"}},
        {"error": {"message": "Invalid request: Your request exceeded model token limit: 8192"}},
        {"base_resp": {"status_code": 2013, "status_msg": "invalid params, context window exceeds limit"}},
        {"error": {"message": "Total tokens of image and text exceed max message tokens."}},
        {"error": {"message": "Range of input length should be [1, 129024]", "code": "invalid_parameter_error"}},
        {"error": {"code": "1261", "message": "Prompt exceeds max length"}},
        {"error": {"code": 400, "message": "The input token count (9) exceeds the maximum number of tokens (8)."}},
        {"type": "error", "error": {"message": "prompt is too long: 200251 tokens > 200000 maximum"}},
        {"error": {"message": "input length and `max_tokens` exceed context limit: 178959 + 64000 > 200000"}},
    ],
)
def test_too_long_in_the_words_of_each_backend(body: Any) -> None:
    assert too_long(refusal(body))
    assert not too_long(refusal({"error": {"message": "temperature must be below 2"}}))


def test_what_a_moment_cannot_mend() -> None:
    assert [s for s in (307, 400, 401, 402, 403, 404, 408, 429, 500, 503) if hopeless(refusal({}, s))] == [
        307, 401, 402, 403, 404,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("headers", "error", "wait_s"),
    [
        ({}, {"message": "x", "retry_after_s": 21.5}, 21.5),
        ({"retry-after": "3"}, {"message": "x", "retry_after_s": 21.5}, 3.0),
        ({"retry-after": "soon"}, {"message": "x"}, None),
        ({}, {"message": "x", "retry_after_s": -1}, None),
        ({}, {"message": '"retry_after_s":5,'}, None),
    ],
)
def test_when_to_come_again_is_in_a_header_or_in_the_error(
    headers: dict[str, str], error: Any, wait_s: float | None
) -> None:
    exchange = cast("Exchange", SimpleNamespace(status=429, headers=headers))
    assert refused(exchange, orjson.dumps({"error": error}), 0).retry_after_s == wait_s
