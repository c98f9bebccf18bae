"""Chat bodies as requests of Anthropic's Messages API."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from gateway.adapters.anthropic import beyond, credentials, path, request
from gateway.adapters.anthropic_models import hears_late_system, thinks_by_budget
from tests.adapters.anthropic_pieces import (
    ADAPTIVE,
    ALLOWED,
    CLOCK,
    EPHEMERAL,
    HI,
    LATE,
    NEW,
    OLD,
    PARAMETERS,
    PDF,
    PNG,
    REDACTED,
    SIGNED,
    WEATHER,
    YES,
    budget,
    called,
    text,
)


def sent(as_name: str = NEW, max_tokens: int = 4096, *, stream: bool = False, **body: Any) -> dict[str, Any]:
    """What goes out for a body that can be expressed, without what all have; the body is left as it was."""
    whole = {"model": "m", "messages": [HI], **body}
    before = copy.deepcopy(whole)
    assert beyond(whole) is None
    made = request(whole, as_name, max_tokens, stream=stream)
    assert whole == before
    assert (made.pop("model"), made.pop("max_tokens")) == (as_name, max_tokens)
    return made


def turns(*messages: Any, as_name: str = NEW) -> list[Any]:
    made: list[Any] = sent(as_name, messages=list(messages))["messages"]
    return made


def test_a_plain_call() -> None:
    assert sent(max_tokens=7) == {"messages": [{"role": "user", "content": [text("hi")]}]}
    assert sent(stream=True)["stream"] is True
    assert path(NEW, stream=True) == "/messages"
    assert credentials("k") == {"x-api-key": "k", "anthropic-version": "2023-06-01"}
    assert credentials(None) == {"anthropic-version": "2023-06-01"}


SETTINGS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"temperature": 0, "top_p": 0.5, "top_k": 40}, {"temperature": 0, "top_p": 0.5, "top_k": 40}),
    ({"stop": "END"}, {"stop_sequences": ["END"]}),
    ({"stop": ["a", "\n\nb"]}, {"stop_sequences": ["a", "\n\nb"]}),
    ({"user": "u1"}, {"metadata": {"user_id": "u1"}}),
    ({"safety_identifier": "s1", "user": "u1"}, {"metadata": {"user_id": "u1"}}),
    ({"safety_identifier": "s1"}, {"metadata": {"user_id": "s1"}}),
    ({"service_tier": "auto"}, {"service_tier": "auto"}),
    ({"service_tier": "default"}, {"service_tier": "standard_only"}),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": PARAMETERS}}},
     {"output_config": {"format": {"type": "json_schema", "schema": PARAMETERS}}}),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "n", "description": "d", "schema": {}}}},
     {"output_config": {"format": {"type": "json_schema", "schema": {"description": "d"}}}}),
    ({"tools": [{**WEATHER, "cache_control": EPHEMERAL}, CLOCK]},
     {"tools": [{"name": "weather", "description": "d", "input_schema": PARAMETERS, "cache_control": EPHEMERAL},
                {"name": "clock", "input_schema": {"type": "object"}}]}),
    ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {}, "strict": True}}]},
     {"tools": [{"name": "f", "input_schema": {"type": "object"}, "strict": True}]}),
    # Neutral, or without a place and without an effect.
    ({"n": 1, "temperature": 1, "top_p": 1.0, "logprobs": False, "top_logprobs": 0, "logit_bias": {}, "seed": None,
      "frequency_penalty": 0, "presence_penalty": 0.0, "modalities": ["text"], "store": False, "metadata": {"a": "b"},
      "prompt_cache_key": "k", "response_format": {"type": "text"}, "stream_options": {"include_usage": True},
      "stop": [], "tools": [], "tool_choice": "auto", "parallel_tool_calls": True, "max_completion_tokens": 5}, {}),
]  # fmt: skip


@pytest.mark.parametrize(("said", "expected"), SETTINGS)
def test_settings(said: dict[str, Any], expected: dict[str, Any]) -> None:
    made = sent(**said)
    del made["messages"]
    assert made == expected


SINGLE = {"disable_parallel_tool_use": True}
CHOICES: list[tuple[dict[str, Any], Any, int]] = [
    ({}, None, 2),
    ({"tool_choice": {}}, None, 2),
    ({"tool_choice": {}, "parallel_tool_calls": False}, {"type": "auto", **SINGLE}, 2),
    ({"tool_choice": "auto"}, {"type": "auto"}, 2),
    ({"tool_choice": "none", "parallel_tool_calls": False}, {"type": "none"}, 2),
    ({"tool_choice": "required"}, {"type": "any"}, 2),
    ({"tool_choice": {"type": "function", "function": {"name": "clock"}}}, {"type": "tool", "name": "clock"}, 2),
    ({"parallel_tool_calls": False}, {"type": "auto", **SINGLE}, 2),
    ({"tool_choice": "required", "parallel_tool_calls": False}, {"type": "any", **SINGLE}, 2),
    ({"tool_choice": {"type": "allowed_tools", "allowed_tools": ALLOWED}}, {"type": "any"}, 1),
]


@pytest.mark.parametrize(("said", "choice", "tools"), CHOICES)
def test_tool_choice(said: dict[str, Any], choice: Any, tools: int) -> None:
    made = sent(tools=[WEATHER, CLOCK], **said)
    assert made.get("tool_choice") == choice
    assert [tool["name"] for tool in made["tools"]] == ["weather", "clock"][-tools:]


def test_system_messages_are_gathered() -> None:
    first = {"role": "system", "content": "a"}
    second = {"role": "developer", "content": [text("b", cache_control=EPHEMERAL)]}
    made = sent(messages=[first, second, HI])
    assert made["system"] == [text("a"), text("b", cache_control=EPHEMERAL)]
    assert made["messages"] == [{"role": "user", "content": [text("hi")]}]


@pytest.mark.parametrize(
    ("messages", "roles"),
    [
        ([HI, LATE], "user system"),
        ([HI, LATE, YES, HI], "user system assistant user"),
        ([HI, LATE, HI, YES, HI], "user system assistant user"),  # not between two turns of the user
        ([HI, YES, LATE, HI], "user assistant user system"),  # not behind the assistant's
        ([HI, LATE, LATE], "user system"),
    ],
)
def test_late_system_messages_stand_where_the_api_takes_them(messages: list[Any], roles: str) -> None:
    made = sent(NEW, messages=messages)
    assert [turn["role"] for turn in made["messages"]] == roles.split()
    assert "system" not in made
    older = sent(OLD, messages=messages)
    assert older["system"] == [text("late")] * messages.count(LATE)
    assert "system" not in [turn["role"] for turn in older["messages"]]


def test_turns_alternate_and_results_of_parallel_calls_share_one() -> None:
    calls = [called("weather", '{"city":"Paris"}', "call_1"), called("clock", "", "functions.clock:1")]
    assert turns(
        HI,
        {"role": "user", "content": [text("there")]},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "call_1", "content": "rain", "name": "weather"},
        {"role": "tool", "tool_call_id": "functions.clock:1", "content": [text("no clock")],
             "is_error": True},
        {"role": "user", "content": "and now?"},
    ) == [
        {"role": "user", "content": [text("hi"), text("there")]},
        {"role": "assistant", "content": [
            {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Paris"}},
            {"type": "tool_use", "id": "functions_clock_1", "name": "clock", "input": {}},
        ]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "call_1", "content": "rain"},
            {"type": "tool_result", "tool_use_id": "functions_clock_1", "content": [text("no clock")],
             "is_error": True},
            text("and now?"),
        ]},
    ]  # fmt: skip


def test_images_and_documents() -> None:
    parts = [
        {"type": "image_url", "image_url": {"url": "https://x.example/a.png", "detail": "auto"}},
        {"type": "image_url", "image_url": {"url": PNG}, "cache_control": EPHEMERAL},
        {"type": "image_url", "image_url": {"url": "data:image/jpg;base64,/9j/"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": PDF}},
    ]
    picture = {"type": "base64", "media_type": "image/png", "data": "iVBOR"}
    blocks = [
        {"type": "image", "source": {"type": "url", "url": "https://x.example/a.png"}},
        {"type": "image", "source": picture, "cache_control": EPHEMERAL},
        {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": "/9j/"}},
        {
            "type": "document",
            "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0"},
            "title": "a.pdf",
        },
    ]
    assert turns({"role": "user", "content": parts}) == [{"role": "user", "content": blocks}]
    answered = turns(HI, {"role": "tool", "tool_call_id": "1", "content": [parts[1]], "cache_control": EPHEMERAL})
    result = {"type": "tool_result", "tool_use_id": "1", "content": [blocks[1]], "cache_control": EPHEMERAL}
    assert answered[0]["content"] == [text("hi"), result]


@pytest.mark.parametrize(
    ("said", "blocks"),
    [
        ({"thinking_blocks": [SIGNED, REDACTED], "reasoning_content": "hm"}, [SIGNED, REDACTED]),
        ({"thinking_blocks": [{"type": "thinking", "signature": "EqQB"}], "reasoning_content": "hm"}, [SIGNED]),
        ({"reasoning_content": "unsigned"}, []),
        ({"thinking_blocks": [{"type": "thinking", "thinking": "hm", "signature": "gemini:text:AAA"}]}, []),
        ({"thinking_blocks": [{"type": "thinking", "signature": "EqQB"}]}, []),
        ({"thinking_blocks": [5, {}, {"type": "thinking", "thinking": 5, "signature": "EqQB"}]}, []),
    ],
)
def test_thinking_goes_back_as_it_was_signed(said: dict[str, Any], blocks: list[Any]) -> None:
    answered = {"role": "assistant", "content": "4", "refusal": None, "annotations": [], **said}
    assert turns(HI, answered, HI)[1] == {"role": "assistant", "content": [*blocks, text("4")]}


def test_texts_of_nothing_are_left_out() -> None:
    assert turns({"role": "user", "content": [text(" "), text("x")]}, {"role": "assistant", "content": ""}, HI) == [
        {"role": "user", "content": [text("x"), text("hi")]}
    ]
    assert turns(HI, {"role": "assistant", "content": None, "refusal": "no"}, HI)[1]["content"] == [text("no")]


THINKING: list[tuple[str, dict[str, Any], int, Any, Any]] = [
    (NEW, {}, 4096, None, None),
    (NEW, {"thinking": budget(2000)}, 4096, budget(2000), None),
    (NEW, {"thinking": budget(2000)}, 1500, budget(1499), None),  # the output limit was lowered
    (NEW, {"thinking": budget(2000)}, 1024, None, None),  # no room
    (NEW, {"thinking": {**ADAPTIVE, "display": "omitted"}, "reasoning_effort": "high"}, 100,
     {**ADAPTIVE, "display": "omitted"}, "high"),
    (NEW, {"thinking": {"type": "disabled"}}, 4096, {"type": "disabled"}, None),
    (NEW, {"reasoning_effort": "none"}, 4096, {"type": "disabled"}, None),
    (NEW, {"reasoning_effort": "minimal"}, 4096, ADAPTIVE, "low"),
    (NEW, {"reasoning_effort": "xhigh"}, 4096, ADAPTIVE, "xhigh"),
    (OLD, {"reasoning_effort": "low"}, 4096, budget(1024), None),
    (OLD, {"reasoning_effort": "medium"}, 4096, budget(2048), None),
    (OLD, {"reasoning_effort": "high"}, 1000, None, None),
    (OLD, {"reasoning_effort": "high", "thinking": budget(2000)}, 4096, budget(2000), None),
]  # fmt: skip


@pytest.mark.parametrize(("as_name", "said", "max_tokens", "thinking", "effort"), THINKING)
def test_thinking(as_name: str, said: dict[str, Any], max_tokens: int, thinking: Any, effort: str | None) -> None:
    made = sent(as_name, max_tokens, **said)
    assert made.get("thinking") == thinking
    assert made.get("output_config") == ({"effort": effort} if effort else None)


def test_an_effort_gives_way_within_a_turn_whose_thoughts_were_lost() -> None:
    """The API wants them back, with their signature, before it thinks on."""
    asked = {"role": "assistant", "tool_calls": [called("clock", "{}")]}
    result = {"role": "tool", "tool_call_id": "call_1", "content": "noon"}

    def thinks(as_name: str, *messages: Any) -> bool:
        return "thinking" in sent(as_name, messages=list(messages), reasoning_effort="high")

    assert not thinks(OLD, HI, asked, result)
    assert thinks(OLD, HI, asked | {"thinking_blocks": [SIGNED]}, result)
    assert thinks(OLD, HI, asked, result, YES, HI)
    assert thinks(NEW, HI, asked, result)


def test_an_effort_goes_with_a_tool_that_must_be_called() -> None:
    made = sent(NEW, tools=[CLOCK], tool_choice="required", reasoning_effort="low")
    assert (made["thinking"], made["tool_choice"]) == (ADAPTIVE, {"type": "any"})


@pytest.mark.parametrize(
    ("as_name", "by_budget", "late"),
    [
        ("claude-3-7-sonnet-20250219", True, False), ("claude-3-5-haiku-latest", True, False),
        ("claude-2.1", True, False), ("claude-sonnet-4-20250514", True, False), ("claude-opus-4-1", True, False),
        ("claude-haiku-4-5@20251001", True, False), ("anthropic.claude-opus-4-5-v1", True, False),
        ("claude-sonnet-4-6", False, False), ("claude-opus-4-7", False, False), ("claude-opus-4-8", False, True),
        ("claude-sonnet-5", False, True), ("claude-opus-5-5", False, True), ("claude-fable-5-1", False, True),
        ("claude-opus-10", False, True), ("deepseek-chat", True, False),
    ],
)  # fmt: skip
def test_what_models_take(as_name: str, by_budget: bool, late: bool) -> None:
    assert (thinks_by_budget(as_name), hears_late_system(as_name)) == (by_budget, late)
