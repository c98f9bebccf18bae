"""The end of Anthropic's own stream where it is cut short: what is open is closed, as max_tokens would have."""

from __future__ import annotations

from typing import Any, Final

import orjson

from gateway.call import JSON
from gateway.dialects.messages_answer import as_object, usage
from gateway.dialects.messages_stream import event
from gateway.sse import event_data

_BLOCK: Final = b"content_block_st"  # start and stop


class Closing:
    """Made per stream. State: `_open`, the index of the block that is open."""

    def __init__(self) -> None:
        self._open: int | None = None

    def note(self, passed: bytes) -> None:
        if _BLOCK not in passed:
            return
        said = as_object(_json(event_data(passed)))
        if said.get("type") == "content_block_start":
            self._open = said.get("index")
        elif said.get("type") == "content_block_stop":
            self._open = None

    def end(self, said: JSON | None) -> bytes:
        stop = {"stop_reason": "max_tokens", "stop_sequence": None}
        last = event({"type": "message_delta", "delta": stop, "usage": usage(said)}) + event({"type": "message_stop"})
        if self._open is None:
            return last
        return event({"type": "content_block_stop", "index": self._open}) + last


def _json(data: bytes | None) -> Any:
    try:
        return orjson.loads(data or b"")
    except orjson.JSONDecodeError:
        return None
