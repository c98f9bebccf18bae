"""Anthropic's Messages API, towards a backend and back: chat bodies in, chat answers and chunks out. Without I/O.

Source: https://platform.claude.com/docs/en/api/messages/create
"""

from __future__ import annotations

import re
from typing import Final

from gateway.adapters.anthropic_answer import answer, usage
from gateway.adapters.anthropic_beyond import beyond
from gateway.adapters.anthropic_request import request
from gateway.adapters.anthropic_stream import Decoder
from gateway.bounded import loads_of_backend
from gateway.call import JSON

__all__ = ["Decoder", "answer", "beyond", "credentials", "error", "path", "request", "usage"]

VERSION: Final = "2023-06-01"
_TOO_LONG: Final = re.compile(r"prompt is too long|exceed context limit", re.IGNORECASE)
_FIELD: Final = re.compile(r"([a-z_]+(?:\.\w+)*): ")  # how messages name the field that they are about


def path(as_name: str, stream: bool) -> str:
    return "/messages"


def credentials(key: str | None) -> dict[str, str]:
    version = {"anthropic-version": VERSION}
    return {"x-api-key": key, **version} if key else version


def error(body: bytes) -> JSON:
    """https://platform.claude.com/docs/en/api/errors: `message`, `type`, `code`, `param`; {} when it is unreadable."""
    try:
        value = loads_of_backend(body)
    except ValueError:
        return {}
    said = value.get("error") if isinstance(value, dict) else None
    message = said.get("message") if isinstance(said, dict) else None
    if not isinstance(said, dict) or not isinstance(message, str):
        return {}
    field = _FIELD.match(message)
    code = "context_length_exceeded" if _TOO_LONG.search(message) else None
    return {"message": message, "type": said.get("type"), "code": code, "param": field[1] if field else None}
