"""Attempts, fallback, waits and deadlines against a scripted hop, in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any

import pytest

from gateway.backends.keys import REST_S, Keys
from gateway.config.model import Config, Limits, Plan, Retry, Timeout
from gateway.deadline import Deadlines
from gateway.dispatch import RETRY_FLOOR, Delivery, Dispatcher, Job, RetryBudget
from gateway.errors import AttemptFailed, GatewayError
from gateway.limits import Gates
from gateway.routing.breaker import FAILURES_IN_A_ROW
from gateway.routing.live import Live
from gateway.routing.router import Decision, Router
from gateway.waiting import Waiting
from tests.virtual import (
    BROKEN,
    CONNECT,
    DONE,
    FOREVER,
    OK,
    ROLE,
    START_MS,
    STOP,
    STREAM,
    WORD,
    FakeClient,
    ListSink,
    Piece,
    Said,
    Sent,
    VirtualClock,
    backend,
    call,
    config,
    drive,
    model,
    refused,
    route,
    whole,
)

TIMEOUT = Timeout(connect_s=1, first_token_s=10, idle_s=5, total_s=100)
RETRY = Retry(attempts=3, backoff_min_s=0.2, backoff_max_s=5.0)
NO_LIMITS = Limits()
BROKEN_OFF = AttemptFailed("broken", "cut")


@dataclass
class Bench:
    """One dispatcher over backends a, b, c that serve `m`; `one` only by a, `long` falls back on context to b."""

    script: Sequence[Said] | Callable[[Sent], Said]
    keys: dict[str, tuple[str, ...]] = field(default_factory=dict)
    timeout: Timeout = TIMEOUT
    retry: Retry = RETRY
    limits: Limits = NO_LIMITS
    seed: int = 1
    settings: Config | None = None

    def __post_init__(self) -> None:
        self.clock = VirtualClock()
        self.client = FakeClient(self.clock, self.script)
        names = ("a", "b", "c")
        backends = [backend(name, limits=self.limits if name == "a" else Limits()) for name in names]
        models = [model("one", "a"), *(model(f"m{name}", name) for name in names), model("big", "b", context=100_000)]
        routes = [
            route("m", "ma", "mb", "mc"),
            route("two", "ma", "mb"),
            route("long", "one", fallback_context=("big",)),
            route("safe", "ma", fallback_error=("mb",)),
        ]
        self.config = self.settings or config(backends, models, routes, timeout=self.timeout, retry=self.retry)
        self.live = Live(self.config.breaker)
        self.gates = Gates(self.clock)
        self.attempts: Counter[tuple[str, str]] = Counter()
        self.dispatcher = Dispatcher(
            client=self.client,
            keys={name: Keys(self.keys.get(name, ()), self.clock) for name in names},
            live=self.live,
            gates=self.gates,
            timeout=self.timeout,
            retry=self.retry,
            clock=self.clock,
            rng=random.Random(self.seed),
            attempted=lambda name, outcome: self.attempts.update([(name, outcome)]),
            budget=RetryBudget(),
            waiting=Waiting(),
        )
        self.router = Router(self.config, random.Random(self.seed), self.live)
        self.delivery = Delivery()
        self.sink = ListSink()
        self.reached: list[str] = []

    def fails(self, key: tuple[str, str]) -> None:
        """An attempt that begins and fails now."""
        now = self.clock.now()
        self.live.ended(key, self.live.began(key, now))
        self.live.failed(key, began=now, now=now)

    def decide(self, **body: Any) -> Decision:
        return self.router.route(call(**body), Plan("p"), now=self.clock.now())

    def start(self, total_s: float | None = None, sink: ListSink | None = None, **body: Any) -> Awaitable[None]:
        asked = call(**{"model": "one", **body})
        delivery = self.delivery = Delivery()
        self.sink = sink or ListSink()

        def sending() -> None:
            assert delivery.target is not None
            self.reached.append(delivery.target.backend.name)

        deadline = Deadlines(self.clock).start(self.timeout.total_s if total_s is None else total_s)
        job = Job(
            asked,
            self.router.route(asked, Plan("p"), now=self.clock.now()),
            100,
            deadline,
            sending,
            lambda delivery: {"x-moma-attempts": str(delivery.attempts)},
        )
        return self.dispatcher.run(job, self.sink, self.delivery)

    async def run(self, total_s: float | None = None, sink: ListSink | None = None, **body: Any) -> Delivery:
        await drive(self.clock, self.start(total_s, sink, **body))
        return self.delivery

    async def fail(self, **asked: Any) -> GatewayError:
        with pytest.raises(GatewayError) as caught:
            await self.run(**asked)
        return caught.value

    @property
    def backends(self) -> list[str]:
        return [sent.backend for sent in self.client.sent]

    @property
    def times(self) -> list[float]:
        return [sent.at for sent in self.client.sent]


async def test_an_answer_is_delivered_with_its_usage() -> None:
    bench = Bench([OK])
    delivery = await bench.run()
    assert delivery.answer is not None
    assert delivery.answer.body == whole()
    assert delivery.usage is not None
    assert delivery.usage.quantities == {"input": 7, "output": 3, "calls": 1}
    assert (delivery.attempts, bench.reached) == (1, ["a"])


# -- which errors are tried again ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault", [CONNECT, BROKEN, *(refused(s) for s in (401, 402, 403, 404, 408, 429, 500, 503, 302))]
)
async def test_the_next_target_is_asked_at_once(fault: Said) -> None:
    bench = Bench([fault, OK])
    delivery = await bench.run(model="two")
    assert bench.backends == ["a", "b"]
    assert bench.times == [0.0, 0.0]
    assert delivery.attempts == 2
    assert delivery.target is not None
    assert delivery.target.backend.name == "b"


@pytest.mark.parametrize("status", [400, 409, 413, 422])
async def test_a_refusal_is_passed_on_and_never_tried_again(status: int) -> None:
    bench = Bench([refused(status, "their_code")])
    error = await bench.fail(model="m")
    assert (error.status, error.code, bench.backends) == (status, "their_code", ["a"])
    assert bench.live.back_in_s(("a", "ma"), bench.clock.now()) == 0


@pytest.mark.parametrize(
    "body", [b"", b"<html>http://10.0.0.1</html>", b"[]", b'{"error": "text"}', b'{"error": {"message": 5}}']
)
async def test_a_refusal_in_any_shape_has_ours(body: bytes) -> None:
    error = await Bench([Said(400, [body])]).fail()
    assert set(error.body()["error"]) == {"message", "type", "param", "code"}
    assert "10.0.0.1" not in error.message


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (refused(429), 429, "backend_overloaded"),
        (refused(503), 502, "backend_error"),
        (refused(401), 502, "backend_error"),
        (BROKEN, 502, "backend_error"),
        (CONNECT, 503, "no_backend_available"),
        (Said(before=FOREVER), 504, "deadline_exceeded"),
    ],
)
async def test_the_last_failure_decides_what_the_client_hears(fault: Said, status: int, code: str) -> None:
    bench = Bench(lambda _: fault)
    error = await bench.fail(stream=True)
    assert (error.status, error.code) == (status, code)
    assert len(bench.client.sent) == (1 if fault.status == 401 else 3)
    assert ("retry-after" in error.headers()) == (status in (429, 503))
    assert bench.clock.armed <= 1  # the one of all deadlines


async def test_a_fallback_for_errors_follows_the_picked_targets() -> None:
    bench = Bench([BROKEN, OK])
    await bench.run(model="safe")
    assert bench.backends == ["a", "b"]


async def test_every_target_is_tried_even_beyond_the_attempts() -> None:
    bench = Bench([BROKEN, BROKEN, OK], retry=Retry(1, 0.1, 1.0))
    assert (await bench.run(model="m")).attempts == 3


async def test_a_context_refusal_goes_to_the_longer_context_and_counts_as_an_attempt() -> None:
    bench = Bench([refused(400, "context_length_exceeded"), OK])
    delivery = await bench.run(model="long")
    assert bench.backends == ["a", "b"]
    assert delivery.attempts == 2


async def test_a_context_refusal_twice_is_passed_on() -> None:
    bench = Bench(lambda _: refused(400, "context_length_exceeded"))
    assert (await bench.fail(model="long")).code == "context_length_exceeded"
    assert bench.backends == ["a", "b"]


# -- the waits between attempts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
async def test_backoff_doubles_and_is_jittered_within_bounds(seed: int) -> None:
    bench = Bench(lambda _: refused(500), retry=Retry(7, 0.2, 2.0), seed=seed)
    await bench.fail()
    waits = [later - earlier for earlier, later in zip(bench.times, bench.times[1:], strict=False)]
    assert len(waits) == 6
    for wait_s, full_s in zip(waits, (0.2, 0.4, 0.8, 1.6, 2.0, 2.0), strict=True):
        assert full_s / 2 <= wait_s <= full_s


async def test_jitter_differs_between_calls() -> None:
    bench = Bench(lambda _: refused(500))
    firsts = []
    for _ in range(2):
        bench.client.sent.clear()
        await bench.fail()
        firsts.append(bench.times[1] - bench.times[0])
    assert len(set(firsts)) == 2


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"retry_after": "3"}, 3.0),
        ({"retry_after": "3", "retry_after_ms": "1500"}, 1.5),
        ({"retry_after_ms": "2500.5"}, 2.5005),
        ({"retry_after": formatdate(START_MS / 1000 + 4, usegmt=True)}, 4.0),
        ({"retry_after": formatdate(1000 + 4, usegmt=True), "date": formatdate(1000, usegmt=True)}, 4.0),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_is_honoured(headers: dict[str, str], wait_s: float, status: int) -> None:
    bench = Bench([refused(status, **headers), OK])
    await bench.run()
    assert bench.times[1] == pytest.approx(wait_s)


@pytest.mark.parametrize(
    "value", ["-5", "nan", "inf", "1e9", "soon", "", "99999999999999999999", "0x10", "Thu, 99 Foo 2026"]
)
async def test_nonsense_in_retry_after_is_no_wish(value: str) -> None:
    bench = Bench([refused(503, retry_after=value), OK])
    await bench.run()
    assert bench.times[1] <= 0.2


async def test_a_date_in_the_past_is_no_wait() -> None:
    bench = Bench([refused(503, retry_after=formatdate(START_MS / 1000 - 4, usegmt=True)), OK])
    await bench.run()
    assert bench.times[1] <= 0.2


@pytest.mark.parametrize("retry_after", ["6", "99", "101", "1000000"])
async def test_a_wish_that_is_too_long_is_told_and_not_waited_for(retry_after: str) -> None:
    bench = Bench(lambda _: refused(429, retry_after=retry_after))
    error = await bench.fail()
    assert bench.times == [0.0]
    assert error.headers()["retry-after"] == retry_after


async def test_a_wish_beyond_the_deadline_is_not_waited_for() -> None:
    bench = Bench(lambda _: refused(429, retry_after="2"))
    await bench.fail(total_s=1.5)
    assert bench.times == [0.0]


async def test_a_wish_of_one_target_does_not_delay_another() -> None:
    bench = Bench([refused(429, retry_after="1000"), OK])
    await bench.run(model="two")
    assert (bench.backends, bench.times) == (["a", "b"], [0.0, 0.0])


async def test_a_target_that_asked_for_time_is_not_asked_again_before_it() -> None:
    bench = Bench([refused(429, retry_after="4"), refused(500), OK, OK])
    await bench.run(model="two")
    assert bench.backends == ["a", "b", "b"]


async def test_an_ejected_target_does_not_make_another_be_asked_twice_in_a_row() -> None:
    bench = Bench([BROKEN, OK])
    for _ in range(FAILURES_IN_A_ROW):
        bench.fails(("a", "ma"))
    await bench.run(model="m")
    assert bench.backends == ["b", "c"]


async def test_a_lone_healthy_target_is_asked_again_after_a_wait() -> None:
    bench = Bench([BROKEN, OK])
    for _ in range(FAILURES_IN_A_ROW):
        bench.fails(("a", "ma"))
    await bench.run(model="two")
    assert bench.backends == ["b", "b"]
    assert bench.times[1] >= 0.1


async def test_all_ejected_the_one_that_is_back_soonest_is_tried() -> None:
    bench = Bench([OK])
    for _ in range(FAILURES_IN_A_ROW + 1):
        bench.fails(("b", "mb"))
    bench.clock.advance(2)
    for name in ("a", "c"):
        for _ in range(FAILURES_IN_A_ROW):
            bench.fails((name, f"m{name}"))
    await bench.run(model="m")
    assert bench.backends == ["b"]


async def test_a_full_target_is_passed_over_and_all_full_says_when() -> None:
    bench = Bench([OK, OK], limits=Limits(rpm=1))
    await bench.run(model="two")
    await bench.run(model="two")
    assert bench.backends == ["a", "b"]
    error = await bench.fail(model="one")
    assert (error.status, error.code, error.retry_after_s) == (429, "backend_overloaded", 60.0)
    assert error.refusal == "queue"


@pytest.mark.parametrize(
    "script", [[OK], [refused(400)], [CONNECT] * 3, [Said(before=FOREVER)] * 3, [refused(401)] * 3]
)
async def test_the_permit_of_a_backend_always_comes_back(script: list[Said]) -> None:
    bench = Bench(script, limits=Limits(concurrency=1))
    with contextlib.suppress(GatewayError):
        await bench.run(stream=False)
    assert bench.gates.of("a", Limits()).in_flight == 0


async def test_the_permit_of_a_backend_comes_back_from_a_cancelled_call() -> None:
    bench = Bench([Said(before=FOREVER)], limits=Limits(concurrency=1))
    task = asyncio.ensure_future(bench.run())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    for pending in asyncio.all_tasks() - {asyncio.current_task()}:
        pending.cancel()
        await asyncio.gather(pending, return_exceptions=True)
    assert bench.gates.of("a", Limits()).in_flight == 0
    assert bench.clock.armed <= 1  # the one of all deadlines


async def test_tpm_of_a_backend_is_corrected_by_what_was_used() -> None:
    bench = Bench([OK], limits=Limits(tpm=1000))
    await bench.run()
    gate = bench.gates.of("a", bench.limits)
    assert gate.tpm is not None
    assert gate.tpm.level == 1000 - 10


# -- the retry budget ---------------------------------------------------------------------------------------------


async def test_failures_are_retried_ten_times_and_then_by_a_tenth_of_all_calls() -> None:
    well = False
    bench = Bench(lambda _: OK if well else refused(500), retry=Retry(2, 0.01, 0.02))
    calls = 400
    for n in range(calls):  # few enough to keep the breaker closed
        well = n % 4 != 0
        await (bench.run() if well else bench.fail())
    assert calls * 1.1 <= len(bench.client.sent) <= calls * 1.1 + RETRY_FLOOR


@pytest.mark.parametrize("model", ["one", "m"])
async def test_in_a_storm_each_call_is_tried_once_as_soon_as_all_breakers_are_open(model: str) -> None:
    bench = Bench(lambda _: refused(503), retry=Retry(3, 0.01, 0.02))
    calls = 300
    for _ in range(calls):
        await bench.fail(model=model)
        bench.clock.advance(0.1)
    assert calls <= len(bench.client.sent) <= calls * 1.1


async def test_a_failed_connect_costs_nothing_of_the_budget() -> None:
    bench = Bench(lambda _: CONNECT, retry=Retry(2, 0.01, 0.02))
    for _ in range(100):
        await bench.fail()
    assert len(bench.client.sent) == 200


def test_the_budget_earns_a_tenth_and_keeps_at_most_ten() -> None:
    budget = RetryBudget()
    for _ in range(1000):
        budget.earn()
    assert sum(budget.spend() for _ in range(100)) == 10
    for _ in range(21):
        budget.earn()
    assert sum(budget.spend() for _ in range(100)) == 2


# -- keys ---------------------------------------------------------------------------------------------------------


def used(bench: Bench) -> list[str]:
    return [sent.headers["authorization"].removeprefix("Bearer ") for sent in bench.client.sent]


@pytest.mark.parametrize("status", [401, 402, 403, 429])
async def test_a_refused_key_gives_way_to_the_next_within_one_attempt(status: int) -> None:
    bench = Bench([refused(status), refused(status), OK, OK], keys={"a": ("k0", "k1", "k2")})
    assert (await bench.run()).attempts == 1
    await bench.run()
    assert used(bench) == ["k0", "k1", "k2", "k2"]
    assert set(bench.times) == {0.0}


@pytest.mark.parametrize("status", [400, 404, 500, 503])
async def test_other_statuses_do_not_change_the_key(status: int) -> None:
    bench = Bench(lambda _: refused(status), keys={"a": ("k0", "k1")})
    await bench.fail()
    assert set(used(bench)) == {"k0"}


@pytest.mark.parametrize("status", [400, 409, 413, 422])
async def test_a_call_that_a_backend_rejects_counts_apart_from_failures(status: int) -> None:
    bench = Bench(lambda _: refused(status))
    await bench.fail()
    assert bench.attempts == {("a", "rejected"): 1}


async def test_all_keys_refused_is_one_failed_attempt() -> None:
    bench = Bench(lambda s: refused(401) if s.backend == "a" else OK, keys={"a": ("k0", "k1")})
    delivery = await bench.run(model="two")
    assert (bench.backends, delivery.attempts) == (["a", "a", "b"], 2)
    assert bench.attempts == {("a", "status"): 1, ("b", "ok"): 1}


@pytest.mark.parametrize("keys", [("k0",), ("k0", "k1")])
@pytest.mark.parametrize("retry_after", ["0", "0.0"])
async def test_a_key_that_need_not_rest_still_means_a_failed_attempt(keys: tuple[str, ...], retry_after: str) -> None:
    bench = Bench(lambda _: refused(429, retry_after=retry_after), keys={"a": keys})
    assert (await bench.fail()).status == 429


async def test_a_key_that_rested_while_the_next_was_tried_still_means_a_failed_attempt() -> None:
    slow = Said(429, [b"{}"], before=5.0)
    bench = Bench([refused(429, retry_after="1"), slow] * 3, keys={"a": ("k0", "k1")})
    assert (await bench.fail()).status == 429


async def test_a_key_comes_back_after_its_rest() -> None:
    bench = Bench([refused(401), OK, refused(401), OK], keys={"a": ("k0", "k1")})
    await bench.run()
    bench.clock.advance(REST_S + 1)
    await bench.run()
    assert used(bench) == ["k0", "k1", "k1", "k0"]


# -- streams ------------------------------------------------------------------------------------------------------


async def test_a_stream_is_relayed_and_its_tail_kept_back() -> None:
    bench = Bench([Said(pieces=STREAM)])
    delivery = await bench.run(stream=True)
    assert bench.sink.body == ROLE + WORD + WORD + STOP
    assert delivery.tail == DONE
    assert delivery.usage is not None
    assert delivery.usage.output_tokens == 3
    assert not bench.sink.finished


FAILS_BEFORE_CONTENT: list[Sequence[Piece]] = [
    [ROLE],
    [ROLE, BROKEN_OFF],
    [b": keep-alive\n\n", ROLE, FOREVER],
    [ROLE, ROLE, b'data: {"error": {"message": "out of memory"}}\n\n'],
    [b"data: {broken\n\n"],
    [ROLE, b"event: error\ndata: {}\n\n"],
    [],
]


@pytest.mark.parametrize("pieces", FAILS_BEFORE_CONTENT)
async def test_a_stream_that_fails_before_content_falls_back(pieces: Sequence[Piece]) -> None:
    bench = Bench([Said(pieces=pieces), Said(pieces=STREAM)])
    delivery = await bench.run(model="two", stream=True)
    assert bench.sink.body == ROLE + WORD + WORD + STOP
    assert bench.sink.headers["x-moma-attempts"] == "2"
    assert delivery.attempts == 2
    assert [exchange.closed for exchange in bench.client.exchanges] == [True, False]


@pytest.mark.parametrize("end", [BROKEN_OFF, FOREVER, b'data: {"error": {}}\n\n', b'data: nonsense "error": 1\n\n'])
async def test_nothing_is_retried_after_the_client_saw_a_byte(end: Piece) -> None:
    bench = Bench([Said(pieces=[ROLE, WORD, end])])
    error = await bench.fail(model="two", stream=True)
    assert bench.backends == ["a"]
    assert error.status == (504 if end == FOREVER else 502)
    assert bench.sink.body == ROLE + WORD
    assert bench.client.exchanges[0].closed


async def test_time_to_first_token_runs_from_the_request() -> None:
    bench = Bench([Said(pieces=[1.0, ROLE, 2.0, *STREAM[1:]], before=4.0)])
    delivery = await bench.run(stream=True)
    assert delivery.first_token_s == pytest.approx(7.0)
    assert delivery.waited_s == pytest.approx(7.0)


# -- deadlines ----------------------------------------------------------------------------------------------------


async def test_no_headers_within_the_time_of_a_first_token() -> None:
    bench = Bench([Said(before=FOREVER), Said(pieces=STREAM)])
    await bench.run(model="two", stream=True)
    assert bench.times == [0.0, 10.0]
    assert bench.attempts == {("a", "timeout"): 1, ("b", "ok"): 1}


async def test_keep_alives_are_no_first_token() -> None:
    drip: list[Piece] = [piece for _ in range(1000) for piece in (b": ping\n\n", 3.0)]
    bench = Bench([Said(pieces=drip), Said(pieces=STREAM)])
    await bench.run(model="two", stream=True)
    assert bench.times[1] <= 13.0


async def test_a_silent_stream_ends_after_idle() -> None:
    bench = Bench([Said(pieces=[ROLE, 9.0, WORD, 4.9, WORD, FOREVER])])
    assert (await bench.fail(stream=True)).status == 504
    assert bench.clock.at == pytest.approx(9.0 + 4.9 + 5.0)


async def test_the_whole_deadline_beats_a_stream_that_goes_on() -> None:
    words: list[Piece] = [WORD, 4.0] * 100
    bench = Bench([Said(pieces=[ROLE, *words])])
    assert (await bench.fail(stream=True)).status == 504
    assert bench.clock.at == pytest.approx(100.0)


async def test_the_whole_deadline_covers_retries() -> None:
    bench = Bench(lambda _: Said(before=FOREVER), timeout=Timeout(1, 40, 5, 100))
    assert (await bench.fail(stream=True, model="m")).status == 504
    assert bench.times == [0.0, 40.0, 80.0]
    assert bench.clock.at == pytest.approx(100.0)


async def test_a_whole_answer_may_take_longer_than_a_first_token() -> None:
    """Nothing is heard of an answer that is not streamed until it is complete."""
    bench = Bench([Said(pieces=[whole()], before=99.0)])
    await bench.run()
    assert bench.clock.at == pytest.approx(99.0)


async def test_a_target_that_hangs_on_a_whole_answer_leaves_time_for_the_next() -> None:
    bench = Bench([Said(before=FOREVER), Said(before=FOREVER), OK])
    await bench.run(model="m")
    assert bench.times == [0.0, pytest.approx(100 / 3), pytest.approx(200 / 3)]


async def test_a_client_in_a_hurry_does_not_get_backends_ejected() -> None:
    bench = Bench(lambda _: Said(pieces=STREAM, before=1.0))
    for _ in range(FAILURES_IN_A_ROW + 1):
        assert (await bench.fail(total_s=0.5, stream=True)).status == 504
    assert bench.live.available(("a", "one"), bench.clock.now())


async def test_a_backend_that_hangs_is_ejected() -> None:
    bench = Bench(lambda _: Said(before=FOREVER), retry=Retry(1, 0.1, 0.2))
    for _ in range(FAILURES_IN_A_ROW):
        await bench.fail(stream=True)
    assert not bench.live.available(("a", "one"), bench.clock.now())


class SlowSink(ListSink):
    """A client that does not read."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self._clock = clock

    async def write(self, chunk: bytes) -> None:
        await super().write(chunk)
        await self._clock.sleep(20.0)


async def test_a_slow_reader_is_not_a_slow_backend() -> None:
    bench = Bench([Said(pieces=STREAM)])
    bench.sink = sink = SlowSink(bench.clock)
    asked = call(model="one", stream=True)
    decision = bench.router.route(asked, Plan("p"))
    job = Job(asked, decision, 100, Deadlines(bench.clock).start(100), lambda: None, lambda _: {})
    await drive(bench.clock, bench.dispatcher.run(job, sink, bench.delivery))
    assert bench.clock.at == pytest.approx(20.0 * len(sink.chunks))


async def test_a_reader_slower_than_the_whole_deadline_ejects_nobody() -> None:
    pairs: list[Piece] = [0.1, WORD] * 9
    words: list[Piece] = [WORD, *pairs, STOP, DONE]
    bench = Bench(lambda _: Said(pieces=words))
    for number in range(FAILURES_IN_A_ROW):
        asked = call(model="one", stream=True)
        decision = bench.router.route(asked, Plan("p"))
        job = Job(asked, decision, 100, Deadlines(bench.clock).start(100), lambda: None, lambda _: {})
        with pytest.raises(GatewayError):
            await drive(bench.clock, bench.dispatcher.run(job, SlowSink(bench.clock), Delivery()))
        assert bench.attempts == {("a", "deadline"): number + 1}
    assert bench.live.available(("a", "one"), bench.clock.now())


async def test_two_keys_are_no_way_round_the_retry_budget() -> None:
    bench = Bench(lambda _: refused(429, retry_after="0"), keys={"a": ("one", "two")})
    for _ in range(30):
        await bench.fail()
    assert len(bench.client.sent) <= 1.1 * 30 + 10


@pytest.mark.parametrize("status", [307, 401, 402, 403, 404])
async def test_what_a_moment_cannot_mend_is_not_asked_again(status: int) -> None:
    bench = Bench(lambda _: refused(status))
    assert (await bench.fail(model="two")).status == 502
    assert bench.backends == ["a", "b"]


async def test_a_refused_target_leaves_the_turns_to_others() -> None:
    bench = Bench([refused(404), refused(503), OK])
    await bench.run(model="two")
    assert bench.backends == ["a", "b", "b"]
