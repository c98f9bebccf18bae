"""Calls with an Idempotency-Key: answered once, charged once, and given again to who asks again.

Such a call runs in a task of its own and goes on when its client leaves, so that a retry finds its answer. A call that
failed leaves nothing, and may be tried again with the same key.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any, Final

from gateway.call import Answer, Request, Sink
from gateway.charging.image import ONCE_MS
from gateway.clock import Clock
from gateway.dialects.known import id_headers
from gateway.errors import Conflict, InvalidValue, KeyReused, ShuttingDown
from gateway.tenants import Caller

KEPT_S: Final = ONCE_MS / 1000  # as long as the ledger knows of the charge
KEPT_BYTES: Final = 64_000_000
MAX_ANSWER_BYTES: Final = 4_000_000  # a longer one is given once
MAX_KEY_CHARS: Final = 255
HEADER: Final = "idempotency-key"
Serve = Callable[[Request, Sink], Coroutine[Any, Any, None]]


class Recording:
    """The sink of the call, written once, read by its client as it comes, and again by each retry.

    State: how it began (`status`, `headers`), what came (`answer`, or `chunks` and `last`), whether it is
    `over`, and `ended_well`.
    """

    def __init__(self, body: bytes) -> None:
        self.body = body  # digest of what was asked
        self.begun = self.over = self.ended_well = False
        self.answer: Answer | None = None
        self.headers: dict[str, str] = {}
        self.chunks: list[bytes] = []
        self.last = b""
        self.size = 0
        self._changed = asyncio.Event()

    @property
    def whole(self) -> bool:
        """A complete answer of bearable length, which a retry shall get."""
        if self.size > MAX_ANSWER_BYTES:
            return False
        return self.answer.status == 200 if self.answer is not None else self.ended_well

    async def begin(self, status: int, headers: dict[str, str]) -> None:
        self.begun, self.headers = True, headers
        self._wake()

    async def write(self, chunk: bytes) -> None:
        self.chunks.append(chunk)
        self.size += len(chunk)
        self._wake()

    async def finish(self, last: bytes = b"", *, whole: bool = True) -> None:
        self.last, self.over, self.ended_well = last, True, whole
        self.size += len(last)
        self._wake()

    async def send(self, answer: Answer) -> None:
        self.answer, self.size, self.begun, self.over = answer, len(answer.body), True, True
        self._wake()

    async def play(self, sink: Sink, again: dict[str, str]) -> None:
        """To the end, as it comes; `again` are headers that a first answer has not."""
        place = 0
        while True:
            if self.answer is not None:
                await sink.send(Answer(self.answer.status, self.answer.headers | again, self.answer.body))
                return
            if self.begun and not sink.begun:
                await sink.begin(200, self.headers | again)
            while place < len(self.chunks):
                place += 1
                await sink.write(self.chunks[place - 1])
            if self.over:
                await sink.finish(self.last, whole=self.ended_well)
                return
            self._changed.clear()
            await self._changed.wait()

    def _wake(self) -> None:
        self._changed.set()


def _digest(request: Request) -> bytes:
    sent = "" if request.upload is None else request.upload.digest
    return hashlib.sha256(f"{request.endpoint}{sent}\n".encode() + request.body).digest()


class Once:
    """Lives as long as the process. State: recordings by tenant and key, the oldest first, and the tasks of those open.

    What is forgotten here, at a restart or for want of room, the ledger still refuses for a day: 409.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: OrderedDict[str, tuple[float, Recording]] = OrderedDict()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._bytes = 0

    async def handle(self, caller: Caller, request: Request, sink: Sink, serve: Serve) -> None:
        """Raises InvalidValue for the key, Conflict while its call is under way, KeyReused for another body."""
        key = request.headers[HEADER]
        if not key.isascii() or not key.isprintable() or not 0 < len(key) <= MAX_KEY_CHARS:
            message = f"Idempotency-Key is 1 to {MAX_KEY_CHARS} printable ASCII characters."
            raise InvalidValue(message, param=HEADER)
        name = hashlib.sha256(f"{caller.tenant}\n{key}".encode()).hexdigest()
        body = _digest(request)
        self._forget()
        known = self._known.get(name)
        if known is None:
            request.once = name
            await self._first(name, Recording(body), request, sink, serve)
        elif known[1].body != body:
            raise KeyReused("This Idempotency-Key was used for another call. Use a new one for each call.")
        elif not known[1].over:
            raise Conflict("The call with this Idempotency-Key is under way.", retry_after_s=1.0)
        else:
            again = {**id_headers(request.request_id, request.endpoint), "x-moma-replayed": "true"}
            await known[1].play(sink, again)

    async def aclose(self) -> None:
        """What is under way ends as a call whose client has left."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _first(self, name: str, recording: Recording, request: Request, sink: Sink, serve: Serve) -> None:
        self._known[name] = self._clock.now(), recording
        task = self._tasks[name] = asyncio.create_task(self._run(name, recording, serve(request, recording)))
        playing = asyncio.ensure_future(recording.play(sink, {}))
        try:
            await asyncio.wait((task, playing), return_when=asyncio.FIRST_COMPLETED)
            if task.done() and not recording.over:  # it failed as nobody foresaw, or the gateway shuts down
                await task
            await playing
        finally:
            playing.cancel()

    async def _run(self, name: str, recording: Recording, call: Coroutine[Any, Any, None]) -> None:
        try:
            await call
        except asyncio.CancelledError:
            raise ShuttingDown("The gateway is shutting down.") from None
        finally:
            del self._tasks[name]
            if recording.over and recording.whole:
                self._bytes += recording.size
            else:
                self._known.pop(name, None)

    def _forget(self) -> None:
        """What is older than a day, and of the rest the oldest for which there is no room."""
        oldest_s = self._clock.now() - KEPT_S
        for name, (since_s, recording) in list(self._known.items()):
            if since_s >= oldest_s and self._bytes <= KEPT_BYTES:
                break
            if name not in self._tasks:
                del self._known[name]
                self._bytes -= recording.size
