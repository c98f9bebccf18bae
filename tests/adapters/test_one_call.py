from __future__ import annotations

from typing import Any

import pytest

from gateway.adapters.fitting import beyond
from gateway.adapters.one_call import FirstCallOnly, first_call_only
from gateway.adapters.quirks import TABLE
from gateway.call import JSON


def piece(index: Any, own_id: str | None, arguments: str) -> JSON:
    named = {} if own_id is None else {"id": own_id}
    return {"index": index, **named, "function": {"arguments": arguments}}


def passed(*pieces: JSON) -> str:
    """The arguments that are passed on, chunk by chunk."""
    only, out = FirstCallOnly(), ""
    for one in pieces:
        chunk = {"choices": [{"index": 0, "delta": {"content": "t", "tool_calls": [one]}}]}
        delta = only.of(chunk)["choices"][0]["delta"]
        assert delta["content"] == "t"
        assert delta.get("tool_calls") != []
        out += "".join(call["function"]["arguments"] for call in delta.get("tool_calls", ()))
    return out


@pytest.mark.parametrize(
    "pieces",
    [
        [piece(0, "a", "1"), piece(0, None, "2"), piece(1, "b", "x"), piece(1, None, "x")],
        [piece(0, "a", "1"), piece(1, "b", "x"), piece(0, None, "2"), piece(1, None, "x")],
        [piece(0, "a", "1"), piece(0, "a", "2"), piece(0, "b", "x"), piece(0, None, "x"), piece(0, "b", "x")],
        [piece(0, None, "1"), piece(0, "a", "2"), piece(0, "b", "x")],
        [piece(None, "a", "1"), piece(None, None, "2"), piece(None, "b", "x"), piece(None, None, "x")],
    ],
)
def test_of_a_stream_the_first_call_is_passed_on(pieces: list[JSON]) -> None:
    assert passed(*pieces) == "12"


def test_each_choice_has_a_first_call() -> None:
    only = FirstCallOnly()
    chunk = {"choices": [{"index": n, "delta": {"tool_calls": [piece(0, f"c{n}", "1")]}} for n in (0, 1)]}
    assert only.of(chunk) == chunk


def test_of_a_whole_answer_the_first_call_is_passed_on() -> None:
    calls = [piece(0, "a", "1"), piece(1, "b", "2")]
    message = {"role": "assistant", "content": "t"}
    answer = {"choices": [{"message": {**message, "tool_calls": calls}}, {"message": message}], "id": "x"}
    first = [{"message": {**message, "tool_calls": calls[:1]}}, {"message": message}]
    assert first_call_only(answer) == {"choices": first, "id": "x"}


@pytest.mark.parametrize("name", ["deepseek", "ollama", "zhipu"])
def test_who_has_no_such_setting_is_asked_where_the_answer_is_translated(name: str) -> None:
    asked = {"tools": [{"type": "function", "function": {"name": "f"}}], "parallel_tool_calls": False}
    assert beyond(asked, TABLE[name]) == "parallel_tool_calls"
    assert beyond(asked, TABLE[name], translated=True) is None
