from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.call import JSON, Request
from gateway.dialects.checks import MAX_BEYOND
from gateway.dialects.messages import body
from gateway.dialects.messages_request import MAX_MAX_TOKENS, body_to_count
from gateway.errors import InvalidValue
from gateway.parse import MAX_MAX_TOKENS as CHAT_MAX_MAX_TOKENS
from gateway.parse import parse_call

MARK = {"type": "ephemeral", "ttl": "1h"}
PNG = {"type": "base64", "media_type": "image/png", "data": "aGk="}
THINKING = {"type": "enabled", "budget_tokens": 2048}
PDF = {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="}


def asked(**fields: Any) -> JSON:
    return {"model": "m", "max_tokens": 10, "messages": [{"role": "user", "content": "hi"}], **fields}


def chat(**fields: Any) -> JSON:
    """What of the chat body these fields make, beside those of `asked()`; nothing of it is beyond."""
    translated, beyond = body(asked(**fields))
    assert beyond == ()
    plain = {"model": "m", "max_tokens": 10, "messages": [{"role": "user", "content": "hi"}]}
    return {name: value for name, value in translated.items() if plain.get(name) != value}


def said(*blocks: JSON, role: str = "user", then: bool = True) -> Any:
    """The chat messages of one message with these blocks. One of the assistant is answered, as it is no prefill."""
    more = [{"role": "user", "content": "go on"}] if role == "assistant" and then else []
    translated, beyond = body(asked(messages=[{"role": role, "content": list(blocks)}, *more]))
    assert beyond == ()
    return translated["messages"][: len(translated["messages"]) - len(more)]


def beyond(**fields: Any) -> tuple[str, ...]:
    return body(asked(**fields))[1]


# -- fields -------------------------------------------------------------------------------------------------------


def test_a_plain_request() -> None:
    original = asked(system="Be brief.", temperature=0.5, top_p=0.9, top_k=40, stop_sequences=["END"], stream=True)
    assert body(original) == (
        {
            "model": "m",
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}],
            "max_tokens": 10, "temperature": 0.5, "top_p": 0.9, "top_k": 40, "stop": ["END"], "stream": True,
        },
        (),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("metadata", {"user_id": "u-1"}, {"user": "u-1"}),
        ("thinking", THINKING, {"thinking": THINKING}),
        ("thinking", {"type": "disabled"}, {"thinking": {"type": "disabled"}}),
        ("thinking", {"type": "adaptive", "display": "omitted"}, {"thinking": {"type": "adaptive"}}),
        ("output_config", {"effort": "xhigh"}, {"reasoning_effort": "xhigh"}),
    ],
)  # fmt: skip
def test_fields(field: str, value: JSON, expected: JSON) -> None:
    assert chat(**{field: value}) == expected


@pytest.mark.parametrize("place", ["output_config", "output_format"])
def test_a_schema_is_a_response_format(place: str) -> None:
    wanted = {"type": "json_schema", "schema": {"type": "object"}}
    schema = {"name": "answer", "strict": True, "schema": {"type": "object"}}
    given = {"format": wanted} if place == "output_config" else wanted
    assert chat(**{place: given}) == {"response_format": {"type": "json_schema", "json_schema": schema}}


def test_tools() -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    plain = {"name": "weather", "description": "Of a city.", "input_schema": schema}
    marked = {**plain, "type": "custom", "strict": True, "cache_control": MARK, "eager_input_streaming": True}
    function = {"name": "weather", "description": "Of a city.", "parameters": schema}
    assert chat(tools=[plain, marked])["tools"] == [
        {"type": "function", "function": function},
        {"type": "function", "function": {**function, "strict": True}, "cache_control": MARK},
    ]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"type": "auto"}, {"tool_choice": "auto"}),
        ({"type": "any"}, {"tool_choice": "required"}),
        ({"type": "none"}, {"tool_choice": "none"}),
        ({"type": "tool", "name": "f"}, {"tool_choice": {"type": "function", "function": {"name": "f"}}}),
        ({"type": "auto", "disable_parallel_tool_use": True}, {"tool_choice": "auto", "parallel_tool_calls": False}),
        ({"type": "any", "disable_parallel_tool_use": False}, {"tool_choice": "required"}),
    ],
)
def test_tool_choice(choice: JSON, expected: JSON) -> None:
    given = chat(tool_choice=choice, tools=[{"name": "f", "input_schema": {}}])
    del given["tools"]
    assert given == expected


def test_a_choice_from_no_tools_is_none() -> None:
    assert chat(tools=[], tool_choice={"type": "auto", "disable_parallel_tool_use": True}) == {}
    assert chat(tool_choice={"type": "any"}) == {"tool_choice": "required"}  # who is to answer it shall say so


@pytest.mark.parametrize(
    "fields",
    [
        {"cache_control": MARK},
        {"diagnostics": {"previous_message_id": "msg_1"}},
        {"context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}},
        {"service_tier": "auto", "speed": "standard", "container": None, "mcp_servers": [], "fallbacks": None},
        {"metadata": {"user_id": None}, "thinking": None, "system": "", "stop_sequences": []},
        {"output_config": {"effort": None, "format": None}},
    ],
)
def test_what_changes_no_answer_is_dropped(fields: JSON) -> None:
    assert chat(**fields) == {}


@pytest.mark.parametrize(
    ("fields", "params"),
    [
        ({"container": "c-1"}, ("container",)),
        ({"mcp_servers": [{"type": "url", "url": "https://x", "name": "x"}]}, ("mcp_servers",)),
        ({"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}}, ("context_management.edits[0]",)),
        ({"service_tier": "standard_only"}, ("service_tier",)),
        ({"speed": "fast"}, ("speed",)),
        ({"thread": {"type": "create"}}, ("thread",)),
        ({"inference_geo": "us", "what_is_new": 1}, ("inference_geo", "what_is_new")),
        ({"metadata": {"user_id": "u", "team": "t"}}, ("metadata.team",)),
        ({"thinking": {"type": "between_tools"}}, ("thinking",)),
        ({"thinking": {"type": "adaptive", "display": "all"}}, ("thinking.display",)),
        ({"output_config": {"effort": "max", "task_budget": {"total": 9}}},
         ("output_config.task_budget", "output_config.effort")),
        ({"output_format": {"type": "grammar"}}, ("output_format",)),
        ({"user": "u", "metadata": {"user_id": "u"}}, ("user",)),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, ("tools[0]",)),
        ({"tools": [{"name": "f", "input_schema": {}, "defer_loading": True, "input_examples": [{}]}]},
         ("tools[0].defer_loading", "tools[0].input_examples")),
        ({"tools": [{"name": "f", "input_schema": {}, "allowed_callers": ["code_execution_20250825"]}]},
         ("tools[0].allowed_callers",)),
    ],
)  # fmt: skip
def test_what_only_anthropic_can_say_is_named(fields: JSON, params: tuple[str, ...]) -> None:
    assert beyond(**fields) == params


def test_what_is_named_is_bounded() -> None:
    params = beyond(**{f"{'x' * 1000}{n}": 1 for n in range(1000)})
    assert len(params) == MAX_BEYOND
    assert max(map(len, params)) < 100


# -- messages -----------------------------------------------------------------------------------------------------


def test_a_system_prompt_of_blocks_keeps_its_marks() -> None:
    blocks = [{"type": "text", "text": "a"}, {"type": "text", "text": "b", "cache_control": MARK}]
    assert body(asked(system=blocks))[0]["messages"][0] == {"role": "system", "content": blocks}
    assert body(asked(system=blocks[:1]))[0]["messages"][0] == {"role": "system", "content": "a"}


def test_instructions_in_the_middle_stay_there() -> None:
    messages = [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}, {"role": "user", "content": "c"}]
    assert body(asked(messages=messages)) == ({"model": "m", "max_tokens": 10, "messages": messages}, ())


def test_images() -> None:
    by_url = {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}, "cache_control": MARK}
    assert said({"type": "image", "source": PNG}, by_url, {"type": "text", "text": "what?"}) == [
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
                {"type": "image_url", "image_url": {"url": "https://x/y.png"}, "cache_control": MARK},
                {"type": "text", "text": "what?"},
            ],
        }
    ]


def test_documents() -> None:
    text = {"type": "text", "media_type": "text/plain", "data": "Once."}
    made = {"type": "content", "content": [{"type": "text", "text": "1"}, {"type": "image", "source": PNG}]}
    assert said(
        {"type": "document", "source": PDF, "title": "a.pdf", "context": "of 1984", "citations": {"enabled": False}},
        {"type": "document", "source": PDF, "cache_control": MARK},
        {"type": "document", "source": text, "title": "A tale"},
        {"type": "document", "source": made, "context": "two"},
        {"type": "document", "source": {"type": "content", "content": "so"}},
    )[0]["content"] == [
        {"type": "text", "text": "of 1984"},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERg=="}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERg=="}, "cache_control": MARK},
        {"type": "text", "text": "A tale\nOnce."},
        {"type": "text", "text": "two"},
        {"type": "text", "text": "1"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
        {"type": "text", "text": "so"},
    ]


def test_results_of_tools_are_messages_of_their_own() -> None:
    shown = [{"type": "text", "text": "see"}, {"type": "image", "source": PNG}]
    read = [{"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "page"}}]
    assert said(
        {"type": "tool_result", "tool_use_id": "t1", "content": "20 C", "cache_control": MARK},
        {"type": "tool_result", "tool_use_id": "t2", "is_error": True},
        {"type": "tool_result", "tool_use_id": "t3", "content": shown, "is_error": False},
        {"type": "tool_result", "tool_use_id": "t4", "content": read},
        {"type": "text", "text": "and now?"},
    ) == [
        {"role": "tool", "tool_call_id": "t1", "content": "20 C", "cache_control": MARK},
        {"role": "tool", "tool_call_id": "t2", "content": "", "is_error": True},
        {"role": "tool", "tool_call_id": "t3", "content": [
            {"type": "text", "text": "see"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
        ]},
        {"role": "tool", "tool_call_id": "t4", "content": "page"},
        {"role": "user", "content": "and now?"},
    ]  # fmt: skip


def test_the_order_of_a_users_blocks_is_kept() -> None:
    result = {"type": "tool_result", "tool_use_id": "t", "content": "r"}
    roles = [message["role"] for message in said({"type": "text", "text": "a"}, result, {"type": "text", "text": "b"})]
    assert roles == ["user", "tool", "user"]


def test_what_the_assistant_did() -> None:
    signed = {"type": "thinking", "thinking": "Hm.", "signature": "sig"}
    redacted = {"type": "redacted_thinking", "data": "xyz"}
    use = {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Köln"}, "caller": {"type": "direct"}}
    assert said(signed, redacted, {"type": "text", "text": "Let me see."}, use, role="assistant") == [
        {
            "role": "assistant",
            "content": "Let me see.",
            "tool_calls": [
                {"id": "t1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Köln"}'}}
            ],
            "reasoning_content": "Hm.",
            "thinking_blocks": [signed, redacted],
        }
    ]
    assert said(use, role="assistant")[0]["content"] is None
    assert said(role="assistant") == [{"role": "assistant", "content": ""}]


def test_reasoning_that_nobody_signed_is_text_only() -> None:
    unsigned = {"type": "thinking", "thinking": "Hm.", "signature": ""}
    assert said(unsigned, {"type": "text", "text": "So."}, role="assistant") == [
        {"role": "assistant", "content": "So.", "reasoning_content": "Hm."}
    ]


def test_citations_that_were_made_here_are_dropped() -> None:
    made = {
        "type": "web_search_result_location",
        "url": "https://x",
        "title": "",
        "cited_text": "",
        "encrypted_index": "",
    }
    assert said({"type": "text", "text": "a", "citations": [made]}, role="assistant")[0]["content"] == "a"
    theirs = {"type": "text", "text": "a", "citations": [{**made, "encrypted_index": "Eo"}]}
    assert beyond(messages=[{"role": "assistant", "content": [theirs]}, {"role": "user", "content": "?"}]) == (
        "messages[0].content[0].citations",
    )


@pytest.mark.parametrize(
    ("role", "block", "param"),
    [
        ("user", {"type": "container_upload", "file_id": "f"}, ""),
        ("user", {"type": "search_result", "source": "s", "title": "t", "content": []}, ""),
        ("user", {"type": "image", "source": {"type": "file", "file_id": "f"}}, ".source"),
        ("user", {"type": "image", "source": PNG, "transformations": {"oversize": "crop"}}, ".transformations"),
        ("user", {"type": "document", "source": {"type": "url", "url": "https://x/y.pdf"}}, ".source"),
        ("user", {"type": "document", "source": PDF, "citations": {"enabled": True}}, ".citations"),
        ("user", {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "document", "source": PDF}]},
         ".content"),
        ("user", {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "tool_reference"}]}, ".content[0]"),
        ("user", {"type": "tool_result", "tool_use_id": "t", "toolset_name": "browser"}, ".toolset_name"),
        ("assistant", {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}, ""),
        ("assistant", {"type": "image", "source": PNG}, ""),
        ("assistant", {"type": "tool_use", "id": "t", "name": "f", "input": {}, "caller": {"type": "code_execution"}},
         ".caller"),
        ("system", {"type": "image", "source": PNG}, ""),
    ],
)  # fmt: skip
def test_blocks_that_only_anthropic_knows_are_named(role: str, block: JSON, param: str) -> None:
    messages = [{"role": role, "content": [block]}, {"role": "user", "content": "?"}]
    assert beyond(messages=messages) == (f"messages[0].content[0]{param}",)


def test_words_that_the_answer_shall_begin_with_are_named() -> None:
    assert beyond(messages=[{"role": "user", "content": "a"}, {"role": "assistant", "content": "The"}]) == (
        "messages[1]",
    )


# -- bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": MAX_MAX_TOKENS + 1}, "max_tokens"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": ["hi"]}, "messages[0]"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "", "citations": 1}]}]},
         "messages[0].content[0].citations"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "messages[0].content[0].source"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "base64"}}]}]},
         "messages[0].content[0].source.media_type"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]}, "messages[0].content[0].tool_use_id"),
        ({"messages": [{"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f"}]}]},
         "messages[0].content[0].input"),
        ({"messages": [{"role": "assistant", "content": [{"type": "thinking", "thinking": "", "signature": 1}]}]},
         "messages[0].content[0].signature"),
        ({"system": 1}, "system"),
        ({"stream": "yes"}, "stream"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": -0.1}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"top_k": 2**31}, "top_k"),
        ({"stop_sequences": "END"}, "stop_sequences"),
        ({"stop_sequences": [1]}, "stop_sequences"),
        ({"metadata": "u"}, "metadata"),
        ({"metadata": {"user_id": 1}}, "metadata.user_id"),
        ({"tools": {}}, "tools"),
        ({"tools": [{"input_schema": {}}]}, "tools[0].name"),
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"tool_choice": {"type": "some"}}, "tool_choice.type"),
        ({"tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"thinking": True}, "thinking"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1023}}, "thinking.budget_tokens"),
        ({"output_config": []}, "output_config"),
        ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
        ({"output_format": {"type": "json_schema", "schema": {}},
          "output_config": {"format": {"type": "json_schema", "schema": {}}}}, "output_config.format"),
        ({"context_management": {"edits": 3}}, "context_management.edits"),
    ],
)  # fmt: skip
def test_bad_input_names_its_field(fields: JSON, param: str) -> None:
    with pytest.raises(InvalidValue) as refused:
        body(asked(**fields))
    assert refused.value.param == param
    assert param in refused.value.message


def test_a_request_that_is_counted_needs_no_max_tokens() -> None:
    original = asked()
    del original["max_tokens"]
    with pytest.raises(InvalidValue, match="required"):
        body(original)
    assert body_to_count(original) == ({"model": "m", "messages": [{"role": "user", "content": "hi"}]}, ())


def test_the_request_is_left_as_it_is() -> None:
    original = asked(
        system=[{"type": "text", "text": "s", "cache_control": MARK}], tools=[{"name": "f", "input_schema": {}}]
    )
    before = orjson.dumps(original)
    body(original)
    assert orjson.dumps(original) == before


def test_the_chat_body_is_one_that_the_gateway_takes() -> None:
    blocks = [{"type": "image", "source": PNG}, {"type": "document", "source": PDF}, {"type": "text", "text": "what?"}]
    original = asked(
        messages=[{"role": "user", "content": blocks}], tools=[{"name": "f", "input_schema": {}}], stream=True
    )
    call = parse_call(Request("r", "chat", {}, orjson.dumps(body(original)[0])))
    assert (call.media_parts, call.max_tokens, call.stream, call.needs) == (
        2, 10, True, frozenset({"tools", "vision"}),
    )  # fmt: skip
    assert MAX_MAX_TOKENS == CHAT_MAX_MAX_TOKENS
