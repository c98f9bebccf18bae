"""The middle form as backends of OpenAI's dialect take it: without what is ours, or in OpenAI's words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from gateway.call import JSON

# What nobody needs to be told: marks for a cache that OpenAI-like backends keep by themselves, and thoughts that
# are signed for another provider.
_MARKS: Final = frozenset({"cache_control"})
_THOUGHTS: Final = frozenset({"thinking_blocks"})
_EFFORTS: Final = ((2_048, "low"), (8_192, "medium"))  # by the budget of thinking, in tokens; above: high
FAILED: Final = "[error] "


def plain(body: JSON) -> JSON:
    """Of a call that came in another dialect."""
    out = {name: value for name, value in body.items() if name != "thinking"}
    out["messages"] = list(_messages(body["messages"]))
    if body.get("tools"):
        out["tools"] = [_without(tool, _MARKS) for tool in body["tools"]]
    thinking = body.get("thinking")
    if isinstance(thinking, dict) and "reasoning_effort" not in body and (effort := _effort(thinking)):
        out["reasoning_effort"] = effort
    return out


def _effort(thinking: JSON) -> str:
    if thinking.get("type") != "enabled":
        return ""
    budget = thinking.get("budget_tokens") or 0
    return next((effort for most, effort in _EFFORTS if budget <= most), "high")


def _messages(messages: Iterable[JSON]) -> Iterable[JSON]:
    """A tool's images come in a user's message behind all answers of tools, as a tool's message has but text."""
    images: list[JSON] = []
    for message in messages:
        if message.get("role") != "tool":
            if images:
                yield {"role": "user", "content": images}
                images = []
            yield _message(message)
            continue
        text, found = _tool_content(message)
        yield {**_without(message, _MARKS | {"is_error"}), "content": text}
        images += found
    if images:
        yield {"role": "user", "content": images}


def _message(message: JSON) -> JSON:
    out = _without(message, _MARKS | _THOUGHTS)
    if isinstance(out.get("content"), list):
        out["content"] = [_without(part, _MARKS) for part in out["content"]]
    return out


def _tool_content(message: JSON) -> tuple[Any, list[JSON]]:
    content, prefix = message.get("content"), FAILED if message.get("is_error") else ""
    if not isinstance(content, list):
        return f"{prefix}{content or ''}", []
    texts = [part["text"] for part in content if part.get("type") == "text"]
    others = [_without(part, _MARKS) for part in content if part.get("type") != "text"]
    if others:
        call = message.get("tool_call_id", "")
        texts.append(f"(what call {call} returned beside text follows)")
        others.insert(0, {"type": "text", "text": f"Returned by tool call {call}:"})
    return prefix + "\n".join(texts), others


def _without(value: JSON, names: frozenset[str]) -> JSON:
    return {name: inner for name, inner in value.items() if name not in names}
