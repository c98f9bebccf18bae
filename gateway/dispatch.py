"""Attempts over targets inside one deadline: retry and fallback are one loop, over at the client's first byte."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import orjson

from gateway.adapters.openai import PATHS, AnswerReader, StreamReader, request_body
from gateway.backends.client import Client, Exchange
from gateway.backends.keys import ROTATE_ON, Keys
from gateway.call import Answer, Call, Sink, Usage
from gateway.clock import Clock
from gateway.config.model import Retry, Timeout
from gateway.deadline import Deadline
from gateway.errors import (
    AttemptFailed,
    BackendFailed,
    BackendOverloaded,
    BackendRefusal,
    DeadlineExceeded,
    GatewayError,
    NoBackend,
    RateLimited,
    ShuttingDown,
)
from gateway.limits import Gates, Permit
from gateway.routing.health import Health
from gateway.routing.policies import Target
from gateway.routing.router import Decision
from gateway.routing.turns import Turns

PASSED_ON = frozenset({400, 409, 413, 422})
RETRY_SHARE = 0.1  # retries a call earns: a storm must not become 1.1 storms
RETRY_FLOOR = 10.0
UNREACHABLE_RETRY_S = 2.0
SHUTDOWN_RETRY_S = 1.0
_LOCATION = re.compile(r"https?://\S+|\b(?:req|chatcmpl|cmpl)[-_][\w-]+")


@dataclass(slots=True)
class Delivery:
    """How far a call has come: what a cancelled call is settled by. Filled by dispatch, read by the pipeline."""

    target: Target | None = None
    attempts: int = 0
    reader: StreamReader | None = None
    failed: bool = False  # the last attempt is over and came to nothing: no backend is at work
    usage: Usage | None = None
    answer: Answer | None = None
    tail: bytes = b""
    waited_s: float = 0.0
    attempt_at: float = 0.0
    first_token_s: float | None = None


@dataclass(slots=True)
class Job:
    """What one call asks of dispatch. `attempting` is told of each target before a byte goes to it."""

    call: Call
    decision: Decision
    max_tokens: int | None
    deadline: Deadline
    attempting: Callable[[Target], None]
    headers: Callable[[Delivery], dict[str, str]]


class RetryBudget:
    """10 % of calls, at least 10 in hand. State: `_left`."""

    def __init__(self) -> None:
        self._left = RETRY_FLOOR

    def earn(self) -> None:
        self._left = min(RETRY_FLOOR, self._left + RETRY_SHARE)

    def spend(self) -> bool:
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class Dispatcher:
    """Everything live about backends: health, keys, limits, the retry budget."""

    def __init__(
        self,
        *,
        client: Client,
        keys: dict[str, Keys],
        health: Health,
        gates: Gates,
        timeout: Timeout,
        retry: Retry,
        clock: Clock,
        rng: random.Random,
        attempted: Callable[[str, str], None],
    ) -> None:
        self._client = client
        self._keys = keys
        self._health = health
        self._gates = gates
        self._timeout = timeout
        self._retry = retry
        self._clock = clock
        self._rng = rng
        self._attempted = attempted
        self._budget = RetryBudget()
        self.in_flight: Counter[tuple[str, str]] = Counter()

    async def run(self, job: Job, sink: Sink, delivery: Delivery) -> None:
        """Fills `delivery`; a stream's chunks go to `sink`, all but the last. Raises the error the client shall see."""
        self._budget.earn()
        turns = Turns([*job.decision.targets, *job.decision.on_error])
        failure: AttemptFailed | None = None
        while True:
            target, permit = await self._next(job, turns, failure)
            failure = await self._try(job, turns, target, permit, sink, delivery)
            if failure is None:
                return
            if sink.begun:
                raise _public(failure)
            if failure.backend_status in PASSED_ON:
                turns, failure = self._after_refusal(job, failure), None

    async def _next(self, job: Job, turns: Turns, failure: AttemptFailed | None) -> tuple[Target, Permit]:
        """The next target with room, after the wait it takes. Raises what the client hears when there is none."""
        fresh = turns.fresh(self._health)
        if failure is None:
            return self._take(job, turns, fresh or turns.next_round(self._health, self._clock.now()))
        wait_s = 0.0 if fresh else self._wait_s(turns)  # another target: no need to wait for this one
        if turns.tries >= max(self._retry.attempts, len(turns.targets)) or job.deadline.left_s <= 0:
            raise _public(failure)
        if wait_s > min(self._retry.backoff_max_s, job.deadline.left_s):
            raise _public(failure)
        if not failure.free and not self._budget.spend():
            raise _public(failure)
        if wait_s:
            await self._clock.sleep(wait_s)
        return self._take(job, turns, fresh or turns.next_round(self._health, self._clock.now()))

    def _take(self, job: Job, turns: Turns, places: Sequence[int]) -> tuple[Target, Permit]:
        """The first of these targets whose backend has room. Raises NoBackend."""
        refusal: RateLimited | None = None
        for place in places:
            target = turns.targets[place]
            try:
                gate = self._gates.of(target.backend.name, target.backend.limits)
                permit = gate.admit(job.call.input_bound // 4)
            except RateLimited as error:
                refusal = error
                continue
            turns.ask(place)
            return target, permit
        assert refusal is not None
        raise NoBackend("Every backend for this model is at its limit.", retry_after_s=refusal.retry_after_s)

    def _wait_s(self, turns: Turns) -> float:
        """Before all targets are asked again: doubled with each round, jittered, and as long as the backends wish."""
        backoff_s = min(self._retry.backoff_min_s * 2.0 ** (turns.rounds - 1), self._retry.backoff_max_s)
        return max(self._rng.uniform(0.5, 1.0) * backoff_s, turns.rest_s(self._health, self._clock.now()))

    async def _try(
        self, job: Job, turns: Turns, target: Target, permit: Permit, sink: Sink, delivery: Delivery
    ) -> AttemptFailed | None:
        """One attempt with all that is booked for it; returns how it failed."""
        delivery.attempts += 1
        delivery.attempt_at = self._clock.now()
        self.in_flight[target.key] += 1
        try:
            await self._attempt(job, target, self._patience_s(job, turns), sink, delivery)
        except AttemptFailed as error:
            self._failed(target, error)
            turns.failed(self._clock.now(), error.retry_after_s or 0.0)
            return error
        finally:
            self.in_flight[target.key] -= 1
            delivery.waited_s += self._clock.now() - delivery.attempt_at
            usage = delivery.usage
            permit.release(usage.input_tokens + usage.output_tokens if usage else None)
        self._health.succeeded(target.key)
        self._attempted(target.backend.name, "ok")
        return None

    def _patience_s(self, job: Job, turns: Turns) -> float:
        """Nothing is heard of a whole answer before its end: it gets an even share of what is left of the deadline."""
        if job.call.stream or job.call.endpoint == "embeddings":
            return self._timeout.first_token_s
        untried = len(turns.fresh(self._health)) if len(turns.targets) > 1 else 0
        return max(self._timeout.first_token_s, job.deadline.left_s / (1 + untried))

    async def _attempt(self, job: Job, target: Target, patience_s: float, sink: Sink, delivery: Delivery) -> None:
        """One try, with another key as long as the backend refuses the one in use."""
        keys = self._keys[target.backend.name]
        body = request_body(job.call, target.as_name, _output_limit(job, target), target.backend.quirks)
        delivery.target = target
        delivery.usage = delivery.reader = None
        delivery.failed = False
        tried = 0
        while True:
            key = keys.current()
            tried += 1
            job.attempting(target)
            try:
                await self._exchange(job, target, key[1] if key else None, body, patience_s, sink, delivery)
                return
            except AttemptFailed as error:
                if key is None or error.backend_status not in ROTATE_ON:
                    raise
                if not keys.refused(key[0], error.retry_after_s) or tried >= len(keys):
                    raise

    async def _exchange(
        self,
        job: Job,
        target: Target,
        key: str | None,
        body: bytes,
        patience_s: float,
        sink: Sink,
        delivery: Delivery,
    ) -> None:
        headers = {"content-type": "application/json", **target.backend.headers}
        if key is not None:
            headers["authorization"] = f"Bearer {key}"
        exchange: Exchange | None = None
        whole = False
        try:
            with job.deadline as deadline:
                deadline.expect(patience_s)
                exchange = await self._client.send(target.backend.base_url + PATHS[job.call.endpoint], headers, body)
                if exchange.status != 200:
                    raise _refused(exchange, await exchange.read(), self._clock.wall_ms())
                if job.call.stream:
                    await self._relay(job, target, exchange, sink, delivery)
                else:
                    await self._collect(job, target, exchange, delivery)
            whole = True
        except AttemptFailed:
            delivery.failed = True
            raise
        finally:
            if exchange is not None and not whole:
                exchange.close()

    async def _collect(self, job: Job, target: Target, exchange: Exchange, delivery: Delivery) -> None:
        data = await exchange.read()
        body, delivery.usage = AnswerReader(job.call, target.model).read(exchange.status, data)
        delivery.answer = Answer(200, {"content-type": "application/json"}, body)

    async def _relay(self, job: Job, target: Target, exchange: Exchange, sink: Sink, delivery: Delivery) -> None:
        """Chunks as they come; `[DONE]` stays behind in `delivery.tail` until the call is settled."""
        reader = delivery.reader = StreamReader(job.call, target.model)
        while True:
            data = await exchange.chunk()
            if not data:
                break
            ready = reader.feed(data)
            if ready and delivery.first_token_s is None:
                delivery.first_token_s = delivery.waited_s + self._clock.now() - delivery.attempt_at
            if reader.done:  # all of the last read waits for the settle: it leaves in one piece
                delivery.tail = ready
                break
            if ready:
                if not sink.begun:
                    await sink.begin(200, job.headers(delivery))
                job.deadline.expect(None)  # a slow reader is not a slow backend
                await sink.write(ready)
            if reader.started:  # before that only the first token counts, no sign of life
                job.deadline.expect(self._timeout.idle_s)
        if not (reader.done or reader.complete_at_eof()):
            raise AttemptFailed("broken", "the stream broke off")
        delivery.usage = reader.usage
        delivery.tail += reader.flush() + reader.tail()

    def _after_refusal(self, job: Job, failure: AttemptFailed) -> Turns:
        """A longer context may help where the backend found the input too long; else the client hears of it."""
        if job.decision.on_context and b"context_length" in failure.answer_body:
            targets, job.decision.on_context = job.decision.on_context, ()
            return Turns(targets)
        raise _passed_on(failure)

    def _failed(self, target: Target, failure: AttemptFailed) -> None:
        self._attempted(target.backend.name, failure.kind)
        if failure.backend_status not in PASSED_ON and failure.kind not in ("deadline", "shutdown"):
            self._health.failed(target.key)


def _output_limit(job: Job, target: Target) -> int | None:
    """What the hold affords, and never more than this target can write."""
    return None if job.max_tokens is None else min(job.max_tokens, target.model.max_output)


def _refused(exchange: Exchange, body: bytes, wall_ms: int) -> AttemptFailed:
    return AttemptFailed(
        "status",
        f"the backend answered {exchange.status}",
        backend_status=exchange.status,
        body=body,
        retry_after_s=_retry_after_s(exchange.headers, wall_ms),
    )


def _retry_after_s(headers: Mapping[str, str], wall_ms: int) -> float | None:
    """retry-after-ms, or retry-after as seconds or as a date; a date is held against the backend's own clock."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        text = headers.get(name, "")
        if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", text):
            return float(text) * unit
    until = _date(headers.get("retry-after"))
    if until is None:
        return None
    now = _date(headers.get("date")) or datetime.fromtimestamp(wall_ms / 1000, UTC)
    return max(0.0, (until - now).total_seconds())


def _date(text: str | None) -> datetime | None:
    try:
        when = parsedate_to_datetime(text or "")
    except (ValueError, TypeError, OverflowError):
        return None
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def _public(failure: AttemptFailed) -> GatewayError:
    """The table of DESIGN.md section 5: what the last failure looks like from outside."""
    if failure.backend_status == 429:
        return BackendOverloaded(
            "Every backend for this model is overloaded.", retry_after_s=failure.retry_after_s or 1.0
        )
    if failure.kind in ("timeout", "deadline"):
        return DeadlineExceeded("The backend did not answer in time.")
    if failure.kind == "shutdown":
        return ShuttingDown("The gateway is shutting down.", retry_after_s=SHUTDOWN_RETRY_S)
    if failure.kind == "connect":
        return NoBackend("No backend could be reached.", retry_after_s=UNREACHABLE_RETRY_S)
    return BackendFailed("The backend failed to answer the call.")


def _passed_on(failure: AttemptFailed) -> GatewayError:
    """The backend's own words to the client, without its hosts and ids."""
    try:
        error = orjson.loads(failure.answer_body)["error"]
        message, kind, param, code = (error.get(k) for k in ("message", "type", "param", "code"))
    except (ValueError, TypeError, KeyError, AttributeError):
        message, kind, param, code = None, None, None, None
    text = _LOCATION.sub("[removed]", message)[:2000] if isinstance(message, str) else "The backend refused the call."
    return BackendRefusal(
        text,
        status=failure.backend_status,
        type_=kind if isinstance(kind, str) else "invalid_request_error",
        code=code if isinstance(code, str) else "invalid_value",
        param=param if isinstance(param, str) else None,
    )
