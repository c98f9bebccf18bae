"""What of a chat body Gemini's dialect cannot express: the first such field, by name. All else is checked for its form,
so that `request` can take it as it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from gateway.adapters.gemini_contents import MEDIA, SYSTEM_ROLES, data_url
from gateway.adapters.gemini_request import EFFORTS
from gateway.bounded import is_object
from gateway.call import JSON
from gateway.parse import OUTPUT_LIMITS

MAX_CANDIDATES: Final = 8
MAX_STOPS: Final = 5
_INT32: Final = 2**31

# Taken as they are, or said by the wiring (the model, the limit, whether it streams), or without an effect on the
# answer: who asks, and hints for caches. Of tools it is looked at once there are some.
_FREE: Final = frozenset({
    "model", "stream", "stream_options", *OUTPUT_LIMITS, "temperature", "top_p", "top_k", "presence_penalty",
    "frequency_penalty", "logprobs", "top_logprobs", "user", "metadata", "safety_identifier", "prompt_cache_key",
    "prompt_cache_retention", "cache_control", "tool_choice", "parallel_tool_calls",
})  # fmt: skip
_USUAL: Final[Mapping[str, tuple[Any, ...]]] = {  # what a call without the field gets too
    "service_tier": ("auto", "default"), "verbosity": ("medium",),
    "modalities": (["text"],),
}  # fmt: skip
_SPOKEN: Final = frozenset({"role", "content", "thinking_blocks", "reasoning_content", "tool_calls", "annotations"})
_FIELDS: Final[Mapping[str, frozenset[str]]] = {
    **dict.fromkeys((*SYSTEM_ROLES, "user"), frozenset({"role", "content"})),
    "assistant": _SPOKEN | {"reasoning", "refusal"},
    "tool": frozenset({"role", "content", "tool_call_id", "name", "is_error", "cache_control"}),
}
_FUNCTION: Final = frozenset({"name", "description", "parameters", "strict"})


def beyond(body: JSON) -> str | None:
    for name, value in body.items():
        if name in _FREE or _neutral(value) or value in _USUAL.get(name, ()):
            continue
        check = _CHECKS.get(name)
        param = name if check is None else check(name, value)
        if param is not None:
            return param
    return _calling(body) if body.get("tools") else None


def _neutral(value: Any) -> bool:
    """Null, false or empty: as if the field were not there. 0 is a number like others."""
    return value is None or value is False or (isinstance(value, str | list | dict) and not value)


def _only(fits: Callable[[Any], bool]) -> Callable[[str, Any], str | None]:
    return lambda name, value: None if fits(value) else name


def _messages(name: str, messages: Any) -> str | None:
    called: set[str] = set()
    for place, message in enumerate(messages):
        param = _message(message, called)
        if param is not None:
            return f"{name}[{place}].{param}"
    # An instruction alone is no conversation: contents must not be empty.
    return name if all(message["role"] in SYSTEM_ROLES for message in messages) else None


def _message(message: JSON, called: set[str]) -> str | None:
    role = message.get("role")
    if not isinstance(role, str) or role not in _FIELDS:
        return "role"
    known = _FIELDS[role]
    for name in message:
        if name not in known and not _neutral(message[name]):
            return name
    if role == "assistant" and (param := _calls(message.get("tool_calls"), called)):
        return param
    if role == "tool" and not _answers(message.get("tool_call_id"), called):
        return "tool_call_id"
    return _content(message.get("content"), role)


def _calls(calls: Any, called: set[str]) -> str | None:
    if not isinstance(calls, list | None):
        return "tool_calls"
    for place, call in enumerate(calls or ()):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            return f"tool_calls[{place}]"
        if not isinstance(call.get("id"), str):
            return f"tool_calls[{place}].id"
        if not is_object(function.get("arguments") or "{}"):
            return f"tool_calls[{place}].function.arguments"
        called.add(call["id"])
    return None


def _answers(call_id: Any, called: set[str]) -> bool:
    """Gemini wants the function's name, which only the call says."""
    return isinstance(call_id, str) and call_id in called


def _content(content: Any, role: str) -> str | None:
    if content is None or isinstance(content, str):
        return None
    if not isinstance(content, list):
        return "content"
    for place, part in enumerate(content):
        if not isinstance(part, dict) or not _expressible(part, role):
            return f"content[{place}]"
    return None


def _expressible(part: JSON, role: str) -> bool:
    kind = part.get("type")
    held = part.get(kind) if isinstance(kind, str) else None
    if kind in ("text", "refusal"):
        return isinstance(held, str)
    if not isinstance(held, dict) or role in SYSTEM_ROLES:
        return False
    if kind == "input_audio":
        return isinstance(held.get("data"), str) and isinstance(held.get("format"), str)
    if kind == "file":
        return data_url(held.get("file_data")) is not None
    url = held.get("url")
    # The result of a function can hold data, and no address.
    return kind in MEDIA and isinstance(url, str) and (role != "tool" or data_url(url) is not None)


def _tools(name: str, tools: Any) -> str | None:
    if not isinstance(tools, list):
        return name
    for place, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, dict) and tool.get("type") == "function" else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            return f"{name}[{place}]"
        for field in function.keys() - _FUNCTION:
            if not _neutral(function[field]):
                return f"{name}[{place}].function.{field}"
    return None


def _calling(body: JSON) -> str | None:
    """What means nothing without tools. That they be called one at a time the gateway sees to: see one_call.py."""
    return None if _is_choice(body.get("tool_choice")) else "tool_choice"


def _is_choice(choice: Any) -> bool:
    if choice is None or choice in ("none", "auto", "required"):
        return True
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind == "function":
        return _is_named(choice)
    allowed = choice.get("allowed_tools") if kind == "allowed_tools" else None
    tools = allowed.get("tools") if isinstance(allowed, dict) else None
    return isinstance(tools, list) and bool(tools) and all(_is_named(tool) for tool in tools)


def _is_named(tool: Any) -> bool:
    function = tool.get("function") if isinstance(tool, dict) else None
    return isinstance(function, dict) and isinstance(function.get("name"), str)


def _is_format(wanted: Any) -> bool:
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind == "json_schema":
        given = wanted.get("json_schema")
        return isinstance(given, dict) and isinstance(given.get("schema"), dict)
    return kind in ("text", "json_object")


def _is_thinking(wanted: Any) -> bool:
    if not isinstance(wanted, dict) or not wanted.keys() <= {"type", "budget_tokens", "display"}:
        return False
    kind = wanted.get("type")
    return kind in ("disabled", "adaptive") or (kind == "enabled" and type(wanted.get("budget_tokens")) is int)


def _are_stops(stop: Any) -> bool:
    return isinstance(stop, str) or (
        isinstance(stop, list) and len(stop) <= MAX_STOPS and all(isinstance(one, str) for one in stop)
    )


_CHECKS: Final[Mapping[str, Callable[[str, Any], str | None]]] = {
    "messages": _messages,
    "tools": _tools,
    "n": _only(lambda n: type(n) is int and n <= MAX_CANDIDATES),
    "seed": _only(lambda seed: type(seed) is int and -_INT32 <= seed < _INT32),
    "stop": _only(_are_stops),
    "response_format": _only(_is_format),
    "reasoning_effort": _only(lambda effort: isinstance(effort, str) and effort in EFFORTS),
    "thinking": _only(_is_thinking),
}
