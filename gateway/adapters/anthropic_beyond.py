"""What of a chat body Anthropic's Messages API cannot express: it would be lost, so it is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from gateway.adapters.anthropic_neutral import is_neutral
from gateway.adapters.anthropic_request import DATA_URL, SERVICE_TIERS, SYSTEM_ROLES
from gateway.adapters.anthropic_thinking import beyond_thinking, is_forced
from gateway.bounded import is_object
from gateway.call import JSON
from gateway.parse import OUTPUT_LIMITS

# Read elsewhere, or without a place and without an effect on the answer.
_PASSED: Final = frozenset({
    "model", "messages", "stream", "stream_options", "metadata", "prompt_cache_key", "prompt_cache_retention",
    "thinking", "reasoning_effort", "tools", "tool_choice", "parallel_tool_calls", *OUTPUT_LIMITS,
})  # fmt: skip
# By role: what a message may have. Names of tools are known from their calls, reasoning without a signature and
# annotations of earlier answers have no place.
_FIELDS: Final = {
    **dict.fromkeys((*SYSTEM_ROLES, "user"), frozenset({"role", "content"})),
    "assistant": frozenset({
        "role", "content", "refusal", "tool_calls", "thinking_blocks", "reasoning_content", "annotations",
    }),
    "tool": frozenset({"role", "content", "tool_call_id", "name", "is_error", "cache_control"}),
}  # fmt: skip
_PARTS: Final = {
    **dict.fromkeys(SYSTEM_ROLES, ("text",)),
    "user": ("text", "image_url", "file"),
    "assistant": ("text", "refusal"),
    "tool": ("text", "image_url", "file"),
}
_MAX_USER_CHARS: Final = 256
_SEEN_WHOLE: Final = (None, "auto", "high")  # of an image: there is no cheaper look at it


def beyond(body: JSON) -> str | None:
    """The first param that cannot be expressed; None if all can be."""
    for name, value in body.items():
        if name not in _PASSED and not is_neutral(name, value):
            fits = _FITS.get(name)
            if fits is None or not fits(value):
                return name
    return _beyond_tools(body) or beyond_thinking(body) or _beyond_messages(body.get("messages"))


def _is_share(value: Any) -> bool:
    """OpenAI's temperature goes to 2, this API's to 1, on the same scale."""
    return type(value) in (int, float) and 0 <= value <= 1


def _is_user(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _MAX_USER_CHARS


def _is_stop(value: Any) -> bool:
    """The API takes no stop text of white space alone."""
    texts = [value] if isinstance(value, str) else value
    return isinstance(texts, list) and all(isinstance(text, str) and text.strip() for text in texts)


def _is_schema(value: Any) -> bool:
    wanted = value.get("json_schema") if isinstance(value, dict) and value.get("type") == "json_schema" else None
    return isinstance(wanted, dict) and isinstance(wanted.get("schema"), dict)


_FITS: Final[dict[str, Callable[[Any], bool]]] = {
    "temperature": _is_share,
    "top_p": _is_share,
    "top_k": lambda value: type(value) is int and value > 0,
    "stop": _is_stop,
    "user": _is_user,
    "safety_identifier": _is_user,
    "service_tier": lambda value: isinstance(value, str) and value in SERVICE_TIERS,
    "response_format": _is_schema,
}


def _beyond_tools(body: JSON) -> str | None:
    tools, choice = body.get("tools"), body.get("tool_choice")
    if not tools and not choice:
        return None
    if tools and not isinstance(tools, list):
        return "tools"
    for place, tool in enumerate(tools or ()):
        if not _is_tool(tool):
            return f"tools[{place}]"
    names = {tool["function"]["name"] for tool in tools or ()}
    if choice and (not _is_choice(choice, names) or (is_forced(choice) and not names)):
        return "tool_choice"
    return None


def _is_tool(tool: Any) -> bool:
    if not _is_function(tool, "cache_control"):
        return False
    function = tool["function"]
    known = _has_only(function, "name", "description", "parameters", "strict")
    return known and isinstance(function.get("parameters") or {}, dict)


def _is_function(value: Any, *more: str) -> bool:
    """`{"type": "function", "function": {"name": ...}}`"""
    if (
        not isinstance(value, dict)
        or value.get("type") != "function"
        or not _has_only(value, "type", "function", *more)
    ):
        return False
    function = value.get("function")
    return isinstance(function, dict) and isinstance(function.get("name"), str)


def _is_choice(choice: Any, names: set[str]) -> bool:
    if isinstance(choice, str):
        return choice in ("auto", "none", "required")
    allowed = choice.get("allowed_tools") if isinstance(choice, dict) else None
    if not isinstance(allowed, dict) or choice.get("type") != "allowed_tools":
        return _is_function(choice)
    tools = allowed.get("tools")
    if not isinstance(tools, list) or not tools or allowed.get("mode") not in ("auto", "required"):
        return False
    return all(_is_function(tool) and tool["function"]["name"] in names for tool in tools)


def _beyond_messages(messages: Any) -> str | None:
    if not isinstance(messages, list):
        return "messages"
    last = None
    for place, message in enumerate(messages):
        found = _beyond_message(message) if isinstance(message, dict) else ""
        if found is not None:
            return f"messages[{place}]{found}"
        if message["role"] not in SYSTEM_ROLES:
            last = place
    if last is None:
        return "messages"  # the API wants a turn to answer
    # It would go on with the words of its own last turn, where the chat form has a new answer.
    return f"messages[{last}]" if messages[last]["role"] == "assistant" else None


def _beyond_message(message: JSON) -> str | None:
    role = message.get("role")
    known = _FIELDS.get(role) if isinstance(role, str) else None
    if known is None:
        return ".role"
    for name, value in message.items():
        if name not in known and not is_neutral(name, value):
            return f".{name}"
    if role == "tool" and not _is_id(message.get("tool_call_id")):
        return ".tool_call_id"
    return _beyond_content(message.get("content"), _PARTS[message["role"]]) or (
        _beyond_said(message) if role == "assistant" else None
    )


def _beyond_content(content: Any, kinds: tuple[str, ...]) -> str | None:
    if content is None or isinstance(content, str):
        return None
    if not isinstance(content, list):
        return ".content"
    for place, part in enumerate(content):
        if not isinstance(part, dict) or part.get("type") not in kinds or not _PART_FITS[part["type"]](part):
            return f".content[{place}]"
    return None


def _beyond_said(message: JSON) -> str | None:
    for name, kind in (("refusal", str), ("thinking_blocks", list), ("tool_calls", list)):
        if message.get(name) and not isinstance(message[name], kind):
            return f".{name}"
    for place, call in enumerate(message.get("tool_calls") or ()):
        # `extra_content` is where Gemini signs its calls.
        if not _is_function(call, "id", "index", "extra_content") or not _is_id(call.get("id")):
            return f".tool_calls[{place}]"
        arguments = call["function"].get("arguments")
        if arguments != "" and not is_object(arguments):
            return f".tool_calls[{place}].function.arguments"
    return None


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_text_part(part: JSON) -> bool:
    return isinstance(part.get("text"), str) and _has_only(part, "type", "text", "cache_control")


def _is_refusal(part: JSON) -> bool:
    return isinstance(part.get("refusal"), str) and part["refusal"].strip() != "" and _has_only(part, "type", "refusal")


def _is_image(part: JSON) -> bool:
    image = part.get("image_url")
    if not isinstance(image, dict) or not isinstance(image.get("url"), str):
        return False
    url = image["url"]
    found = DATA_URL.match(url)
    fits = url.startswith("https://") if found is None else found[1].lower() != "application/pdf"
    known = _has_only(part, "type", "image_url", "cache_control") and _has_only(image, "url", "detail")
    return fits and known and image.get("detail") in _SEEN_WHOLE


def _is_document(part: JSON) -> bool:
    file = part.get("file")
    if not isinstance(file, dict) or not isinstance(file.get("file_data"), str):
        return False
    found = DATA_URL.match(file["file_data"])
    known = _has_only(part, "type", "file", "cache_control") and _has_only(file, "file_data", "filename")
    named = file.get("filename") is None or isinstance(file["filename"], str)
    return known and named and found is not None and found[1].lower() == "application/pdf"


def _has_only(value: JSON, *names: str) -> bool:
    return all(name in names or is_neutral(name, what) for name, what in value.items())


_PART_FITS: Final[dict[str, Callable[[JSON], bool]]] = {
    "text": _is_text_part,
    "refusal": _is_refusal,
    "image_url": _is_image,
    "file": _is_document,
}
