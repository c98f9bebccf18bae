from __future__ import annotations

import random
from typing import Any

import orjson
import pytest

from gateway.adapters import gemini
from gateway.call import JSON
from tests.adapters.junk import spoilt

PNG = "data:image/png;base64,iVBORw0KGgo="
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "function": {"name": "weather", "description": "Of a city.", "parameters": SCHEMA}}
TIME = {"type": "function", "function": {"name": "time"}}
NAMED = {"type": "function", "function": {"name": "weather"}}


def chat(*messages: JSON, **more: Any) -> JSON:
    return {"model": "m", "messages": list(messages) or [{"role": "user", "content": "hi"}], **more}


def asked(body: JSON, as_name: str = "gemini-2.5-flash") -> JSON:
    assert gemini.beyond(body) is None
    return gemini.request(body, as_name, 100, stream=False)


def settings(as_name: str = "gemini-2.5-flash", **more: Any) -> JSON:
    return dict(asked(chat(**more), as_name)["generationConfig"])


def call(place: int, name: str, arguments: str = "{}", **more: Any) -> JSON:
    return {"id": f"c{place}", "type": "function", "function": {"name": name, "arguments": arguments}, **more}


def test_paths_and_credentials() -> None:
    assert gemini.path("gemini-2.5-flash", False) == "/models/gemini-2.5-flash:generateContent"
    assert gemini.path("gemini-2.5-flash", True) == "/models/gemini-2.5-flash:streamGenerateContent?alt=sse"
    assert gemini.path("tunedModels/a b", False) == "/tunedModels/a%20b:generateContent"
    assert gemini.credentials("k") == {"x-goog-api-key": "k"}
    assert gemini.credentials(None) == {}


def test_a_plain_call() -> None:
    assert asked(chat()) == {
        "contents": [{"role": "user", "parts": [{"text": "hi"}]}],
        "generationConfig": {"maxOutputTokens": 100},
    }


def test_roles() -> None:
    body = chat(
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "a"}]},
        {"role": "assistant", "content": "b", "refusal": None, "annotations": []},
        {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
        {"role": "user", "content": "c"},
    )
    sent = asked(body)
    assert sent["systemInstruction"] == {"parts": [{"text": "Be brief."}, {"text": "Be kind."}]}
    assert sent["contents"] == [
        {"role": "user", "parts": [{"text": "a"}]},
        {"role": "model", "parts": [{"text": "b"}]},
        {"role": "user", "parts": [{"text": "c"}]},
    ]


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ({"type": "image_url", "image_url": {"url": PNG}},
         {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}}),
        ({"type": "image_url", "image_url": {"url": "https://a.org/b.JPG?c=d.pdf"}},
         {"fileData": {"fileUri": "https://a.org/b.JPG?c=d.pdf", "mimeType": "image/jpeg"}}),
        ({"type": "image_url", "image_url": {"url": "https://a.org/b"}}, {"fileData": {"fileUri": "https://a.org/b"}}),
        ({"type": "video_url", "video_url": {"url": "https://a.org/b.mp4"}},
         {"fileData": {"fileUri": "https://a.org/b.mp4", "mimeType": "video/mp4"}}),
        ({"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
         {"inlineData": {"mimeType": "audio/wav", "data": "UklGRg=="}}),
        ({"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}},
         {"inlineData": {"mimeType": "application/pdf", "data": "JVBERi0="}}),
        ({"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}, {"text": "x"}),
    ],
)  # fmt: skip
def test_parts(part: JSON, expected: JSON) -> None:
    assert asked(chat({"role": "user", "content": [part]}))["contents"] == [{"role": "user", "parts": [expected]}]


def test_tools_over_a_turn() -> None:
    calls = [call(0, "weather", '{"city": "Paris"}'), call(1, "time", "")]
    results: list[JSON] = [
        {"role": "tool", "tool_call_id": "c0", "content": "18 degrees"},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "no clock"}], "is_error": True},
    ]
    spoken = {"role": "assistant", "content": None, "tool_calls": calls}
    sent = asked(chat({"role": "user", "content": "?"}, spoken, *results, tools=[WEATHER, TIME]))
    assert sent["contents"][1:] == [
        {"role": "model", "parts": [
            {"functionCall": {"id": "c0", "name": "weather", "args": {"city": "Paris"}}},
            {"functionCall": {"id": "c1", "name": "time", "args": {}}},
        ]},
        {"role": "user", "parts": [
            {"functionResponse": {"id": "c0", "name": "weather", "response": {"output": "18 degrees"}}},
            {"functionResponse": {"id": "c1", "name": "time", "response": {"error": "no clock"}}},
        ]},
    ]  # fmt: skip
    assert sent["tools"] == [
        {
            "functionDeclarations": [
                {"name": "weather", "description": "Of a city.", "parametersJsonSchema": SCHEMA},
                {"name": "time"},
            ]
        }
    ]


def test_results_of_a_later_turn_are_a_content_of_their_own() -> None:
    turn: list[JSON] = [
        {"role": "assistant", "content": "", "tool_calls": [call(0, "time")]},
        {"role": "tool", "tool_call_id": "c0", "content": "noon"},
    ]
    said = asked(chat(*turn, *turn))["contents"]
    assert [content["role"] for content in said] == ["model", "user", "model", "user"]
    assert [len(content["parts"]) for content in said] == [2, 1, 2, 1]


def test_an_image_in_a_result_stands_beside_its_text() -> None:
    content = [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": PNG}}]
    turn: list[JSON] = [
        {"role": "assistant", "content": None, "tool_calls": [call(0, "time")]},
        {"role": "tool", "tool_call_id": "c0", "content": content},
    ]
    (part,) = asked(chat(*turn))["contents"][1]["parts"]
    assert part["functionResponse"]["response"] == {"output": "see"}
    assert part["functionResponse"]["parts"] == [{"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}}]


@pytest.mark.parametrize(
    ("choice", "strict", "expected"),
    [
        (None, False, {"mode": "AUTO"}),
        ("auto", True, {"mode": "VALIDATED"}),
        ("none", True, {"mode": "NONE"}),
        ("required", False, {"mode": "ANY"}),
        (NAMED, False, {"mode": "ANY", "allowedFunctionNames": ["weather"]}),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [NAMED]}}, False,
         {"mode": "VALIDATED", "allowedFunctionNames": ["weather"]}),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [NAMED]}}, False,
         {"mode": "ANY", "allowedFunctionNames": ["weather"]}),
    ],
)  # fmt: skip
def test_tool_choice(choice: Any, strict: bool, expected: JSON) -> None:
    tool = {"type": "function", "function": {"name": "weather", "strict": strict}}
    assert asked(chat(tools=[tool], tool_choice=choice))["toolConfig"] == {"functionCallingConfig": expected}


def test_without_tools_there_is_no_choice() -> None:
    assert asked(chat(tools=[], tool_choice="none")).keys() == {"contents", "generationConfig"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"temperature": 0, "top_p": 0.9, "top_k": 40, "seed": 7, "n": 2},
         {"temperature": 0, "topP": 0.9, "topK": 40, "seed": 7, "candidateCount": 2}),
        ({"presence_penalty": 0.1, "frequency_penalty": -0.2}, {"presencePenalty": 0.1, "frequencyPenalty": -0.2}),
        ({"stop": "END"}, {"stopSequences": ["END"]}),
        ({"stop": ["A", "B"]}, {"stopSequences": ["A", "B"]}),
        ({"logprobs": True, "top_logprobs": 3}, {"responseLogprobs": True, "logprobs": 3}),
        ({"logprobs": True}, {"responseLogprobs": True, "logprobs": 0}),
        ({"max_tokens": 9, "max_completion_tokens": 9, "temperature": None}, {}),
        ({"response_format": {"type": "text"}}, {}),
        ({"response_format": {"type": "json_object"}}, {"responseMimeType": "application/json"}),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": SCHEMA}}},
         {"responseMimeType": "application/json", "responseJsonSchema": SCHEMA}),
        ({"response_format": {"type": "json_schema",
                              "json_schema": {"name": "x", "description": "A city.", "schema": SCHEMA}}},
         {"responseMimeType": "application/json", "responseJsonSchema": {"description": "A city.", **SCHEMA}}),
    ],
)  # fmt: skip
def test_settings(given: JSON, expected: JSON) -> None:
    assert settings(**given) == {"maxOutputTokens": 100, **expected}


@pytest.mark.parametrize(
    ("as_name", "given", "expected"),
    [
        ("gemini-2.5-pro", {"reasoning_effort": "low"}, {"includeThoughts": True, "thinkingBudget": 1024}),
        ("gemini-2.5-pro", {"reasoning_effort": "medium"}, {"includeThoughts": True, "thinkingBudget": 8192}),
        ("gemini-3-pro-preview", {"reasoning_effort": "high"}, {"includeThoughts": True, "thinkingLevel": "HIGH"}),
        ("gemini-3-pro-preview", {"reasoning_effort": "none"}, {"thinkingBudget": 0}),
        ("gemini-2.5-flash", {"thinking": {"type": "disabled"}}, {"thinkingBudget": 0}),
        ("gemini-3-pro-preview", {"thinking": {"type": "enabled", "budget_tokens": 48}},
         {"includeThoughts": True, "thinkingBudget": 48}),
        ("gemini-3-pro-preview", {"thinking": {"type": "enabled", "budget_tokens": 2048}},
         {"includeThoughts": True, "thinkingBudget": 99}),
        ("gemini-2.5-flash", {"thinking": {"type": "adaptive"}}, {"includeThoughts": True, "thinkingBudget": -1}),
        ("gemini-3-pro-preview", {"thinking": {"type": "adaptive"}}, {"includeThoughts": True}),
        ("gemini-3-pro-preview", {"thinking": {"type": "adaptive", "display": "omitted"}, "reasoning_effort": "low"},
         {"includeThoughts": False, "thinkingLevel": "LOW"}),
        ("gemini-3-pro-preview", {"thinking": {"type": "enabled", "budget_tokens": 9}, "reasoning_effort": "low"},
         {"includeThoughts": True, "thinkingBudget": 9}),
    ],
)  # fmt: skip
def test_thinking(as_name: str, given: JSON, expected: JSON) -> None:
    assert settings(as_name, **given) == {"maxOutputTokens": 100, "thinkingConfig": expected}


@pytest.mark.parametrize(
    ("details", "expected"),
    [
        (["low"], "MEDIA_RESOLUTION_LOW"),
        (["low", "high"], "MEDIA_RESOLUTION_HIGH"),
        (["low", None], None),
        (["auto"], None),
    ],
)
def test_detail_of_images(details: list[str | None], expected: str | None) -> None:
    images = [{"type": "image_url", "image_url": {"url": PNG, "detail": detail}} for detail in details]
    sent = asked(chat({"role": "user", "content": images}))
    assert sent["generationConfig"].get("mediaResolution") == expected


def signed(as_name: str, **more: Any) -> list[str | None]:
    """The signatures of what a model said, part by part."""
    spoken = {"role": "assistant", "content": "so", "tool_calls": [call(0, "time"), call(1, "time")], **more}
    results = [{"role": "tool", "tool_call_id": f"c{place}", "content": "noon"} for place in (0, 1)]
    parts = asked(chat(spoken, *results), as_name)["contents"][0]["parts"]
    return [part.get("thoughtSignature") for part in parts]


def block(signature: str) -> JSON:
    return {"type": "thinking", "thinking": "hm", "signature": signature}


def test_signatures_go_back_to_the_parts_that_they_came_with() -> None:
    blocks = [block("gemini:text:c2ln"), block("gemini:1:b25l")]
    assert signed("gemini-2.5-pro", thinking_blocks=blocks) == ["c2ln", None, "b25l"]
    assert signed("gemini-3-pro-preview", thinking_blocks=[block("gemini:0:emVybw==")]) == [None, "emVybw==", None]


def test_a_call_may_carry_its_signature() -> None:
    calls = [call(0, "time", extra_content={"google": {"thought_signature": "b3du"}}), call(1, "time")]
    assert signed("gemini-3-pro-preview", tool_calls=calls) == [None, "b3du", None]


def test_signatures_of_others_stay_behind() -> None:
    blocks = [block("EqoBCkgIBBABGAI="), {"type": "redacted_thinking", "data": "x"}]
    assert signed("gemini-2.5-pro", thinking_blocks=blocks, reasoning_content="hm") == [None, None, None]


def test_a_newer_model_gets_a_stand_in_for_a_signature_that_was_lost() -> None:
    assert signed("gemini-3-pro-preview") == [None, "skip_thought_signature_validator", None]
    assert signed("gemini-2.5-pro") == [None, None, None]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (chat(logit_bias={"1": 5}), "logit_bias"),
        (chat(prediction={"type": "content", "content": "x"}), "prediction"),
        (chat(x=1), "x"),
        (chat(x=0), "x"),
        (chat(store=True), "store"),
        (chat(service_tier="flex"), "service_tier"),
        (chat(modalities=["text", "audio"]), "modalities"),
        (chat(n=9), "n"),
        (chat(seed=2**31), "seed"),
        (chat(stop=["a", "b", "c", "d", "e", "f"]), "stop"),
        (chat(response_format={"type": "grammar"}), "response_format"),
        (chat(response_format={"type": "json_schema", "json_schema": {"name": "x"}}), "response_format"),
        (chat(reasoning_effort="max"), "reasoning_effort"),
        (chat(thinking={"type": "enabled"}), "thinking"),
        (chat(thinking={"type": "adaptive", "x": 1}), "thinking"),
        (chat(parallel_tool_calls=False, tools=[TIME]), None),
        (chat(tools=[TIME, {"type": "custom", "custom": {"name": "x"}}]), "tools[1]"),
        (chat(tools=[{"type": "web_search"}]), "tools[0]"),
        (chat(tools=[{"type": "function", "function": {"name": "x", "y": 1}}]), "tools[0].function.y"),
        (chat(tools=[TIME], tool_choice="any"), "tool_choice"),
        (chat(tools=[TIME], tool_choice={"type": "custom", "custom": {"name": "x"}}), "tool_choice"),
        (chat(tools=[TIME], tool_choice={"type": "allowed_tools", "allowed_tools": {"tools": []}}), "tool_choice"),
        (chat(functions=[{"name": "x"}]), "functions"),
        (chat({"role": "system", "content": "x"}, {"role": "developer", "content": "y"}), "messages"),
        (chat({"role": "function", "name": "x", "content": "y"}), "messages[0].role"),
        (chat({"role": "user", "content": "x", "name": "Ann"}), "messages[0].name"),
        (chat({"role": "user", "content": 5}), "messages[0].content"),
        (chat({"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}), "messages[0].content[0]"),
        (chat({"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "y"}]}), "messages[0].content[1]"),
        (chat({"role": "user", "content": [["text"]]}), "messages[0].content[0]"),
        (chat({"role": "system", "content": [{"type": "image_url", "image_url": {"url": PNG}}]}),
         "messages[0].content[0]"),
        (chat({"role": "assistant", "audio": {"id": "a"}}), "messages[0].audio"),
        (chat({"role": "assistant", "tool_calls": [call(0, "time", "[1]")]}),
         "messages[0].tool_calls[0].function.arguments"),
        (chat({"role": "assistant", "tool_calls": [call(0, "time", "{")]}),
         "messages[0].tool_calls[0].function.arguments"),
        (chat({"role": "assistant", "tool_calls": [call(0, "time", id=None)]}), "messages[0].tool_calls[0].id"),
        (chat({"role": "assistant", "tool_calls": ["x"]}), "messages[0].tool_calls[0]"),
        (chat({"role": "assistant", "tool_calls": 5}), "messages[0].tool_calls"),
        (chat({"role": "tool", "tool_call_id": "c0", "content": "x"}), "messages[0].tool_call_id"),
        (chat({"role": "assistant", "tool_calls": [call(0, "time")]},
              {"role": "tool", "tool_call_id": "c0",
               "content": [{"type": "image_url", "image_url": {"url": "https://a.org/b.png"}}]}),
         "messages[1].content[0]"),
    ],
)  # fmt: skip
def test_what_cannot_be_expressed_is_named(body: JSON, param: str) -> None:
    assert gemini.beyond(body) == param


@pytest.mark.parametrize(
    "harmless",
    [
        {"user": "u", "metadata": {"a": "b"}, "safety_identifier": "s", "prompt_cache_key": "k", "store": False},
        {"logprobs": False, "logit_bias": {}, "functions": [], "x": None, "audio": None, "prediction": None},
        {"stream": True, "stream_options": {"include_usage": True}, "top_p": 1, "presence_penalty": 0},
        {"parallel_tool_calls": True, "service_tier": "auto", "verbosity": "medium", "modalities": ["text"]},
        {"tool_choice": "auto"},
    ],
)
def test_what_changes_no_answer_is_left_out(harmless: JSON) -> None:
    assert asked(chat(**harmless)).keys() == {"contents", "generationConfig"}


def test_what_is_let_through_can_be_asked_whatever_a_client_writes() -> None:
    """A body with all that can be expressed, in which a place or two hold something else."""
    rng = random.Random(5)
    calls = [call(0, "time", extra_content={"google": {"thought_signature": "c"}})]
    spoken = {"role": "assistant", "content": "x", "thinking_blocks": [block("gemini:text:c")], "tool_calls": calls}
    content = [{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": PNG, "detail": "low"}}]
    body = chat(
        {"role": "system", "content": "x"}, {"role": "user", "content": content}, spoken,
        {"role": "tool", "tool_call_id": "c0", "content": [content[0]], "is_error": True},
        tools=[WEATHER, TIME],
        tool_choice={"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [NAMED]}},
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}, stop=["a"], n=2,
        thinking={"type": "enabled", "budget_tokens": 9}, reasoning_effort="low", seed=1, logprobs=True,
    )  # fmt: skip
    asked_for = 0
    for _ in range(5000):
        changed = spoilt(body, rng, keep=("messages",))
        if gemini.beyond(changed) is None:
            orjson.dumps(gemini.request(changed, "gemini-3-pro-preview", 9, stream=True))
            asked_for += 1
    assert 1000 < asked_for < 4000  # both happen often


@pytest.mark.parametrize(
    ("as_name", "most"),
    [("gemini-2.5-flash", 24_576), ("gemini-2.5-flash-lite", 24_576), ("gemini-2.5-pro", 32_768), ("tuned/x", 40_000)],
)
def test_a_budget_is_what_the_model_can_take_and_leaves_room_for_an_answer(as_name: str, most: int) -> None:
    asked = {"messages": [{"role": "user", "content": "a"}], "thinking": {"type": "enabled", "budget_tokens": 40_000}}
    for max_tokens, budget in ((64_000, most), (4000, 3999)):
        sent = gemini.request(asked, as_name, max_tokens, stream=False)["generationConfig"]
        assert (sent["maxOutputTokens"], sent["thinkingConfig"]["thinkingBudget"]) == (max_tokens, budget)
