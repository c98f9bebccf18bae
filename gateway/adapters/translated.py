"""Answers of a provider for clients of another dialect: through the middle form, event by event."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from gateway.adapters.adapter import Decoder
from gateway.adapters.chunks import (
    LEAST_BYTES_PER_TOKEN,
    answer_text,
    cut_chunk,
    expected_choices,
    has_content,
    head_of,
    parsed,
    text_of,
)
from gateway.adapters.usage import said, usage_of
from gateway.adapters.writers import Writer
from gateway.call import JSON, Call, Usage
from gateway.config.model import Model
from gateway.dialects.chat import as_event
from gateway.errors import AttemptFailed
from gateway.sse import MAX_EVENT_BYTES, EventSplitter

Read = Callable[[JSON], JSON]
Written = Callable[[JSON], JSON]


class TranslatedStream:
    """Chunks of a provider in the events of a client's dialect, counted as they pass.

    State: `_splitter`, `_held` (events until there is content), `_usage` (the last that was said), `_ends` (choices
    that have finished), `_text`, `_pieces` and `_bound` (what was passed on), `_last` (a chunk of it), and the flags.
    """

    def __init__(self, call: Call, model: Model, decoder: Decoder, writer: Writer) -> None:
        self._call = call
        self._model = model
        self._decoder = decoder
        self._writer = writer
        self._splitter = EventSplitter()
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._usage: JSON | None = None
        self._ends: set[int] = set()
        self._text: list[str] = []
        self._pieces = self._bound = 0
        self._last: JSON = {}
        self.started = False
        self.done = False

    @property
    def usage(self) -> Usage | None:
        return usage_of(self._call, self._model, self._usage)

    @property
    def said_usage(self) -> tuple[Any, bytes]:
        if self._usage is None:
            return self._decoder.said_usage, b""
        if self._call.dialect:
            return self._usage, b""
        return self._usage, as_event({**head_of(self._last), "choices": [], "usage": self._usage})

    @property
    def least(self) -> int:
        return self._pieces

    @property
    def ended(self) -> bool:
        return len(self._ends) >= expected_choices(self._call)

    def feed(self, data: bytes) -> bytes:
        if self.done:
            return b""
        ready: list[bytes] = []
        started = self.started
        for event in self._splitter.feed(data):
            started = self._take(event, started, ready)
            if self._decoder.done:
                self.done = True
                break
        self.started = started  # only now: an error in the same block leaves nothing passed on
        return b"".join(ready)

    def complete_at_eof(self) -> bool:
        if not self.done and self._splitter.rest.strip():
            try:
                self._held.insert(0, self.feed(b"\n\n"))
            except AttemptFailed:
                return False
        return self.done or self.ended

    def flush(self) -> bytes:
        held = b"".join(self._held)
        self._held.clear()
        return held

    def tail(self) -> bytes:
        return self._writer.end(self._usage)

    def passed_text(self) -> str:
        return "".join(self._text)

    def written(self) -> tuple[int, int]:
        return self._pieces, self._bound

    def cut_short(self, usage: Usage, reason: str) -> bytes:
        self._usage = said(usage)
        going_on = [index for index in range(expected_choices(self._call)) if index not in self._ends]
        return self._writer.cut(cut_chunk(self._last, going_on, {"delta": {}}, reason)) if going_on else b""

    def _take(self, event: bytes, started: bool, ready: list[bytes]) -> bool:
        """Adds to `ready` what may go out; true once the stream has started."""
        chunks = self._decoder.feed(event)
        content = any([self._note(chunk) for chunk in chunks])
        out = self._writer.write(event, chunks)
        if not (started or content or self._ends):
            self._hold(out)
            return False
        ready += self._held
        self._held.clear()
        ready.append(out)
        return True

    def _hold(self, out: bytes) -> None:
        self._held.append(out)
        self._held_bytes += len(out)
        if self._held_bytes > MAX_EVENT_BYTES:
            raise AttemptFailed("broken", "the backend's stream does not begin")

    def _note(self, chunk: JSON) -> bool:
        """Counts what it says; whether there is content in it."""
        if chunk.get("usage") is not None:
            self._usage = chunk["usage"]
        self._last = chunk
        content = False
        for choice in chunk.get("choices") or ():
            if choice.get("finish_reason") is not None:
                self._ends.add(choice.get("index", 0))
            text = text_of(choice.get("delta"))
            content = content or bool(text) or has_content(choice)
            if text:
                self._text.append(text)
                self._pieces += 1
                size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
                self._bound += -(-size // LEAST_BYTES_PER_TOKEN)
        return content


class TranslatedAnswer:
    """A whole answer. State: `_answer`, in the middle form, once it is read."""

    def __init__(self, call: Call, model: Model, read: Read, written: Written | None) -> None:
        """`read` makes the middle form of it, `written` the client's; None: the bytes pass as they came."""
        self._call = call
        self._model = model
        self._read = read
        self._written = written
        self._answer: JSON = {}

    def read(self, status: int, body: bytes) -> tuple[bytes, Usage | None]:
        answer = self._answer = self._read(parsed(body, status))
        usage = usage_of(self._call, self._model, answer.get("usage"))
        return (body if self._written is None else orjson.dumps(self._written(answer))), usage

    def passed_text(self) -> str:
        return answer_text(self._answer)
