"""Messages of the middle form as OpenAI-like providers take them: without what is ours, or in OpenAI's words."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Any, Final

from gateway.adapters.quirks import Provider
from gateway.call import JSON

MARK: Final = "cache_control"
# What the middle form has beyond OpenAI's. Thoughts that are signed for another provider nobody needs.
_ADDED: Final = frozenset({"thinking_blocks", "reasoning_content", "is_error", MARK})
FAILED: Final = "[error] "
_SHORT_ID: Final = re.compile(r"[a-zA-Z0-9]{9}")


def plain_messages(messages: Iterable[JSON], to: Provider) -> Iterable[JSON]:
    """A tool's images come in a user's message behind all answers of tools, as a tool's message has but text."""
    strange = _ADDED - to.keeps
    images: list[JSON] = []
    for message in messages:
        if to.short_ids:
            message = _with_short_ids(message)
        if message.get("role") != "tool":
            if images:
                yield {"role": "user", "content": images}
                images = []
            yield _message(message, strange, to)
            continue
        text, found = _tool_content(message, strange)
        yield {**without(message, strange | {"is_error"}), "content": text}
        images += found
    if images:
        yield {"role": "user", "content": images}


def without(value: Any, names: frozenset[str]) -> Any:
    if not isinstance(value, dict) or names.isdisjoint(value):
        return value
    return {name: inner for name, inner in value.items() if name not in names}


def _with_short_ids(message: JSON) -> JSON:
    """Calls that a model of another provider made keep an id, the same in the call and in its answer."""
    if isinstance(message.get("tool_call_id"), str):
        return {**message, "tool_call_id": _short(message["tool_call_id"])}
    calls = message.get("tool_calls")
    if not isinstance(calls, list):
        return message
    return {**message, "tool_calls": [_short_call(call) for call in calls]}


def _short_call(call: Any) -> Any:
    if not isinstance(call, dict) or not isinstance(call.get("id"), str):
        return call
    return {**call, "id": _short(call["id"])}


def _short(given: str) -> str:
    return (
        given if _SHORT_ID.fullmatch(given) else hashlib.sha256(given.encode("utf-8", "surrogatepass")).hexdigest()[:9]
    )


def _message(message: JSON, strange: frozenset[str], to: Provider) -> JSON:
    out: JSON = without(message, strange)
    if out.get("role") == "developer" and not to.developer:
        out = {**out, "role": "system"}
    if MARK in strange and isinstance(out.get("content"), list):
        out = {**out, "content": [without(part, strange) for part in out["content"]]}
    return out


def _tool_content(message: JSON, strange: frozenset[str]) -> tuple[Any, list[JSON]]:
    """(the text, what there is beside it). Marks stay where they are understood: then the texts stay apart."""
    content, prefix = message.get("content"), FAILED if message.get("is_error") else ""
    if not isinstance(content, list):
        return (f"{prefix}{content or ''}" if prefix else content), []
    texts = [without(part, strange) for part in content if _is_text(part)]
    others = [without(part, strange) for part in content if not _is_text(part)]
    if others:
        call = message.get("tool_call_id", "")
        texts.append({"type": "text", "text": f"(what call {call} returned beside text follows)"})
        others.insert(0, {"type": "text", "text": f"Returned by tool call {call}:"})
    if not any(MARK in part for part in texts):
        return prefix + "\n".join(part["text"] for part in texts), others
    return ([{"type": "text", "text": prefix}, *texts] if prefix else texts), others


def _is_text(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
