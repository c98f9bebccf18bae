"""A request of Anthropic's Messages API as one of the chat form, and what of it only Anthropic's own form can say.

What changes no answer is dropped knowingly: marks and hints for caches and for how fine a stream is, and the clearing
of reasoning, which other providers never see.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from gateway.call import JSON
from gateway.dialects.checks import (
    MAX_NAME_CHARS,
    a_text,
    an_integer,
    an_object,
    neutral,
    note,
    note_others,
    objects,
)
from gateway.dialects.messages_blocks import messages, system
from gateway.dialects.messages_own import CLEARS_THINKING
from gateway.errors import InvalidValue

MAX_MAX_TOKENS: Final = 1_000_000  # as that of the chat form
MAX_TEMPERATURE: Final = 2  # Anthropic's own is 1, that of most others 2: who serves the call knows
MAX_TOP_K: Final = 2**31 - 1
MIN_THINKING_TOKENS: Final = 1024
EFFORTS: Final = ("low", "medium", "high", "xhigh")
FORMAT_NAME: Final = "answer"  # the chat form asks for a name

_DONE: Final = frozenset({"model", "system", "messages", "cache_control", "diagnostics"})  # the last two are hints
_TOOL: Final = frozenset({
    "type", "name", "description", "input_schema", "strict", "allowed_callers", "cache_control",
    "eager_input_streaming",
})  # fmt: skip
_CHOICES: Final = {"auto": "auto", "any": "required", "none": "none"}


def body(original: JSON) -> tuple[JSON, tuple[str, ...]]:
    """(the request in the chat form, what it cannot express). Raises InvalidValue."""
    if original.get("max_tokens") is None:
        raise InvalidValue(
            f"'max_tokens' is required: an integer from 1 to {MAX_MAX_TOKENS}, the most that the answer may have.",
            param="max_tokens",
        )
    return body_to_count(original)


def body_to_count(original: JSON) -> tuple[JSON, tuple[str, ...]]:
    """The same for a request that is only counted: it needs no `max_tokens`."""
    beyond: list[str] = []
    chat: JSON = {"model": original.get("model"), "messages": system(original.get("system"), beyond)}
    chat["messages"] += messages(original.get("messages"), beyond)
    for name, value in original.items():
        translate = _FIELDS.get(name)
        if translate is not None and value is not None:
            translate(value, chat, beyond)
        elif translate is None and name not in _DONE and not neutral(value):
            note(beyond, name[:MAX_NAME_CHARS])
    if "tools" not in chat and chat.get("tool_choice") in ("auto", "none"):
        del chat["tool_choice"]  # nothing to choose from: true of any answer, and some backends would refuse it
        chat.pop("parallel_tool_calls", None)
    return chat, tuple(beyond)


def _max_tokens(value: Any, chat: JSON, beyond: list[str]) -> None:
    chat["max_tokens"] = an_integer(value, "max_tokens", 1, MAX_MAX_TOKENS)


def _stream(value: Any, chat: JSON, beyond: list[str]) -> None:
    if not isinstance(value, bool):
        raise InvalidValue("'stream' must be true or false.", param="stream")
    chat["stream"] = value


def _temperature(value: Any, chat: JSON, beyond: list[str]) -> None:
    chat["temperature"] = _number(value, "temperature", MAX_TEMPERATURE)


def _top_p(value: Any, chat: JSON, beyond: list[str]) -> None:
    chat["top_p"] = _number(value, "top_p", 1)


def _number(value: Any, name: str, high: int) -> float:
    if type(value) not in (int, float) or not 0 <= value <= high:
        raise InvalidValue(f"'{name}' must be a number from 0 to {high}.", param=name)
    number: float = value
    return number


def _top_k(value: Any, chat: JSON, beyond: list[str]) -> None:
    chat["top_k"] = an_integer(value, "top_k", 0, MAX_TOP_K)


def _stop_sequences(value: Any, chat: JSON, beyond: list[str]) -> None:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise InvalidValue("'stop_sequences' must be a list of texts.", param="stop_sequences")
    if value:
        chat["stop"] = value


def _metadata(value: Any, chat: JSON, beyond: list[str]) -> None:
    note_others(an_object(value, "metadata"), {"user_id"}, "metadata", beyond)
    if value.get("user_id"):
        chat["user"] = a_text(value, "user_id", "metadata")


def _tools(value: Any, chat: JSON, beyond: list[str]) -> None:
    tools = []
    for place, tool in enumerate(objects(value, "tools")):
        if tool.get("type") in (None, "custom"):
            tools.append(_tool(tool, f"tools[{place}]", beyond))
        else:
            note(beyond, f"tools[{place}]")  # Anthropic knows its schema, or runs it
    if tools:
        chat["tools"] = tools


def _tool(tool: JSON, param: str, beyond: list[str]) -> JSON:
    note_others(tool, _TOOL, param, beyond)
    if tool.get("allowed_callers") not in (None, [], ["direct"]):
        note(beyond, f"{param}.allowed_callers")
    function: JSON = {"name": a_text(tool, "name", param)}
    if tool.get("description"):
        function["description"] = a_text(tool, "description", param)
    function["parameters"] = an_object(tool.get("input_schema"), f"{param}.input_schema")
    if tool.get("strict"):
        function["strict"] = True
    marked = {"cache_control": tool["cache_control"]} if tool.get("cache_control") else {}
    return {"type": "function", "function": function, **marked}


def _tool_choice(value: Any, chat: JSON, beyond: list[str]) -> None:
    note_others(an_object(value, "tool_choice"), {"type", "name", "disable_parallel_tool_use"}, "tool_choice", beyond)
    kind = a_text(value, "type", "tool_choice")
    if kind == "tool":
        chat["tool_choice"] = {"type": "function", "function": {"name": a_text(value, "name", "tool_choice")}}
    elif kind in _CHOICES:
        chat["tool_choice"] = _CHOICES[kind]
    else:
        raise InvalidValue("'tool_choice.type' must be auto, any, tool or none.", param="tool_choice.type")
    if value.get("disable_parallel_tool_use"):
        chat["parallel_tool_calls"] = False


def _thinking(value: Any, chat: JSON, beyond: list[str]) -> None:
    kind = an_object(value, "thinking").get("type")
    if kind not in ("enabled", "disabled", "adaptive"):
        note(beyond, "thinking")
        return
    # What is shown of it is done here: see messages_answer.hides_thinking.
    note_others(value, {"type", "budget_tokens", "display"}, "thinking", beyond)
    if value.get("display") not in (None, "summarized", "omitted"):
        note(beyond, "thinking.display")
    chat["thinking"] = {"type": kind}
    if kind == "enabled":
        chat["thinking"]["budget_tokens"] = an_integer(
            value.get("budget_tokens"), "thinking.budget_tokens", MIN_THINKING_TOKENS, MAX_MAX_TOKENS
        )


def _output_config(value: Any, chat: JSON, beyond: list[str]) -> None:
    note_others(an_object(value, "output_config"), {"effort", "format"}, "output_config", beyond)
    effort = value.get("effort")
    if effort in EFFORTS:
        chat["reasoning_effort"] = effort
    elif effort is not None:
        note(beyond, "output_config.effort")
    if value.get("format") is not None:
        _format(value["format"], "output_config.format", chat, beyond)


def _output_format(value: Any, chat: JSON, beyond: list[str]) -> None:
    """Where the format stood before there was `output_config`."""
    _format(value, "output_format", chat, beyond)


def _format(value: Any, param: str, chat: JSON, beyond: list[str]) -> None:
    if an_object(value, param).get("type") != "json_schema":
        note(beyond, param)
        return
    if "response_format" in chat:
        raise InvalidValue("'output_format' and 'output_config.format' are one thing: give one of them.", param=param)
    note_others(value, {"type", "schema"}, param, beyond)
    schema = {"name": FORMAT_NAME, "strict": True, "schema": an_object(value.get("schema"), f"{param}.schema")}
    chat["response_format"] = {"type": "json_schema", "json_schema": schema}


def _service_tier(value: Any, chat: JSON, beyond: list[str]) -> None:
    if value != "auto":
        note(beyond, "service_tier")


def _speed(value: Any, chat: JSON, beyond: list[str]) -> None:
    if value != "standard":
        note(beyond, "speed")


def _context_management(value: Any, chat: JSON, beyond: list[str]) -> None:
    note_others(an_object(value, "context_management"), {"edits"}, "context_management", beyond)
    for place, edit in enumerate(objects(value.get("edits") or [], "context_management.edits")):
        if not str(edit.get("type")).startswith(CLEARS_THINKING):
            note(beyond, f"context_management.edits[{place}]")


_FIELDS: Final[dict[str, Callable[[Any, JSON, list[str]], None]]] = {
    "max_tokens": _max_tokens, "stream": _stream, "temperature": _temperature, "top_p": _top_p, "top_k": _top_k,
    "stop_sequences": _stop_sequences, "metadata": _metadata, "tools": _tools, "tool_choice": _tool_choice,
    "thinking": _thinking, "output_config": _output_config, "output_format": _output_format,
    "service_tier": _service_tier, "speed": _speed, "context_management": _context_management,
}  # fmt: skip
