"""Backends that speak OpenAI's dialect, as most do: chat calls of OpenAI's clients pass as bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from gateway.adapters import works
from gateway.adapters.adapter import AnswerReader, StreamReader
from gateway.adapters.encoding import translated_answer, translated_stream
from gateway.adapters.fitting import beyond
from gateway.adapters.openai import PATHS, refusal_usage, request_body
from gateway.adapters.openai import AnswerReader as OwnAnswer
from gateway.adapters.openai import StreamReader as OwnStream
from gateway.adapters.openai_answers import Decoder, answer
from gateway.adapters.quirks import TABLE
from gateway.call import Call, Pieces, Usage
from gateway.config.model import Model, Quirks


def path_of(call: Call) -> str:
    return (PATHS if call.work is None else works.PATHS)[call.endpoint]


@dataclass(frozen=True)
class LikeOpenAI:
    """`like` is the provider whose quirks it has; None: it takes whatever a client of OpenAI's says."""

    endpoints: ClassVar[frozenset[str]] = frozenset({*PATHS, *works.PATHS})
    like: str | None = None

    def beyond(self, call: Call) -> str | None:
        if call.beyond:
            return call.beyond[0]
        if self.like is None or call.endpoint != "chat":
            return None
        return beyond(call.body, TABLE[self.like], translated=call.dialect != "")

    def url(self, base_url: str, call: Call, as_name: str) -> str:
        return base_url + path_of(call)

    def headers(self, call: Call, key: str | None) -> dict[str, str]:
        return {} if key is None else {"authorization": f"Bearer {key}"}

    def body(self, call: Call, as_name: str, max_tokens: int | None, quirks: Quirks) -> bytes | Pieces:
        return request_body(call, as_name, max_tokens, quirks) if call.work is None else works.body(call, as_name)

    def answer(self, call: Call, model: Model) -> AnswerReader:
        if call.work is not None:
            return works.answer(call, model)
        return translated_answer(call, model, answer) if call.dialect else OwnAnswer(call, model)

    def stream(self, call: Call, model: Model) -> StreamReader:
        if call.work is not None:
            return works.stream(call, model)
        return translated_stream(call, model, Decoder()) if call.dialect else OwnStream(call, model)

    def refused(self, call: Call, model: Model, body: bytes) -> tuple[bytes, Usage | None]:
        return body, refusal_usage(call, model, body) if call.work is None else None
