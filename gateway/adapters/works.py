"""The endpoints beside chat, completions and embeddings, as backends of OpenAI's dialect and their likes offer them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import orjson

from gateway.adapters.adapter import AnswerReader, StreamReader
from gateway.adapters.chunks import parsed
from gateway.adapters.counted import image_usage, rerank_usage, speech_usage, transcript_usage
from gateway.adapters.refilled import Form
from gateway.adapters.streamed import EventStream, Passing, SoundStream
from gateway.call import JSON, Call, Pieces, Usage
from gateway.config.model import Model
from gateway.errors import AttemptFailed

PATHS: Final[Mapping[str, str]] = {
    "rerank": "/rerank",
    "images": "/images/generations",
    "speech": "/audio/speech",
    "transcriptions": "/audio/transcriptions",
    "translations": "/audio/translations",
}
_LISTS: Final = {"rerank": "results", "images": "data"}  # what an answer has in any case
_TEXTS: Final = frozenset({"text", "srt", "vtt"})  # forms of a transcript that are no JSON


def body(call: Call, as_name: str) -> bytes | Pieces:
    fields: JSON = {**call.body, "model": as_name}
    assert call.work is not None
    return orjson.dumps(fields) if call.work.upload is None else Form(fields, call.work.upload)


def answer(call: Call, model: Model) -> AnswerReader:
    return WholeWork(call, model)


def stream(call: Call, model: Model) -> StreamReader:
    """Of whatever comes in pieces; what has no events in it is sound."""
    assert call.work is not None
    if call.endpoint == "images":
        return EventStream(call.work.outputs, lambda usages, ended: image_usage(call, model, usages, ended))
    if call.endpoint != "speech":
        return EventStream(1, lambda usages, _: transcript_usage(call, model, {"usage": usages[-1]} if usages else {}))
    if call.work.outputs:
        return EventStream(1, lambda usages, ended: speech_usage(call, model, usages, ended))
    return SoundStream(call)


class WholeWork:
    """A whole answer: checked, its usage read, its bytes left as they are. State: `_text` of a transcript."""

    def __init__(self, call: Call, model: Model) -> None:
        self._call = call
        self._model = model
        self._text = ""

    def read(self, status: int, body: bytes) -> tuple[bytes, Usage | None]:
        call, model = self._call, self._model
        if call.endpoint not in _LISTS and call.body.get("response_format") in _TEXTS:
            self._text = body.decode("utf-8", "replace")
            return body, None
        said = parsed(body, status)
        listed = _LISTS.get(call.endpoint)
        if not (isinstance(said.get("text"), str) if listed is None else isinstance(said.get(listed), list)):
            raise AttemptFailed("broken", "the backend's answer holds nothing", backend_status=status)
        usage = said.get("usage")
        if call.endpoint == "rerank":
            return body, rerank_usage(call, model, usage)
        if call.endpoint == "images":
            return body, image_usage(call, model, [usage] if isinstance(usage, dict) else [], len(said["data"]))
        self._text = said["text"]
        return body, transcript_usage(call, model, said)

    def passed_text(self) -> str:
        return self._text


def passed_counts(reader: object) -> Mapping[str, int]:
    """What was passed on of what is counted, beside tokens, by a stream that may have been cut off."""
    return reader.counts if isinstance(reader, Passing) else {}
