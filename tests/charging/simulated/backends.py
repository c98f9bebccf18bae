"""Backends as they are and as they should not be; what they have seen and said is what charges are held against."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from gateway.errors import AttemptFailed
from tests.virtual import DONE, event

FOREVER_S = 1e6
Piece = bytes | float | AttemptFailed
GOOD = ("whole", "whole", "whole", "cached", "thinking")
BAD = (
    "zero", "missing", "null", "bad", "huge", "connect", "unreached", "silent", "broken", "hangs", "stops",
    "429", "500", "401", "400", "filtered", "garbage", "empty", "beyond",
)  # fmt: skip
LATENCY_S = (0.0, 0.0, 0.001, 0.01, 0.3, 2.0)
LONG_TOKENS = 2048  # what may write more is held in slices where the package is small
MOST_PROMPT = 32  # no more than the bound of what is asked: else it is a fault of the backend, as `beyond` is
WORD = "word "  # a token, and never counted as less here
PAUSE_S = (0.0, 0.0, 0.001, 0.05, 1.0, 9.0)


@dataclass
class Heard:
    """A call that was sent to a backend. `reached`: a byte of it arrived; `told`: its whole answer was taken."""

    tag: str
    backend: str
    model: str
    kind: str
    at: float
    usage: dict[str, Any] | None
    reached: bool = False
    told: bool = False
    pieces: list[Piece] = field(default_factory=list)

    @property
    def goes_beyond(self) -> bool:
        """What it says may be more than was held. A refusal tells of its usage at once: of a stream that is held in
        slices no more than the first is there then."""
        written = (self.usage or {}).get("completion_tokens", 0)
        return self.kind == "beyond" or (self.kind == "filtered" and written > LONG_TOKENS)

    @property
    def words(self) -> int:
        """Words of its stream."""
        return sum(piece.count(b"word") for piece in self.pieces if isinstance(piece, bytes))

    @property
    def buckets(self) -> dict[str, int]:
        """What a good usage comes to, counted apart from the adapter."""
        usage = self.usage or {}
        cached = usage.get("prompt_tokens_details", {}).get("cached_tokens", 0)
        thought = usage.get("completion_tokens_details", {}).get("reasoning_tokens", 0)
        found = {
            "input": usage["prompt_tokens"] - cached,
            "input_cached": cached,
            "output": usage.get("completion_tokens", 0) - thought,
            "output_reasoning": thought,
            "calls": 1,
        }
        return {bucket: n for bucket, n in found.items() if n}


class Backends:
    """All of them, as gateway.backends.client.Client. State: what was `heard`, how often they fail, random numbers."""

    def __init__(self, rng: random.Random, trouble: float) -> None:
        self.heard: list[Heard] = []
        self.trouble = trouble
        self._worst = rng.choice(BAD)  # a fault seldom comes alone
        self.dead: Callable[[], bool] = lambda: False  # the process that asks
        self._rng = rng

    async def send(self, url: str, headers: Mapping[str, str], body: bytes, sending: Callable[[], None]) -> Exchange:
        asked = orjson.loads(body)
        heard = self._decided(url, asked)
        self.heard.append(heard)
        await self._pass(LATENCY_S)
        if heard.kind == "connect":
            raise AttemptFailed("connect", "refused")
        if heard.kind == "unreached":
            await asyncio.sleep(FOREVER_S)
        if self.dead():
            raise ConnectionError
        sending()
        heard.reached = True
        await self._pass(LATENCY_S)
        if heard.kind == "silent":
            await asyncio.sleep(FOREVER_S)
        if heard.kind == "broken":
            raise AttemptFailed("broken", "no answer")
        return Exchange(heard)

    async def get(self, url: str, headers: Mapping[str, str]) -> Exchange:
        raise AssertionError("no check is configured")

    def follow(self, connect_s: float, urls: Iterable[str]) -> None:
        """There are no connections to keep."""

    async def aclose(self) -> None:
        """Nor to close."""

    async def _pass(self, choices: tuple[float, ...]) -> None:
        await asyncio.sleep(self._rng.choice(choices))

    def _decided(self, url: str, asked: dict[str, Any]) -> Heard:
        rng = self._rng
        kind = rng.choice(GOOD)
        if rng.random() < self.trouble:
            kind = self._worst if rng.random() < 0.5 else rng.choice(BAD)
        embedding = url.endswith("/embeddings")
        tag = asked["input"] if embedding else asked["messages"][-1]["content"]
        most = asked.get("max_tokens") or 64
        wished = rng.choice((1, 3, 20, 300) if most <= LONG_TOKENS else (40, 900, 2500, 6000, 30_000))
        usage = self._usage(kind, 0 if embedding else min(most, wished), embedding)
        heard = Heard(tag, url.split("/")[2], asked["model"], kind, asyncio.get_running_loop().time(), usage)
        if asked.get("stream") and not (kind.isdigit() or kind == "filtered"):
            heard.pieces = self._stream(kind, usage, min(most, wished) if most > LONG_TOKENS else 0)
        else:
            heard.pieces = [_whole(kind, usage, embedding)]
        if kind == "hangs":
            heard.pieces.insert(rng.randrange(len(heard.pieces)), FOREVER_S)
        elif kind == "stops":
            heard.pieces[rng.randrange(len(heard.pieces)) :] = [AttemptFailed("broken", "the connection was lost")]
        return heard

    def _usage(self, kind: str, output: int, embedding: bool) -> dict[str, Any] | None:
        rng = self._rng
        prompt = rng.randint(1, MOST_PROMPT)
        usage: dict[str, Any] = {"prompt_tokens": prompt, "total_tokens": prompt + output}
        if not embedding:
            usage["completion_tokens"] = output
        if kind == "cached":
            usage["prompt_tokens_details"] = {"cached_tokens": rng.randint(0, prompt)}
        elif kind == "thinking" and not embedding:
            usage["completion_tokens_details"] = {"reasoning_tokens": rng.randint(0, output)}
        elif kind == "beyond" and not embedding:  # more than it was allowed, and no more than the model can
            usage["completion_tokens"] = 500
        elif kind == "zero":
            usage = dict.fromkeys(usage, 0)
        elif kind in ("missing", "null"):
            return None
        elif kind == "bad":
            usage["prompt_tokens"] = rng.choice((-5, 1.5, "many", 10**12))
        elif kind == "huge":
            usage["completion_tokens" if not embedding else "prompt_tokens"] = 10**9
        return usage

    def _stream(self, kind: str, usage: dict[str, Any] | None, words: int) -> list[Piece]:
        """Some events of a word each; or of all `words`, as many of them as the usage says."""
        pieces: list[Piece] = [event({"role": "assistant", "content": ""})]
        if kind == "empty":
            return pieces
        for number in range(events := self._rng.randint(1, 6) if not words else self._rng.randint(3, 12)):
            text = WORD * (words * (number + 1) // events - words * number // events) if words else f"word{number} "
            pieces += [self._rng.choice(PAUSE_S), event({"content": text})]
        if kind == "garbage":
            return [*pieces, b"data: {not json\n\n"]
        pieces.append(event({}, "stop"))
        if usage is not None:
            pieces.append(event(usage=usage))
        pieces.append(DONE)
        return pieces


class Exchange:
    """An answer that has begun."""

    def __init__(self, heard: Heard) -> None:
        self.status = int(heard.kind) if heard.kind.isdigit() else 400 if heard.kind == "filtered" else 200
        self.headers: dict[str, str] = {"retry-after": "1"} if self.status == 429 else {}
        self._heard = heard
        self._pieces = iter(heard.pieces)

    async def chunk(self) -> bytes:
        for piece in self._pieces:
            if isinstance(piece, AttemptFailed):
                raise piece
            if isinstance(piece, bytes):
                self._heard.told = piece is self._heard.pieces[-1]
                return piece
            await asyncio.sleep(piece)
        return b""

    async def read(self) -> bytes:
        parts = []
        while part := await self.chunk():
            parts.append(part)
        return b"".join(parts)

    def close(self) -> None:
        """Cut off, or read to its end: nobody reads on."""

    def leave(self) -> None:
        """The same."""


def _whole(kind: str, usage: dict[str, Any] | None, embedding: bool) -> bytes:
    if kind == "garbage":
        return b"{not json"
    if kind.isdigit() or kind == "filtered":
        error = {"message": "no", "type": "t", "param": None, "code": "content_filter"}
        return orjson.dumps({"error": error} | ({"usage": usage} if kind == "filtered" else {}))
    answer: dict[str, Any] = {"id": "x", "object": "chat.completion"}
    if kind == "empty":
        return orjson.dumps(answer)
    if embedding:
        answer |= {"object": "list", "data": [{"index": 0, "embedding": [0.5]}]}
    else:
        message = {"role": "assistant", "content": "hello there"}
        answer["choices"] = [{"index": 0, "message": message, "finish_reason": "stop"}]
    if kind != "missing":
        answer["usage"] = usage
    return orjson.dumps(answer)
