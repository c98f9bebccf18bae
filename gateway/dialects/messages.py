"""Anthropic's Messages API, towards clients. Pure; the neighbours of this file hold the parts of it.

messages_request   a request to the chat form      messages_stream   chunks of the chat form to events
messages_answer    an answer of the chat form back  messages_kept    what a cache keeps
messages_closing   the end of a stream of its own that is cut short
messages_own       a request of its own, as Anthropic takes it
"""

from __future__ import annotations

from typing import Final

from gateway.call import JSON
from gateway.dialects.messages_answer import answer, as_text
from gateway.dialects.messages_kept import finished, replay, whole
from gateway.dialects.messages_request import body
from gateway.dialects.messages_stream import Encoder, event

__all__ = [
    "Encoder", "answer", "body", "error", "error_event", "finished", "headers",
    "replay", "whole",
]  # fmt: skip

_TYPES: Final = {
    401: "authentication_error", 402: "billing_error", 403: "permission_error", 404: "not_found_error",
    408: "timeout_error", 409: "conflict_error", 413: "request_too_large", 429: "rate_limit_error",
    503: "overloaded_error", 504: "timeout_error", 529: "overloaded_error",
}  # fmt: skip
# What a status alone would say wrongly: waiting does not help.
_TYPES_BY_CODE: Final = {"insufficient_quota": "billing_error", "not_cached": "invalid_request_error"}
_FIRST_SERVER_ERROR: Final = 500
_TOO_LONG: Final = "prompt is too long"  # by Anthropic's words agents know that they have to shorten a conversation


def headers(request_id: str) -> dict[str, str]:
    return {"request-id": request_id}


def error(value: JSON, status: int) -> JSON:
    """Anthropic's error object; of the gateway's, which may name the `request_id`, code and all else are kept."""
    kept = {name: inner for name, inner in value.items() if name not in ("type", "message", "request_id")}
    inner = {"type": _error_type(value, status), "message": _message(value), **_details(value), **kept}
    return {"type": "error", "error": inner, "request_id": value.get("request_id")}


def error_event(value: JSON, status: int) -> bytes:
    """The end of a stream that broke: it never looks complete."""
    return event(error(value, status))


def _message(value: JSON) -> str:
    message = as_text(value.get("message"))
    if value.get("code") != "context_length_exceeded" or _TOO_LONG in message.lower():
        return message
    return f"{_TOO_LONG}: {message}"


def _error_type(value: JSON, status: int) -> str:
    otherwise = "api_error" if status >= _FIRST_SERVER_ERROR else "invalid_request_error"
    return _TYPES_BY_CODE.get(as_text(value.get("code")), _TYPES.get(status, otherwise))


def _details(value: JSON) -> JSON:
    """Where SDKs look for a code. By this one their tool runner knows to send whole conversations instead."""
    if value.get("param") == "thread":
        return {"details": {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}}
    code = as_text(value.get("code"))
    return {"details": {"error_code": code}} if code else {}
