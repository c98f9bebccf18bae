"""Attempts over targets inside one deadline: retry and fallback are one loop, over at the client's first byte."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gateway.adapters.adapter import AnswerReader, StreamReader
from gateway.backends.client import Client, Exchange
from gateway.backends.failures import OVERLOADED, PASSED_ON, hopeless, passed_on, public, refused, too_long
from gateway.backends.keys import ROTATE_ON, Keys
from gateway.call import Answer, Call, Pieces, Sink, Usage
from gateway.clock import Clock
from gateway.config.model import Retry, Timeout
from gateway.deadline import Deadline
from gateway.errors import AttemptFailed, BackendOverloaded, NoRoom
from gateway.fair import Share
from gateway.limits import Gate, Gates, Permit
from gateway.routing.live import Live
from gateway.routing.policies import Target
from gateway.routing.router import Decision
from gateway.routing.turns import Turns
from gateway.slices import Slices
from gateway.waiting import Waiting

RETRY_SHARE = 0.1  # retries a call earns: a storm must not become 1.1 storms
RETRY_FLOOR = 10.0
NOBODYS = Share("")
JSON_TYPE, BYTES_TYPE = "application/json", "application/octet-stream"


@dataclass(slots=True, eq=False)
class Delivery:
    """How far a call has come: what a cancelled call is settled by. Filled by dispatch, read by the pipeline."""

    target: Target | None = None
    attempts: int = 0
    reader: StreamReader | None = None
    whole: AnswerReader | None = None
    failed: bool = False  # the last try that reached a backend came to nothing: none is at work
    usage: Usage | None = None
    answer: Answer | None = None
    tail: bytes = b""
    ceiling_uc: int = 0  # the most that it may take at the card standard
    cut: bool = False  # the package was used up in mid-stream: it is to be ended here
    kind: str = ""  # what the backend says that its answer is; of chat and its likes it is known
    waited_s: float = 0.0
    attempt_at: float = 0.0
    reader_s: float = 0.0  # of the last attempt: spent on waiting for the client to read
    first_token_s: float | None = None

    def passed_text(self) -> str:
        """All output that came, for counting it here."""
        reader = self.reader or self.whole
        return "" if reader is None else reader.passed_text()

    async def hand(self, answer: Answer, sink: Sink, clock: Clock) -> None:
        """A whole answer to its client, which may read it as slowly as it likes: that is no time of ours."""
        offered_at = clock.now()
        try:
            await sink.send(answer)
        finally:
            self.waited_s += clock.now() - offered_at


@dataclass(slots=True)
class Job:
    """What one call asks of dispatch. `sending` is called before a byte goes to the delivery's target."""

    call: Call
    decision: Decision
    max_tokens: int | None
    deadline: Deadline
    sending: Callable[[], None]
    headers: Callable[[Delivery], dict[str, str]]
    share: Share = NOBODYS
    slices: Slices | None = None  # of a stream whose hold grows with it


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
    """Attempts against backends: what they need is here, what is learnt from them goes to `live`."""

    def __init__(
        self,
        *,
        client: Client,
        keys: dict[str, Keys],
        live: Live,
        gates: Gates,
        timeout: Timeout,
        retry: Retry,
        clock: Clock,
        rng: random.Random,
        attempted: Callable[[str, str], None],
        budget: RetryBudget,
        waiting: Waiting,
    ) -> None:
        self._client = client
        self._keys = keys
        self._live = live
        self._gates = gates
        self._timeout = timeout
        self._retry = retry
        self._clock = clock
        self._rng = rng
        self._attempted = attempted
        self._budget = budget
        self._waiting = waiting

    async def run(self, job: Job, sink: Sink, delivery: Delivery) -> None:
        """Fills `delivery`; a stream's chunks go to `sink`, all but the last. Raises the error the client shall see."""
        self._budget.earn()
        turns = Turns([*job.decision.targets, *job.decision.on_error])
        failure: AttemptFailed | None = None
        while True:
            target, permit = await self._next(job, turns, failure, delivery)
            failure = await self._try(job, turns, target, permit, sink, delivery)
            if failure is None:
                return
            if sink.begun:
                raise public(failure)
            if failure.backend_status in PASSED_ON:
                turns, failure = self._after_refusal(job, failure), None

    def shed(self, call: Call, decision: Decision, share: Share) -> None:
        """Raises BackendOverloaded when all targets are at their limits and none has a place to wait.

        That is what dispatch would find, before anything is held for the call: to refuse must cost little.
        """
        if not self._waiting.count:
            return
        gates = [self._gate(target) for target in (*decision.targets, *decision.on_error)]
        if all([gate.line is not None and not gate.line.has_place(share) for gate in gates]):
            wait_s = min([gate.retry_s(call.input_bound // 4) for gate in gates])
            raise _overloaded(NoRoom("queue", wait_s))

    async def _next(
        self, job: Job, turns: Turns, failure: AttemptFailed | None, delivery: Delivery
    ) -> tuple[Target, Permit]:
        """The next target with room, after the wait it takes. Raises what the client hears when there is none."""
        fresh = turns.fresh(self._live, self._clock.now())
        if failure is not None:
            await self._back_off(job, turns, failure, delivery, elsewhere=bool(fresh))
        places = fresh or turns.next_round(self._live, self._clock.now())
        return self._take(job, turns, places) or await self._room(job, turns, places, delivery)

    async def _back_off(
        self, job: Job, turns: Turns, failure: AttemptFailed, delivery: Delivery, *, elsewhere: bool
    ) -> None:
        """Before a try at the same targets again. Raises what the client hears when there shall be none."""
        if turns.over:
            raise public(failure)
        wait_s = 0.0 if elsewhere else self._wait_s(turns)
        if turns.tries >= max(self._retry.attempts, len(turns.targets)) or job.deadline.left_s <= 0:
            raise public(failure)
        if wait_s > min(self._retry.backoff_max_s, job.deadline.left_s):
            raise public(failure)
        if not failure.free and (turns.desperate or not self._budget.spend()):
            raise public(failure)
        if wait_s:
            began = self._clock.now()
            try:
                await self._clock.sleep(wait_s)
            finally:
                delivery.waited_s += self._clock.now() - began

    def _take(self, job: Job, turns: Turns, places: Sequence[int]) -> tuple[Target, Permit] | None:
        """The first of these targets whose backend has room."""
        for place in places:
            target = turns.targets[place]
            permit = self._gate(target).take(job.call.input_bound // 4)
            if permit is not None:
                turns.ask(place)
                return target, permit
        return None

    async def _room(self, job: Job, turns: Turns, places: Sequence[int], delivery: Delivery) -> tuple[Target, Permit]:
        """All are at their limits: the first that has room again. Raises BackendOverloaded."""
        gates = {self._gate(turns.targets[place]): place for place in reversed(places)}
        began = self._clock.now()
        try:
            permit = await self._waiting.room(list(reversed(gates)), job.call.input_bound // 4, job.share, job.deadline)
        except NoRoom as error:
            raise _overloaded(error) from error
        except AttemptFailed as failure:  # we shut down
            raise public(failure) from failure
        finally:
            delivery.waited_s += self._clock.now() - began
        assert permit.gate is not None
        place = gates[permit.gate]
        turns.ask(place)
        return turns.targets[place], permit

    def _gate(self, target: Target) -> Gate:
        return self._gates.of(target.backend.name, target.backend.limits)

    def _wait_s(self, turns: Turns) -> float:
        """Before all targets are asked again: doubled with each round, jittered, and as long as the backends wish."""
        backoff_s = min(self._retry.backoff_min_s * 2.0 ** (turns.rounds - 1), self._retry.backoff_max_s)
        return max(self._rng.uniform(0.5, 1.0) * backoff_s, turns.rest_s(self._live, self._clock.now()))

    async def _try(
        self, job: Job, turns: Turns, target: Target, permit: Permit, sink: Sink, delivery: Delivery
    ) -> AttemptFailed | None:
        """One attempt with all that is booked for it; returns how it failed."""
        delivery.attempts += 1
        began = delivery.attempt_at = ended = self._clock.now()
        delivery.reader_s = 0.0
        probe = self._live.began(target.key, began, delivery, stream=job.call.stream)
        try:
            await self._attempt(job, target, self._patience_s(job, turns), sink, delivery)
        except AttemptFailed as error:
            ended = self._clock.now()
            self._failed(target, error, began, ended)
            turns.failed(ended, error.retry_after_s or 0.0, for_good=hopeless(error))
            return error
        finally:
            self._live.ended(target.key, probe, delivery)
            ended = self._clock.now()
            delivery.waited_s += ended - began
            usage = delivery.usage
            permit.release(usage.rated_tokens if usage is not None else None)
        self._served(job, target, delivery, began, ended)
        return None

    def _served(self, job: Job, target: Target, delivery: Delivery, began: float, ended: float) -> None:
        """What an answer tells of its target, its route and its conversation."""
        usage, decision = delivery.usage, job.decision
        output = None if usage is None else usage.output_tokens / job.call.choices
        first_s = delivery.first_token_s
        if first_s is not None:  # it counts from the first attempt
            first_s -= delivery.waited_s - (ended - began)
        self._live.succeeded(
            target.key,
            began=began,
            now=ended,
            first_token_s=first_s,
            took_s=ended - began - delivery.reader_s,
            output=output,
        )
        if output is not None:
            self._live.wrote(decision.route, output)
        if decision.conversation:
            self._live.affinity.keep(decision.conversation, target.key, ended)
        self._attempted(target.backend.name, "ok")

    def _patience_s(self, job: Job, turns: Turns) -> float:
        """Nothing is heard of a whole answer before its end: it gets an even share of what is left of the deadline."""
        if not job.call.late:
            return self._timeout.first_token_s
        untried = len(turns.fresh(self._live, self._clock.now())) if len(turns.targets) > 1 else 0
        return max(self._timeout.first_token_s, job.deadline.left_s / (1 + untried))

    async def _attempt(self, job: Job, target: Target, patience_s: float, sink: Sink, delivery: Delivery) -> None:
        """One try, with another key as long as the backend refuses the one in use."""
        keys = self._keys[target.backend.name]
        limit, quirks = _output_limit(job, target), target.backend.quirks
        body = target.adapter.body(job.call, target.as_name, limit, quirks)
        delivery.target = target
        delivery.usage = delivery.reader = delivery.whole = None
        tried = 0
        while True:
            key = keys.current()
            tried += 1
            try:
                await self._exchange(job, target, key[1] if key else None, body, patience_s, sink, delivery)
                return
            except AttemptFailed as error:
                if key is None or error.backend_status not in ROTATE_ON:
                    raise
                if not keys.refused(key[0], error.retry_after_s) or tried >= len(keys):
                    raise
                if error.backend_status == OVERLOADED and not self._budget.spend():
                    raise

    async def _exchange(
        self,
        job: Job,
        target: Target,
        key: str | None,
        body: bytes | Pieces,
        patience_s: float,
        sink: Sink,
        delivery: Delivery,
    ) -> None:
        call, adapter = job.call, target.adapter
        kind = JSON_TYPE if isinstance(body, bytes) else body.content_type
        headers = {"content-type": kind, **target.backend.headers, **adapter.headers(call, key)}
        exchange: Exchange | None = None
        whole = False
        try:
            with job.deadline as deadline:
                deadline.expect(patience_s)
                url = adapter.url(target.backend.base_url, call, target.as_name)
                exchange = await self._client.send(url, headers, body, job.sending)
                if exchange.status != 200:
                    refusal, delivery.usage = adapter.refused(call, target.model, await exchange.read())
                    raise refused(exchange, refusal, self._clock.wall_ms())
                if call.work is not None:
                    delivery.kind = exchange.headers.get("content-type") or BYTES_TYPE
                if call.stream and not delivery.kind.startswith(JSON_TYPE):  # not all stream what they could
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
        reader = delivery.whole = target.adapter.answer(job.call, target.model)
        body, delivery.usage = reader.read(exchange.status, data)
        delivery.answer = Answer(200, {"content-type": delivery.kind or JSON_TYPE}, body)

    async def _relay(self, job: Job, target: Target, exchange: Exchange, sink: Sink, delivery: Delivery) -> None:
        """Chunks as they come; `[DONE]` stays behind in `delivery.tail` until the call is settled."""
        reader = delivery.reader = target.adapter.stream(job.call, target.model)
        measures = self._live.of(target.key)
        while True:
            data = await exchange.chunk()
            if not data:
                break
            ready = reader.feed(data)
            if ready and delivery.first_token_s is None:
                now = self._clock.now()
                delivery.first_token_s = delivery.waited_s + now - delivery.attempt_at
                self._live.heard(target.key, now, delivery)
            if reader.done:  # all of the last read waits for the settle: it leaves in one piece
                delivery.tail = ready
                exchange.leave()
                break
            if ready:
                delivery.cut = job.slices is not None and not await job.slices.cover(reader)
                if not sink.begun:
                    await sink.begin(200, job.headers(delivery))
                job.deadline.expect(None)  # a slow reader is not a slow backend
                offered_at = measures.heard_at = self._clock.now()
                try:
                    await sink.write(ready)
                finally:
                    delivery.reader_s += self._clock.now() - offered_at
            if delivery.cut:
                exchange.close()
                return
            if reader.started:  # before that only the first token counts, no sign of life
                job.deadline.expect(self._timeout.idle_s)
        if not (reader.done or reader.complete_at_eof()):
            raise AttemptFailed("broken", "the stream broke off")
        delivery.usage = reader.usage
        delivery.tail += reader.flush() + reader.tail()

    def _after_refusal(self, job: Job, failure: AttemptFailed) -> Turns:
        """A longer context may help where the backend found the input too long; else the client hears of it."""
        if job.decision.on_context and too_long(failure):
            targets, job.decision.on_context = job.decision.on_context, ()
            return Turns(targets)
        raise passed_on(failure)

    def _failed(self, target: Target, failure: AttemptFailed, began: float, now: float) -> None:
        rejected = failure.backend_status in PASSED_ON  # the call, by a backend that is well
        self._attempted(target.backend.name, "rejected" if rejected else failure.kind)
        if failure.backend_status:
            self._live.of(target.key).heard_at = now
        if not rejected and failure.kind not in ("deadline", "shutdown"):
            self._live.failed(target.key, began=began, now=now)


def _overloaded(error: NoRoom) -> BackendOverloaded:
    return BackendOverloaded(
        "Every backend for this model is at its limit.", retry_after_s=error.retry_after_s, refusal=error.kind
    )


def _output_limit(job: Job, target: Target) -> int | None:
    """What the hold affords, and never more than this target can write, or has room for behind the input."""
    if job.max_tokens is None:
        return None
    return min(job.max_tokens, target.model.max_output, max(1, target.model.context - job.decision.needed))
