from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.adapters.kinds import adapter_of
from gateway.call import JSON, Request
from gateway.config.model import Backend, Quirks
from gateway.dialects.messages_own import own
from gateway.parse import parse_call

MADE = {"type": "web_search_result_location", "url": "https://x", "title": "", "cited_text": "", "encrypted_index": ""}
THEIRS = {**MADE, "encrypted_index": "Eo"}
SIGNED = {"type": "thinking", "thinking": "Hm.", "signature": "Eq=="}
TEXT = {"type": "text", "text": "a"}
ASKED: JSON = {"role": "user", "content": [TEXT]}


def conversation(*blocks: JSON, **more: Any) -> JSON:
    return {
        "model": "m",
        "max_tokens": 9,
        **more,
        "messages": [ASKED, {"role": "assistant", "content": list(blocks)}, ASKED],
    }


@pytest.mark.parametrize(
    "blocks",
    [
        (SIGNED, TEXT),
        ({"type": "redacted_thinking", "data": "Eq=="}, {**TEXT, "citations": [THEIRS]}, {**TEXT, "citations": None}),
        ({"type": "tool_use", "id": "t", "name": "f", "input": {}}, {"type": "what_is_new"}),
    ],
)
def test_what_anthropic_said_itself_is_left_as_it_is(blocks: tuple[JSON, ...]) -> None:
    original = conversation(*blocks)
    assert own(original, 9) == original


def test_what_others_left_is_taken_out() -> None:
    unsigned, of_another = {**SIGNED, "signature": ""}, {**SIGNED, "signature": "gemini:0:Eq=="}
    cited = {**TEXT, "citations": [MADE, THEIRS]}
    original = conversation(unsigned, SIGNED, of_another, {**TEXT, "citations": [MADE]}, cited)
    assert own(original, 9) == conversation(SIGNED, TEXT, {**TEXT, "citations": [THEIRS]})
    assert original == conversation(unsigned, SIGNED, of_another, {**TEXT, "citations": [MADE]}, cited)


def test_a_message_of_which_nothing_is_left_goes() -> None:
    assert own(conversation({**SIGNED, "signature": ""}), 9)["messages"] == [ASKED, ASKED]


def test_texts_are_nobodys() -> None:
    original = {"max_tokens": 9, "messages": [ASKED, {"role": "assistant", "content": "a"}]}
    assert own(original, 9) == original


def test_a_backend_of_anthropics_own_gets_the_rest_as_it_came() -> None:
    asked = conversation({**SIGNED, "signature": ""}, TEXT, max_tokens=10, container="c")
    call = parse_call(Request("r", "messages", {}, orjson.dumps(asked)))
    sent = adapter_of(Backend("b", "anthropic", "https://r")).body(call, "claude", 7, Quirks())
    assert isinstance(sent, bytes)
    assert orjson.loads(sent) == conversation(TEXT, max_tokens=7, container="c") | {"model": "claude"}


def test_a_budget_stays_below_a_limit_that_was_lowered() -> None:
    asked = conversation(SIGNED, TEXT, max_tokens=32_000, thinking={"type": "enabled", "budget_tokens": 31_999})
    assert own(asked, 32_000) == asked
    lowered = asked | {"max_tokens": 4000, "thinking": {"type": "enabled", "budget_tokens": 3999}}
    assert own(asked, 4000) == lowered
    modest = asked | {"thinking": {"type": "enabled", "budget_tokens": 2000}}
    assert own(modest, 4000) == modest | {"max_tokens": 4000}


def test_with_no_room_there_is_no_thinking_and_none_to_clear() -> None:
    thinking = {"type": "enabled", "budget_tokens": 31_999}
    clears, other = {"type": "clear_thinking_20251015", "keep": "all"}, {"type": "clear_tool_uses_20250919"}
    asked = conversation(TEXT, max_tokens=32_000, thinking=thinking, context_management={"edits": [clears, other]})
    assert own(asked, 1024) == conversation(TEXT, max_tokens=1024, context_management={"edits": [other]})
    asked["context_management"] = {"edits": [clears]}
    assert own(asked, 1024) == conversation(TEXT, max_tokens=1024)


@pytest.mark.parametrize("thinking", [None, {}, {"type": "adaptive"}, {"type": "disabled"}, {"type": "what_is_new"}])
def test_thinking_without_a_budget_is_left_as_it_is(thinking: JSON | None) -> None:
    asked = conversation(TEXT, max_tokens=32_000, thinking=thinking)
    assert own(asked, 100) == asked | {"max_tokens": 100}
