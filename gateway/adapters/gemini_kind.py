"""Backends of Gemini's dialect: chat, and embeddings, which have a form of their own."""

from __future__ import annotations

from typing import Final

import orjson

from gateway.adapters import gemini, gemini_embeddings
from gateway.adapters.adapter import AnswerReader
from gateway.adapters.foreign import Foreign
from gateway.adapters.translated import TranslatedAnswer
from gateway.call import JSON, Call
from gateway.config.model import Model, Quirks

EMBEDDINGS: Final = "embeddings"


class Gemini(Foreign):
    endpoints = frozenset({"chat", EMBEDDINGS})

    def __init__(self) -> None:
        super().__init__(gemini)

    def beyond(self, call: Call) -> str | None:
        return gemini_embeddings.beyond(call.body) if call.endpoint == EMBEDDINGS else super().beyond(call)

    def url(self, base_url: str, call: Call, as_name: str) -> str:
        embeds = call.endpoint == EMBEDDINGS
        return base_url + gemini_embeddings.path(as_name) if embeds else super().url(base_url, call, as_name)

    def body(self, call: Call, as_name: str, max_tokens: int | None, quirks: Quirks) -> bytes:
        if call.endpoint != EMBEDDINGS:
            return super().body(call, as_name, max_tokens, quirks)
        return orjson.dumps(gemini_embeddings.request(call.body, as_name))

    def answer(self, call: Call, model: Model) -> AnswerReader:
        if call.endpoint != EMBEDDINGS:
            return super().answer(call, model)

        def read(value: JSON) -> JSON:
            return gemini_embeddings.answer(value, call.body)

        return TranslatedAnswer(call, model, read, dict)
