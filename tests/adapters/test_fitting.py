from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway.adapters.fitting import beyond, fitted
from gateway.adapters.quirks import TABLE, UNKNOWN, provider, takes_usage
from gateway.call import JSON
from gateway.config.model import PROVIDERS, Quirks
from tests.adapters.junk import spoilt

DOCS = Path(__file__).parent.parent.parent / "docs"
HI = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "f"}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
EPHEMERAL = {"type": "ephemeral"}


def chat(*messages: JSON, **more: Any) -> JSON:
    return {"messages": list(messages) or [HI], **more}


def settings(name: str, **more: Any) -> JSON:
    out = fitted(chat(**more), TABLE[name])
    assert out.pop("messages") == [HI]
    return out


def test_each_provider_that_may_be_named_has_an_entry() -> None:
    assert sorted(TABLE) == sorted(PROVIDERS)
    rows = re.findall(r"^\| `(\w+)`", (DOCS / "providers.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == sorted(PROVIDERS)
    assert provider(Quirks()) is UNKNOWN
    assert [takes_usage(quirks) for quirks in (Quirks(), Quirks(like="mistral"), Quirks(True, like="mistral"))] == [
        True, False, True,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "more", "param"),
    [
        ("deepseek", {"n": 2}, "n"),
        ("deepseek", {"seed": 0}, "seed"),
        ("deepseek", {"logit_bias": {"5": 1}}, "logit_bias"),
        ("deepseek", {"tools": [TOOL], "parallel_tool_calls": False}, "parallel_tool_calls"),
        ("deepseek", {"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format"),
        ("deepseek", {"tools": [TOOL], "tool_choice": {"type": "allowed_tools"}}, "tool_choice"),
        ("zhipu", {"stop": ["a", "b"]}, "stop"),
        ("zhipu", {"tools": [TOOL], "tool_choice": "required"}, "tool_choice"),
        ("zhipu", {"logprobs": True}, "logprobs"),
        ("moonshot", {"tools": [TOOL], "tool_choice": "required"}, "tool_choice"),
        ("qwen", {"n": 5}, "n"),
        ("qwen", {"frequency_penalty": 0.5}, "frequency_penalty"),
        ("minimax", {"presence_penalty": 1}, "presence_penalty"),
        ("volcano", {"top_k": 5}, "top_k"),
        ("ollama", {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
        ("mistral", {"logit_bias": {"5": 1}}, "logit_bias"),
        ("openai", {"top_k": 5}, "top_k"),
        ("vllm", {"modalities": ["text", "audio"]}, "modalities"),
        ("llamacpp", {"store": True}, "store"),
        ("sglang", {"service_tier": "flex"}, "service_tier"),
    ],
)
def test_what_a_provider_has_no_place_for_is_named(name: str, more: JSON, param: str) -> None:
    assert beyond(chat(**more), TABLE[name]) == param


@pytest.mark.parametrize("name", sorted(TABLE))
def test_what_changes_no_answer_is_left_out_of_what_a_provider_lacks(name: str) -> None:
    body = chat(
        n=1, store=False, logit_bias={}, seed=None, logprobs=False, top_logprobs=0, presence_penalty=0, top_k=-1,
        frequency_penalty=0, parallel_tool_calls=True, modalities=["text"], verbosity="medium", service_tier="auto",
        audio=None, response_format={"type": "text"}, stop=["a"], tools=[TOOL], tool_choice="auto",
    )  # fmt: skip
    assert beyond(body, TABLE[name]) is None
    assert fitted(body, TABLE[name]).keys().isdisjoint(TABLE[name].lacks)


def test_images_among_results_come_behind_all_results() -> None:
    parts = [{"type": "text", "text": "see"}, IMAGE]
    results: list[JSON] = [
        {"role": "tool", "tool_call_id": "c1", "content": parts},
        {"role": "tool", "tool_call_id": "c2", "content": "x"},
    ]
    sent = fitted(chat(*results), UNKNOWN)["messages"]
    assert [message["role"] for message in sent] == ["tool", "tool", "user"]
    assert sent[0]["content"] == "see\n(what call c1 returned beside text follows)"
    assert sent[2]["content"] == [{"type": "text", "text": "Returned by tool call c1:"}, IMAGE]


def test_the_limit_has_the_provider_s_name() -> None:
    given = {"max_tokens": 7, "max_completion_tokens": 5}
    assert settings("volcano", **given) == settings("openai", **given) == {"max_completion_tokens": 5}
    assert settings("ollama", **given) == settings("qwen", **given) == {"max_tokens": 5}
    assert settings("vllm", **given) == given
    assert settings("ollama") == {}


def test_the_body_stays_as_it_is() -> None:
    message = {"role": "tool", "tool_call_id": "c", "content": "x", "is_error": True, "cache_control": EPHEMERAL}
    body = chat(message, tools=[{**TOOL, "cache_control": EPHEMERAL}], max_tokens=5, seed=1)
    before = repr(body)
    fitted(body, TABLE["mistral"])
    assert repr(body) == before


def test_additions_to_messages_are_for_who_understands_them() -> None:
    spoken = {
        "role": "assistant",
        "content": [{"type": "text", "text": "x", "cache_control": EPHEMERAL}],
        "reasoning_content": "hm",
        "thinking_blocks": [{"type": "thinking", "thinking": "hm", "signature": "s"}],
    }
    bare = {"role": "assistant", "content": [{"type": "text", "text": "x"}]}
    tools = [{**TOOL, "cache_control": EPHEMERAL}]

    def sent(name: str) -> JSON:
        return fitted(chat(spoken, tools=tools), TABLE[name])

    assert sent("openai") == sent("mistral") == chat(bare, tools=[TOOL])
    assert sent("deepseek") == chat({**bare, "reasoning_content": "hm"}, tools=[TOOL])
    assert sent("qwen") == chat({**bare, "content": spoken["content"], "reasoning_content": "hm"}, tools=tools)
    marked = {"role": "tool", "tool_call_id": "c", "content": spoken["content"]}
    assert fitted(chat(marked), TABLE["qwen"])["messages"] == [marked]
    assert fitted(chat(marked), TABLE["vllm"])["messages"] == [{**marked, "content": "x"}]


@pytest.mark.parametrize(
    "content", ["no such\nfile", [{"type": "text", "text": "no such"}, {"type": "text", "text": "file"}]]
)
def test_a_result_that_is_an_error_says_so(content: Any) -> None:
    message = {"role": "tool", "tool_call_id": "c", "content": content, "is_error": True}
    assert fitted(chat(message), UNKNOWN)["messages"] == [
        {"role": "tool", "tool_call_id": "c", "content": "[error] no such\nfile"}
    ]
    assert fitted(chat({**message, "is_error": False}), UNKNOWN)["messages"] == [
        {"role": "tool", "tool_call_id": "c", "content": "no such\nfile"}
    ]


def test_developers_are_the_system_where_they_are_not_known() -> None:
    said = {"role": "developer", "content": "x"}
    assert fitted(chat(said), TABLE["openai"])["messages"] == [said]
    assert fitted(chat(said), TABLE["qwen"])["messages"] == [{"role": "system", "content": "x"}]


ENABLED = {"type": "enabled", "budget_tokens": 8000}
DISABLED = {"type": "disabled"}
ADAPTIVE = {"type": "adaptive", "display": "summarized"}


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("openai", {"thinking": {"type": "enabled", "budget_tokens": 8192}}, {"reasoning_effort": "medium"}),
        ("openai", {"thinking": {"type": "enabled", "budget_tokens": 1024}}, {"reasoning_effort": "low"}),
        ("openai", {"thinking": {"type": "enabled", "budget_tokens": 31_999}}, {"reasoning_effort": "high"}),
        ("openai", {"thinking": ENABLED, "reasoning_effort": "xhigh"}, {"reasoning_effort": "xhigh"}),
        ("openai", {"thinking": DISABLED}, {"reasoning_effort": "none"}),
        ("openai", {"thinking": ADAPTIVE}, {}),
        ("openai", {"reasoning_effort": "low"}, {"reasoning_effort": "low"}),
        ("deepseek", {"thinking": ENABLED}, {"thinking": {"type": "enabled"}, "reasoning_effort": "medium"}),
        ("deepseek", {"thinking": DISABLED, "reasoning_effort": "high"}, {"thinking": {"type": "disabled"}}),
        ("deepseek", {"reasoning_effort": "none"}, {"thinking": {"type": "disabled"}}),
        ("deepseek", {"reasoning_effort": "max"}, {"reasoning_effort": "max"}),
        ("volcano", {"thinking": {"type": "auto"}}, {"thinking": {"type": "auto"}}),
        ("zhipu", {"thinking": {"type": "enabled", "clear_thinking": False}},
         {"thinking": {"type": "enabled", "clear_thinking": False}}),
        ("minimax", {"thinking": ENABLED}, {"thinking": {"type": "adaptive"}}),
        ("minimax", {"reasoning_effort": "none"}, {"thinking": {"type": "disabled"}}),
        ("qwen", {"thinking": ENABLED}, {"enable_thinking": True, "thinking_budget": 8000}),
        ("qwen", {"thinking": DISABLED}, {"enable_thinking": False}),
        ("qwen", {"thinking": ADAPTIVE}, {}),
        ("qwen", {"reasoning_effort": "medium"}, {"enable_thinking": True, "thinking_budget": 8192}),
        ("qwen", {"reasoning_effort": "none"}, {"enable_thinking": False}),
        ("qwen", {"enable_thinking": True}, {"enable_thinking": True}),
        ("vllm", {"thinking": ENABLED},
         {"chat_template_kwargs": {"enable_thinking": True}, "reasoning_effort": "medium"}),
        ("sglang", {"thinking": DISABLED, "chat_template_kwargs": {"x": 1}},
         {"chat_template_kwargs": {"enable_thinking": False, "x": 1}}),
        ("llamacpp", {"reasoning_effort": "low"}, {"reasoning_effort": "low"}),
    ],
)  # fmt: skip
def test_thinking(name: str, given: JSON, expected: JSON) -> None:
    assert settings(name, **given) == expected


@pytest.mark.parametrize("name", sorted(TABLE))
def test_any_body_can_be_fitted(name: str) -> None:
    rng = random.Random(5)
    result = {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "x"}], "is_error": True}
    spoken = {"role": "assistant", "content": "x", "thinking_blocks": [{"type": "thinking"}], "reasoning_content": "x"}
    body = chat(
        {"role": "developer", "content": "x"}, spoken, result, tools=[TOOL], tool_choice={"type": "function"},
        thinking=ENABLED, reasoning_effort="low", chat_template_kwargs={"x": 1}, stop=["a"], max_tokens=5,
        response_format={"type": "json_object"}, parallel_tool_calls=True, logit_bias={"5": 1},
    )  # fmt: skip
    for _ in range(1000):
        changed = spoilt(body, rng, keep=("max_tokens", "messages"))
        beyond(changed, TABLE[name])
        orjson.dumps(fitted(changed, TABLE[name]))


def test_mistral_gets_ids_of_its_own_shape_and_answers_find_their_calls() -> None:
    ids = ["toolu_01A09q90qw90lq917835lq9", "call_1", "D681PevKs"]
    calls = [{"id": one, "type": "function", "function": {"name": "f", "arguments": "{}"}} for one in ids]
    asked: list[JSON] = [HI, {"role": "assistant", "content": None, "tool_calls": calls}]
    asked += [{"role": "tool", "tool_call_id": one, "content": "a"} for one in ids]
    sent = fitted(chat(*asked), TABLE["mistral"])["messages"]
    made = [call["id"] for call in sent[1]["tool_calls"]]
    assert [message["tool_call_id"] for message in sent[2:]] == made
    assert all(re.fullmatch("[a-zA-Z0-9]{9}", one) for one in made)
    assert made[2] == "D681PevKs"
    assert len(set(made)) == 3
    assert fitted(chat(*asked), TABLE["openai"])["messages"] == asked


def test_a_name_of_who_asks_that_is_longer_than_openai_takes_is_left_out() -> None:
    assert settings("openai", user="u" * 65, safety_identifier="s" * 65) == {}
    assert settings("openai", user="u" * 64) == {"user": "u" * 64}
