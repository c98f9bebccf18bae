"""OpenAI-like providers in the form that every adapter has, for calls that come in another dialect than chat.

Chat to chat passes as bytes (`openai.py`); here a chat body of the middle form is made fit for the provider, and its
answers are put into the middle form: one name for reasoning, usage in OpenAI's places, the four reasons for an end.
`quirks` say which provider it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from gateway.adapters.fitting import beyond as beyond_provider
from gateway.adapters.fitting import fitted
from gateway.adapters.openai_errors import error, in_ok
from gateway.adapters.quirks import provider, takes_usage
from gateway.adapters.usage import in_openai_places
from gateway.call import JSON
from gateway.config.model import Quirks
from gateway.errors import AttemptFailed
from gateway.sse import event_data

__all__ = ["Decoder", "answer", "beyond", "credentials", "error", "path", "request"]

PATH: Final = "/chat/completions"
_KNOWN: Final = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call"})
# Zhipu's, Mistral's, DeepSeek's, vLLM's and SGLang's own words for an end, or for a failure.
_REASONS: Final[Mapping[str, str]] = {
    "sensitive": "content_filter", "model_context_window_exceeded": "length", "model_length": "length",
    "max_tokens": "length", "repetition_truncation": "length", "eos": "stop",
}  # fmt: skip
_FAILED: Final = frozenset({"network_error", "error", "insufficient_system_resource", "abort"})


def beyond(body: JSON, quirks: Quirks) -> str | None:
    return beyond_provider(body, provider(quirks))


def path(as_name: str, stream: bool) -> str:
    return PATH


def credentials(key: str | None) -> dict[str, str]:
    return {} if key is None else {"authorization": f"Bearer {key}"}


def request(body: JSON, as_name: str, max_tokens: int, quirks: Quirks, *, stream: bool) -> JSON:
    asked = {**body, "model": as_name, "stream": stream}
    limit_name = quirks.max_tokens_field or provider(quirks).max_tokens or "max_tokens"
    out = fitted({**asked, "max_tokens": max_tokens}, provider(quirks), limit_name)
    out.pop("stream_options", None)
    if stream and takes_usage(quirks):
        out["stream_options"] = {"include_usage": True}
    return out


def answer(value: JSON) -> JSON:
    """Raises AttemptFailed."""
    _check(value)
    choices = value.get("choices")
    if not isinstance(choices, list) or not choices or not all(isinstance(choice, dict) for choice in choices):
        raise AttemptFailed("broken", "the backend's answer holds nothing")
    out = {**value, "choices": [_choice(choice, "message") for choice in choices]}
    return {**out, "usage": in_openai_places(value.get("usage"))}


class Decoder:
    """A stream ends with `[DONE]`; usage is where it was said last, in a chunk of its own.

    State: `_usage`, and the head of the chunk that it came in; `done`.
    """

    def __init__(self) -> None:
        self._usage: JSON | None = None
        self._head: JSON = {}
        self.done = False

    def feed(self, event: bytes) -> list[JSON]:
        """The chunks that an event makes. Raises AttemptFailed."""
        data = event_data(event)
        if data is None or not data.strip():
            return []
        if data.strip() == b"[DONE]":
            self.done = True
            return [] if self._usage is None else [{**self._head, "choices": [], "usage": self._usage}]
        chunk = _parsed(data)
        choices = chunk.get("choices") or []
        if isinstance(chunk.get("usage"), dict):
            self._usage = in_openai_places(chunk["usage"])
            self._head = {name: item for name, item in chunk.items() if name not in ("choices", "usage")}
        if not choices:  # usage alone, or what a filter of Azure's found in the prompt
            return []
        out = {name: item for name, item in chunk.items() if name != "usage"}
        return [{**out, "choices": [_choice(choice, "delta") for choice in choices]}]


def _check(value: Any) -> None:
    if not isinstance(value, dict):
        raise AttemptFailed("broken", "the backend's answer is not an object")
    if value.get("error") is not None:
        raise AttemptFailed("broken", "the backend answered with an error")
    if (failure := in_ok(value)) is not None:
        raise failure


def _parsed(data: bytes) -> JSON:
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise AttemptFailed("broken", "the backend's answer is not JSON") from None
    _check(value)
    return dict(value)


def _choice(choice: Any, held: str) -> JSON:
    if not isinstance(choice, dict):
        raise AttemptFailed("broken", "the backend's choices are not a list of objects")
    said, reason = choice.get(held), choice.get("finish_reason")
    if isinstance(said, dict) and "reasoning" in said:
        said = _named(said)
    if reason in _FAILED:
        raise AttemptFailed("broken", f"the backend's model failed: {reason}")
    if reason is not None and reason not in _KNOWN:
        reason = _REASONS.get(str(reason), "stop")
    return {**choice, held: said, "finish_reason": reason}


def _named(said: JSON) -> JSON:
    """vLLM's and Ollama's `reasoning` under the middle form's name; where both are there, they say the same."""
    out = {name: value for name, value in said.items() if name != "reasoning"}
    if out.get("reasoning_content") is None:
        out["reasoning_content"] = said["reasoning"]
    return out
