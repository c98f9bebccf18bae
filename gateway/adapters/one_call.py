"""`parallel_tool_calls: false` where a provider has no such setting: of several calls the first is passed on.

The model asks for the others again, once it has seen the answer of that one.
"""

from __future__ import annotations

from typing import Any

from gateway.call import JSON


def first_call_only(answer: JSON) -> JSON:
    """A whole answer of the middle form."""
    return {**answer, "choices": [_of_choice(choice) for choice in answer["choices"]]}


def _of_choice(choice: JSON) -> JSON:
    message = choice.get("message")
    if not isinstance(message, dict):
        return choice
    calls = message.get("tool_calls")
    if not isinstance(calls, list) or not calls[1:]:
        return choice
    return {**choice, "message": {**message, "tool_calls": calls[:1]}}


class FirstCallOnly:
    """The same of a stream. State: the `_first` call of each choice, by its index."""

    def __init__(self) -> None:
        self._first: dict[Any, _First] = {}

    def of(self, chunk: JSON) -> JSON:
        choices = chunk.get("choices") or ()
        if not any(_calls(choice) for choice in choices):
            return chunk
        return {**chunk, "choices": [self._choice(choice) for choice in choices]}

    def _choice(self, choice: JSON) -> JSON:
        calls = _calls(choice)
        if not calls:
            return choice
        first = self._first.setdefault(choice.get("index"), _First())
        kept = [call for call in calls if first.has(call)]
        delta = {name: value for name, value in choice["delta"].items() if name != "tool_calls"}
        return {**choice, "delta": {**delta, "tool_calls": kept} if kept else delta}


class _First:
    """State: its index and id, once it has begun, and whether another has the same index."""

    def __init__(self) -> None:
        self._begun = False
        self._index: Any = None
        self._id: Any = None
        self._shared = False

    def has(self, call: Any) -> bool:
        """Whether this piece of a call is one of the first."""
        if not isinstance(call, dict):
            return True  # for who reads it to say what is wrong with it
        index, own_id = call.get("index"), call.get("id")
        if not self._begun:
            self._begun, self._index, self._id = True, index, own_id
            return True
        if index != self._index:
            return False
        if own_id and self._id and own_id != self._id:
            self._shared = True  # there are backends that give all of them one index
            return False
        self._id = self._id or own_id
        return not self._shared or bool(own_id)


def _calls(choice: JSON) -> list[Any]:
    delta = choice.get("delta")
    calls = delta.get("tool_calls") if isinstance(delta, dict) else None
    return calls if isinstance(calls, list) else []
