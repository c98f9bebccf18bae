"""Errors as the Responses API has them, with the names of its own fields."""

from __future__ import annotations

import re
from typing import Final

import orjson

from gateway.call import JSON

# What backends, and the checks of chat bodies, say of fields that clients of this API know by another name. Places in
# `messages` are none in `input`, so they are left out.
_NAMES: Final = {
    "messages": "input", "max_tokens": "max_output_tokens", "max_completion_tokens": "max_output_tokens",
    "response_format": "text.format", "verbosity": "text.verbosity", "reasoning_effort": "reasoning.effort",
    "logprobs": "top_logprobs", "thinking": "reasoning",
}  # fmt: skip
_END_OF_NAME: Final = re.compile(r"[.\[]")


def error(value: JSON, status: int) -> JSON:
    return {"error": _renamed(value)}


def error_event(value: JSON, status: int, sequence_number: int = 0) -> bytes:
    """As documented, and under `error` as well: there SDKs look for it, and raise."""
    value = _renamed(value)
    told = {name: value.get(name) for name in ("code", "message", "param")}
    return event_of("error", {"type": "error", "sequence_number": sequence_number, **told, "error": value})


def event_of(kind: str, value: JSON) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps(value))


def _renamed(value: JSON) -> JSON:
    param = value.get("param")
    ours = _NAMES.get(_END_OF_NAME.split(param, maxsplit=1)[0]) if isinstance(param, str) else None
    return value if ours is None else {**value, "param": ours}
