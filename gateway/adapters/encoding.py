"""A client's dialect over what a backend says: how answers and streams are written for a call."""

from __future__ import annotations

from gateway.adapters.adapter import Decoder
from gateway.adapters.translated import Read, TranslatedAnswer, TranslatedStream
from gateway.adapters.writers import Translating, Untouched
from gateway.call import JSON, Call
from gateway.config.model import Model
from gateway.dialects.chat import Encoder
from gateway.dialects.known import DIALECTS


def translated_answer(call: Call, model: Model, read: Read) -> TranslatedAnswer:
    def written(answer: JSON) -> JSON:
        return DIALECTS[call.dialect].answer(answer, call.original) if call.dialect else answer

    return TranslatedAnswer(call, model, read, written)


def translated_stream(call: Call, model: Model, decoder: Decoder) -> TranslatedStream:
    encoder = DIALECTS[call.dialect].Encoder(call.original) if call.dialect else Encoder(wants_usage=call.wants_usage)
    return TranslatedStream(call, model, decoder, Translating(encoder))


def untouched_answer(call: Call, model: Model, read: Read) -> TranslatedAnswer:
    return TranslatedAnswer(call, model, read, None)


def untouched_stream(call: Call, model: Model, decoder: Decoder) -> TranslatedStream:
    return TranslatedStream(call, model, decoder, Untouched(DIALECTS[call.dialect].Closing()))
