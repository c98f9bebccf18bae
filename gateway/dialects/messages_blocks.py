"""Messages of Anthropic's form, and the blocks in them, as messages of the chat form.

A chat message has one place for its text, one for its calls and one for its reasoning, so their order within a message
of the assistant is lost; results of tools are messages of their own there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import orjson

from gateway.call import JSON
from gateway.dialects.checks import a_text, an_object, note, note_others, objects
from gateway.errors import InvalidValue

_MESSAGE: Final = frozenset({"role", "content"})
_TEXT: Final = frozenset({"type", "text", "cache_control", "citations"})
_IMAGE: Final = frozenset({"type", "source", "cache_control"})
_DOCUMENT: Final = frozenset({"type", "source", "cache_control", "title", "context"})
_TOOL_USE: Final = frozenset({"type", "id", "name", "input", "cache_control", "caller"})
_TOOL_RESULT: Final = frozenset({"type", "tool_use_id", "content", "is_error", "cache_control"})
_THINKING: Final = frozenset({"type", "thinking", "signature", "data"})

_READABLE: Final = ("text", "image", "document")


def messages(value: Any, beyond: list[str]) -> list[JSON]:
    if not isinstance(value, list) or not value:
        raise InvalidValue("'messages' must be a list of messages, and not empty.", param="messages")
    chat: list[JSON] = []
    for place, message in enumerate(value):
        chat += _message(an_object(message, f"messages[{place}]"), f"messages[{place}]", beyond)
    if value[-1]["role"] == "assistant":
        # An answer that goes on with these words. Others begin a new one, or refuse.
        note(beyond, f"messages[{len(value) - 1}]")
    return chat


def system(value: Any, beyond: list[str]) -> list[JSON]:
    """The message that instructs; none for an empty one."""
    if isinstance(value, str) and value:
        return [{"role": "system", "content": value}]
    return _instructing(value, "system", beyond) if value else []


def _message(message: JSON, param: str, beyond: list[str]) -> list[JSON]:
    role = message.get("role")
    if role not in ("user", "assistant", "system"):
        raise InvalidValue(f"'{param}.role' must be user, assistant or system.", param=f"{param}.role")
    note_others(message, _MESSAGE, param, beyond)
    content = message.get("content")
    if isinstance(content, str):
        return [{"role": role, "content": content}]
    return _BY_ROLE[role](content, f"{param}.content", beyond)


def _instructing(blocks: Any, param: str, beyond: list[str]) -> list[JSON]:
    return [{"role": "system", "content": _compact(_parts_of(blocks, param, ("text",), beyond))}]


def _asking(blocks: Any, param: str, beyond: list[str]) -> list[JSON]:
    """A message of the user, with one of a tool for each result in it, in the order of the blocks."""
    chat: list[JSON] = []
    parts: list[JSON] = []
    for place, block in enumerate(objects(blocks, param)):
        if block.get("type") != "tool_result":
            parts += _parts(block, f"{param}[{place}]", _READABLE, beyond)
            continue
        if parts:
            chat.append({"role": "user", "content": _compact(parts)})
            parts = []
        chat.append(_result(block, f"{param}[{place}]", beyond))
    if parts or not chat:
        chat.append({"role": "user", "content": _compact(parts)})
    return chat


def _result(block: JSON, param: str, beyond: list[str]) -> JSON:
    note_others(block, _TOOL_RESULT, param, beyond)
    message: JSON = {"role": "tool", "tool_call_id": a_text(block, "tool_use_id", param)}
    message["content"] = _answered(block.get("content") or "", f"{param}.content", beyond)
    if block.get("is_error"):
        message["is_error"] = True
    if block.get("cache_control"):
        message["cache_control"] = block["cache_control"]
    return message


def _answered(content: Any, param: str, beyond: list[str]) -> str | list[JSON]:
    if isinstance(content, str):
        return content
    parts = _parts_of(content, param, _READABLE, beyond)
    if any(part["type"] == "file" for part in parts):
        note(beyond, param)  # text and images are all that a tool answers in the chat form
    return _compact([part for part in parts if part["type"] != "file"])


def _answering(blocks: Any, param: str, beyond: list[str]) -> list[JSON]:
    parts: list[JSON] = []
    calls: list[JSON] = []
    thoughts: list[JSON] = []
    for place, block in enumerate(objects(blocks, param)):
        where = f"{param}[{place}]"
        kind = block.get("type")
        if kind == "tool_use":
            calls.append(_call(block, where, beyond))
        elif kind in ("thinking", "redacted_thinking"):
            thoughts.append(_thought(block, where, beyond))
        else:
            parts += _parts(block, where, ("text",), beyond)
    message: JSON = {"role": "assistant", "content": _compact(parts) if parts or not calls else None}
    if calls:
        message["tool_calls"] = calls
    return [{**message, **_reasoning(thoughts)}]


def _call(block: JSON, param: str, beyond: list[str]) -> JSON:
    """The caching mark has no place here: it changes no answer."""
    note_others(block, _TOOL_USE, param, beyond)
    caller = block.get("caller")
    if caller is not None and an_object(caller, f"{param}.caller").get("type") != "direct":
        note(beyond, f"{param}.caller")
    arguments = orjson.dumps(an_object(block.get("input"), f"{param}.input")).decode()
    function = {"name": a_text(block, "name", param), "arguments": arguments}
    return {"id": a_text(block, "id", param), "type": "function", "function": function}


def _thought(block: JSON, param: str, beyond: list[str]) -> JSON:
    note_others(block, _THINKING, param, beyond)
    if block["type"] == "redacted_thinking":
        return {"type": "redacted_thinking", "data": a_text(block, "data", param)}
    signature = block.get("signature") or ""
    if not isinstance(signature, str):
        raise InvalidValue(f"'{param}.signature' must be a text.", param=f"{param}.signature")
    return {"type": "thinking", "thinking": a_text(block, "thinking", param), "signature": signature}


def _reasoning(thoughts: list[JSON]) -> JSON:
    """What no one signed is only text: it came from a provider that signs nothing, and one that does refuses it."""
    text = "".join(thought["thinking"] for thought in thoughts if thought["type"] == "thinking")
    signed = [thought for thought in thoughts if thought.get("signature") != ""]
    return {**({"reasoning_content": text} if text else {}), **({"thinking_blocks": signed} if signed else {})}


_BY_ROLE: Final[dict[str, Callable[[Any, str, list[str]], list[JSON]]]] = {
    "user": _asking, "assistant": _answering, "system": _instructing,
}  # fmt: skip


# -- contents -----------------------------------------------------------------------------------------------------


def _parts_of(blocks: Any, param: str, kinds: tuple[str, ...], beyond: list[str]) -> list[JSON]:
    parts: list[JSON] = []
    for place, block in enumerate(objects(blocks, param)):
        parts += _parts(block, f"{param}[{place}]", kinds, beyond)
    return parts


def _compact(parts: list[JSON]) -> str | list[JSON]:
    """One plain text is a text: not every backend takes parts everywhere."""
    if not parts:
        return ""
    if len(parts) == 1 and parts[0].keys() == {"type", "text"}:
        text: str = parts[0]["text"]
        return text
    return parts


def _parts(block: JSON, param: str, kinds: tuple[str, ...], beyond: list[str]) -> list[JSON]:
    """None for a kind of block that has no place here."""
    kind = a_text(block, "type", param)
    if kind not in kinds:
        note(beyond, param)
        return []
    parts = _BY_TYPE[kind](block, param, beyond)
    if parts and block.get("cache_control"):
        parts[-1] = {**parts[-1], "cache_control": block["cache_control"]}
    return parts


def _text(block: JSON, param: str, beyond: list[str]) -> list[JSON]:
    note_others(block, _TEXT, param, beyond)
    if block.get("citations"):
        _citations(block["citations"], f"{param}.citations", beyond)
    return [{"type": "text", "text": a_text(block, "text", param)}]


def _citations(value: Any, param: str, beyond: list[str]) -> None:
    """Those of earlier answers that were made here (messages_answer.citation) are for people: no model knows them."""
    if any(citation.get("encrypted_index") != "" for citation in objects(value, param)):
        note(beyond, param)


def _image(block: JSON, param: str, beyond: list[str]) -> list[JSON]:
    note_others(block, _IMAGE, param, beyond)
    source = _source(block, param)
    if source.get("type") == "base64":
        return [{"type": "image_url", "image_url": {"url": _data_url(source, f"{param}.source")}}]
    if source.get("type") == "url":
        return [{"type": "image_url", "image_url": {"url": a_text(source, "url", f"{param}.source")}}]
    note(beyond, f"{param}.source")
    return []


def _document(block: JSON, param: str, beyond: list[str]) -> list[JSON]:
    """A PDF is a file; any other is what can be read in it, behind its title and its context."""
    note_others(block, _DOCUMENT, param, beyond)
    source = _source(block, param)
    kind = source.get("type")
    title, context = (a_text(block, name, param) if block.get(name) else "" for name in ("title", "context"))
    if kind == "base64":
        named = {"filename": title} if title else {}
        file = {"type": "file", "file": {**named, "file_data": _data_url(source, f"{param}.source")}}
        return [*_texts(context), file]
    if kind == "text":
        return _texts(title, context, a_text(source, "data", f"{param}.source"))
    if kind == "content":
        content = source.get("content")
        if isinstance(content, str):
            return _texts(title, context, content)
        inner = _parts_of(content, f"{param}.source.content", ("text", "image"), beyond)
        return [*_texts(title, context), *inner]
    note(beyond, f"{param}.source")
    return []


def _texts(*texts: str) -> list[JSON]:
    said = [text for text in texts if text]
    return [{"type": "text", "text": "\n".join(said)}] if said else []


def _source(block: JSON, param: str) -> JSON:
    return an_object(block.get("source"), f"{param}.source")


def _data_url(source: JSON, param: str) -> str:
    return f"data:{a_text(source, 'media_type', param)};base64,{a_text(source, 'data', param)}"


_BY_TYPE: Final[dict[str, Callable[[JSON, str, list[str]], list[JSON]]]] = {
    "text": _text, "image": _image, "document": _document,
}  # fmt: skip
