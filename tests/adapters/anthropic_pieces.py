"""Pieces of chat bodies."""

from __future__ import annotations

from typing import Any

NEW, OLD = "claude-opus-4-8", "claude-sonnet-4-5-20250929"
HI = {"role": "user", "content": "hi"}
EPHEMERAL = {"type": "ephemeral", "ttl": "1h"}
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "function": {"name": "weather", "description": "d", "parameters": PARAMETERS}}
CLOCK = {"type": "function", "function": {"name": "clock"}}
PNG, PDF = "data:image/png;base64,iVBOR", "data:application/pdf;base64,JVBERi0"
ALLOWED = {"mode": "required", "tools": [{"type": "function", "function": {"name": "clock"}}]}
LATE = {"role": "system", "content": "late"}
YES = {"role": "assistant", "content": "yes"}
SIGNED = {"type": "thinking", "thinking": "hm", "signature": "EqQB"}
REDACTED = {"type": "redacted_thinking", "data": "Eroe"}
ADAPTIVE = {"type": "adaptive"}


def text(words: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": words, **more}


def called(name: str, arguments: str, call_id: str = "call_1") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def budget(tokens: int) -> dict[str, Any]:
    return {"type": "enabled", "budget_tokens": tokens}
