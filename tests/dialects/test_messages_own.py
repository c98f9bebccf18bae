from __future__ import annotations

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


def conversation(*blocks: JSON) -> JSON:
    return {"model": "m", "messages": [ASKED, {"role": "assistant", "content": list(blocks)}, ASKED]}


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
    assert own(original) is original


def test_what_others_left_is_taken_out() -> None:
    unsigned, of_another = {**SIGNED, "signature": ""}, {**SIGNED, "signature": "gemini:0:Eq=="}
    cited = {**TEXT, "citations": [MADE, THEIRS]}
    original = conversation(unsigned, SIGNED, of_another, {**TEXT, "citations": [MADE]}, cited)
    assert own(original) == conversation(SIGNED, TEXT, {**TEXT, "citations": [THEIRS]})
    assert original == conversation(unsigned, SIGNED, of_another, {**TEXT, "citations": [MADE]}, cited)


def test_a_message_of_which_nothing_is_left_goes() -> None:
    assert own(conversation({**SIGNED, "signature": ""}))["messages"] == [ASKED, ASKED]


def test_texts_are_nobodys() -> None:
    original = {"messages": [ASKED, {"role": "assistant", "content": "a"}]}
    assert own(original) is original


def test_a_backend_of_anthropics_own_gets_the_rest_as_it_came() -> None:
    asked = {**conversation({**SIGNED, "signature": ""}, TEXT), "max_tokens": 10, "container": "c"}
    call = parse_call(Request("r", "messages", {}, orjson.dumps(asked)))
    sent = adapter_of(Backend("b", "anthropic", "https://r")).body(call, "claude", 7, Quirks())
    assert isinstance(sent, bytes)
    assert orjson.loads(sent) == {**conversation(TEXT), "model": "claude", "max_tokens": 7, "container": "c"}
