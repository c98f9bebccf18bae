"""OpenAI's chat form, which is the middle form: its events."""

from __future__ import annotations

from typing import Final

import orjson

from gateway.call import JSON

DONE: Final = b"data: [DONE]\n\n"


class Encoder:
    """State: `_head`, what is the same in all chunks."""

    def __init__(self, *, wants_usage: bool) -> None:
        self._wants_usage = wants_usage
        self._head: JSON = {}

    def feed(self, chunk: JSON) -> bytes:
        if not chunk.get("choices"):  # usage: at the end, for who asked
            return b""
        self._head = self._head or {name: chunk[name] for name in ("id", "object", "created", "model") if name in chunk}
        return as_event({name: value for name, value in chunk.items() if name != "usage"})

    def end(self, usage: JSON | None) -> bytes:
        if usage is None or not self._wants_usage:
            return DONE
        return as_event({**self._head, "choices": [], "usage": usage}) + DONE


def as_event(chunk: JSON) -> bytes:
    return b"data: " + orjson.dumps(chunk) + b"\n\n"
