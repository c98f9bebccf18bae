"""Chat chunks as a stream of the Responses API, and back and forth between such a stream and its whole response.

The events and their order are those of https://developers.openai.com/api/docs/guides/streaming-responses.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import orjson

from gateway.call import JSON
from gateway.dialects.responses_errors import event_of
from gateway.dialects.responses_object import finish_of
from gateway.dialects.responses_output import Output
from gateway.dialects.responses_reasoning import blocks_of
from gateway.sse import event_data, split_events

_LAST: Final = frozenset({"response.completed", "response.incomplete"})


class Encoder:
    """State: the output, the events that were not handed out yet, and how many there were."""

    def __init__(self, original: JSON) -> None:
        self._output = Output(original, self._say)
        self._events: list[bytes] = []
        self._count = 0

    @property
    def response(self) -> JSON | None:
        """The whole response after `end`."""
        return self._output.response

    @property
    def sequence_number(self) -> int:
        """Of the next event."""
        return self._count

    def feed(self, chunk: JSON) -> bytes:
        self._output.feed(chunk)
        return self._taken()

    def end(self, usage: JSON | None) -> bytes:
        self._output.end(usage)
        return self._taken()

    def close(self, usage: JSON | None) -> bytes:
        """Like `end`, with usage as this API says it."""
        self._output.close(usage)
        return self._taken()

    def _say(self, kind: str, fields: JSON) -> None:
        self._events.append(event_of(kind, {"type": kind, "sequence_number": self._count, **fields}))
        self._count += 1

    def _taken(self) -> bytes:
        events, self._events = self._events, []
        return b"".join(events)


def whole(stream: bytes) -> JSON | None:
    """The response that a complete stream ends with."""
    events = split_events(stream)
    last = _data(events[-1]) if events else None
    if last is None or last.get("type") not in _LAST or not isinstance(last.get("response"), dict):
        return None
    response: JSON = last["response"]
    return response


def replay(answer: JSON) -> bytes | None:
    """The stream of a whole response; None for one that these events would not make again."""
    try:
        encoder = Encoder(answer)
        stream = [encoder.feed(chunk) for chunk in _chunks(answer)]
        stream.append(encoder.close(answer["usage"]))
    except (KeyError, TypeError, AttributeError, LookupError, ValueError):
        return None
    return b"".join(stream) if encoder.response == answer else None


def _chunks(answer: JSON) -> Iterator[JSON]:
    """What the response was made of; each item needs one or a few of them."""
    head = {
        "id": answer["id"].removeprefix("resp_"),
        "created": answer["created_at"],
        "model": answer["model"],
        "service_tier": answer["service_tier"],
    }
    calls = 0
    for item in answer["output"]:
        for choice in _ITEMS[item["type"]](item):
            for call in choice["delta"].get("tool_calls", ()):
                call["index"] = calls
                calls += 1
            yield {**head, "choices": [choice]}
    ended: JSON = {"delta": {}, "finish_reason": finish_of(answer)}
    if "x_moma" in answer:
        ended["x_moma"] = answer["x_moma"]
    yield {**head, "choices": [ended]}


def _of_reasoning(item: JSON) -> Iterator[JSON]:
    texts = [part["text"] for part in item["summary"]]
    blocks = blocks_of(item)
    if blocks is None:
        raise ValueError("packed by somebody else")
    for block in blocks:
        if block.get("thinking"):
            yield {"delta": {"reasoning_content": texts.pop(0)}}
        yield {"delta": {"thinking_blocks": [block]}}
    for text in texts:
        yield {"delta": {"reasoning_content": text}}


def _of_message(item: JSON) -> Iterator[JSON]:
    for part in item["content"]:
        if part["type"] == "refusal":
            yield {"delta": {"refusal": part["refusal"]}}
        else:
            logprobs = {"content": part["logprobs"]} if part["logprobs"] else None
            yield {"delta": {"content": part["text"], "annotations": part["annotations"]}, "logprobs": logprobs}


def _of_call(item: JSON) -> Iterator[JSON]:
    function = {"name": item["name"], "arguments": item["arguments"]}
    yield {"delta": {"tool_calls": [{"id": item["call_id"], "type": "function", "function": function}]}}


_ITEMS: Final = {"reasoning": _of_reasoning, "message": _of_message, "function_call": _of_call}


def _data(event: bytes) -> JSON | None:
    data: Any = event_data(event)
    try:
        value = orjson.loads(data) if data is not None else None
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None
