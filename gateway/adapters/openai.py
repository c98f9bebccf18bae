"""The dialect of OpenAI-like backends: pure, bytes in, bytes and usage out; nothing changed is passed untouched."""

from __future__ import annotations

import re
from typing import Any, Final

import orjson

from gateway.adapters.sse import EventSplitter, event_data, events
from gateway.adapters.usage import normalise
from gateway.call import JSON, Call, Usage
from gateway.config.model import Model, Quirks
from gateway.errors import AttemptFailed

PATHS: Final = {"chat": "/chat/completions", "completions": "/completions", "embeddings": "/embeddings"}
DONE: Final = b"data: [DONE]\n\n"
FOLD_BYTES: Final = 256 * 1024  # passed chunks beyond this are folded to their text
_SPECIAL = re.compile(rb'"usage"\s*:\s*\{|\[DONE\]|"error"|"finish_reason"\s*:\s*"')


def request_body(call: Call, as_name: str, max_tokens: int | None, quirks: Quirks) -> bytes:
    """The client's body under the backend's name for the model, bounded by what is held. Unknown fields stay.

    Always written anew: of two equal keys the backend must see the one that was checked here.
    """
    body = {**call.body, "model": as_name}
    if max_tokens is not None:
        asked = [field for field in ("max_completion_tokens", "max_tokens") if body.pop(field, None) is not None]
        body[quirks.max_tokens_field or (asked[0] if asked else "max_tokens")] = max_tokens
    if call.stream and quirks.include_usage:
        body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
    return orjson.dumps(body)


class AnswerReader:
    """A whole answer."""

    def __init__(self, call: Call, model: Model) -> None:
        self._call = call
        self._model = model

    def read(self, status: int, body: bytes) -> tuple[bytes, Usage | None]:
        """The body as it came, and its usage. Raises AttemptFailed for what is no answer."""
        try:
            answer = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise AttemptFailed("broken", "the answer is not JSON") from error
        if not isinstance(answer, dict) or answer.get("error"):
            raise AttemptFailed("broken", "the answer is not an answer")
        return body, normalise(answer.get("usage"), self._call, self._model)


class StreamReader:
    """A stream, block by block.

    State: the splitter; what is held back until the first content; the kept chunks and the text folded out of them;
    the usage chunk; and the flags `started`, `finished`, `done`.
    """

    __slots__ = (
        "_call", "_folded", "_held", "_kept", "_kept_bytes", "_model", "_splitter", "_usage_event",
        "done", "finished", "started", "usage",
    )  # fmt: skip

    def __init__(self, call: Call, model: Model) -> None:
        self._call = call
        self._model = model
        self._splitter = EventSplitter()
        self._held = b""
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._folded: list[str] = []
        self._usage_event = b""
        self.started = self.finished = self.done = False
        self.usage: Usage | None = None

    def feed(self, data: bytes) -> bytes:
        """What may go to the client now. Raises AttemptFailed for an error event or one that is no JSON."""
        block = self._splitter.feed(data)
        if not block or self.done:
            return b""
        if not (self.started and _SPECIAL.search(block) is None):
            block = b"".join([self._event(event) for event in events(block)])
        if not block:
            return b""
        if not self.started:
            self._held += block
            return b""
        ready, self._held = self._held + block, b""
        self._keep(ready)
        return ready

    def flush(self) -> bytes:
        """What is still held back, at a good end."""
        held, self._held = self._held, b""
        return held

    def tail(self) -> bytes:
        """The usage chunk if the client asked for it, and the end."""
        return (self._usage_event if self._call.wants_usage else b"") + DONE

    def complete_at_eof(self) -> bool:
        """Some backends end without [DONE]: complete only if they said why they stopped."""
        return self.finished and not self._splitter.rest.strip()

    def passed_text(self) -> str:
        """All text that was passed on: content, reasoning, tool arguments."""
        self._fold()
        return "".join(self._folded)

    def _event(self, event: bytes) -> bytes:
        """The event if it is to be passed on, else nothing."""
        data = event_data(event)
        if self.done:
            return b""
        if data is None:
            return event
        if data.strip() == b"[DONE]":
            self.done = True
            return b""
        chunk = _chunk(data)
        choices = chunk.get("choices")
        usage = normalise(chunk.get("usage"), self._call, self._model)
        if usage is not None:
            self.usage = usage
            if not choices:
                self._usage_event = event
                return b""
        for choice in choices if isinstance(choices, list) else ():
            self._choice(choice)
        return event

    def _choice(self, choice: Any) -> None:
        if not isinstance(choice, dict):
            return
        if choice.get("finish_reason"):
            self.finished = self.started = True
        if choice_text(choice) or (isinstance(choice.get("delta"), dict) and choice["delta"].get("tool_calls")):
            self.started = True

    def _keep(self, block: bytes) -> None:
        self._kept.append(block)
        self._kept_bytes += len(block)
        if self._kept_bytes > FOLD_BYTES:
            self._fold()

    def _fold(self) -> None:
        for event in events(b"".join(self._kept)):
            data = event_data(event)
            if data and data.strip() != b"[DONE]":
                choices = _chunk(data).get("choices")
                self._folded += [choice_text(c) for c in choices or () if isinstance(c, dict)]
        self._kept, self._kept_bytes = [], 0


def choice_text(choice: JSON) -> str:
    """The text in one choice of a chunk or an answer."""
    source = choice.get("delta") or choice.get("message") or choice
    if not isinstance(source, dict):
        return ""
    fields = ("content", "reasoning_content", "reasoning", "text", "refusal")
    parts = [source[field] for field in fields if isinstance(source.get(field), str)]
    calls = source.get("tool_calls")
    for tool in calls if isinstance(calls, list) else ():
        function = tool.get("function") if isinstance(tool, dict) else None
        if isinstance(function, dict):
            parts += [function[field] for field in ("name", "arguments") if isinstance(function.get(field), str)]
    return "".join(parts)


def _chunk(data: bytes) -> JSON:
    try:
        chunk = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise AttemptFailed("broken", "an event is not JSON") from error
    if not isinstance(chunk, dict) or chunk.get("error"):
        raise AttemptFailed("broken", "the backend reported an error in the stream")
    return chunk
