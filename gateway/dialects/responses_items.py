"""The items of a response while they are written: each says its events in the order of the API, and ends as an item."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from gateway.call import JSON
from gateway.dialects.responses_reasoning import reasoning_item

Say: TypeAlias = Callable[[str, JSON], None]  # the event's type, and its other fields


class Reasoning:
    """State: the parts that have ended, the pieces of the open one (None: there is none) and what its events have in
    common, the signed blocks."""

    def __init__(self, say: Say, place: int, item_id: str) -> None:
        self._say = say
        self.place = place
        self._id = item_id
        self._where: JSON = {"item_id": item_id, "output_index": place}
        self._texts: list[str] = []
        self._pieces: list[str] | None = None
        self._at: JSON = {}
        self._blocks: list[JSON] = []
        say("response.output_item.added", {"output_index": place, "item": self._item("in_progress")})

    def add(self, text: str) -> None:
        if self._pieces is None:
            self._pieces = []
            self._at = {**self._where, "summary_index": len(self._texts)}
            self._say("response.reasoning_summary_part.added", {**self._at, "part": _summary("")})
        self._pieces.append(text)
        self._say("response.reasoning_summary_text.delta", {**self._at, "delta": text})

    def seal(self, block: JSON) -> None:
        """A signature of the text since the last block, or a block that only its provider can read."""
        text = self._end_part()
        if block.get("type") == "thinking":
            block = {"type": "thinking", "thinking": text, "signature": block.get("signature") or ""}
        self._blocks.append(block)

    def end(self, status: str) -> JSON:
        self._end_part()
        item = self._item(status)
        self._say("response.output_item.done", {"output_index": self.place, "item": item})
        return item

    def _end_part(self) -> str:
        if self._pieces is None:
            return ""
        text, at = "".join(self._pieces), self._at
        self._say("response.reasoning_summary_text.done", {**at, "text": text})
        self._say("response.reasoning_summary_part.done", {**at, "part": _summary(text)})
        self._texts.append(text)
        self._pieces = None
        return text

    def _item(self, status: str) -> JSON:
        return reasoning_item(self._id, self._texts, self._blocks, status)


def _summary(text: str) -> JSON:
    return {"type": "summary_text", "text": text}


class Message:
    """State: the parts that have ended, and of the open one its kind ("": there is none), pieces, probabilities,
    annotations, and what its events have in common."""

    def __init__(self, say: Say, place: int, item_id: str) -> None:
        self._say = say
        self.place = place
        self._id = item_id
        self._where: JSON = {"item_id": item_id, "output_index": place}
        self._content: list[JSON] = []
        self._kind = ""
        self._pieces: list[str] = []
        self._logprobs: list[JSON] = []
        self._annotations: list[JSON] = []
        self._at: JSON = {}
        say("response.output_item.added", {"output_index": place, "item": self._item("in_progress")})

    def add(self, text: str, logprobs: Iterable[JSON] = ()) -> None:
        self._turn_to("output_text")
        new = [_logprob(token) for token in logprobs]
        self._logprobs += new
        if text or new:
            self._pieces.append(text)
            self._say("response.output_text.delta", {**self._at, "delta": text, "logprobs": new})

    def annotate(self, annotation: JSON) -> None:
        self._turn_to("output_text")
        made = _annotation(annotation)
        place = len(self._annotations)
        self._annotations.append(made)
        told = {**self._at, "annotation_index": place, "annotation": made}
        self._say("response.output_text.annotation.added", told)

    def refuse(self, text: str) -> None:
        self._turn_to("refusal")
        self._pieces.append(text)
        self._say("response.refusal.delta", {**self._at, "delta": text})

    def end(self, status: str) -> JSON:
        self._turn_to("")
        item = self._item(status)
        self._say("response.output_item.done", {"output_index": self.place, "item": item})
        return item

    def _turn_to(self, kind: str) -> None:
        """Ends the open part, if it is another, and begins this one."""
        if kind == self._kind:
            return
        if self._kind:
            self._end_part()
        self._kind, self._pieces, self._logprobs, self._annotations = kind, [], [], []
        self._at = {**self._where, "content_index": len(self._content)}
        if kind:
            self._say("response.content_part.added", {**self._at, "part": self._part("")})

    def _end_part(self) -> None:
        text, at = "".join(self._pieces), self._at
        part = self._part(text)
        if self._kind == "refusal":
            self._say("response.refusal.done", {**at, "refusal": text})
        else:
            self._say("response.output_text.done", {**at, "text": text, "logprobs": self._logprobs})
        self._say("response.content_part.done", {**at, "part": part})
        self._content.append(part)

    def _part(self, text: str) -> JSON:
        if self._kind == "refusal":
            return {"type": "refusal", "refusal": text}
        return {"type": "output_text", "text": text, "annotations": self._annotations, "logprobs": self._logprobs}

    def _item(self, status: str) -> JSON:
        return {
            "id": self._id,
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": list(self._content),
        }


def _logprob(token: JSON) -> JSON:
    """OpenAI's form of chat has all of it; other backends leave the bytes out."""
    alternatives = [_probability(other) for other in token.get("top_logprobs") or ()]
    return {**_probability(token), "top_logprobs": alternatives}


def _probability(token: JSON) -> JSON:
    return {"token": token.get("token"), "logprob": token.get("logprob"), "bytes": token.get("bytes") or []}


def _annotation(annotation: JSON) -> JSON:
    """Chat keeps the fields of a kind under its name."""
    kind = annotation.get("type")
    inner = annotation.get(kind) if isinstance(kind, str) else None
    return {"type": kind, **inner} if isinstance(inner, dict) else annotation


class FunctionCall:
    """`given_id` is its backend's, if any. State: the pieces of its arguments."""

    def __init__(self, say: Say, place: int, stem: str, given_id: str, name: str) -> None:
        self._say = say
        self.place = place
        self.given_id = given_id
        self._id = f"fc_{stem}_{place}"
        self._where: JSON = {"item_id": self._id, "output_index": place}
        self._call_id = given_id or f"call_{stem}_{place}"
        self._name = name
        self._pieces: list[str] = []
        say("response.output_item.added", {"output_index": place, "item": self._item("", "in_progress")})

    def add(self, arguments: str) -> None:
        if arguments:
            self._pieces.append(arguments)
            self._say("response.function_call_arguments.delta", {**self._where, "delta": arguments})

    def end(self, status: str) -> JSON:
        arguments = "".join(self._pieces)
        done: dict[str, Any] = {**self._where, "name": self._name, "arguments": arguments}
        self._say("response.function_call_arguments.done", done)
        item = self._item(arguments, status)
        self._say("response.output_item.done", {"output_index": self.place, "item": item})
        return item

    def _item(self, arguments: str, status: str) -> JSON:
        return {
            "id": self._id,
            "type": "function_call",
            "status": status,
            "call_id": self._call_id,
            "name": self._name,
            "arguments": arguments,
        }
