"""A client's dialect over what a backend says: how answers and streams are written for a call.

In another dialect an answer has an id of ours: those of two backends may be the same, and clients name answers by them.
When it was created is the moment of the call.
"""

from __future__ import annotations

from gateway.adapters.adapter import Decoder
from gateway.adapters.one_call import FirstCallOnly, first_call_only
from gateway.adapters.translated import Read, TranslatedAnswer, TranslatedStream
from gateway.adapters.writers import Translating, Untouched
from gateway.call import JSON, Call
from gateway.config.model import Model
from gateway.dialects.chat import Encoder
from gateway.dialects.dialect import Closing
from gateway.dialects.known import DIALECTS


def translated_answer(call: Call, model: Model, read: Read) -> TranslatedAnswer:
    def written(answer: JSON) -> JSON:
        answer = {**answer, **_ours(call)}
        if _one_at_a_time(call):
            answer = first_call_only(answer)
        return DIALECTS[call.dialect].answer(answer, call.original) if call.dialect else answer

    return TranslatedAnswer(call, model, read, written)


def translated_stream(call: Call, model: Model, decoder: Decoder) -> TranslatedStream:
    encoder = DIALECTS[call.dialect].Encoder(call.original) if call.dialect else Encoder(wants_usage=call.wants_usage)
    writer = Translating(encoder, _ours(call), FirstCallOnly() if _one_at_a_time(call) else None)
    return TranslatedStream(call, model, decoder, writer)


def _one_at_a_time(call: Call) -> bool:
    return call.body.get("parallel_tool_calls") is False


def _ours(call: Call) -> JSON:
    return {"id": call.request_id, "created": call.created} if call.dialect else {"created": call.created}


def untouched_answer(call: Call, model: Model, read: Read) -> TranslatedAnswer:
    return TranslatedAnswer(call, model, read, None)


def untouched_stream(call: Call, model: Model, decoder: Decoder, closing: Closing) -> TranslatedStream:
    return TranslatedStream(call, model, decoder, Untouched(closing))
