"""Embeddings of Gemini (batchEmbedContents): a body of `/v1/embeddings` in its form, and its answer back. Pure.

https://ai.google.dev/api/embeddings
"""

from __future__ import annotations

import base64
import struct
from typing import Any, Final

from gateway.adapters.gemini import model_path
from gateway.adapters.gemini_answer import check
from gateway.call import JSON
from gateway.errors import AttemptFailed

MAX_TEXTS: Final = 100  # "at most 100 requests can be in one batch"
_FREE: Final = frozenset({"model", "input", "dimensions", "encoding_format", "user"})


def beyond(body: JSON) -> str | None:
    for name, value in body.items():
        if name not in _FREE and value is not None:
            return name
    texts = _texts(body)
    if len(texts) > MAX_TEXTS or not all(isinstance(text, str) for text in texts):
        return "input"  # tokens are those of another tokenizer
    return None if body.get("encoding_format") in (None, "float", "base64") else "encoding_format"


def path(as_name: str) -> str:
    return f"{model_path(as_name)}:batchEmbedContents"


def request(body: JSON, as_name: str) -> JSON:
    about: JSON = {"model": model_path(as_name).removeprefix("/")}
    if body.get("dimensions") is not None:
        about["outputDimensionality"] = body["dimensions"]
    return {"requests": [{**about, "content": {"parts": [{"text": text}]}} for text in _texts(body)]}


def answer(value: JSON, body: JSON) -> JSON:
    """Older models report no usage: then there is none here. Raises AttemptFailed("broken")."""
    check(value)
    found = value.get("embeddings")
    if not isinstance(found, list) or len(found) != len(_texts(body)):
        raise AttemptFailed("broken", "the backend's answer has not an embedding for each text")
    packed = body.get("encoding_format") == "base64"
    vectors = [_packed(_vector(one)) if packed else _vector(one) for one in found]
    data = [{"object": "embedding", "index": place, "embedding": one} for place, one in enumerate(vectors)]
    return {"object": "list", "data": data, "model": body["model"], "usage": _usage(value.get("usageMetadata"))}


def _texts(body: JSON) -> list[Any]:
    given = body["input"]
    return given if isinstance(given, list) else [given]


def _vector(embedding: Any) -> list[float]:
    values = embedding.get("values") if isinstance(embedding, dict) else None
    if not isinstance(values, list) or not all(isinstance(number, int | float) for number in values):
        raise AttemptFailed("broken", "the backend's embedding is not a list of numbers")
    return values


def _packed(values: list[float]) -> str:
    """As OpenAI does it: floats of four bytes."""
    try:
        return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()
    except (struct.error, OverflowError):
        raise AttemptFailed("broken", "the backend's embedding has numbers that are too large") from None


def _usage(metadata: Any) -> JSON | None:
    tokens = metadata.get("promptTokenCount") if isinstance(metadata, dict) else None
    return None if tokens is None else {"prompt_tokens": tokens, "total_tokens": tokens}
