"""Streams of Anthropic's Messages API as chunks of a chat completion.

Source: https://platform.claude.com/docs/en/build-with-claude/streaming
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.adapters.anthropic_answer import (
    CREATED,
    annotation,
    arguments,
    as_object,
    broken,
    explanation,
    finish,
    optional_text,
    text_of,
    usage,
)
from gateway.bounded import loads_of_backend
from gateway.call import JSON
from gateway.sse import event_data


@dataclass(slots=True)
class _Block:
    """The content block that is being sent: one at a time, in this API."""

    index: Any
    begun: JSON  # as its start said it
    kind: str
    signature: str = ""
    heard: bool = False  # of a call: some of its input
    citations: list[Any] = field(default_factory=list)
    start: int = 0  # of a text: where it begins in the whole


class Decoder:
    """State: `_head` (what all chunks have), `_usage` (the last of each figure), `_block`, `_calls` (complete
    ones), `_written` (characters of text), `_ended` (the finish was handed out).
    """

    def __init__(self) -> None:
        self.done = False  # the stream said that it is complete
        self._head: JSON = {}
        self._usage: JSON = {}
        self._block: _Block | None = None
        self._calls = 0
        self._written = 0
        self._ended = False

    @property
    def said_usage(self) -> JSON | None:
        return usage(self._usage) if self._usage else None

    def feed(self, event: bytes) -> list[JSON]:
        """Raises AttemptFailed("broken") on an error, and on what makes no sense."""
        data = event_data(event)
        if data is None or self.done:
            return []
        value = _parsed(data)
        kind = value.get("type")
        if kind == "error":
            raise broken("the backend's stream ended with an error")
        step = _STEPS.get(kind) if isinstance(kind, str) else None
        if step is None:  # pings, and kinds that are yet to come: the API may add some
            return []
        if not self._head and kind != "message_start":
            raise broken("the backend's stream does not begin with a message")
        return step(self, value)

    def _start(self, value: JSON) -> list[JSON]:
        message = as_object(value.get("message"))
        self._head = {
            "id": message.get("id"),
            "object": "chat.completion.chunk",
            "created": CREATED,
            "model": message.get("model"),
        }
        self._note_usage(message)
        self._usage.pop("output_tokens", None)  # so far; only the end knows the whole
        return [self._chunk({"role": "assistant", "content": ""})]

    def _start_block(self, value: JSON) -> list[JSON]:
        begun = as_object(value.get("content_block"))
        kind = text_of(begun, "type")
        self._block = block = _Block(value.get("index"), begun, kind, start=self._written)
        if kind == "tool_use":
            named = {"name": text_of(begun, "name"), "arguments": ""}
            return [self._call(named, {"id": text_of(begun, "id"), "type": "function"})]
        if kind == "redacted_thinking":
            return [self._chunk({"thinking_blocks": [begun]})]
        if kind == "thinking":
            block.signature = optional_text(begun, "signature")
            return self._thought(optional_text(begun, "thinking"))
        return self._text(optional_text(begun, "text")) if kind == "text" else []

    def _delta(self, value: JSON) -> list[JSON]:
        block, delta = self._block, as_object(value.get("delta"))
        if block is None or value.get("index") != block.index:
            raise broken("the backend's stream goes on with a block that it did not begin")
        kind = delta.get("type")
        if kind == "text_delta":
            return self._text(text_of(delta, "text"))
        if kind == "thinking_delta":
            return self._thought(text_of(delta, "thinking"))
        if kind == "signature_delta":
            block.signature = text_of(delta, "signature")
        elif kind == "citations_delta":
            block.citations.append(delta.get("citation"))
        elif kind == "input_json_delta" and block.kind == "tool_use":
            return self._input(block, text_of(delta, "partial_json"))
        return []

    def _stop_block(self, value: JSON) -> list[JSON]:
        block, self._block = self._block, None
        if block is None:
            return []
        if block.kind == "tool_use":
            # An input without pieces, which is how an empty one comes, must be JSON too.
            rest = [] if block.heard else [self._call({"arguments": arguments(block.begun)})]
            self._calls += 1
            return rest
        if block.signature:
            return [self._chunk({"thinking_blocks": [{"type": "thinking", "signature": block.signature}]})]
        cited = [one for said in block.citations for one in annotation(said, block.start, self._written)]
        return [self._chunk({"annotations": cited})] if cited else []

    def _message_delta(self, value: JSON) -> list[JSON]:
        self._note_usage(value)
        delta = as_object(value.get("delta"))
        if self._ended or delta.get("stop_reason") is None:
            return []
        self._ended = True
        said, end = explanation(delta), finish(delta)
        refused = {"refusal": said} if said and end["finish_reason"] == "content_filter" else {}
        return [self._chunk(refused, end)]

    def _stop(self, value: JSON) -> list[JSON]:
        if not self._ended:
            raise broken("the backend's stream stops without a reason")
        self.done = True
        return [{**self._head, "choices": [], "usage": usage(self._usage)}] if self._usage else []

    def _note_usage(self, holder: JSON) -> None:
        """Figures add up from event to event; the last ones are those of the whole call."""
        said = holder.get("usage")
        if isinstance(said, dict):
            self._usage.update((name, n) for name, n in said.items() if n is not None)

    def _text(self, text: str) -> list[JSON]:
        self._written += len(text)
        return [self._chunk({"content": text})] if text else []

    def _thought(self, text: str) -> list[JSON]:
        return [self._chunk({"reasoning_content": text})] if text else []

    def _input(self, block: _Block, piece: str) -> list[JSON]:
        block.heard = block.heard or piece != ""
        return [self._call({"arguments": piece})] if piece else []

    def _call(self, function: JSON, more: JSON | None = None) -> JSON:
        return self._chunk({"tool_calls": [{"index": self._calls, **(more or {}), "function": function}]})

    def _chunk(self, delta: JSON, end: JSON | None = None) -> JSON:
        choice = {"index": 0, "delta": delta, **(end or {"finish_reason": None})}
        return {**self._head, "choices": [choice]}


_STEPS: Final[dict[str, Callable[[Decoder, JSON], list[JSON]]]] = {
    "message_start": Decoder._start,
    "content_block_start": Decoder._start_block,
    "content_block_delta": Decoder._delta,
    "content_block_stop": Decoder._stop_block,
    "message_delta": Decoder._message_delta,
    "message_stop": Decoder._stop,
}


def _parsed(data: bytes) -> JSON:
    try:
        return as_object(loads_of_backend(data))
    except ValueError:
        raise broken("the backend's stream is not JSON") from None
