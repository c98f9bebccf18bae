"""A request of OpenAI's Responses API as a chat body.

Its fields are those of https://github.com/openai/openai-openapi. What only providers of that
API could do (tools that they run, files that they keep) is named, so that the call is refused and nothing is lost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from gateway.call import JSON
from gateway.dialects.checks import MAX_NAME_CHARS, a_list, a_text, an_object
from gateway.dialects.responses_input import is_neutral, messages, others
from gateway.errors import InvalidValue

# The same name and meaning in both forms.
_SAME: Final = frozenset({
    "model", "stream", "temperature", "top_p", "top_k", "presence_penalty", "frequency_penalty", "parallel_tool_calls",
    "user", "safety_identifier", "prompt_cache_key",
})  # fmt: skip
# The gateway's own, hints for caches, what only concerns tools that providers run, and what Codex says of itself.
_NO_MATTER: Final = frozenset({
    "input", "instructions", "metadata", "client_metadata", "store", "max_tool_calls", "prompt_cache_retention",
    "prompt_cache_options",
})  # fmt: skip
_LOGPROBS: Final = "message.output_text.logprobs"
_INCLUDE: Final = frozenset({
    _LOGPROBS, "reasoning.encrypted_content", "message.input_image.image_url", "file_search_call.results",
    "web_search_call.results", "web_search_call.action.sources", "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
})  # fmt: skip
_TOOL_FIELDS: Final = ("description", "parameters", "strict")
_SCHEMA_FIELDS: Final = ("description", "schema", "strict")
_CHOICES: Final = ("none", "auto", "required")
MAX_METADATA: Final = 16
MAX_TOP_LOGPROBS: Final = 20
MAX_OUTPUT_TOKENS: Final = 1_000_000


def body(original: JSON) -> tuple[JSON, tuple[str, ...]]:
    """(the chat body, what it cannot express). `original` has the whole talk in `input`. Raises InvalidValue."""
    _check_own(original)
    beyond: list[str] = []
    chat: JSON = {"messages": _instructions(original) + messages(original.get("input", []), beyond)}
    if not chat["messages"] and not beyond:
        raise InvalidValue("'input' must say something.", param="input")
    for name, value in original.items():
        if name in _NO_MATTER or value is None:
            continue
        if name in _SAME:
            chat[name] = value
        elif name in _TRANSLATED:
            chat |= _TRANSLATED[name](value, beyond)
        elif not is_neutral(value):
            beyond.append(name[:MAX_NAME_CHARS])
    return _consistent(chat), tuple(beyond)


def _check_own(original: JSON) -> None:
    """What the gateway itself acts on, or gives back."""
    if not isinstance(original.get("store"), bool | None):
        raise InvalidValue("'store' must be true or false.", param="store")
    metadata = original.get("metadata")
    if metadata is None:
        return
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise InvalidValue("'metadata' must be an object of texts.", param="metadata")
    if len(metadata) > MAX_METADATA:
        raise InvalidValue(f"'metadata' has more than {MAX_METADATA} entries.", param="metadata")


def _instructions(original: JSON) -> list[JSON]:
    said = original.get("instructions")
    if said is None or said == "":
        return []
    if not isinstance(said, str):
        raise InvalidValue("'instructions' must be a text.", param="instructions")
    return [{"role": "system", "content": said}]


def _consistent(chat: JSON) -> JSON:
    """Settings of tools say nothing where there are none, and providers refuse them then."""
    if "tools" not in chat:
        chat.pop("parallel_tool_calls", None)
        if chat.get("tool_choice") in ("auto", "none"):
            del chat["tool_choice"]
    return chat


def _tools(value: Any, beyond: list[str]) -> JSON:
    found = []
    for place, tool in enumerate(a_list(value, "tools")):
        where = f"tools[{place}]"
        if an_object(tool, where).get("type") != "function":
            beyond.append(where)
            continue
        function = {name: tool[name] for name in _TOOL_FIELDS if tool.get(name) is not None}
        found.append({"type": "function", "function": {"name": a_text(tool, "name", where), **function}})
        beyond += others(tool, {"type", "name", *_TOOL_FIELDS}, where)
    return {"tools": found} if found else {}


def _tool_choice(value: Any, beyond: list[str]) -> JSON:
    if isinstance(value, str):
        if value not in _CHOICES:
            raise InvalidValue(f"'tool_choice' must be an object, or {', '.join(_CHOICES)}.", param="tool_choice")
        return {"tool_choice": value}
    kind = an_object(value, "tool_choice").get("type")
    if kind == "function":
        return {"tool_choice": _named(value, "tool_choice")}
    if kind != "allowed_tools":
        beyond.append("tool_choice")
        return {}
    tools = a_list(value.get("tools"), "tool_choice.tools")
    allowed = []
    for place, tool in enumerate(tools):
        where = f"tool_choice.tools[{place}]"
        if an_object(tool, where).get("type") == "function":
            allowed.append(_named(tool, where))
        else:
            beyond.append(where)
    choice = {"mode": a_text(value, "mode", "tool_choice"), "tools": allowed}
    return {"tool_choice": {"type": "allowed_tools", "allowed_tools": choice}}


def _named(choice: JSON, where: str) -> JSON:
    return {"type": "function", "function": {"name": a_text(choice, "name", where)}}


def _text(value: Any, beyond: list[str]) -> JSON:
    text = an_object(value, "text")
    beyond += others(text, {"format", "verbosity"}, "text")
    found: JSON = {}
    if text.get("verbosity") not in (None, "medium"):
        found["verbosity"] = text["verbosity"]
    if text.get("format") is not None:
        found |= _format(an_object(text["format"], "text.format"), beyond)
    return found


def _format(form: JSON, beyond: list[str]) -> JSON:
    kind = form.get("type")
    if kind == "text":
        return {}
    if kind == "json_object":
        return {"response_format": {"type": "json_object"}}
    if kind != "json_schema":
        raise InvalidValue("'text.format.type' must be text, json_object or json_schema.", param="text.format.type")
    an_object(form.get("schema"), "text.format.schema")
    schema = {name: form[name] for name in _SCHEMA_FIELDS if form.get(name) is not None}
    beyond += others(form, {"type", "name", *_SCHEMA_FIELDS}, "text.format")
    named = {"name": a_text(form, "name", "text.format"), **schema}
    return {"response_format": {"type": "json_schema", "json_schema": named}}


def _reasoning(value: Any, beyond: list[str]) -> JSON:
    """What a backend shows of its reasoning is passed on as the summary, whichever is wished."""
    reasoning = an_object(value, "reasoning")
    wished = {name: said for name, said in reasoning.items() if (name, said) not in _USUAL_REASONING}
    beyond += others(wished, {"effort", "summary", "generate_summary"}, "reasoning")
    return {} if reasoning.get("effort") is None else {"reasoning_effort": a_text(reasoning, "effort", "reasoning")}


_USUAL_REASONING: Final = (("context", "auto"), ("mode", "standard"))


def _include(value: Any, beyond: list[str]) -> JSON:
    wished = a_list(value, "include")
    for place, name in enumerate(wished):
        if not isinstance(name, str) or name not in _INCLUDE:
            raise InvalidValue(f"'include' knows {', '.join(sorted(_INCLUDE))}.", param=f"include[{place}]")
    return {"logprobs": True} if _LOGPROBS in wished else {}


def _top_logprobs(value: Any, beyond: list[str]) -> JSON:
    wished = _whole_number(value, "top_logprobs", 0, MAX_TOP_LOGPROBS)
    return {"logprobs": True, "top_logprobs": wished} if wished else {}


def _max_output_tokens(value: Any, beyond: list[str]) -> JSON:
    return {"max_tokens": _whole_number(value, "max_output_tokens", 1, MAX_OUTPUT_TOKENS)}


def _whole_number(value: Any, name: str, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise InvalidValue(f"'{name}' must be an integer from {low} to {high}.", param=name)
    return value


def _service_tier(value: Any, beyond: list[str]) -> JSON:
    return {} if value == "auto" else {"service_tier": value}


def _truncation(value: Any, beyond: list[str]) -> JSON:
    if value != "disabled":
        beyond.append("truncation")
    return {}


def _stream_options(value: Any, beyond: list[str]) -> JSON:
    """Padding against who measures pieces on the wire: none is sent here, whatever is wished."""
    beyond += others(an_object(value, "stream_options"), {"include_obfuscation"}, "stream_options")
    return {}


def _background(value: Any, beyond: list[str]) -> JSON:
    if value is not False:
        raise InvalidValue("Responses in the background are not made here: leave 'background' out.", param="background")
    return {}


def _conversation(value: Any, beyond: list[str]) -> JSON:
    message = "Conversations are not kept here: go on from a response with 'previous_response_id'."
    raise InvalidValue(message, param="conversation")


def _previous(value: Any, beyond: list[str]) -> JSON:
    """What it names has been put in front of the input."""
    if not isinstance(value, str):
        raise InvalidValue("'previous_response_id' must be the id of a response.", param="previous_response_id")
    return {}


_TRANSLATED: Final[dict[str, Callable[[Any, list[str]], JSON]]] = {
    "tools": _tools,
    "tool_choice": _tool_choice,
    "text": _text,
    "reasoning": _reasoning,
    "include": _include,
    "top_logprobs": _top_logprobs,
    "max_output_tokens": _max_output_tokens,
    "service_tier": _service_tier,
    "truncation": _truncation,
    "stream_options": _stream_options,
    "background": _background,
    "conversation": _conversation,
    "previous_response_id": _previous,
}
