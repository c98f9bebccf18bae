"""The response object: what it says of its request and of its usage. Its output is made in `responses_output`."""

from __future__ import annotations

import hashlib
import re
from typing import Any, Final

from gateway.call import JSON

MAX_STEM_CHARS: Final = 100
_STEM: Final = re.compile(rf"[A-Za-z0-9_-]{{1,{MAX_STEM_CHARS}}}")
# What a response says of a request that does not say it.
_DEFAULTS: Final[JSON] = {
    "background": False, "instructions": None, "max_output_tokens": None, "max_tool_calls": None, "metadata": {},
    "parallel_tool_calls": True, "previous_response_id": None, "prompt_cache_key": None, "safety_identifier": None,
    "store": True, "temperature": 1.0, "tool_choice": "auto", "tools": [], "top_logprobs": 0, "top_p": 1.0,
    "truncation": "disabled",
}  # fmt: skip
_REASONS: Final = {"length": "max_output_tokens", "content_filter": "content_filter"}
_WHOLE: Final = frozenset({"stop", "tool_calls", "function_call"})


def stem_of(chat_id: Any) -> str:
    """What all ids of a response have in common: `resp_X`, `msg_X_0`, `fc_X_1`, ... ."""
    text = chat_id.removeprefix("chatcmpl-") if isinstance(chat_id, str) else ""
    return text if _STEM.fullmatch(text) else hashlib.sha256(text.encode()).hexdigest()[:32]


def response_of(item_id: str) -> str | None:
    """The id of the response that an item with an id of our making is in."""
    kind, _, rest = item_id.partition("_")
    stem, _, place = rest.rpartition("_")
    return f"resp_{stem}" if kind and stem and place else None


def begun(original: JSON, stem: str, created: Any, model: Any, service_tier: Any) -> JSON:
    """A response of which nothing is known yet but what was asked."""
    said = {name: default if original.get(name) is None else original[name] for name, default in _DEFAULTS.items()}
    if original.get("user") is not None:
        said["user"] = original["user"]
    reasoning, text = original.get("reasoning") or {}, original.get("text") or {}
    return {
        "id": f"resp_{stem}",
        "object": "response",
        "created_at": created if isinstance(created, int | float) else 0,
        "status": "in_progress",
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "model": model if isinstance(model, str) else original.get("model"),
        "output": [],
        **said,
        "tools": [_tool(tool) for tool in said["tools"]],
        "reasoning": {"effort": reasoning.get("effort"), "summary": reasoning.get("summary")},
        "service_tier": service_tier or original.get("service_tier") or "auto",
        "text": {"format": {"type": "text"}, **{name: value for name, value in text.items() if value is not None}},
        "usage": None,
    }


def _tool(tool: JSON) -> JSON:
    """A function has all of its fields in a response, said or not."""
    return {**tool, "parameters": tool.get("parameters"), "strict": tool.get("strict")}


def ended(response: JSON, finish: str | None, output: list[JSON], usage: JSON | None) -> JSON:
    reason = _REASONS.get(finish or "")
    return {
        **response,
        "status": "completed" if finish in _WHOLE else "incomplete",
        "incomplete_details": None if reason is None else {"reason": reason},
        "output": output,
        "usage": usage,
    }


def is_whole(finish: str | None) -> bool:
    return finish in _WHOLE


def finish_of(response: JSON) -> str | None:
    """Why the chat answer ended that this response was made of."""
    if response.get("status") == "completed":
        return "stop"
    reason = (response.get("incomplete_details") or {}).get("reason")
    return next((finish for finish, known in _REASONS.items() if known == reason), None)


def usage_of(usage: Any) -> JSON | None:
    """The API has no place for "not told": what was not told of is 0 there."""
    if not isinstance(usage, dict):
        return None
    read, written = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    prompt, output = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    cache_writes = _count(prompt, "cache_write_tokens") + _count(prompt, "cache_write_1h_tokens")
    return {
        "input_tokens": read,
        "input_tokens_details": {
            "cached_tokens": _count(prompt, "cached_tokens"),
            "cache_write_tokens": cache_writes,
        },
        "output_tokens": written,
        "output_tokens_details": {"reasoning_tokens": _count(output, "reasoning_tokens")},
        "total_tokens": read + written,
    }


def _count(holder: Any, name: str) -> int:
    value = holder.get(name) if isinstance(holder, dict) else None
    return value if type(value) is int else 0
