"""What OpenAI-like providers say, in the middle form: one name for reasoning, usage in OpenAI's places, and the four
reasons for an end. For clients of other dialects; to those of chat the bytes pass as they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gateway.adapters.chunks import choices_of, head_of, parsed, usage_in
from gateway.adapters.usage import in_openai_places
from gateway.call import JSON
from gateway.errors import AttemptFailed
from gateway.sse import event_data

_ERROR: Final = b"event: error"
_KNOWN: Final = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call"})
# Zhipu's, Mistral's, DeepSeek's, vLLM's and SGLang's own words for an end, or for a failure.
_REASONS: Final[Mapping[str, str]] = {
    "sensitive": "content_filter", "model_context_window_exceeded": "length", "model_length": "length",
    "max_tokens": "length", "repetition_truncation": "length",
}  # fmt: skip
_FAILED: Final = frozenset({"network_error", "error", "insufficient_system_resource", "abort"})


def answer(value: JSON) -> JSON:
    """Raises AttemptFailed("broken")."""
    choices = choices_of(value)
    if not choices:
        raise AttemptFailed("broken", "the backend's answer holds nothing")
    out = {**value, "choices": [_choice(choice, "message") for choice in choices]}
    return {**out, "usage": in_openai_places(value.get("usage"))}


class Decoder:
    """Chunks as they come; usage, wherever it is said, in one of its own. State: `done`, with `[DONE]`."""

    def __init__(self) -> None:
        self.done = False

    @property
    def said_usage(self) -> JSON | None:
        return None  # each time that it is said makes a chunk

    def feed(self, event: bytes) -> list[JSON]:
        """Raises AttemptFailed."""
        data = event_data(event)
        if data is None or not data.strip():
            return []
        if data.strip() == b"[DONE]":
            self.done = True
            return []
        chunk = parsed(data)
        if event.lstrip().startswith(_ERROR):
            raise AttemptFailed("broken", "the backend sent an error in its stream")
        out, choices = [], choices_of(chunk)
        if choices:  # without, it is usage alone, or what a filter of Azure's found in the prompt
            rest = {name: item for name, item in chunk.items() if name != "usage"}
            out.append({**rest, "choices": [_choice(choice, "delta") for choice in choices]})
        if (used := usage_in(chunk)) is not None:
            out.append({**head_of(chunk), "choices": [], "usage": in_openai_places(used)})
        return out


def _choice(choice: JSON, held: str) -> JSON:
    said, reason = choice.get(held), choice.get("finish_reason")
    if isinstance(said, dict) and "reasoning" in said:
        said = _named(said)
    if reason is not None:
        reason = _reason(str(reason))
    rest = {name: item for name, item in choice.items() if name != "usage"}
    return {**rest, held: said, "finish_reason": reason}


def _reason(theirs: str) -> str:
    if theirs in _FAILED:
        raise AttemptFailed("broken", f"the backend's model failed: {theirs}")
    return theirs if theirs in _KNOWN else _REASONS.get(theirs, "stop")


def _named(said: JSON) -> JSON:
    """vLLM's and Ollama's `reasoning` under the middle form's name; where both are there, they say the same."""
    out: dict[str, Any] = {name: value for name, value in said.items() if name != "reasoning"}
    if out.get("reasoning_content") is None:
        out["reasoning_content"] = said["reasoning"]
    return out
