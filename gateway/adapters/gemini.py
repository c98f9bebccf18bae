"""Gemini's dialect (generateContent of v1beta): chat bodies in its form, and its answers as chat answers. Pure.

What this file lends the form of an adapter is in its neighbours: `gemini_beyond` what cannot be expressed,
`gemini_request` and `gemini_contents` the way there, `gemini_answer` and `gemini_stream` the way back.
The API: https://ai.google.dev/api/generate-content
"""

from __future__ import annotations

from urllib.parse import quote

from gateway.adapters.gemini_answer import answer
from gateway.adapters.gemini_beyond import beyond
from gateway.adapters.gemini_errors import error
from gateway.adapters.gemini_request import request
from gateway.adapters.gemini_stream import Decoder

__all__ = ["Decoder", "answer", "beyond", "credentials", "error", "path", "request"]


def path(as_name: str, stream: bool) -> str:
    """Behind `https://generativelanguage.googleapis.com/v1beta`; a name such as `tunedModels/x` is its own path."""
    return model_path(as_name) + (":streamGenerateContent?alt=sse" if stream else ":generateContent")


def model_path(as_name: str) -> str:
    return "/" + quote(as_name if "/" in as_name else f"models/{as_name}")


def credentials(key: str | None) -> dict[str, str]:
    return {} if key is None else {"x-goog-api-key": key}
