"""OpenAI's Responses API, `/v1/responses`: the dialect as a whole. Its parts are in the modules beside it.

Ids of responses come from the chat answer's `id`, so who keeps responses gives answers ids that are never used twice.
"""

from __future__ import annotations

from collections.abc import Iterator

from gateway.call import JSON
from gateway.dialects.responses_errors import error, error_event
from gateway.dialects.responses_output import Output
from gateway.dialects.responses_request import body
from gateway.dialects.responses_stream import Encoder, replay, whole
from gateway.errors import AttemptFailed

__all__ = ["Encoder", "answer", "body", "error", "error_event", "finished", "headers", "replay", "whole"]


def answer(value: JSON, original: JSON) -> JSON:
    """The response that a chat answer is. Raises AttemptFailed("broken") for what is no chat answer."""
    output = Output(original, lambda kind, fields: None)
    try:
        for part in _parts(value["choices"][0]):
            output.feed({**value, "choices": [part]})
    except (LookupError, TypeError, AttributeError) as error:
        raise AttemptFailed("broken", "the backend's answer holds nothing") from error
    return output.end(value.get("usage"))


def headers(request_id: str) -> dict[str, str]:
    return {}


def finished(answer: JSON) -> bool:
    """Neither cut off nor filtered."""
    return answer.get("status") == "completed"


def _parts(choice: JSON) -> Iterator[JSON]:
    """A whole choice in the steps of a stream: each signed block after its text."""
    message = choice["message"].copy()
    blocks = message.pop("thinking_blocks", None) or ()
    if blocks:  # they are authoritative: the text beside them says the same
        message.pop("reasoning_content", None)
        message.pop("reasoning", None)
    for block in blocks:
        if block.get("thinking"):
            yield {"delta": {"reasoning_content": block["thinking"]}}
        yield {"delta": {"thinking_blocks": [block]}}
    if message.get("tool_calls"):
        message["tool_calls"] = [{**call, "index": place} for place, call in enumerate(message["tool_calls"])]
    yield {**choice, "index": 0, "delta": message}
