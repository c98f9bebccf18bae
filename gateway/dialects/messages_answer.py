"""An answer of the chat form as one of Anthropic's Messages API: what it says, why it ended, what it used."""

from __future__ import annotations

from typing import Any, Final

from gateway.bounded import loads_of_backend
from gateway.call import JSON

# Anthropic's own advice on how to hand back what a model wrote in place of an object.
INVALID_INPUT: Final = "INVALID_JSON"

_STOPS: Final = {
    "stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "function_call": "tool_use",
    "content_filter": "refusal",
}  # fmt: skip


def answer(value: JSON, original: JSON) -> JSON:
    choice = first_choice(value)
    message = as_object(choice.get("message"))
    calls = [as_object(call) for call in as_list(message.get("tool_calls"))]
    content = _thoughts(message, hides_thinking(original)) + _texts(message)
    content += [_tool_use(call, tool_id(value, place)) for place, call in enumerate(calls)]
    stop = stopped(choice, original, calls=bool(calls), refused=bool(message.get("refusal")))
    return {**head(value), "content": content, **stop, "usage": usage(value.get("usage"))}


def head(value: JSON) -> JSON:
    """Of an answer or of a chunk of it."""
    return {"id": f"msg_{_own_id(value)}", "type": "message", "role": "assistant", "model": as_text(value.get("model"))}


def tool_id(value: JSON, place: int) -> str:
    """For a call that its backend gave none."""
    return f"toolu_{_own_id(value)}_{place}"


def _own_id(value: JSON) -> str:
    return as_text(value.get("id")).removeprefix("chatcmpl-").removeprefix("msg_")


def first_choice(value: JSON) -> JSON:
    """The only one: nobody can ask for more here."""
    choices = [as_object(choice) for choice in as_list(value.get("choices"))]
    return next((choice for choice in choices if not choice.get("index")), {})


def hides_thinking(original: JSON) -> bool:
    return as_object(original.get("thinking")).get("display") == "omitted"


def thinking_of(message: JSON) -> str:
    """Of a message or a delta; backends call it by two names."""
    return as_text(message.get("reasoning_content")) or as_text(message.get("reasoning"))


def _thoughts(message: JSON, hidden: bool) -> list[JSON]:
    """The blocks that were signed, and as one more what they do not hold of the text."""
    blocks, text = [], thinking_of(message)
    for thought in as_list(message.get("thinking_blocks")):
        if as_object(thought).get("type") == "redacted_thinking":
            blocks.append({"type": "redacted_thinking", "data": as_text(thought.get("data"))})
        elif as_object(thought).get("type") == "thinking":
            blocks.append(_thinking(as_text(thought.get("thinking")), as_text(thought.get("signature")), hidden))
            text = text.removeprefix(as_text(thought.get("thinking")))
    blocks.append(_thinking(text, "", hidden))
    return [block for block in blocks if any(value for name, value in block.items() if name != "type")]


def _thinking(text: str, signature: str, hidden: bool) -> JSON:
    return {"type": "thinking", "thinking": "" if hidden else text, "signature": signature}


def _texts(message: JSON) -> list[JSON]:
    text = as_text(message.get("content"))
    said: JSON = {"type": "text", "text": text}
    citations = citations_of(message, text)
    if citations:
        said["citations"] = citations
    refusal = as_text(message.get("refusal"))
    return [*([said] if text else []), *([{"type": "text", "text": refusal}] if refusal else [])]


def citations_of(message: JSON, text: str) -> list[JSON]:
    """Pages that a provider cites, of a message or a delta; `text` is all that was said."""
    found = [as_object(as_object(one).get("url_citation")) for one in as_list(message.get("annotations"))]
    return [_citation(page, text) for page in found if page]


def _citation(page: JSON, text: str) -> JSON:
    start, end = count(page.get("start_index")), count(page.get("end_index"))
    cited = "" if start is None or end is None else text[start:end]
    title, url = as_text(page.get("title")), as_text(page.get("url"))
    return {
        "type": "web_search_result_location",
        "url": url,
        "title": title,
        "cited_text": cited,
        "encrypted_index": "",
    }


def _tool_use(call: JSON, own_id: str) -> JSON:
    function = as_object(call.get("function"))
    name, arguments = as_text(function.get("name")), as_text(function.get("arguments"))
    return {"type": "tool_use", "id": as_text(call.get("id")) or own_id, "name": name, "input": tool_input(arguments)}


def tool_input(arguments: str) -> JSON:
    if not arguments.strip():
        return {}
    try:
        value = loads_of_backend(arguments.encode())
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {INVALID_INPUT: arguments}


def stopped(choice: JSON, original: JSON, *, calls: bool, refused: bool) -> JSON:
    """`stop_reason` and `stop_sequence`. A reason that nobody here knows is passed on: a guess could look complete."""
    reason, matched = as_text(choice.get("finish_reason")) or None, choice.get("stop_reason")
    if refused:
        return {"stop_reason": "refusal", "stop_sequence": None}
    if calls and reason in ("stop", None):
        return {"stop_reason": "tool_use", "stop_sequence": None}  # so ends a call of a tool that was demanded by name
    if reason == "stop" and isinstance(matched, str) and matched in as_list(original.get("stop_sequences")):
        return {"stop_reason": "stop_sequence", "stop_sequence": matched}
    return {"stop_reason": _STOPS.get(reason or "", reason), "stop_sequence": None}


def usage(said: Any) -> JSON:
    """Anthropic counts what was read from or written to a cache beside the input, not in it."""
    said = as_object(said)
    details = as_object(said.get("prompt_tokens_details"))
    read = count(details.get("cached_tokens"))
    written, written_1h = count(details.get("cache_write_tokens")), count(details.get("cache_write_1h_tokens"))
    cached = (read or 0) + (written or 0) + (written_1h or 0)
    split: JSON = {"input_tokens": max(0, (count(said.get("prompt_tokens")) or 0) - cached)}
    if read is not None:
        split["cache_read_input_tokens"] = read
    if written is not None or written_1h is not None:
        split["cache_creation_input_tokens"] = (written or 0) + (written_1h or 0)
        split["cache_creation"] = {
            "ephemeral_5m_input_tokens": written or 0,
            "ephemeral_1h_input_tokens": written_1h or 0,
        }
    split["output_tokens"] = count(said.get("completion_tokens")) or 0
    thought = count(as_object(said.get("completion_tokens_details")).get("reasoning_tokens"))
    if thought is not None:
        split["output_tokens_details"] = {"thinking_tokens": thought}
    return split


# -- what a backend may have made of a field ----------------------------------------------------------------------


def as_object(value: Any) -> JSON:
    return value if isinstance(value, dict) else {}


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def as_text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def count(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None
