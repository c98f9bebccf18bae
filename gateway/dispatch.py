"""Attempts over targets inside one deadline: retry and fallback are one loop, over at the client's first byte."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass

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
)
from gateway.limits import Gates, Permit
from gateway.routing.health import Health
from gateway.routing.policies import Target
from gateway.routing.router import Decision

PASSED_ON = frozenset({400, 409, 413, 422})
RETRY_SHARE = 0.1  # retries a call earns: a storm must not become 1.1 storms
RETRY_FLOOR = 10.0
UNREACHABLE_RETRY_S = 2.0
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

    async def run(self, job: Job, sink: Sink, delivery: Delivery) -> None:
        """Fills `delivery`; a stream's chunks go to `sink`, all but the last. Raises the error the client shall see."""
        self._budget.earn()
        targets = [*job.decision.targets, *job.decision.on_error]
        failure: AttemptFailed | None = None
        while delivery.attempts < max(self._retry.attempts, len(targets)):
            target, permit = self._choose(job, targets, delivery.attempts)
            delivery.attempts += 1
            started = self._clock.now()
            try:
                await self._attempt(job, target, sink, delivery)
                self._succeeded(target)
                return
            except AttemptFailed as error:
                failure = error
            finally:
                delivery.waited_s += self._clock.now() - started
                permit.release(None)
            self._failed(target, failure)
            if sink.begun:
                raise _public(failure)
            if failure.backend_status in PASSED_ON:
                targets = self._after_refusal(job, failure, delivery)
                continue
            if not await self._may_retry(job, failure, delivery.attempts, targets):
                break
        assert failure is not None
        raise _public(failure)

    def _choose(self, job: Job, targets: list[Target], attempt: int) -> tuple[Target, Permit]:
        """The next healthy target with room; all ejected: the one that is back soonest. Raises NoBackend."""
        turn = [targets[(attempt + step) % len(targets)] for step in range(len(targets))]
        healthy = [target for target in turn if self._health.available(target.key)]
        refusal: RateLimited | None = None
        for target in healthy or sorted(turn, key=lambda t: self._health.back_in_s(t.key)):
            try:
                gate = self._gates.of(target.backend.name, target.backend.limits)
                return target, gate.admit(job.call.input_bound // 4)
            except RateLimited as error:
                refusal = error
        assert refusal is not None
        raise NoBackend("Every backend for this model is at its limit.", retry_after_s=refusal.retry_after_s)

    async def _attempt(self, job: Job, target: Target, sink: Sink, delivery: Delivery) -> None:
        """One try, with another key as long as the backend refuses the one in use."""
        keys = self._keys[target.backend.name]
        body = request_body(job.call, target.as_name, _output_limit(job, target), target.backend.quirks)
        delivery.target = target
        delivery.usage = delivery.reader = None
        delivery.failed = False
        for _ in range(max(1, len(keys))):
            key = keys.current()
            job.attempting(target)
            try:
                await self._exchange(job, target, key[1] if key else None, body, sink, delivery)
                return
            except AttemptFailed as error:
                rotates = key is not None and error.backend_status in ROTATE_ON
                if not rotates or not keys.refused(key[0], error.retry_after_s if key else None):  # type: ignore[index]
                    raise

    async def _exchange(
        self, job: Job, target: Target, key: str | None, body: bytes, sink: Sink, delivery: Delivery
    ) -> None:
        headers = {"content-type": "application/json", **target.backend.headers}
        if key is not None:
            headers["authorization"] = f"Bearer {key}"
        exchange: Exchange | None = None
        whole = False
        try:
            with job.deadline as deadline:
                deadline.expect(self._timeout.first_token_s)
                exchange = await self._client.send(target.backend.base_url + PATHS[job.call.endpoint], headers, body)
                if exchange.status != 200:
                    raise _refused(exchange, await exchange.read())
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
        sent = self._clock.now()
        while not reader.done:
            data = await exchange.chunk()
            if not data:
                break
            ready = reader.feed(data)
            if ready:
                if not sink.begun:
                    delivery.first_token_s = self._clock.now() - sent
                    await sink.begin(200, job.headers(delivery))
                job.deadline.expect(None)  # a slow reader is not a slow backend
                await sink.write(ready)
            job.deadline.expect(self._timeout.idle_s if reader.started else self._timeout.first_token_s)
        if not (reader.done or reader.complete_at_eof()):
            raise AttemptFailed("broken", "the stream broke off")
        delivery.usage = reader.usage
        delivery.tail = reader.flush() + reader.tail()

    def _after_refusal(self, job: Job, failure: AttemptFailed, delivery: Delivery) -> list[Target]:
        """A longer context may help where the backend found the input too long; else the client hears of it."""
        if job.decision.on_context and b"context_length" in failure.answer_body:
            targets, job.decision.on_context = job.decision.on_context, []
            delivery.attempts = 0
            return targets
        raise _passed_on(failure)

    async def _may_retry(self, job: Job, failure: AttemptFailed, attempts: int, targets: list[Target]) -> bool:
        if attempts >= max(self._retry.attempts, len(targets)) or job.deadline.left_s <= 0:
            return False
        if not failure.free and not self._budget.spend():
            return False
        if attempts < len(targets):
            return True  # another target: no need to wait for this one
        round_ = attempts // len(targets)
        wait_s = self._rng.uniform(0.5, 1.0) * min(
            self._retry.backoff_min_s * 2 ** (round_ - 1), self._retry.backoff_max_s
        )
        wait_s = max(wait_s, failure.retry_after_s or 0.0)
        if wait_s > min(self._retry.backoff_max_s, job.deadline.left_s):
            return False
        await self._clock.sleep(wait_s)
        return True

    def _succeeded(self, target: Target) -> None:
        self._health.succeeded(target.key)
        self._attempted(target.backend.name, "ok")

    def _failed(self, target: Target, failure: AttemptFailed) -> None:
        self._attempted(target.backend.name, failure.kind)
        if failure.backend_status not in PASSED_ON:
            self._health.failed(target.key)


def _output_limit(job: Job, target: Target) -> int | None:
    """What the hold affords, and never more than this target can write."""
    return None if job.max_tokens is None else min(job.max_tokens, target.model.max_output)


def _refused(exchange: Exchange, body: bytes) -> AttemptFailed:
    return AttemptFailed(
        "status",
        f"the backend answered {exchange.status}",
        backend_status=exchange.status,
        body=body,
        retry_after_s=_retry_after_s(exchange.headers.get("retry-after-ms"), exchange.headers.get("retry-after")),
    )


def _retry_after_s(millis: str | None, seconds: str | None) -> float | None:
    """Only plain numbers: a date would need the backend's clock to be right."""
    for text, unit in ((millis, 0.001), (seconds, 1.0)):
        if text and re.fullmatch(r"\d{1,7}(\.\d{1,3})?", text):
            return float(text) * unit
    return None


def _public(failure: AttemptFailed) -> GatewayError:
    """The table of DESIGN.md section 5: what the last failure looks like from outside."""
    if failure.backend_status == 429:
        return BackendOverloaded(
            "Every backend for this model is overloaded.", retry_after_s=failure.retry_after_s or 1.0
        )
    if failure.kind == "timeout":
        return DeadlineExceeded("The backend did not answer in time.")
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
