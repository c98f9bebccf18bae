"""The scripted backend of the clients' tests, and the table that their runs write."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.demo.scripted import Reply, Seen
from tests.clients.answering import CHAT, answers, written_steps
from tests.clients.table import HEAD, Group, replaced

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": -9}},
            "required": ["city", "days"],
        },
    },
}


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def asked(*messages: dict[str, Any], **more: Any) -> Reply | None:
    body = {"model": "large", "messages": list(messages), **more}
    return answers(Seen("POST", CHAT, {}, json.dumps(body).encode(), 0.0))


def message(reply: Reply | None) -> dict[str, Any]:
    assert reply is not None
    value: dict[str, Any] = reply.body["choices"][0]["message"]
    return value


def test_prompts_write_down_calls_at_once_and_in_turn() -> None:
    prompt = 'Please call weather {"city": "a"} and weather {"city": "b"} then add {"a": {"b": 1}} and that is all'
    assert written_steps(prompt) == [
        [("weather", {"city": "a"}), ("weather", {"city": "b"})],
        [("add", {"a": {"b": 1}})],
    ]
    assert written_steps("call me {maybe}, or recall weather") == []


def test_each_turn_has_the_next_calls_and_the_last_says_the_results() -> None:
    conversation = [user('call weather {"city": "a"} then weather {"city": "b"}')]
    for city in "ab":
        said = message(asked(*conversation))
        [call] = said["tool_calls"]
        assert json.loads(call["function"]["arguments"]) == {"city": city}
        conversation += [said, {"role": "tool", "tool_call_id": call["id"], "content": f"sun in {city}"}]
    assert message(asked(*conversation))["content"] == "Results: sun in a; sun in b"


def test_arguments_come_from_the_prompt_where_it_writes_none_down() -> None:
    [call] = message(asked(user("the weather of 3 days in 'Hohhot'"), tools=[WEATHER]))["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"city": "Hohhot", "days": 3}


@pytest.mark.parametrize(
    "messages",
    [
        [user("x"), {"role": "tool", "tool_call_id": "c", "content": "result without a call"}],
        [user("x"), {"role": "assistant", "tool_calls": [{"id": "c"}]}, user("call without a result")],
        [user("x"), {"role": "assistant", "tool_calls": [{"id": "c"}]}],
    ],
)
def test_a_conversation_that_openai_refuses_is_refused(messages: list[dict[str, Any]]) -> None:
    reply = asked(*messages)
    assert reply is not None
    assert reply.status == 400


def test_a_stream_says_what_a_whole_answer_says() -> None:
    prompt = user('call weather {"city": "Hohhot"}')
    whole = asked(prompt)
    streamed = asked(prompt, stream=True, stream_options={"include_usage": True})
    assert whole is not None
    assert streamed is not None
    *chunks, last, done = [event for event in streamed.stream or () if isinstance(event, bytes)]
    deltas = [json.loads(chunk[6:])["choices"][0]["delta"] for chunk in chunks]
    calls = [call for delta in deltas for call in delta.get("tool_calls", ())]
    assert "".join(call["function"]["arguments"] for call in calls) == '{"city": "Hohhot"}'
    assert calls[0]["id"] == message(whole)["tool_calls"][0]["id"]
    assert json.loads(last[6:])["usage"] == whole.body["usage"]
    assert done == b"data: [DONE]\n\n"


def test_the_table_keeps_the_rows_of_other_clients() -> None:
    rows = "| a | 1 | chat | old |  |\n| a | 1 | messages | old |  |\n| b | 1 | chat | x |  |\n"
    page = f"# Clients\n\n{HEAD}\n|---|---|---|---|---|\n{rows}\nEnd.\n"
    groups = [Group("a", "2", "chat", ("stream", "a|b"), {"audio": "no", "video": "no", "sound": "not yet"})]
    assert replaced(page, groups).splitlines()[4:] == [
        "| a | 2 | chat | stream, a/b | audio, video: no; sound: not yet |",
        "| b | 1 | chat | x |  |",
        "",
        "End.",
    ]
    new = replaced(page, [Group("c", "1", "chat", ("y",), {})]).splitlines()
    assert new[6:8] == ["| b | 1 | chat | x |  |", "| c | 1 | chat | y |  |"]
