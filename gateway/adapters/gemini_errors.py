"""What Gemini says of an error: google.rpc.Status, with details. https://ai.google.dev/gemini-api/docs/troubleshooting"""

from __future__ import annotations

import re
from typing import Any, Final

import orjson

from gateway.call import JSON

# https://cloud.google.com/apis/design/errors#handling_errors, by the types of OpenAI's errors.
_TYPES: Final = {
    "INVALID_ARGUMENT": "invalid_request_error", "FAILED_PRECONDITION": "invalid_request_error",
    "OUT_OF_RANGE": "invalid_request_error", "NOT_FOUND": "invalid_request_error",
    "UNAUTHENTICATED": "authentication_error", "PERMISSION_DENIED": "permission_error",
    "RESOURCE_EXHAUSTED": "rate_limit_error",
}  # fmt: skip
_TOO_LONG: Final = re.compile(r"input token count .{0,40}exceeds the maximum", re.IGNORECASE)
_SECONDS: Final = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)s")


def error(body: bytes) -> JSON:
    """`param` stays empty, as the fields it tells of are those of its own dialect. Where it says when to come again,
    `retry_after_s` does too: others say that in a header. Unreadable: {}."""
    said = _status(body)
    message, status = said.get("message"), said.get("status")
    if not isinstance(message, str) or not isinstance(status, str):
        return {}
    code = "context_length_exceeded" if _TOO_LONG.search(message) else status.lower()
    out = {"message": message, "type": _TYPES.get(status, "api_error"), "code": code, "param": None}
    wait_s = _wait_s(said.get("details"))
    return out if wait_s is None else {**out, "retry_after_s": wait_s}


def _wait_s(details: Any) -> float | None:
    """google.rpc.RetryInfo."""
    for detail in details if isinstance(details, list) else ():
        delay = detail.get("retryDelay") if isinstance(detail, dict) else None
        seconds = _SECONDS.fullmatch(delay) if isinstance(delay, str) else None
        if seconds:
            return float(seconds[1])
    return None


def _status(body: bytes) -> JSON:
    try:
        value: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    if isinstance(value, list) and value:  # how a stream of JSON, not of events, begins
        value = value[0]
    said = value.get("error") if isinstance(value, dict) else None
    return said if isinstance(said, dict) else {}
