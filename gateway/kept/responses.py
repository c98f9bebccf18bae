"""Responses of tenants, kept beside their calls: an answer never waits for it, and never fails with it.

Writes go to a thread of their own; what waits for it is found as well, so that a client can go on at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import orjson

from gateway.call import JSON
from gateway.clock import Clock
from gateway.config.model import Responses
from gateway.dialects.responses_history import listed, references
from gateway.dialects.responses_object import response_of
from gateway.errors import InvalidValue, NotFound, PreviousNotFound, RequestTooLarge, StoreUnavailable
from gateway.kept.file import File, Turn

MAX_WAITING_BYTES: Final = 64_000_000
MAX_LISTED: Final = 100
SWEEP_EVERY_S: Final = 3600.0
_log = logging.getLogger("gateway.kept")
T = TypeVar("T")


class KeptResponses:
    """`count` is told what became of each response: kept, known, orphan, no_room, busy or failed.

    State: the file and its thread, turns that are not written yet by tenant and id, their bytes, the task that writes
    them, and whether the last write failed.
    """

    def __init__(self, path: str, settings: Responses, clock: Clock, count: Callable[[str], None]) -> None:
        self._file = File(path, settings.max_bytes)
        self._settings = settings
        self._clock = clock
        self._count = count
        self._thread = ThreadPoolExecutor(1, "kept-responses")
        self._waiting: dict[tuple[str, str], Turn] = {}
        self._waiting_bytes = 0
        self._writing: asyncio.Task[None] | None = None
        self._failing = False

    @property
    def on_disk(self) -> int:
        """Bytes."""
        return self._file.bytes

    def keep(self, tenant: str, original: JSON, own: Any, response: JSON) -> None:
        """`own` is what `resolve` returned beside the request. Returns at once, whatever becomes of it."""
        if original.get("store") is False:
            return
        try:
            turn = _turn_of(tenant, original, own, response, self._clock.wall_ms())
        except Exception:  # nobody foresaw it, and the answer goes out all the same
            _log.exception("a response cannot be kept")
            self._count("failed")
            return
        if self._waiting_bytes + turn.size > MAX_WAITING_BYTES:
            self._count("busy")
            return
        if (tenant, turn.id) in self._waiting:
            self._count("known")
            return
        self._waiting[tenant, turn.id] = turn
        self._waiting_bytes += turn.size
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())

    async def resolve(self, tenant: str, original: JSON, max_bytes: int) -> tuple[JSON, Any]:
        """(the request with the whole conversation in `input`, its own part of that).

        Raises PreviousNotFound, InvalidValue for a reference to nothing, RequestTooLarge, StoreUnavailable.
        """
        own, previous = original.get("input", []), original.get("previous_response_id")
        if not isinstance(own, str | list):
            return original, own  # the dialect says what is wrong with it
        if isinstance(own, str):
            own = [{"role": "user", "content": own}]
        meant = references(own)
        if previous is None and not meant:
            return original, own
        earlier: list[Any] = []
        if previous is not None:
            earlier = [item for turn in await self._chain(tenant, previous, max_bytes) for item in _said(turn)]
        if meant:
            own = await self._referred(tenant, own, meant, earlier, max_bytes)
        return {**original, "input": earlier + own}, own

    async def find(self, tenant: str, response_id: str) -> JSON:
        """Raises NotFound."""
        response: JSON = orjson.loads((await self._one(tenant, response_id))[1])
        return response

    async def forget(self, tenant: str, response_id: str) -> JSON:
        """What the client is told. Raises NotFound."""
        waiting = self._waiting.pop((tenant, response_id), None)
        if waiting is not None:
            self._waiting_bytes -= waiting.size
        # Behind the write that is under way, which may hold it.
        if not await self._run(self._file.delete, tenant, response_id) and waiting is None:
            raise _not_found(response_id)
        return {"id": response_id, "object": "response", "deleted": True}

    async def input_items(self, tenant: str, response_id: str, query: Mapping[str, str], max_bytes: int) -> JSON:
        """A page of what the model was given: the conversation before the response, and the items of its request.

        Raises NotFound, InvalidValue, RequestTooLarge.
        """
        limit, newest_first = _limit(query), _newest_first(query)
        try:
            turns = await self._chain(tenant, response_id, max_bytes)
        except PreviousNotFound:
            raise _not_found(response_id) from None
        items = [item for turn in turns[:-1] for item in _said(turn)] + orjson.loads(turns[-1][0])
        page = _behind(items[::-1] if newest_first else items, query.get("after"))
        ids = [item.get("id") for item in page[:limit]]
        ends = {"first_id": ids[0], "last_id": ids[-1]} if ids else {"first_id": None, "last_id": None}
        return {"object": "list", "data": page[:limit], "has_more": len(page) > limit, **ends}

    async def sweep(self, closed: Callable[[str], bool]) -> None:
        """Lets go what is too old, and all that tenants had who are `closed`."""
        before_ms = self._clock.wall_ms() - round(self._settings.keep_s * 1000)
        try:
            while await self._run(self._file.expire, before_ms):
                pass
            for tenant in filter(closed, await self._run(self._file.tenants)):
                while await self._run(self._file.forget, tenant):
                    pass
        except StoreUnavailable as error:  # calls do without: nothing turns red for it
            _log.error("old responses were not let go: %s", error)

    async def aclose(self) -> None:
        """Writes what waits."""
        if self._writing is not None:
            await self._writing
        await self._run(self._file.close)
        self._thread.shutdown()

    async def _write(self) -> None:
        while self._waiting:
            turns = list(self._waiting.values())
            try:
                outcomes = await self._run(self._file.write, turns)
                self._failing = False
            except Exception:  # whatever it was: without this task nothing would be kept any more
                if not self._failing:  # in the log once, not for each call
                    _log.exception("responses are not kept; the next ones are tried again")
                self._failing = True
                outcomes = ["failed"] * len(turns)
            for turn, outcome in zip(turns, outcomes, strict=True):
                self._count(outcome)
                if self._waiting.pop((turn.tenant, turn.id), None) is not None:
                    self._waiting_bytes -= turn.size
        self._writing = None

    async def _chain(self, tenant: str, response_id: Any, max_bytes: int) -> list[tuple[bytes, bytes]]:
        """(items, response) of each turn of a conversation, the oldest first."""
        if not isinstance(response_id, str):
            raise InvalidValue("'previous_response_id' must be the id of a response.", param="previous_response_id")
        latest: list[tuple[bytes, bytes]] = []
        at: str | None = response_id
        while at is not None and (turn := self._waiting.get((tenant, at))) is not None:
            latest.append((turn.items, turn.response))
            at = turn.previous
        latest.reverse()
        size = sum(len(items) + len(response) for items, response in latest)
        if size > max_bytes:
            raise RequestTooLarge(f"The conversation of '{response_id}' has more than {max_bytes} bytes.")
        if at is None:
            return latest
        before = await self._run(self._file.chain, tenant, at, max_bytes - size)
        if before is None:
            raise PreviousNotFound(
                f"Previous response with id '{response_id}' not found.", param="previous_response_id"
            )
        return before + latest

    async def _referred(
        self, tenant: str, own: list[Any], meant: list[tuple[int, str]], earlier: list[Any], max_bytes: int
    ) -> list[Any]:
        """`own` with the items in place of the references to them."""
        known = {item.get("id"): item for item in earlier}
        looked: set[str] = set()
        found, size = list(own), 0
        for place, item_id in meant:
            response_id = response_of(item_id)
            if item_id not in known and response_id is not None and response_id not in looked:
                looked.add(response_id)
                turn = await self._turn(tenant, response_id)
                size += 0 if turn is None else len(turn[0]) + len(turn[1])
                if size > max_bytes:
                    raise RequestTooLarge(f"What the input refers to has more than {max_bytes} bytes.")
                known |= {} if turn is None else {item.get("id"): item for item in _said(turn)}
            if item_id not in known:
                message = f"Item with id '{item_id}' not found: send the item itself."
                raise InvalidValue(message, param=f"input[{place}].id")
            found[place] = known[item_id]
        return found

    async def _one(self, tenant: str, response_id: str) -> tuple[bytes, bytes]:
        turn = await self._turn(tenant, response_id)
        if turn is None:
            raise _not_found(response_id)
        return turn

    async def _turn(self, tenant: str, response_id: str) -> tuple[bytes, bytes] | None:
        waiting = self._waiting.get((tenant, response_id))
        if waiting is not None:
            return waiting.items, waiting.response
        return await self._run(self._file.find, tenant, response_id)

    async def _run(self, job: Callable[..., T], *values: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, job, *values)


def _turn_of(tenant: str, original: JSON, own: list[JSON], response: JSON, now_ms: int) -> Turn:
    response_id, previous = response["id"], original.get("previous_response_id")
    items = orjson.dumps(listed(own, response_id))
    return Turn(tenant, response_id, previous, now_ms, items, orjson.dumps(response))


def _said(turn: tuple[bytes, bytes]) -> list[JSON]:
    """The items of a turn: what was asked, then what was answered."""
    items: list[JSON] = orjson.loads(turn[0])
    output: list[JSON] = orjson.loads(turn[1])["output"]
    return items + output


def _not_found(response_id: str) -> NotFound:
    return NotFound(f"Response with id '{response_id}' not found.")


def _limit(query: Mapping[str, str]) -> int:
    text = query.get("limit", "20")
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:9]) <= MAX_LISTED):
        raise InvalidValue(f"'limit' must be a number from 1 to {MAX_LISTED}.", param="limit")
    return int(text)


def _newest_first(query: Mapping[str, str]) -> bool:
    order = query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise InvalidValue("'order' must be asc or desc.", param="order")
    return order == "desc"


def _behind(items: list[JSON], after: str | None) -> list[JSON]:
    if after is None:
        return items
    for place, item in enumerate(items):
        if item.get("id") == after:
            return items[place + 1 :]
    raise InvalidValue(f"There is no item '{after}' in this list.", param="after")
