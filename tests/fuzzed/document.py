"""OpenAI's document of its API, cut to what is served here, with what it lacks of that."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any, Final

import pytest

from tests.fuzzed.others import DELETE_RESPONSE, OTHERS, TEXT

JSON = dict[str, Any]

PLAIN: Final = {"schema": TEXT}
FILE: Final = Path(__file__).parent.parent.parent.parent / "shared/data/openai-operations.json"
NOT_SERVED: Final = ("/moderations",)
# What is answered beside what the document lists. It takes the data of events for the events, as others do not.
_EVENTS: Final[JSON] = {"text/event-stream": {}}
_STREAMED: Final = ("/chat/completions", "/completions", "/responses", "/images/generations", "/messages")
_SOUNDS: Final = ("mpeg", "opus", "aac", "flac", "wav", "pcm")
_MORE: Final[dict[str, JSON]] = {
    **dict.fromkeys(_STREAMED, _EVENTS),
    "/audio/speech": {**_EVENTS, **{f"audio/{kind}": PLAIN for kind in _SOUNDS}},
    "/audio/transcriptions": {**_EVENTS, "text/plain": PLAIN},
}


def document() -> JSON:
    """Skips where the file is not there. What is no success has the one shape of an error."""
    if not FILE.exists():
        pytest.skip(f"OPENAI'S DOCUMENT IS NOT AT {FILE}: its operations are not fuzzed")
    whole: JSON = json.loads(FILE.read_text())
    paths: JSON = {path: item for path, item in whole["paths"].items() if path not in NOT_SERVED}
    heard = paths["/audio/transcriptions"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    heard["anyOf"] = heard.pop("oneOf")  # a verbose transcript is a short one with more in it
    paths |= copy.deepcopy(OTHERS)
    for path, more in _MORE.items():
        paths[path]["post"]["responses"]["200"]["content"] |= more
    paths["/audio/translations"] = copy.deepcopy(paths["/audio/transcriptions"])
    paths["/audio/translations"]["post"]["operationId"] = "createTranslation"
    paths["/responses/{response_id}"]["delete"] = copy.deepcopy(DELETE_RESPONSE)
    for path, item in paths.items():
        for operation in item.values():
            _refuses(operation, "MessagesError" if path.startswith("/messages") else "OurError")
    whole["components"]["schemas"] |= _errors(whole["components"]["schemas"]["Error"])
    return {**whole, "paths": paths}


def _refuses(operation: JSON, shape: str) -> None:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{shape}"}}}
    operation["responses"] = {
        "200": operation["responses"]["200"],
        "4XX": {"description": "refused", "content": content},
    }


def _errors(error: JSON) -> JSON:
    """`error` has all four keys."""
    ours = {"type": "object", "required": ["error"], "properties": {"error": error}, "additionalProperties": False}
    of_messages = {
        "type": "object", "required": ["type", "error", "request_id"],
        "properties": {"type": {"const": "error"}, "request_id": TEXT, "error": error},
    }  # fmt: skip
    return {"OurError": ours, "MessagesError": of_messages}
