"""Backends of a provider whose dialect is not OpenAI's: by a module that translates between it and the middle form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import orjson

from gateway.adapters.adapter import AnswerReader, Provider, StreamReader
from gateway.adapters.encoding import translated_answer, translated_stream, untouched_answer, untouched_stream
from gateway.call import JSON, Call, Usage
from gateway.config.model import Model, Quirks
from gateway.dialects.dialect import Closing

_CHAT: Final = frozenset({"chat"})


@dataclass(frozen=True)
class Own:
    """The `dialect` of clients that is the provider's: their requests and its answers pass as they are, but for `sent`,
    what it takes of a request with an output limit, and `closing`, which ends a stream of it."""

    dialect: str
    sent: Callable[[JSON, int], JSON]
    closing: Callable[[], Closing]


class Foreign:
    """`own` is None where no client speaks as the provider does."""

    endpoints = _CHAT

    def __init__(self, provider: Provider, own: Own | None = None) -> None:
        self._provider = provider
        self._own = own

    def beyond(self, call: Call) -> str | None:
        if self._passes(call) is not None:
            return None
        return call.beyond[0] if call.beyond else self._provider.beyond(call.body)

    def url(self, base_url: str, call: Call, as_name: str) -> str:
        return base_url + self._provider.path(as_name, call.stream)

    def headers(self, call: Call, key: str | None) -> dict[str, str]:
        credentials = self._provider.credentials(key)
        return credentials if self._passes(call) is None else {**credentials, **call.own_headers}

    def body(self, call: Call, as_name: str, max_tokens: int | None, quirks: Quirks) -> bytes:
        assert max_tokens is not None, "chat has an output limit"
        own = self._passes(call)
        if own is not None:
            return orjson.dumps({**own.sent(call.original, max_tokens), "model": as_name})
        return orjson.dumps(self._provider.request(call.body, as_name, max_tokens, stream=call.stream))

    def answer(self, call: Call, model: Model) -> AnswerReader:
        made = translated_answer if self._passes(call) is None else untouched_answer
        return made(call, model, self._provider.answer)

    def stream(self, call: Call, model: Model) -> StreamReader:
        decoder, own = self._provider.Decoder(), self._passes(call)
        if own is None:
            return translated_stream(call, model, decoder)
        return untouched_stream(call, model, decoder, own.closing())

    def refused(self, call: Call, model: Model, body: bytes) -> tuple[bytes, Usage | None]:
        return orjson.dumps({"error": self._provider.error(body)}), None

    def _passes(self, call: Call) -> Own | None:
        """How, where the call is in the provider's own dialect."""
        return self._own if self._own is not None and call.dialect == self._own.dialect else None
