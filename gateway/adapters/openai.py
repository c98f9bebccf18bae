"""The OpenAI dialect, towards a backend and back: bytes in, bytes and usage out. Made per call, without I/O."""

from __future__ import annotations

import re
from typing import Any, Final

import orjson

from gateway.adapters.chunks import (
    LEAST_BYTES_PER_TOKEN,
    answer_text,
    choices_of,
    cut_chunk,
    expected_choices,
    has_content,
    head_of,
    parsed,
    text_of,
    usage_in,
)
from gateway.adapters.fitting import fitted
from gateway.adapters.quirks import provider, takes_usage
from gateway.adapters.usage import said, usage_of
from gateway.call import JSON, Call, Usage
from gateway.config.model import Model, Quirks
from gateway.dialects.chat import DONE, as_event
from gateway.errors import AttemptFailed
from gateway.parse import OUTPUT_LIMITS
from gateway.sse import (
    MAX_EVENT_BYTES,
    EventSplitter,
    event_data,
    event_end,
    last_event_before,
    split_events,
)

PATHS: Final = {"chat": "/chat/completions", "completions": "/completions", "embeddings": "/embeddings"}
COMPLETIONS_DEFAULT_MAX_TOKENS: Final = 16  # the API's own default, put in because not every backend has it
KEPT_BYTES: Final = 256 * 1024
HELD_COMMENT_BYTES: Final = 64 * 1024

_NULL: Final = re.compile(rb"\s*:\s*null\b")
_ERROR_EVENT: Final = re.compile(rb"(?:^|[\r\n])event: ?error[\r\n]")


def request_body(call: Call, as_name: str, max_tokens: int | None, quirks: Quirks) -> bytes:
    """The call's body with the backend's name for the model, the output limit and the wish for usage; made fit for a
    provider that is known to differ, or out of what another dialect has beyond OpenAI's."""
    body = {**call.body, "model": as_name}
    if call.endpoint == "embeddings":
        return orjson.dumps(body)
    _limit_output(call, body, max_tokens, quirks)
    if call.endpoint == "chat" and (quirks.like is not None or call.dialect):
        body = fitted(body, provider(quirks), quirks.max_tokens_field)
    if call.stream:
        options = dict(body.get("stream_options") or {})
        options.pop("include_usage", None)
        if takes_usage(quirks):
            options["include_usage"] = True
        body.pop("stream_options", None)
        if options:
            body["stream_options"] = options
    return orjson.dumps(body)


def _limit_output(call: Call, body: JSON, max_tokens: int | None, quirks: Quirks) -> None:
    used = [name for name in OUTPUT_LIMITS if body.get(name) is not None]
    if call.endpoint == "completions" and not used:
        default = COMPLETIONS_DEFAULT_MAX_TOKENS
        body["max_tokens"] = default if max_tokens is None else min(default, max_tokens)
    elif max_tokens is not None:
        for name in used or [quirks.max_tokens_field or "max_tokens"]:
            body[name] = max_tokens


class AnswerReader:
    """A whole answer: checked, its usage read, its bytes left as they are. State: `_body`, once it is read."""

    def __init__(self, call: Call, model: Model) -> None:
        self._call = call
        self._model = model
        self._body = b"{}"

    def read(self, status: int, body: bytes) -> tuple[bytes, Usage | None]:
        answer = parsed(body, status)
        if not isinstance(answer.get("data" if self._call.endpoint == "embeddings" else "choices"), list):
            raise AttemptFailed("broken", "the backend's answer holds nothing", backend_status=status)
        self._body = body
        return body, usage_of(self._call, self._model, answer.get("usage"))

    def passed_text(self) -> str:
        return answer_text(parsed(self._body))


def refusal_usage(call: Call, model: Model, body: bytes) -> Usage | None:
    """What a refused call used nevertheless, such as one that a filter stopped; None when nothing is said of it."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return usage_of(call, model, answer.get("usage")) if isinstance(answer, dict) else None


class StreamReader:
    """A stream: what to pass on now, and what it said of itself.

    State: `_splitter`, `_held` (start-up events, until there is content), `_usage_event` and `_usage_json` (the
    last usage seen), `_ends` (choices known to have finished), `_kept` and `_text` (what was passed on), `_pieces` and
    `_bound` (how much that is), `_last` (a chunk of it), and the flags.
    """

    def __init__(self, call: Call, model: Model) -> None:
        self._call = call
        self._model = model
        self._splitter = EventSplitter()
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._usage_event = b""
        self._usage_json: Any = None
        self._ends: set[int] = set()
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._text: list[str] = []
        self._pieces = self._bound = 0
        self._last: JSON = {}
        self.started = False  # content, or a finish, was handed out
        self.done = False

    @property
    def usage(self) -> Usage | None:
        return usage_of(self._call, self._model, self._usage_json)

    @property
    def said_usage(self) -> tuple[Any, bytes]:
        """Usage as the backend said it last, and the event of its own that it came in, if any."""
        return self._usage_json, self._usage_event

    def feed(self, data: bytes) -> bytes:
        """The bytes to pass on now, perhaps none. Raises AttemptFailed("broken")."""
        if self.done:
            return b""
        block = self._splitter.block(data)
        if not block:
            return b""
        started = self.started
        ready: list[bytes] = []
        start = 0
        while start < len(block):
            end = _unmarked_until(block, start) if started else start
            if end > start:
                ready.append(block[start:end])
            else:
                end = event_end(block, start)
                started = self._take(block[start:end], started, ready)
            start = end
        self.started = started  # only now: an error in the same block leaves nothing passed on
        return self._passed(b"".join(ready))

    def complete_at_eof(self) -> bool:
        """Whether a stream that ended without [DONE] is whole: every choice said why it ended."""
        if not self.done and self._splitter.rest.strip():
            try:
                ready = self.feed(b"\n\n")
            except AttemptFailed:
                return False
            self._held.insert(0, ready)  # the last event lacked its empty line: it goes out with flush()
        self._fold()
        return self.done or self.ended

    def flush(self) -> bytes:
        """What is still held back, once."""
        held = b"".join(self._held)
        self._held.clear()
        return held

    def tail(self) -> bytes:
        """The last bytes of a settled stream."""
        return (self._usage_event if self._call.wants_usage else b"") + DONE

    def passed_text(self) -> str:
        """All output that was passed on: content, reasoning, tool arguments."""
        self._fold()
        return "".join(self._text)

    def written(self) -> tuple[int, int]:
        """What was passed on, in pieces (a piece is at least a token), and the most tokens that it can be: for each
        piece one, or one for each two bytes of its text."""
        self._fold()
        return self._pieces, self._bound

    @property
    def least(self) -> int:
        """Tokens that were passed on at the least; costs nothing. A role and an end of their own are none."""
        return max(0, self._pieces + len(self._kept) - 2)

    @property
    def ended(self) -> bool:
        """Every choice is known to have said why it ended."""
        return len(self._ends) >= expected_choices(self._call)

    def cut_short(self, usage: Usage, reason: str) -> bytes:
        """A proper end of what its backend has not ended: each choice has reached its length. `usage` is what `tail`
        and `said_usage` tell from now on."""
        self._fold()
        told = said(usage)
        self._usage_json = told
        self._usage_event = as_event({**head_of(self._last), "choices": [], "usage": told})
        empty: JSON = {"text": ""} if self._call.endpoint == "completions" else {"delta": {}}
        going_on = [index for index in range(expected_choices(self._call)) if index not in self._ends]
        return as_event(cut_chunk(self._last, going_on, empty, reason)) if going_on else b""

    def _take(self, event: bytes, started: bool, ready: list[bytes]) -> bool:
        """Adds to `ready` what may go out; true once the stream has started."""
        if self.done:
            return started
        data = event_data(event)
        if data is not None and data.strip() == b"[DONE]":
            if not (started or self._ends or self._held or self._usage_json):
                raise AttemptFailed("broken", "the backend sent an empty stream")
            self.done = True
            return started
        chunk = None if data is None or not data.strip() else parsed(data)
        if _ERROR_EVENT.search(event):
            raise AttemptFailed("broken", "the backend sent an error in its stream")
        choices = [] if chunk is None else choices_of(chunk)
        if chunk is not None and (used := usage_in(chunk)) is not None:
            self._usage_json = used
            if not choices:
                self._usage_event = event
                return started
        self._note_ends(choices)
        if not started and not self._ends and not any(has_content(choice) for choice in choices):
            self._hold(event, is_comment=chunk is None)
            return False
        ready += self._held
        self._held.clear()
        ready.append(event)
        return True

    def _hold(self, event: bytes, *, is_comment: bool) -> None:
        if is_comment and self._held_bytes > HELD_COMMENT_BYTES:
            return  # a backend may send keep-alives for as long as it thinks
        self._held.append(event)
        self._held_bytes += len(event)
        if self._held_bytes > MAX_EVENT_BYTES:
            raise AttemptFailed("broken", "the backend's stream does not begin")

    def _note_ends(self, choices: list[JSON]) -> None:
        for choice in choices:
            index = choice.get("index", 0)
            if choice.get("finish_reason") is not None and isinstance(index, int) and len(self._ends) < 2**18:
                self._ends.add(index)

    def _passed(self, block: bytes) -> bytes:
        if block:
            self._kept.append(block)
            self._kept_bytes += len(block)
            if self._kept_bytes > KEPT_BYTES:
                self._fold()
        return block

    def _fold(self) -> None:
        """Chunks are ten times their text: long streams are kept as text, and in one piece, as an object is ten times
        a word."""
        texts: list[str] = []
        for event in split_events(b"".join(self._kept)):
            try:
                chunk = parsed(event_data(event) or b"")
                choices = choices_of(chunk)
            except AttemptFailed:
                continue  # passed on unread, so it was never promised to be JSON
            self._note_ends(choices)
            self._last = chunk
            for choice in choices:
                text = text_of(choice.get("delta")) + text_of(choice)
                texts.append(text)
                self._pieces += 1
                self._bound += max(1, -(-len(text.encode("utf-8", "surrogatepass")) // LEAST_BYTES_PER_TOKEN))
        self._text.append("".join(texts))
        self._kept.clear()
        self._kept_bytes = 0


def _unmarked_until(block: bytes, start: int) -> int:
    """Where the first event begins that has to be looked into once a stream has started.

    Plain searches, because an alternation of a regular expression costs more than all else about a chunk.
    """
    marks = [block.find(b"[DONE]", start), _valued(block, b'"usage"', start), _valued(block, b'"error"', start)]
    marks += [block.find(b"event:error", start), block.find(b"event: error", start)]
    found = [mark for mark in marks if mark >= 0]
    return last_event_before(block, start, min(found)) if found else len(block)


def _valued(block: bytes, name: bytes, start: int) -> int:
    """Where this field stands with something else than null; -1: nowhere.

    JSON that is spread over several data lines counts as such: the parser shall see.
    """
    while (start := block.find(name, start)) >= 0:
        if not _NULL.match(block, start + len(name)):
            return start
        start += len(name)
    return -1
