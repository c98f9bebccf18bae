"""Small questions to one backend, each bounded in time and size; nothing of its key is ever said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from gateway.backends.client import Exchange, HttpClient
from gateway.backends.failures import passed_on
from gateway.clock import LoopClock
from gateway.deadline import Deadlines
from gateway.errors import AttemptFailed
from gateway.sse import event_data, split_events

CONNECT_S: Final = 5.0
ANSWER_S: Final = 60.0  # of one question, all of its answer; a small model on a busy processor is slow
MAX_BYTES: Final = 4_000_000
MAX_SAID: Final = 200  # characters of what a backend says of a refusal
ANTHROPIC_VERSION: Final = "2023-06-01"


@dataclass(frozen=True)
class Place:
    """A backend as it is asked: `kind` and `base_url` as in routes.yaml."""

    name: str
    kind: str
    base_url: str
    key: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def all_headers(self) -> dict[str, str]:
        headers = {"content-type": "application/json", **self.headers}
        if self.kind == "anthropic":
            headers["anthropic-version"] = ANTHROPIC_VERSION
        if self.key is None:
            return headers
        bearer = self.kind == "openai"
        name = {"anthropic": "x-api-key", "gemini": "x-goog-api-key", "azure": "api-key"}.get(
            self.kind, "authorization"
        )
        return {**headers, name: f"Bearer {self.key}" if bearer else self.key}


@dataclass(frozen=True)
class Answer:
    """`status` 0: there was none, and `lost` says why."""

    status: int
    body: bytes = b""
    lost: str = ""

    @property
    def ok(self) -> bool:
        return self.status == 200

    @property
    def json(self) -> Any:
        """None for what is not JSON."""
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return None

    def events(self) -> Iterator[Any]:
        """The JSON of each event of a stream, and "[DONE]"."""
        for event in split_events(self.body):
            data = event_data(event)
            if data == b"[DONE]":
                yield "[DONE]"
            elif data:
                try:
                    yield orjson.loads(data)
                except orjson.JSONDecodeError:
                    yield None


class Asker:
    """State: how many questions were asked."""

    def __init__(self, place: Place, client: HttpClient, deadlines: Deadlines) -> None:
        self._place = place
        self._client = client
        self._deadlines = deadlines
        self.asked = 0

    async def get(self, path: str) -> Answer:
        return await self._ask(path, None, MAX_BYTES)

    async def post(self, path: str, body: Mapping[str, Any], until_bytes: int = MAX_BYTES) -> Answer:
        """`until_bytes`: with so much of the answer, no more is read, and the backend may stop."""
        return await self._ask(path, orjson.dumps(body), until_bytes)

    def said(self, answer: Answer) -> str:
        """The backend's own words on a refusal, without addresses, ids and its key."""
        if answer.lost:
            return answer.lost
        failure = AttemptFailed("status", "", backend_status=answer.status, body=answer.body)
        text = "".join(c if c.isprintable() else " " for c in passed_on(failure).message)
        if self._place.key:
            text = text.replace(self._place.key, "[removed]")
        return f"{answer.status}: {' '.join(text.split())[:MAX_SAID]}"

    async def _ask(self, path: str, body: bytes | None, until_bytes: int) -> Answer:
        self.asked += 1
        url, headers = self._place.base_url + path, self._place.all_headers()
        try:
            with self._deadlines.start(ANSWER_S):
                if body is None:
                    exchange: Exchange = await self._client.get(url, headers)
                else:
                    exchange = await self._client.send(url, headers, body, lambda: None)
                return await _read(exchange, until_bytes)
        except AttemptFailed as failure:
            return Answer(0, lost=failure.message)


async def _read(exchange: Exchange, until_bytes: int) -> Answer:
    received = bytearray()
    try:
        while chunk := await exchange.chunk():
            received += chunk
            if len(received) >= until_bytes:
                break
    finally:
        exchange.close()
    if len(received) >= MAX_BYTES:
        return Answer(0, lost=f"the answer is larger than {MAX_BYTES} bytes")
    return Answer(exchange.status, bytes(received))


@asynccontextmanager
async def asking(place: Place) -> AsyncIterator[Asker]:
    deadlines = Deadlines(LoopClock(asyncio.get_running_loop()))
    client = HttpClient(CONNECT_S, deadlines.clock, deadlines)
    try:
        yield Asker(place, client, deadlines)
    finally:
        await client.aclose()
