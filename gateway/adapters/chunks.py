"""What an answer or a chunk of OpenAI's form holds: its choices, and all that a model wrote into them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from gateway.adapters.openai_errors import in_ok
from gateway.bounded import loads_of_backend
from gateway.call import JSON, Call
from gateway.errors import AttemptFailed

LEAST_BYTES_PER_TOKEN: Final = 2  # of a piece of several tokens, on average
_CHUNK_HEAD: Final = ("id", "object", "created", "model", "system_fingerprint")


def parsed(data: bytes, status: int = 200) -> JSON:
    """Raises AttemptFailed for what is no object, or tells of an error."""
    try:
        value = loads_of_backend(data)
    except ValueError:
        raise AttemptFailed("broken", "the backend's answer is not JSON", backend_status=status) from None
    if not isinstance(value, dict):
        raise AttemptFailed("broken", "the backend's answer is not an object", backend_status=status)
    if value.get("error") is not None:
        raise AttemptFailed("broken", "the backend answered with an error", backend_status=status)
    if "base_resp" in value and (failure := in_ok(value)) is not None:
        raise failure
    return value


def choices_of(chunk: JSON) -> list[JSON]:
    choices = chunk.get("choices")
    if choices is None:
        return []
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise AttemptFailed("broken", "the backend's choices are not a list of objects")
    return choices


def usage_in(chunk: JSON) -> JSON | None:
    """Usage that a chunk tells of: of its own, or of a choice, as Moonshot puts it beside the reason for the end.

    https://platform.kimi.ai/docs/api/chat
    """
    if isinstance(chunk.get("usage"), dict):
        return dict(chunk["usage"])
    return next((dict(one["usage"]) for one in choices_of(chunk) if isinstance(one.get("usage"), dict)), None)


def has_content(choice: JSON) -> bool:
    if choice.get("text"):
        return True
    delta = choice.get("delta")
    return isinstance(delta, dict) and any(value for name, value in delta.items() if name != "role")


def text_of(holder: Any) -> str:
    """Everything a model wrote into a delta, a message, or a choice of the completions endpoint."""
    if not isinstance(holder, dict):
        return ""
    content = holder.get("content")
    if len(holder) == 1 and isinstance(content, str):  # as most deltas are
        return content
    parts = [holder.get(name) for name in ("text", "reasoning_content", "reasoning", "content", "refusal")]
    calls = holder.get("tool_calls")
    called = [call for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
    for tool in [*[call.get("function") or call.get("custom") for call in called], holder.get("function_call")]:
        if isinstance(tool, dict):  # OpenAI's custom tools have an input in place of arguments
            parts += [tool.get("name"), tool.get("arguments"), tool.get("input")]
    return "".join(part for part in parts if isinstance(part, str))


def answer_text(answer: JSON) -> str:
    """The output of a whole answer."""
    return "".join(text_of(choice.get("message")) + text_of(choice) for choice in choices_of(answer))


def expected_choices(call: Call) -> int:
    """Choices the client gets: best_of makes more than it returns."""
    n = call.body.get("n") or 1
    best_of = call.body.get("best_of") or 1
    return max(1, call.choices // max(n, best_of) * int(n))


def head_of(chunk: JSON) -> JSON:
    """What is the same in all chunks of a stream."""
    return {name: chunk[name] for name in _CHUNK_HEAD if name in chunk}


def cut_chunk(last: JSON, going_on: Iterable[int], empty: JSON, reason: str) -> JSON:
    """By it these choices have reached their length; `last` is a chunk of the stream, `empty` a choice's nothing."""
    choices = [{"index": index, **empty, "finish_reason": "length"} for index in going_on]
    return {**head_of(last), "choices": choices, "x_moma": {"reason": reason}}
