"""Backends of a provider whose dialect is not OpenAI's: by a module that translates between it and the middle form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import orjson

from gateway.adapters.adapter import AnswerReader, Provider, StreamReader
from gateway.adapters.encoding import translated_answer, translated_stream, untouched_answer, untouched_stream
from gateway.call import JSON, Call, Usage
from gateway.config.model import Model, Quirks
from gateway.dialects.dialect import Closing

NOBODYS: Final = "none"
_CHAT: Final = frozenset({"chat"})


class Foreign:
    """`own` is the dialect of clients whose requests and answers it takes and gives as they are, but for `sent`, what
    it takes of a request with an output limit, and `closing`, which ends streams of it."""

    endpoints = _CHAT

    def __init__(
        self,
        provider: Provider,
        own: str = NOBODYS,
        sent: Callable[[JSON, int], JSON] | None = None,
        closing: Callable[[], Closing] | None = None,
    ) -> None:
        self._provider = provider
        self._own = own
        self._sent = sent
        self._closing = closing

    def beyond(self, call: Call) -> str | None:
        if call.dialect == self._own:
            return None
        return call.beyond[0] if call.beyond else self._provider.beyond(call.body)

    def url(self, base_url: str, call: Call, as_name: str) -> str:
        return base_url + self._provider.path(as_name, call.stream)

    def headers(self, call: Call, key: str | None) -> dict[str, str]:
        credentials = self._provider.credentials(key)
        return {**credentials, **call.own_headers} if call.dialect == self._own else credentials

    def body(self, call: Call, as_name: str, max_tokens: int | None, quirks: Quirks) -> bytes:
        assert max_tokens is not None, "chat has an output limit"
        if call.dialect == self._own:
            assert self._sent is not None
            body: JSON = {**self._sent(call.original, max_tokens), "model": as_name}
        else:
            body = self._provider.request(call.body, as_name, max_tokens, stream=call.stream)
        return orjson.dumps(body)

    def answer(self, call: Call, model: Model) -> AnswerReader:
        made = untouched_answer if call.dialect == self._own else translated_answer
        return made(call, model, self._provider.answer)

    def stream(self, call: Call, model: Model) -> StreamReader:
        decoder = self._provider.Decoder()
        if call.dialect != self._own:
            return translated_stream(call, model, decoder)
        assert self._closing is not None
        return untouched_stream(call, model, decoder, self._closing())

    def refused(self, call: Call, model: Model, body: bytes) -> tuple[bytes, Usage | None]:
        return orjson.dumps({"error": self._provider.error(body)}), None
