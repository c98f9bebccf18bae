"""Backends that speak OpenAI's dialect, as most do: chat calls of OpenAI's clients pass as bytes."""

from __future__ import annotations

from typing import Final

from gateway.adapters.adapter import AnswerReader, StreamReader
from gateway.adapters.chunks import choices_of, parsed
from gateway.adapters.encoding import translated_answer, translated_stream
from gateway.adapters.openai import PATHS, refusal_usage, request_body
from gateway.adapters.openai import AnswerReader as OwnAnswer
from gateway.adapters.openai import StreamReader as OwnStream
from gateway.adapters.plain import plain
from gateway.call import JSON, Call, Usage
from gateway.config.model import Model, Quirks
from gateway.errors import AttemptFailed
from gateway.sse import event_data

_ERROR: Final = b"event: error"


class LikeOpenAI:
    endpoints = frozenset(PATHS)

    def beyond(self, call: Call) -> str | None:
        return call.beyond[0] if call.beyond else None

    def url(self, base_url: str, call: Call, as_name: str) -> str:
        return base_url + PATHS[call.endpoint]

    def headers(self, call: Call, key: str | None) -> dict[str, str]:
        return {} if key is None else {"authorization": f"Bearer {key}"}

    def body(self, call: Call, as_name: str, max_tokens: int | None, quirks: Quirks) -> bytes:
        body = plain(call.body) if call.dialect else call.body
        return request_body(call, body, as_name, max_tokens, quirks)

    def answer(self, call: Call, model: Model) -> AnswerReader:
        return translated_answer(call, model, _checked) if call.dialect else OwnAnswer(call, model)

    def stream(self, call: Call, model: Model) -> StreamReader:
        return translated_stream(call, model, Decoder()) if call.dialect else OwnStream(call, model)

    def refused(self, call: Call, model: Model, body: bytes) -> tuple[bytes, Usage | None]:
        return body, refusal_usage(call, model, body)


class Decoder:
    """Chunks as they are. State: `done`."""

    def __init__(self) -> None:
        self.done = False

    def feed(self, event: bytes) -> list[JSON]:
        data = event_data(event)
        if data is None or not data.strip():
            return []
        if data.strip() == b"[DONE]":
            self.done = True
            return []
        chunk = parsed(data)
        if event.lstrip().startswith(_ERROR):
            raise AttemptFailed("broken", "the backend sent an error in its stream")
        choices_of(chunk)
        return [chunk]


def _checked(answer: JSON) -> JSON:
    if not isinstance(answer.get("choices"), list):
        raise AttemptFailed("broken", "the backend's answer holds nothing")
    choices_of(answer)
    return answer
