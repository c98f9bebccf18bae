"""Time that passes only when nothing else can happen, a scripted hop to backends, a list as Sink, small configs."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import orjson

from gateway.call import BUCKETS, Answer, Call, Pieces, Request
from gateway.config.model import (
    Backend,
    Breaker,
    Config,
    Fallback,
    Limits,
    Model,
    Plan,
    PlanGrant,
    Require,
    Retry,
    Route,
    Server,
    Timeout,
    Via,
)
from gateway.errors import AttemptFailed
from gateway.parse import parse_call

T = TypeVar("T")
START_MS = 1_700_000_000_000
Piece = bytes | float | AttemptFailed
FOREVER = 1e9  # a pause that outlasts every deadline


class VirtualTimer:
    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class VirtualClock:
    """Starts at 0; `drive` moves it to the next timer. `wall_jump_ms` shifts the wall clock alone."""

    def __init__(self) -> None:
        self.at = 0.0
        self.wall_jump_ms = 0
        self._timers: list[tuple[float, int, VirtualTimer]] = []
        self._numbers = itertools.count()

    def now(self) -> float:
        return self.at

    def wall_ms(self) -> int:
        return START_MS + self.wall_jump_ms + round(self.at * 1000)

    def call_at(self, when: float, callback: Callable[[], None]) -> VirtualTimer:
        timer = VirtualTimer(callback)
        heapq.heappush(self._timers, (when, next(self._numbers), timer))
        return timer

    async def sleep(self, delay_s: float) -> None:
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self.call_at(self.at + delay_s, lambda: None if woken.done() else woken.set_result(None))
        try:
            await woken
        finally:
            timer.cancel()

    @property
    def armed(self) -> int:
        return sum(timer.callback is not None for _, _, timer in self._timers)

    def advance(self, seconds: float) -> None:
        """Moves on by so much, firing what falls due, each at its own time."""
        until = self.at + seconds
        while self.armed and self._timers[0][0] <= until:
            self.step()
        self.at = max(self.at, until)

    def step(self) -> bool:
        """Moves on to the next timer and fires it; False when none is armed."""
        while self._timers:
            when, _, timer = heapq.heappop(self._timers)
            if timer.callback is not None:
                self.at = max(self.at, when)
                callback, timer.callback = timer.callback, None
                callback()
                return True
        return False


async def drive(clock: VirtualClock, work: Awaitable[T], *, until_s: float = 1e7, busy: Callable[[], bool] = bool) -> T:
    """Runs `work` to its end in virtual time. `busy` says that another thread is at work, so that time stands still."""
    task = asyncio.ensure_future(work)
    while not task.done():
        was_busy = busy()
        for _ in range(20):
            await asyncio.sleep(0)
        if task.done():
            break
        if was_busy or busy():  # what the thread has just done wakes others first
            await asyncio.sleep(0.001)
        elif clock.at > until_s or not clock.step():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            raise AssertionError(f"nothing can happen any more at {clock.at} s")
    return await task


@dataclass
class Said:
    """What a backend does: takes `connecting` seconds to be reached, `before` seconds of silence, then a status and
    pieces (a number is a pause)."""

    status: int = 200
    pieces: Sequence[Piece] = ()
    headers: dict[str, str] = field(default_factory=dict)
    before: float = 0.0
    connecting: float = 0.0
    fails: AttemptFailed | None = None


@dataclass
class Sent:
    at: float
    url: str
    headers: Mapping[str, str]
    body: dict[str, Any]

    @property
    def backend(self) -> str:
        return self.url.split("/")[2]


class FakeExchange:
    def __init__(self, said: Said, clock: VirtualClock) -> None:
        self.status = said.status
        self.headers = said.headers
        self.closed = False
        self._pieces = list(said.pieces)
        self._clock = clock

    async def chunk(self) -> bytes:
        while self._pieces:
            piece = self._pieces.pop(0)
            if isinstance(piece, AttemptFailed):
                raise piece
            if isinstance(piece, bytes):
                return piece
            await self._clock.sleep(piece)
        return b""

    async def read(self) -> bytes:
        parts = []
        while part := await self.chunk():
            parts.append(part)
        return b"".join(parts)

    def close(self) -> None:
        self.closed = True

    def leave(self) -> None:
        pass


class FakeClient:
    """Answers by `choose`; a list of replies is used up in order. Every request is kept in `sent`."""

    def __init__(self, clock: VirtualClock, script: Sequence[Said] | Callable[[Sent], Said]) -> None:
        self.sent: list[Sent] = []
        self.exchanges: list[FakeExchange] = []
        self._clock = clock
        self._script = script if callable(script) else list(script)

    async def send(
        self, url: str, headers: Mapping[str, str], body: bytes | Pieces, sending: Callable[[], None]
    ) -> FakeExchange:
        assert isinstance(body, bytes), "forms go over real sockets"
        sent = Sent(self._clock.now(), url, dict(headers), orjson.loads(body))
        self.sent.append(sent)
        said = self._script(sent) if callable(self._script) else self._script.pop(0)
        if said.connecting:
            await self._clock.sleep(said.connecting)
        if said.fails is None or said.fails.kind != "connect":
            sending()
        if said.before:
            await self._clock.sleep(said.before)
        if said.fails is not None:
            raise said.fails
        exchange = FakeExchange(said, self._clock)
        self.exchanges.append(exchange)
        return exchange

    async def get(self, url: str, headers: Mapping[str, str]) -> FakeExchange:
        raise AssertionError("no check is configured")

    async def aclose(self) -> None:
        pass


class ListSink:
    """Keeps what a client would see."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.chunks: list[bytes] = []
        self.finished = False

    @property
    def begun(self) -> bool:
        return self.status != 0

    async def begin(self, status: int, headers: dict[str, str]) -> None:
        assert not self.begun
        self.status, self.headers = status, headers

    async def write(self, chunk: bytes) -> None:
        assert self.begun
        assert not self.finished
        self.chunks.append(chunk)

    async def finish(self, last: bytes = b"", *, whole: bool = True) -> None:
        assert self.begun
        assert not self.finished
        self.chunks.append(last)
        self.finished = True

    async def send(self, answer: Answer) -> None:
        await self.begin(answer.status, answer.headers)
        await self.finish(answer.body)

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


# -- what backends say --------------------------------------------------------------------------------------------


def whole(text: str = "hello", tokens: int = 3) -> bytes:
    return orjson.dumps(
        {
            "id": "x",
            "object": "chat.completion",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 7, "completion_tokens": tokens, "total_tokens": 7 + tokens},
        }
    )


def event(delta: dict[str, Any] | None = None, finish: str | None = None, usage: dict[str, int] | None = None) -> bytes:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    chunk = {"id": "c", "object": "chat.completion.chunk", "choices": choices, "usage": usage}
    return b"data: " + orjson.dumps(chunk) + b"\n\n"


ROLE = event({"role": "assistant", "content": ""})
WORD = event({"content": "word "})
STOP = event({}, "stop")
USAGE = event(usage={"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10})
DONE = b"data: [DONE]\n\n"
STREAM = (ROLE, WORD, WORD, STOP, USAGE, DONE)
OK = Said(pieces=[whole()])


def refused(status: int, code: str = "bad", **headers: str) -> Said:
    body = orjson.dumps({"error": {"message": "no", "type": "t", "param": None, "code": code}})
    return Said(status, [body], {name.replace("_", "-"): value for name, value in headers.items()})


CONNECT = Said(fails=AttemptFailed("connect", "refused"))
BROKEN = Said(fails=AttemptFailed("broken", "no answer"))


# -- configurations -----------------------------------------------------------------------------------------------


def backend(name: str, **more: Any) -> Backend:
    return Backend(name, "openai", f"http://{name}/v1", **more)


def model(name: str, *via: str | tuple[str, int], **more: Any) -> Model:
    vias = tuple(Via(v, name) if isinstance(v, str) else Via(v[0], name, v[1]) for v in via)
    values = {
        "context": 8192,
        "max_output": 1024,
        "price": dict.fromkeys(BUCKETS, 1_000_000),
        "rates": dict.fromkeys(BUCKETS, 1_000_000) | {"calls": 0},
        **more,
    }
    return Model(name, vias, **values)


def route(name: str, *pick: str, **more: Any) -> Route:
    """Fallbacks by the names of models."""
    fallbacks = {kind: tuple(map(Fallback, names)) for kind, names in more.items() if kind.startswith("fallback_")}
    return Route(name, pick, **{**more, **fallbacks})


def require(**values: Sequence[str]) -> Require:
    return Require(**{name: frozenset(wanted) for name, wanted in values.items()})


def config(
    backends: Sequence[Backend],
    models: Sequence[Model],
    routes: Sequence[Route] = (),
    *,
    aliases: Mapping[str, str] | None = None,
    timeout: Timeout = Timeout(),  # noqa: B008 - frozen
    retry: Retry = Retry(),  # noqa: B008
    plan: Plan | None = None,
) -> Config:
    plans = [plan or Plan("p", (PlanGrant(1_000_000_000_000),)), Plan("tight", limits=Limits(rpm=2))]
    return Config(
        currency="CNY",
        timezone="UTC",
        server=Server(),
        ledger="sqlite::memory:",
        timeout=timeout,
        retry=retry,
        breaker=Breaker(),
        backends={b.name: b for b in backends},
        models={m.name: m for m in models},
        aliases=aliases or {},
        routes={r.name: r for r in routes},
        plans={p.name: p for p in plans},
        tenants={},
    )


def request(headers: Mapping[str, str] | None = None, endpoint: str = "chat", **body: Any) -> Request:
    asked: dict[str, Any] = {"model": "m", **body}
    if endpoint == "chat":
        asked.setdefault("messages", [{"role": "user", "content": "hi"}])
    return Request("req-1", endpoint, dict(headers or {}), orjson.dumps(asked))


def call(headers: Mapping[str, str] | None = None, endpoint: str = "chat", **body: Any) -> Call:
    return parse_call(request(headers, endpoint, **body))
