"""Calls of `/v1/responses` whose answers are kept: what they go on from is put in front, and the answer is set aside.

The call itself knows nothing of it: it gets a request with the whole conversation, and a sink that looks at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

import orjson

from gateway.call import JSON, Answer, Request, Sink
from gateway.dialects.responses import whole
from gateway.errors import InvalidValue, MethodNotAllowed, NotFound
from gateway.kept.responses import KeptResponses
from gateway.parse import parse_object

PATH: Final = "/v1/responses"
_METHODS: Final = {"": ("GET", "DELETE"), "input_items": ("GET",)}  # by what follows the id of a response
_GOOD: Final = 200
_LAST_EVENTS: Final = (b"event: response.completed\n", b"event: response.incomplete\n")
Serve = Callable[[Request, Sink], Coroutine[Any, Any, None]]


class Keeping:
    """`kept` is None where nothing is to be kept."""

    def __init__(self, kept: KeptResponses | None) -> None:
        self._kept = kept

    async def handle(self, tenant: str, request: Request, sink: Sink, max_bytes: int, serve: Serve) -> None:
        """Raises InvalidValue, PreviousNotFound, RequestTooLarge or StoreUnavailable for what it shall go on from."""
        original = parse_object(request.body)
        kept = self._kept
        if kept is None:
            if original.get("previous_response_id") is not None:
                message = "This gateway keeps no responses: send the whole conversation in 'input'."
                raise InvalidValue(message, param="previous_response_id")
            await serve(request, sink)
            return
        resolved, own = await kept.resolve(tenant, original, max_bytes)
        if resolved is not original:
            request.body = orjson.dumps(resolved)
        await serve(request, Overheard(sink, lambda response: kept.keep(tenant, original, own, response)))

    async def asked(self, tenant: str, method: str, path: str, query: Mapping[str, str], max_bytes: int) -> JSON:
        """Of the paths behind PATH. Raises NotFound, InvalidValue, MethodNotAllowed."""
        response_id, _, what = path.removeprefix(f"{PATH}/").partition("/")
        if what not in _METHODS:
            raise NotFound("There is nothing at this path of a response but 'input_items'.")
        if self._kept is None:
            raise NotFound("This gateway keeps no responses.")
        if method not in (allowed := _METHODS[what]):
            raise MethodNotAllowed("A response is read and deleted here.", allow=allowed)
        if method == "DELETE":
            return await self._kept.forget(tenant, response_id)
        if query.get("stream", "false") != "false":
            raise InvalidValue("Kept responses are given whole: leave 'stream' out.", param="stream")
        if what:
            return await self._kept.input_items(tenant, response_id, query, max_bytes)
        return await self._kept.find(tenant, response_id)


class Overheard:
    """A sink that tells `heard` of the response that went through it, before its last byte goes."""

    def __init__(self, sink: Sink, heard: Callable[[JSON], None]) -> None:
        self._sink = sink
        self._heard = heard

    @property
    def begun(self) -> bool:
        return self._sink.begun

    async def begin(self, status: int, headers: dict[str, str]) -> None:
        await self._sink.begin(status, headers)

    async def write(self, chunk: bytes) -> None:
        await self._sink.write(chunk)

    async def finish(self, last: bytes = b"", *, whole: bool = True) -> None:
        if whole and (response := _last_response(last)) is not None:
            self._heard(response)
        await self._sink.finish(last, whole=whole)

    async def send(self, answer: Answer) -> None:
        if answer.status == _GOOD:
            self._heard(orjson.loads(answer.body))
        await self._sink.send(answer)


def _last_response(last: bytes) -> JSON | None:
    """In the end of a stream; of one that was kept by a cache all of it is the end."""
    place = max(last.rfind(name) for name in _LAST_EVENTS)
    return None if place < 0 else whole(last[place:])
