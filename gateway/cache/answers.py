"""A stream becomes the whole answer it stands for, and a whole answer a stream. Pure; bytes and JSON, nothing else.

What cannot be put together faithfully is not: a field of a delta that nobody here knows may be a text to be joined or a
value to be replaced, and a guess would be a wrong answer that is given again and again.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from gateway.bounded import loads_of_backend
from gateway.call import JSON
from gateway.dialects.chat import DONE
from gateway.sse import event_data, split_events

_OBJECTS: Final = {"chat": ("chat.completion", "chat.completion.chunk"), "completions": ("text_completion",) * 2}
_TEXTS: Final = ("content", "reasoning_content", "reasoning", "refusal")
_THOUGHTS: Final = ("reasoning_content", "reasoning")
_LAST_WINS: Final = frozenset({"finish_reason", "stop_reason", "matched_stop"})
# Of each chunk by itself: the same, or as good as the same, in all of a stream; OpenAI's padding says nothing.
_FIRST_WINS: Final = frozenset({"id", "object", "created", "model"})
_PADDING: Final = frozenset({"obfuscation"})
_ENDS: Final = frozenset({"stop", "length", "tool_calls", "function_call"})
Slots = dict[Any, JSON]


class Unfaithful(Exception):
    """This stream cannot be put together without a guess."""


# -- a stream to a whole answer -----------------------------------------------------------------------------------


def assembled(stream: bytes, usage: Any, endpoint: str) -> JSON | None:
    """The answer that a complete stream stands for, with the usage that its backend reported; None if it is unclear."""
    whole: JSON = {}
    choices: Slots = {}
    try:
        for event in split_events(stream):
            data = event_data(event)
            if data is None or not data.strip() or data.strip() == b"[DONE]":
                continue
            _add_chunk(whole, choices, _object(loads_of_backend(data)), endpoint)
        if not choices:
            return None
        out = [_choice(choices[index], endpoint) for index in sorted(choices)]
    except (Unfaithful, ValueError):
        return None
    whole["object"] = _OBJECTS[endpoint][0]
    whole["choices"] = out
    if usage is not None:
        whole["usage"] = usage
    return whole


def _object(value: Any) -> JSON:
    if not isinstance(value, dict):
        raise Unfaithful
    return value


def _add_chunk(whole: JSON, choices: Slots, chunk: JSON, endpoint: str) -> None:
    for name, value in chunk.items():
        if name == "choices":
            for choice in value or ():
                _add_choice(choices, _object(choice), endpoint)
        elif name != "usage" and name not in _PADDING and (name not in _FIRST_WINS or name not in whole):
            _same(whole, name, value)


def _add_choice(choices: Slots, choice: JSON, endpoint: str) -> None:
    index = choice.get("index", 0)
    if type(index) is not int:
        raise Unfaithful
    slot = choices.setdefault(index, {"index": index})
    for name, value in choice.items():
        if name == "delta":
            _add_delta(slot.setdefault("message", {}), _object(value))
        elif name == "text" and endpoint == "completions":
            _join(slot, name, value)
        elif name == "logprobs":
            _add_logprobs(slot, value)
        elif name in _LAST_WINS:
            slot[name] = slot.get(name) if value is None else value
        elif name != "index":
            _same(slot, name, value)


def _add_delta(message: JSON, delta: JSON) -> None:
    for name, value in delta.items():
        if name in _TEXTS:
            _join(message, name, value)
        elif name == "tool_calls":
            _add_tool_calls(message, value)
        elif name == "function_call":
            if value is not None:
                _add_function(message.setdefault(name, {}), _object(value))
        elif name == "thinking_blocks":
            _add_thoughts(message, value)
        elif name == "role":
            message[name] = message.get(name) or value
        elif value is not None:
            raise Unfaithful


def _add_tool_calls(message: JSON, calls: Any) -> None:
    """By their index, which the whole answer does not have: there the place in the list says it."""
    if not calls:
        return
    slots: Slots = message.setdefault("tool_calls", {})
    for call in calls if isinstance(calls, list) else [calls]:
        index = _object(call).get("index")
        if type(index) is not int:
            raise Unfaithful
        slot = slots.setdefault(index, {})
        for name, value in call.items():
            if name in ("function", "custom") and isinstance(value, dict):
                _add_function(slot.setdefault(name, {}), value)
            elif name != "index":
                _same(slot, name, value)


def _add_thoughts(message: JSON, blocks: Any) -> None:
    """A signature closes what was thought since the last one."""
    whole = message.setdefault("thinking_blocks", [])
    for block in blocks if isinstance(blocks, list) else ():
        known = sum(len(one.get("thinking", "")) for one in whole)
        text = {"thinking": "".join(message.get("reasoning_content") or ())[known:]}
        whole.append({**_object(block), **(text if "signature" in block else {})})


def _add_function(function: JSON, part: JSON) -> None:
    for name, value in part.items():
        if name in ("arguments", "input"):
            _join(function, name, value)
        else:
            _same(function, name, value)


def _add_logprobs(slot: JSON, logprobs: Any) -> None:
    """An object of lists, one entry for each token."""
    if logprobs is None:
        slot.setdefault("logprobs", None)
        return
    whole = slot["logprobs"] = slot.get("logprobs") or {}
    for name, values in _object(logprobs).items():
        if isinstance(values, list):
            whole[name] = [*(whole.get(name) or ()), *values]
        elif values is None:
            whole.setdefault(name, None)
        else:
            raise Unfaithful


def _join(holder: JSON, name: str, value: Any) -> None:
    """Texts go to a list, because to add to a text that grows costs the square of its length."""
    if value is None:
        holder.setdefault(name, None)
    elif isinstance(value, str):
        if holder.get(name) is None:
            holder[name] = []
        holder[name].append(value)
    else:
        raise Unfaithful


def _same(holder: JSON, name: str, value: Any) -> None:
    """A value that is said once, or again as it was."""
    known = holder.get(name)
    if known is None:
        holder[name] = value
    elif value is not None and value != known and not (name in ("id", "name", "type") and value == ""):
        raise Unfaithful


def _choice(slot: JSON, endpoint: str) -> JSON:
    """A choice with its texts joined, in the order of the API."""
    if endpoint == "completions":
        return _joined(slot)
    message = _joined(slot.pop("message", {}))
    if not message:
        raise Unfaithful
    message.setdefault("role", "assistant")
    message.setdefault("content", None)
    calls = message.get("tool_calls")
    if calls is not None:
        if sorted(calls) != list(range(len(calls))):
            raise Unfaithful
        message["tool_calls"] = [{n: _inner(v) for n, v in calls[i].items()} for i in range(len(calls))]
    if "function_call" in message:
        message["function_call"] = _joined(message["function_call"])
    return {"index": slot.pop("index"), "message": message, **_joined(slot)}


def _inner(value: Any) -> Any:
    return _joined(value) if isinstance(value, dict) else value


def _joined(holder: JSON) -> JSON:
    return {
        name: "".join(value) if isinstance(value, list) and name in (*_TEXTS, "text", "arguments", "input") else value
        for name, value in holder.items()
    }


# -- a whole answer to a stream -----------------------------------------------------------------------------------


def replayed(answer: JSON, endpoint: str, *, wants_usage: bool) -> bytes | None:
    """The answer as a stream that ends with [DONE]; None for one whose shape nobody here knows.

    What was thought comes before what was said, and that before why it ended, as in a stream of a backend.
    """
    head = {name: value for name, value in answer.items() if name not in ("choices", "usage")}
    head["object"] = _OBJECTS[endpoint][1]
    unsaid = {"usage": None} if wants_usage else {}
    events = []
    try:
        for choice in answer["choices"]:
            events += [{**head, "choices": [part], **unsaid} for part in _parts(choice, endpoint)]
    except (KeyError, TypeError, AttributeError):
        return None
    if wants_usage and answer.get("usage") is not None:
        events.append({**head, "choices": [], "usage": answer["usage"]})
    return b"".join([b"data: %b\n\n" % orjson.dumps(event) for event in events]) + DONE


def _parts(choice: JSON, endpoint: str) -> list[JSON]:
    rest = {name: value for name, value in choice.items() if name not in ("message", "text")}
    index = rest.pop("index")
    last = {name: rest.pop(name) for name in list(rest) if name in _LAST_WINS}
    if endpoint == "completions":
        text = {"index": index, "text": choice["text"], **rest, "finish_reason": None}
        return [text, {"index": index, "text": "", "logprobs": None, **last}]
    message = dict(choice["message"])
    if isinstance(message.get("tool_calls"), list):
        message["tool_calls"] = [{"index": place, **call} for place, call in enumerate(message["tool_calls"])]
    thoughts = {name: message.pop(name) for name in _THOUGHTS if name in message}
    parts, blocks = [], message.pop("thinking_blocks", None) or ()
    if blocks or any(thoughts.values()):
        role = {"role": message["role"]} if "role" in message else {}
        deltas = [delta for block in blocks for delta in _signed(block)] or [thoughts]
        deltas[0] = {**role, **deltas[0]}
        parts += [{"index": index, "delta": delta, "logprobs": None, "finish_reason": None} for delta in deltas]
    else:
        message |= thoughts
    parts.append({"index": index, "delta": message, **rest, "finish_reason": None})
    return [*parts, {"index": index, "delta": {}, "logprobs": None, **last}]


def _signed(block: JSON) -> list[JSON]:
    """As in a stream: the text, then what signs it."""
    text = block.get("thinking")
    rest = {name: value for name, value in block.items() if name != "thinking"}
    return [*([{"reasoning_content": text}] if text else []), {"thinking_blocks": [rest]}]


# -- what may be kept ---------------------------------------------------------------------------------------------


def finished(answer: JSON, endpoint: str, choices: int) -> bool:
    """Whether it is a whole answer that says so: so many choices, none filtered, cut off or ended in another way."""
    if endpoint == "embeddings":
        data = answer.get("data")
        return isinstance(data, list) and len(data) == choices
    if endpoint == "rerank":
        return isinstance(answer.get("results"), list)
    found = answer.get("choices")
    if not isinstance(found, list) or len(found) != choices:
        return False
    return all(isinstance(choice, dict) and choice.get("finish_reason") in _ENDS for choice in found)
