"""A GenerateContentResponse as a chat.completion; the deltas that streams are made of, and whole answers too."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, Final

import orjson

from gateway.adapters import gemini_signatures as signatures
from gateway.adapters.gemini_citations import cited
from gateway.adapters.gemini_usage import usage
from gateway.call import JSON
from gateway.errors import AttemptFailed

# https://ai.google.dev/api/generate-content#FinishReason. Whatever else there is, or will be, is a filter of some kind.
_REASONS: Final = {"STOP": "stop", "MAX_TOKENS": "length", "CONTINUATION": "length"}
# The model stumbled: another try, or another target, may do better.
_FAILED: Final = frozenset({
    "MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "MALFORMED_RESPONSE",
    "MISSING_THOUGHT_SIGNATURE",
})  # fmt: skip
_BESIDE: Final = frozenset({"thought", "thoughtSignature", "partMetadata"})  # they make no content of a part
_MAX_CANDIDATES: Final = 128
_ID_BYTES: Final = 12


def answer(value: JSON) -> JSON:
    """Raises AttemptFailed("broken")."""
    check(value)
    choices = [_choice(value, candidate) for candidate in candidates(value)]
    if not choices:
        if not blocked(value):
            raise AttemptFailed("broken", "the backend's answer holds nothing")
        message = {"role": "assistant", "content": None, "refusal": None}
        choices = [{"index": 0, "message": message, "logprobs": None, "finish_reason": "content_filter"}]
    return {**head(value, "chat.completion"), "choices": choices, "usage": usage(value.get("usageMetadata"))}


def check(value: Any) -> None:
    if not isinstance(value, dict):
        raise AttemptFailed("broken", "the backend's answer is not an object")
    if value.get("error") is not None:
        raise AttemptFailed("broken", "the backend answered with an error")


def head(value: JSON, kind: str) -> JSON:
    """`created` is 0: the API does not say it, and there is no clock here."""
    return {
        "id": str(value.get("responseId") or ""),
        "object": kind,
        "created": 0,
        "model": str(value.get("modelVersion") or ""),
    }


def candidates(value: JSON) -> list[JSON]:
    found = value.get("candidates")
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(candidate, dict) for candidate in found):
        raise AttemptFailed("broken", "the backend's candidates are not a list of objects")
    return found


def index_of(candidate: JSON) -> int:
    index = candidate.get("index", 0)
    if type(index) is not int or not 0 <= index < _MAX_CANDIDATES:
        raise AttemptFailed("broken", "the backend's candidates are not numbered")
    return index


def blocked(value: JSON) -> bool:
    """The prompt was stopped by a filter, so that there is no candidate."""
    feedback = value.get("promptFeedback")
    return isinstance(feedback, dict) and bool(feedback.get("blockReason"))


def deltas(value: JSON, candidate: JSON, calls: int) -> Iterator[JSON]:
    """What the parts of a candidate add to the message; `calls` tool calls have been before."""
    content = candidate.get("content")
    found = content.get("parts") if isinstance(content, dict) else None
    for part in found if isinstance(found, list) else ():
        if not isinstance(part, dict):
            raise AttemptFailed("broken", "the backend's parts are not objects")
        call, signature = part.get("functionCall"), part.get("thoughtSignature")
        if isinstance(signature, str) and signature:
            place = signatures.TEXT if call is None else str(calls)
            yield {"thinking_blocks": [signatures.block(place, signature)]}
        if call is not None:
            yield {"tool_calls": [_call(value, candidate, part, calls)]}
            calls += 1
        elif isinstance(part.get("text"), str):
            if part["text"]:
                yield {"reasoning_content" if part.get("thought") else "content": part["text"]}
        elif part.keys() - _BESIDE:
            raise AttemptFailed("broken", "the backend answered with what a chat cannot carry")


def finish(candidate: JSON, calls: int) -> str | None:
    """Why it ended, in words of the chat form; None while it goes on. Raises AttemptFailed("broken")."""
    reason = candidate.get("finishReason")
    if reason is None or reason == "FINISH_REASON_UNSPECIFIED":
        return None
    if reason in _FAILED:
        raise AttemptFailed("broken", f"the backend's model failed: {reason}")
    said = _REASONS.get(reason, "content_filter")
    return "tool_calls" if calls and said == "stop" else said


def logprobs(candidate: JSON) -> JSON | None:
    """https://ai.google.dev/api/generate-content#LogprobsResult"""
    result = candidate.get("logprobsResult")
    if not isinstance(result, dict):
        return None
    tops = result.get("topCandidates") or []
    content = []
    for step, chosen in enumerate(result.get("chosenCandidates") or []):
        top = tops[step].get("candidates") or [] if step < len(tops) else []
        content.append({**_logprob(chosen), "top_logprobs": [_logprob(one) for one in top]})
    return {"content": content, "refusal": None}


def _logprob(one: JSON) -> JSON:
    token = str(one.get("token") or "")
    encoded = list(token.encode("utf-8", "surrogatepass"))
    return {"token": token, "logprob": one.get("logProbability", 0.0), "bytes": encoded}


def _choice(value: JSON, candidate: JSON) -> JSON:
    message: JSON = {"role": "assistant", "content": None, "refusal": None}
    thought = ""  # since the last block
    for delta in deltas(value, candidate, 0):
        for name, added in delta.items():
            if name == "thinking_blocks":
                message.setdefault(name, []).append({**added[0], "thinking": thought})
                thought = ""
            elif name == "tool_calls":
                message.setdefault(name, []).append({key: item for key, item in added[0].items() if key != "index"})
            else:
                message[name] = (message.get(name) or "") + added
                thought += added if name == "reasoning_content" else ""
    if sources := cited(candidate.get("citationMetadata"), message["content"] or ""):
        message["annotations"] = sources
    return {
        "index": index_of(candidate),
        "message": message,
        "logprobs": logprobs(candidate),
        "finish_reason": finish(candidate, len(message.get("tool_calls", ()))) or "stop",
    }


def _call(value: JSON, candidate: JSON, part: JSON, place: int) -> JSON:
    """Without an id of Gemini's, one that is the same whenever the same answer is read."""
    call = part["functionCall"]
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        raise AttemptFailed("broken", "the backend's tool call has no name")
    arguments = orjson.dumps(call.get("args") or {})
    about = orjson.dumps([value.get("responseId"), candidate.get("index"), place, call["name"]]) + arguments
    made = hashlib.blake2b(about, digest_size=_ID_BYTES).hexdigest()
    out: JSON = {
        "index": place,
        "id": call.get("id") or f"call_{made}",
        "type": "function",
        "function": {"name": call["name"], "arguments": arguments.decode()},
    }
    if part.get("thoughtSignature"):
        out["extra_content"] = signatures.extra_content(part["thoughtSignature"])
    return out
