"""The items of a Responses request as chat messages.

What the model said in one turn is several items there (reasoning, a message, function calls) and one message here.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from itertools import chain
from typing import Any, Final

from gateway.call import JSON
from gateway.dialects.checks import MAX_NAME_CHARS, a_list, a_text, an_object
from gateway.dialects.responses_reasoning import reasoning_message
from gateway.errors import InvalidValue

# `developer` is what newer models call `system`; all providers know the older name.
_ROLES: Final = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}


def messages(value: Any, beyond: list[str]) -> list[JSON]:
    """Adds to `beyond` what chat messages cannot express. Raises InvalidValue."""
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    if not isinstance(value, list):
        raise InvalidValue("'input' must be a text or a list of items.", param="input")
    found = []
    for place, item in enumerate(value):
        message = _message(an_object(item, f"input[{place}]"), f"input[{place}]", beyond)
        if message is not None:
            found.append(message)
    return _joined(found)


def is_neutral(value: Any) -> bool:
    return value is None or value is False or value in ("", [], {})


def others(holder: JSON, known: Set[str], where: str) -> list[str]:
    """What else an object says, beside the fields that are known: it would be lost."""
    if holder.keys() <= known:
        return []
    return [
        f"{where}.{name[:MAX_NAME_CHARS]}"
        for name, value in holder.items()
        if name not in known and not is_neutral(value)
    ]


def kind_of(item: JSON) -> Any:
    """Messages and references may leave their type out."""
    kind = item.get("type")
    if kind is None:
        return "message" if "role" in item else "item_reference" if "id" in item else None
    return kind


def _message(item: JSON, where: str, beyond: list[str]) -> JSON | None:
    """A message, or the part of one of the assistant's; None for what goes to `beyond`."""
    kind = kind_of(item)
    make = _ITEMS.get(kind) if isinstance(kind, str) else None
    if make is None:
        beyond.append(where)
        return None
    beyond += others(item, _FIELDS[str(kind)], where)
    return make(item, where, beyond)


def _said(item: JSON, where: str, beyond: list[str]) -> JSON:
    role = _ROLES.get(a_text(item, "role", where))
    if role is None:
        raise InvalidValue(f"'{where}.role' must be one of {', '.join(_ROLES)}.", param=f"{where}.role")
    content = item.get("content")
    if isinstance(content, str):
        return {"role": role, "content": content}
    parts = a_list(content, f"{where}.content")
    if role == "assistant":
        return _said_before(parts, f"{where}.content", beyond)
    return {"role": role, "content": _content(parts, f"{where}.content", _PARTS, beyond)}


def _said_before(parts: list[Any], where: str, beyond: list[str]) -> JSON:
    texts, refusals = [], []
    for place, part in enumerate(parts):
        inner = f"{where}[{place}]"
        kind = an_object(part, inner).get("type")
        if kind in ("output_text", "input_text", "text"):
            texts.append(a_text(part, "text", inner))
        elif kind == "refusal":
            refusals.append(a_text(part, "refusal", inner))
        else:
            raise InvalidValue("The assistant says output_text and refusal only.", param=f"{inner}.type")
        beyond += others(part, _PART_FIELDS[kind], inner)
    said: JSON = {"role": "assistant", "content": "".join(texts)}
    if refusals:
        said["refusal"] = "".join(refusals)
    return said


def _content(parts: list[Any], where: str, known: _Parts, beyond: list[str]) -> str | list[JSON]:
    """One text is a text: not every provider reads parts."""
    found = []
    for place, part in enumerate(parts):
        inner = f"{where}[{place}]"
        kind = an_object(part, inner).get("type")
        make = known.get(kind) if isinstance(kind, str) else None
        made = make(part, inner) if make is not None else None
        if made is None:
            beyond.append(inner)
        else:
            beyond += others(part, _PART_FIELDS[str(kind)], inner)
            found.append(made)
    if not found:
        return ""
    return str(found[0]["text"]) if len(found) == 1 and found[0]["type"] == "text" else found


def _text_part(part: JSON, where: str) -> JSON:
    return {"type": "text", "text": a_text(part, "text", where)}


def _image_part(part: JSON, where: str) -> JSON | None:
    if part.get("file_id") is not None:
        return None  # a file of the provider's store
    image: JSON = {"url": a_text(part, "image_url", where)}
    if part.get("detail") not in (None, "auto"):
        image["detail"] = part["detail"]
    return {"type": "image_url", "image_url": image}


def _file_part(part: JSON, where: str) -> JSON | None:
    if part.get("file_id") is not None or part.get("file_url") is not None or part.get("detail") not in (None, "auto"):
        return None
    file: JSON = {"file_data": a_text(part, "file_data", where)}
    if part.get("filename") is not None:
        file["filename"] = a_text(part, "filename", where)
    return {"type": "file", "file": file}


def _audio_part(part: JSON, where: str) -> JSON:
    return {"type": "input_audio", "input_audio": an_object(part.get("input_audio"), f"{where}.input_audio")}


def _called(item: JSON, where: str, beyond: list[str]) -> JSON:
    function = {"name": a_text(item, "name", where), "arguments": a_text(item, "arguments", where)}
    call = {"id": a_text(item, "call_id", where), "type": "function", "function": function}
    return {"role": "assistant", "tool_calls": [call]}


def _call_output(item: JSON, where: str, beyond: list[str]) -> JSON:
    output = item.get("output")
    if not isinstance(output, str):
        output = _content(a_list(output, f"{where}.output"), f"{where}.output", _OUTPUT_PARTS, beyond)
    return {"role": "tool", "tool_call_id": a_text(item, "call_id", where), "content": output}


def _thought(item: JSON, where: str, beyond: list[str]) -> JSON:
    return {"role": "assistant", **reasoning_message(item, where)}


def _reference(item: JSON, where: str, beyond: list[str]) -> JSON:
    raise InvalidValue("There is no kept response with this item. Send the item itself.", param=where)


_LISTS: Final = frozenset({"tool_calls", "thinking_blocks"})
_Parts = dict[str, Callable[[JSON, str], JSON | None]]
_OUTPUT_PARTS: Final[_Parts] = {"input_text": _text_part, "output_text": _text_part, "input_image": _image_part}
_PARTS: Final[_Parts] = {**_OUTPUT_PARTS, "input_file": _file_part, "input_audio": _audio_part}
# What an item and a part may say. Ids, states and phases change no answer; nor do annotations of earlier ones.
_FIELDS: Final = {
    "message": frozenset({"type", "role", "content", "id", "status", "phase"}),
    "function_call": frozenset({"type", "id", "call_id", "name", "arguments", "status"}),
    "function_call_output": frozenset({"type", "id", "call_id", "output", "status"}),
    "reasoning": frozenset({"type", "id", "summary", "content", "encrypted_content", "status"}),
    "item_reference": frozenset({"type", "id"}),
}
_HINT: Final = "prompt_cache_breakpoint"
_TEXT_FIELDS: Final = frozenset({"type", "text", "annotations", "logprobs", _HINT})
_PART_FIELDS: Final = {
    "input_text": _TEXT_FIELDS, "output_text": _TEXT_FIELDS, "text": _TEXT_FIELDS,
    "refusal": frozenset({"type", "refusal"}),
    "input_image": frozenset({"type", "image_url", "file_id", "detail", _HINT}),
    "input_file": frozenset({"type", "file_data", "file_id", "file_url", "filename", "detail", _HINT}),
    "input_audio": frozenset({"type", "input_audio"}),
}  # fmt: skip
_ITEMS: Final[dict[str, Callable[[JSON, str, list[str]], JSON]]] = {
    "message": _said,
    "function_call": _called,
    "function_call_output": _call_output,
    "reasoning": _thought,
    "item_reference": _reference,
}


def _joined(parts: list[JSON]) -> list[JSON]:
    """Calls are of one message however they are mixed with what was said: their outputs must follow at once."""
    turns: list[list[JSON]] = []
    seen: set[str] = set()  # fields of the turn so far
    for part in parts:
        if part["role"] != "assistant":
            seen.clear()
            turns.append([part])
            continue
        if not seen or ("content" in seen and "tool_calls" not in seen | part.keys()):
            seen.clear()
            turns.append([])
        seen |= part.keys()
        turns[-1].append(part)
    return [message for turn in turns if (message := _merged(turn)) is not None]


def _merged(turn: list[JSON]) -> JSON | None:
    """Texts and lists one behind the other. None for reasoning that led to nothing, such as that of an answer which
    was cut: there is no message to carry it."""
    if turn[0]["role"] != "assistant":
        return turn[0]
    found: dict[str, list[Any]] = {}
    for part in turn:
        for name, value in part.items():
            if name != "role":
                found.setdefault(name, []).append(value)
    if "content" not in found and "tool_calls" not in found:
        return None
    merged: JSON = {"role": "assistant", "content": None}
    for name, values in found.items():
        merged[name] = list(chain(*values)) if name in _LISTS else "\n".join(filter(None, values))
    return merged
