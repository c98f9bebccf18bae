"""A stream of the chat form as the events of Anthropic's Messages API.

Anthropic's blocks come one after the other, each whole before the next; what a chat stream says may interleave, as
calls of several tools do. So blocks stand in a line: the first is sent as it comes, the others wait until it is whole.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import orjson

from gateway.bounded import loads_of_backend
from gateway.call import JSON
from gateway.dialects.messages_answer import (
    as_list,
    as_object,
    as_text,
    citations_of,
    count,
    first_choice,
    head,
    hides_thinking,
    stopped,
    thinking_of,
    tool_id,
    usage,
)


def event(value: JSON) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (value["type"].encode(), orjson.dumps(value))


@dataclass(slots=True)
class _Block:
    start: JSON  # its content_block_start; of a call complete once it has an id and a name
    waiting: list[JSON] = field(default_factory=list)  # deltas that were not sent yet
    arguments: list[str] = field(default_factory=list)  # of a call, all of them
    begun: bool = False
    signed: bool = False  # thinking that says no more

    @property
    def whole(self) -> bool:
        """Nothing can be added to it, once another has begun: more text would be a block of its own."""
        return self.start["type"] != "tool_use" or _is_json("".join(self.arguments))


class Encoder:
    """Made per stream. State: `_head` (the chunk it began with), `_blocks` (the line), `_grown` (another has
    joined it), `_index` (of its first), `_calls` (blocks by the index of their call) and `_called` (how many there
    were), `_text` (all that was said, for citations); of its end `_last` (choice), `_refused`, `_usage` and `_mark`.
    """

    def __init__(self, original: JSON) -> None:
        self._original = original
        self._hidden = hides_thinking(original)
        self._blocks: deque[_Block] = deque()
        self._grown = False
        self._index = 0
        self._calls: dict[int | None, _Block] = {}
        self._called = 0
        self._text: list[str] = []
        self._head: JSON | None = None
        self._last: JSON = {}
        self._refused = False
        self._usage: Any = None
        self._mark: Any = None

    def feed(self, chunk: JSON) -> bytes:
        self._usage = chunk.get("usage") or self._usage
        if not chunk.get("choices"):
            return b""  # usage, or what a filter said of the prompt: the answer has not begun
        events: list[bytes] = [] if self._head is not None else [self._beginning(chunk)]
        choice = first_choice(chunk)
        self._take(as_object(choice.get("delta")))
        self._mark = chunk.get("x_moma") or self._mark
        if choice.get("finish_reason") is not None:
            self._last = choice
        self._send(events, ended=bool(self._last))
        return b"".join(events)

    def end(self, said: JSON | None) -> bytes:
        """The closing events; `said` is the usage in the chat form."""
        events: list[bytes] = [] if self._head is not None else [self._beginning({})]
        self._send(events, ended=True)
        stop = stopped(self._last, self._original, calls=self._called > 0, refused=self._refused)
        marked = {"x_moma": self._mark} if self._mark else {}
        events.append(event({"type": "message_delta", "delta": stop, "usage": usage(said or self._usage), **marked}))
        events.append(event({"type": "message_stop"}))
        return b"".join(events)

    def _beginning(self, chunk: JSON) -> bytes:
        self._head = chunk
        unknown: JSON = {"content": [], "stop_reason": None, "stop_sequence": None}
        return event({"type": "message_start", "message": {**head(chunk), **unknown, "usage": usage(self._usage)}})

    def _take(self, delta: JSON) -> None:
        """In the order in which a model writes them."""
        thinking = thinking_of(delta)
        if thinking and not self._hidden:
            self._going_on("thinking").waiting.append({"type": "thinking_delta", "thinking": thinking})
        for thought in as_list(delta.get("thinking_blocks")):
            self._take_thought(as_object(thought))
        for text in (as_text(delta.get("content")), as_text(delta.get("refusal"))):
            if text:
                self._text.append(text)
                self._going_on("text").waiting.append({"type": "text_delta", "text": text})
        self._refused = self._refused or bool(delta.get("refusal"))
        for call in as_list(delta.get("tool_calls")):
            self._take_call(as_object(call))
        if delta.get("annotations"):
            for citation in citations_of(delta, "".join(self._text)):
                self._going_on("text").waiting.append({"type": "citations_delta", "citation": citation})

    def _take_thought(self, thought: JSON) -> None:
        if thought.get("type") == "redacted_thinking":
            self._join(_Block({"type": "redacted_thinking", "data": as_text(thought.get("data"))}))
        elif as_text(thought.get("signature")):
            block = self._going_on("thinking")
            block.waiting.append({"type": "signature_delta", "signature": thought["signature"]})
            block.signed = True

    def _take_call(self, call: JSON) -> None:
        function, own_id, index = as_object(call.get("function")), as_text(call.get("id")), count(call.get("index"))
        block = self._calls.get(index)
        if block is None or (own_id and block.start["id"] not in ("", own_id)):
            # Another id is another call: there are backends that give all of them one index.
            block = self._join(_Block({"type": "tool_use", "id": "", "name": "", "input": {}}))
            self._calls[index] = block
            self._called += 1
        block.start["id"] = block.start["id"] or own_id
        block.start["name"] = block.start["name"] or as_text(function.get("name"))
        arguments = as_text(function.get("arguments"))
        if arguments:
            block.arguments.append(arguments)
            block.waiting.append({"type": "input_json_delta", "partial_json": arguments})

    def _going_on(self, kind: str) -> _Block:
        """The last block, if it is of this kind and open; else a new one."""
        if self._blocks and self._blocks[-1].start["type"] == kind and not self._blocks[-1].signed:
            return self._blocks[-1]
        empty = {"thinking": "", "signature": ""} if kind == "thinking" else {"text": ""}
        return self._join(_Block({"type": kind, **empty}))

    def _join(self, block: _Block) -> _Block:
        self._blocks.append(block)
        self._grown = True
        return block

    def _send(self, events: list[bytes], *, ended: bool) -> None:
        """What the first of the line has to say, and of those behind it while the one before is whole.

        Whether a call is whole is looked at only when a block joins: at each delta it costs the square of its length.
        """
        while self._blocks:
            block = self._blocks[0]
            if not block.begun and not self._begin(block, events, ended=ended):
                break
            position = {"type": "content_block_delta", "index": self._index}
            events += [event({**position, "delta": delta}) for delta in block.waiting]
            block.waiting.clear()
            if not ended and (len(self._blocks) == 1 or not self._grown or not block.whole):
                break
            events.append(event({"type": "content_block_stop", "index": self._index}))
            self._index += 1
            self._blocks.popleft()
        self._grown = False

    def _begin(self, block: _Block, events: list[bytes], *, ended: bool) -> bool:
        """False while it is not known which tool is called."""
        if block.start["type"] == "tool_use":
            if not ended and not (block.start["id"] and block.start["name"]):
                return False
            block.start["id"] = block.start["id"] or tool_id(self._head or {}, self._index)
        block.begun = True
        events.append(event({"type": "content_block_start", "index": self._index, "content_block": block.start}))
        return True


def _is_json(text: str) -> bool:
    try:
        loads_of_backend(text.encode())
    except ValueError:
        return False
    return True
