"""The models that a backend says it has: OpenAI's form with what others add to it, Anthropic's and Gemini's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.probing.asker import Answer, Asker

PATHS: Final = {"anthropic": "/models?limit=1000", "gemini": "/models?pageSize=1000"}
MAX_LISTED: Final = 10_000
MAX_NAME: Final = 200  # characters
# vLLM, OpenRouter and Moonshot, Groq, Mistral, Anthropic, Gemini; each has a word of its own.
_CONTEXT: Final = (
    "max_model_len", "context_length", "context_window", "max_context_length", "max_input_tokens", "inputTokenLimit",
)  # fmt: skip
_OUTPUT: Final = ("max_completion_tokens", "max_output_tokens", "outputTokenLimit", "max_tokens")


@dataclass(frozen=True)
class Listed:
    """None is: not said."""

    name: str
    context: int | None = None
    max_output: int | None = None


async def listed(asker: Asker, kind: str) -> tuple[list[Listed], Answer]:
    """In the backend's order, each once; with the answer itself, for when there are none."""
    answer = await asker.get(PATHS.get(kind, "/models"))
    return (_read(answer.json) if answer.ok else []), answer


def _read(body: Any) -> list[Listed]:
    found: dict[str, Listed] = {}
    for entry in _entries(body):
        name = entry.get("id", entry.get("name"))
        if isinstance(name, str) and 0 < len(name) <= MAX_NAME and name.isprintable() and len(found) < MAX_LISTED:
            name = name.removeprefix("models/")
            found.setdefault(name, Listed(name, _context(entry), _first(entry, _OUTPUT)))
    return list(found.values())


def _entries(body: Any) -> Iterable[Mapping[str, Any]]:
    """A list alone (Together), below data (OpenAI, Anthropic) or below models (Gemini)."""
    if isinstance(body, dict):
        body = body.get("data", body.get("models"))
    return [entry for entry in body if isinstance(entry, dict)] if isinstance(body, list) else []


def _context(entry: Mapping[str, Any]) -> int | None:
    """llama.cpp says below `meta` what the model was trained for, and newer ones what a slot has."""
    meta = entry.get("meta")
    return _first(entry, _CONTEXT) or (_first(meta, ("n_ctx",)) if isinstance(meta, dict) else None)


def _first(entry: Mapping[str, Any], names: Iterable[str]) -> int | None:
    values = [entry.get(name) for name in names]
    return next((n for n in values if isinstance(n, int) and not isinstance(n, bool) and n > 0), None)
