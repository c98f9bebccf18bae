"""Answers of Anthropic's Messages API as chat completions, and its usage as OpenAI's.

Source: https://platform.claude.com/docs/en/api/messages/create
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import orjson

from gateway.call import JSON
from gateway.errors import AttemptFailed

CREATED: Final = 0  # the API does not say when
# A turn that pauses for the API's own tools, and a context that is full, are cut as by an output limit.
_FINISHES: Final = {
    "max_tokens": "length", "model_context_window_exceeded": "length", "pause_turn": "length", "tool_use": "tool_calls",
    "refusal": "content_filter",
}  # fmt: skip


def answer(value: JSON) -> JSON:
    """Raises AttemptFailed("broken") when it is none."""
    blocks = value.get("content")
    if value.get("type") == "error" or not isinstance(blocks, list):
        raise broken("the backend's answer is no message")
    message = _message([as_object(block) for block in blocks])
    choice = {"index": 0, "message": message, "logprobs": None, **finish(value)}
    if choice["finish_reason"] == "content_filter":
        message["refusal"] = explanation(value)
    answered = {
        "id": value.get("id"), "object": "chat.completion", "created": CREATED, "model": value.get("model"),
        "choices": [choice],
    }  # fmt: skip
    said = value.get("usage")
    return {**answered, "usage": usage(said)} if isinstance(said, dict) else answered


def usage(value: JSON) -> JSON:
    """Prompt tokens include the cached ones, which the API counts beside the others. What it does not say stays absent.

    Source: https://platform.claude.com/docs/en/build-with-claude/prompt-caching
    """
    read, fresh = _number(value.get("cache_read_input_tokens")), _number(value.get("input_tokens"))
    written, written_1h = _written(value)
    details = {"cached_tokens": read, "cache_write_tokens": written, "cache_write_1h_tokens": written_1h}
    details = {name: n for name, n in details.items() if n is not None}
    prompt = None if fresh is None else fresh + sum(details.values())
    completion = _number(value.get("output_tokens"))
    found: JSON = {"prompt_tokens": prompt, "completion_tokens": completion}
    if prompt is not None and completion is not None:
        found["total_tokens"] = prompt + completion
    if details:
        found["prompt_tokens_details"] = details
    thought = _number(_held(value, "output_tokens_details").get("thinking_tokens"))
    if thought is not None:
        found["completion_tokens_details"] = {"reasoning_tokens": thought}
    return found


def _written(value: JSON) -> tuple[Any, Any]:
    """(for 5 minutes, for an hour). The total holds: the end of a stream repeats it without its parts."""
    parts = _held(value, "cache_creation")
    hour, minutes = _number(parts.get("ephemeral_1h_input_tokens")), _number(parts.get("ephemeral_5m_input_tokens"))
    total = _number(value.get("cache_creation_input_tokens"))
    return (minutes if total is None else total - (hour or 0)), hour


def _held(value: JSON, name: str) -> JSON:
    held = value.get(name)
    return held if isinstance(held, dict) else {}


def _number(value: Any) -> Any:
    return value if type(value) in (int, float) else None


def finish(value: JSON) -> JSON:
    """`finish_reason`, and `stop_reason` where a stop text of the client's matched."""
    reason = value.get("stop_reason")
    if not isinstance(reason, str):
        raise broken("the backend's answer does not say why it ended")
    matched = value.get("stop_sequence")
    stopped = {"stop_reason": matched} if isinstance(matched, str) else {}
    return {"finish_reason": _FINISHES.get(reason, "stop"), **stopped}


def explanation(value: JSON) -> str | None:
    """Of a refusal, in words."""
    said = _held(value, "stop_details").get("explanation")
    return said if isinstance(said, str) else None


def _message(blocks: list[JSON]) -> JSON:
    texts = [(text_of(block, "text"), block.get("citations")) for block in blocks if block.get("type") == "text"]
    calls = [tool_call(block) for block in blocks if block.get("type") == "tool_use"]
    thoughts = [block for block in blocks if block.get("type") in ("thinking", "redacted_thinking")]
    text = "".join(said for said, _ in texts)
    message: JSON = {"role": "assistant", "content": text if text or not calls else None, "refusal": None}
    if thoughts:
        message["reasoning_content"] = "".join(optional_text(block, "thinking") for block in thoughts)
        message["thinking_blocks"] = thoughts
    if calls:
        message["tool_calls"] = calls
    annotations = _annotations(texts)
    if annotations:
        message["annotations"] = annotations
    return message


def _annotations(texts: Sequence[tuple[str, Any]]) -> list[JSON]:
    found, start = [], 0
    for text, citations in texts:
        for cited in citations if isinstance(citations, list) else ():
            found += annotation(cited, start, start + len(text))
        start += len(text)
    return found


def annotation(cited: Any, start: int, end: int) -> list[JSON]:
    """A citation as OpenAI's, if it is of a page: those of documents have no address."""
    if not isinstance(cited, dict) or not isinstance(cited.get("url"), str):
        return []
    place = {"start_index": start, "end_index": end, "url": cited["url"], "title": cited.get("title") or ""}
    return [{"type": "url_citation", "url_citation": place}]


def tool_call(block: JSON) -> JSON:
    function = {"name": text_of(block, "name"), "arguments": arguments(block)}
    return {"id": text_of(block, "id"), "type": "function", "function": function}


def arguments(block: JSON) -> str:
    return orjson.dumps(block.get("input") or {}).decode()


def as_object(value: Any) -> JSON:
    if not isinstance(value, dict):
        raise broken("the backend's answer holds something else than objects")
    return value


def text_of(holder: JSON, name: str) -> str:
    value = holder.get(name)
    if not isinstance(value, str):
        raise broken(f"the backend's answer has no text in '{name}'")
    return value


def optional_text(holder: JSON, name: str) -> str:
    return "" if holder.get(name) is None else text_of(holder, name)


def broken(message: str) -> AttemptFailed:
    return AttemptFailed("broken", message, backend_status=200)
