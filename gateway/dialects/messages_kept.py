"""What a cache keeps of Anthropic's Messages API: a stream as the message it stands for, and a message as a stream.

What cannot be put together faithfully is not, as in cache/answers.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import orjson

from gateway.bounded import loads_of_backend
from gateway.call import JSON
from gateway.dialects.messages_stream import event
from gateway.sse import event_data, split_events

_ENDS: Final = ("end_turn", "tool_use", "stop_sequence")
_UNSAID: Final[JSON] = {"content": [], "stop_reason": None, "stop_sequence": None}


class _Unclear(Exception):
    """This stream cannot be put together without a guess."""


def finished(answer: JSON) -> bool:
    """Whether it is a whole answer that ended properly: not cut, paused or refused."""
    return isinstance(answer.get("content"), list) and answer.get("stop_reason") in _ENDS


# -- a stream to a message ----------------------------------------------------------------------------------------


def whole(stream: bytes) -> JSON | None:
    """The message that a complete stream stands for; None if it is not complete, or unclear."""
    try:
        return _message(_values(stream))
    except (_Unclear, ValueError, KeyError, TypeError, AttributeError):
        return None


def _values(stream: bytes) -> Iterator[JSON]:
    for raw in split_events(stream):
        data = event_data(raw)
        if data is not None:
            value = loads_of_backend(data)
            if value["type"] != "ping":
                yield value


def _message(values: Iterator[JSON]) -> JSON:
    first = next(values, {})
    if first.get("type") != "message_start":
        raise _Unclear
    message: JSON = dict(first["message"])
    blocks: list[_Pieces] = []
    open_block: _Pieces | None = None
    for value in values:
        kind = value["type"]
        if kind == "message_stop" and open_block is None:
            return {**message, "content": [block.joined() for block in blocks]}
        if kind == "message_delta":
            _change(message, value)
        elif kind == "content_block_start" and open_block is None and value["index"] == len(blocks):
            open_block = _Pieces(value["content_block"])
            blocks.append(open_block)
        elif open_block is None or value["index"] != len(blocks) - 1:
            raise _Unclear
        elif kind == "content_block_delta":
            open_block.add(value["delta"])
        elif kind == "content_block_stop":
            open_block = None
        else:
            raise _Unclear
    raise _Unclear


def _change(message: JSON, value: JSON) -> None:
    """Usage is cumulative; what it does not say again stays as it was."""
    message.update({**value["delta"]})
    message["usage"] = {**message["usage"], **{n: v for n, v in value["usage"].items() if v is not None}}
    message.update({n: v for n, v in value.items() if n not in ("type", "delta", "usage")})


class _Pieces:
    """A block that grows: texts go to lists, because to add to a text that grows costs the square of its length."""

    def __init__(self, start: JSON) -> None:
        self._block = dict(start)
        self._texts: dict[str, list[str]] = {}

    def add(self, delta: JSON) -> None:
        kind = delta["type"]
        if kind == "citations_delta":
            self._block["citations"] = [*(self._block.get("citations") or []), delta["citation"]]
        elif kind == "signature_delta":
            self._block["signature"] = delta["signature"]
        elif kind in ("text_delta", "thinking_delta"):
            name = kind.removesuffix("_delta")
            self._texts.setdefault(name, [self._block[name]]).append(delta[name])
        elif kind == "input_json_delta" and "input" in self._block:
            self._texts.setdefault("input", []).append(delta["partial_json"])
        else:
            raise _Unclear

    def joined(self) -> JSON:
        block = self._block
        for name, texts in self._texts.items():
            text = "".join(texts)
            if name != "input":
                block[name] = text
            elif text:
                block[name] = loads_of_backend(text.encode())
        if not isinstance(block.get("input", {}), dict):
            raise _Unclear
        return block


# -- a message to a stream ----------------------------------------------------------------------------------------


def replay(answer: JSON) -> bytes | None:
    """The message as a stream; None for one whose shape nobody here knows."""
    try:
        usage = answer["usage"]
        start = {**answer, **_UNSAID, "usage": {**usage, "output_tokens": 0}}
        events = [{"type": "message_start", "message": start}]
        for index, block in enumerate(answer["content"]):
            events += _block_events(index, block)
        stop = {"stop_reason": answer["stop_reason"], "stop_sequence": answer.get("stop_sequence")}
    except (KeyError, ValueError, TypeError, AttributeError):
        return None
    events += [{"type": "message_delta", "delta": stop, "usage": usage}, {"type": "message_stop"}]
    return b"".join([event(value) for value in events])


def _block_events(index: int, block: JSON) -> list[JSON]:
    start, deltas = _TAKEN_APART.get(block["type"], _in_one)(block)
    position = {"type": "content_block_delta", "index": index}
    return [
        {"type": "content_block_start", "index": index, "content_block": start},
        *[{**position, "delta": delta} for delta in deltas],
        {"type": "content_block_stop", "index": index},
    ]


def _text(block: JSON) -> tuple[JSON, list[JSON]]:
    cited: list[Any] = block.get("citations") or []
    start = {**block, "text": "", **({"citations": []} if cited else {})}
    deltas: list[JSON] = [{"type": "citations_delta", "citation": citation} for citation in cited]
    return start, [{"type": "text_delta", "text": block["text"]}, *deltas]


def _thinking(block: JSON) -> tuple[JSON, list[JSON]]:
    deltas: list[JSON] = []
    if block["thinking"]:
        deltas.append({"type": "thinking_delta", "thinking": block["thinking"]})
    if block["signature"]:
        deltas.append({"type": "signature_delta", "signature": block["signature"]})
    return {**block, "thinking": "", "signature": ""}, deltas


def _use(block: JSON) -> tuple[JSON, list[JSON]]:
    written = orjson.dumps(block["input"]).decode()
    return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": written}]


def _in_one(block: JSON) -> tuple[JSON, list[JSON]]:
    """Results of Anthropic's own tools come like this, and what is newer than this file."""
    return block, []


_TAKEN_APART: Final[dict[str, Callable[[JSON], tuple[JSON, list[JSON]]]]] = {
    "text": _text, "thinking": _thinking, "tool_use": _use, "server_tool_use": _use, "mcp_tool_use": _use,
}  # fmt: skip
