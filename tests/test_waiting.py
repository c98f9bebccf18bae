"""Waiting for room: at one gate, at several, in vain, and leaving; in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from gateway.config.model import Limits, Queue
from gateway.deadline import Deadlines
from gateway.errors import AttemptFailed, DeadlineExceeded, NoRoom
from gateway.fair import Share
from gateway.limits import BUSY_RETRY_S, Gate, Permit
from gateway.waiting import Waiting
from tests.virtual import VirtualClock, drive

ME = Share("me")


class Bench:
    def __init__(self, *limits: Limits, length: int = 10, wait_s: float = 5.0) -> None:
        self.clock = VirtualClock()
        self.deadlines = Deadlines(self.clock)
        self.gates = [Gate(limit, self.clock) for limit in limits]
        self.waiting = Waiting(Queue(length, wait_s))

    def asks(
        self, gates: Sequence[Gate] | None = None, tokens: int = 0, share: Share = ME, total_s: float = 60.0
    ) -> asyncio.Task[Permit]:
        deadline = self.deadlines.start(total_s)
        room = self.waiting.room(self.gates if gates is None else gates, tokens, share, deadline)
        return asyncio.get_running_loop().create_task(room)

    def filled(self) -> list[Permit]:
        return [gate.admit(0) for gate in self.gates for _ in range(gate.concurrency or 0)]

    async def settled(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    def idle(self) -> None:
        assert self.waiting.count == 0
        assert [gate.line for gate in self.gates] == [None] * len(self.gates)
        assert self.clock.armed <= 1  # the one of all deadlines


async def test_room_is_handed_on_when_a_call_ends() -> None:
    bench = Bench(Limits(concurrency=1))
    (first,) = bench.filled()
    task = bench.asks()
    await bench.settled()
    assert (task.done(), bench.waiting.count) == (False, 1)
    first.release(None)
    assert bench.gates[0].in_flight == 1  # nobody can come in between
    assert bench.gates[0].take(0) is None
    permit = await task
    assert permit.gate is bench.gates[0]
    bench.idle()


async def test_nobody_overtakes_those_who_wait() -> None:
    bench = Bench(Limits(tpm=600))
    (gate,) = bench.gates
    gate.admit(600)
    large = bench.asks(tokens=40)
    await bench.settled()
    bench.clock.at += 2.0  # 20 tokens: enough for a small one
    assert gate.take(10) is None
    await drive(bench.clock, large)
    assert bench.clock.at == pytest.approx(4.0)
    bench.idle()


async def test_of_several_gates_the_first_that_has_room_is_taken_and_the_others_are_left() -> None:
    bench = Bench(Limits(concurrency=1), Limits(concurrency=1), Limits(rpm=60))
    first, second = bench.filled()
    for _ in range(60):
        bench.gates[2].admit(0)
    tasks = [bench.asks() for _ in range(3)]
    await bench.settled()
    second.release(None)
    assert (await tasks[0]).gate is bench.gates[1]
    assert (await drive(bench.clock, tasks[1])).gate is bench.gates[2]
    assert bench.clock.at == pytest.approx(1.0)
    first.release(None)
    assert (await tasks[2]).gate is bench.gates[0]
    bench.idle()


async def test_a_bucket_that_fills_in_time_is_waited_for_and_one_that_does_not_is_not() -> None:
    bench = Bench(Limits(rpm=60), wait_s=2.5)
    for _ in range(60):
        bench.gates[0].admit(0)
    tasks = [bench.asks() for _ in range(3)]
    await drive(bench.clock, asyncio.gather(*tasks[:2]))
    assert bench.clock.at == pytest.approx(2.0)
    with pytest.raises(NoRoom) as caught:
        await drive(bench.clock, tasks[2])
    assert caught.value.kind == "queue_timeout"
    assert bench.clock.at == pytest.approx(2.5)
    slow = Bench(Limits(rpm=1), wait_s=2.5)
    slow.gates[0].admit(0)
    with pytest.raises(NoRoom) as caught:
        await slow.asks()
    assert caught.value.kind == "queue"
    assert caught.value.retry_after_s == pytest.approx(60.0)
    slow.idle()


async def test_a_wait_in_vain_ends_in_time_and_says_when_to_come_again() -> None:
    bench = Bench(Limits(concurrency=1), wait_s=3.0)
    bench.filled()
    with pytest.raises(NoRoom) as caught:
        await drive(bench.clock, bench.asks())
    assert (caught.value.kind, bench.clock.at) == ("queue_timeout", 3.0)
    assert caught.value.retry_after_s == BUSY_RETRY_S
    bench.idle()


async def test_a_wait_ends_with_the_deadline_of_its_call() -> None:
    bench = Bench(Limits(concurrency=1), wait_s=3.0)
    bench.filled()
    with pytest.raises(DeadlineExceeded) as caught:
        await drive(bench.clock, bench.asks(total_s=2.0))
    assert (caught.value.refusal, bench.clock.at) == ("queue_timeout", 2.0)
    bench.idle()


async def test_a_wait_ends_when_the_gateway_does() -> None:
    bench = Bench(Limits(concurrency=1))
    bench.filled()
    task = bench.asks()
    await bench.settled()
    bench.deadlines.end()
    with pytest.raises(AttemptFailed) as caught:
        await task
    assert caught.value.kind == "shutdown"
    bench.idle()


async def test_a_full_queue_says_so_at_once_and_how_long_it_is() -> None:
    bench = Bench(Limits(concurrency=1), length=4)
    (permit,) = bench.filled()
    tasks = [bench.asks() for _ in range(4)]
    await bench.settled()
    for _ in range(2):  # one each half second
        bench.clock.advance(0.5)
        permit.release(None)
        permit = await tasks.pop(0)
        tasks.append(bench.asks())
        await bench.settled()
    with pytest.raises(NoRoom) as caught:
        await bench.asks()
    assert caught.value.kind == "queue"
    assert caught.value.retry_after_s == pytest.approx(4 * 0.5)
    assert bench.clock.at == 1.0
    while tasks:
        permit.release(None)
        permit = await tasks.pop(0)
    bench.idle()


async def test_who_is_pushed_out_hears_of_it_at_once() -> None:
    bench = Bench(Limits(concurrency=1), length=5)
    bench.filled()
    tasks = [bench.asks() for _ in range(5)]
    await bench.settled()
    tasks.append(bench.asks(share=Share("other")))
    with pytest.raises(NoRoom):
        await tasks.pop(4)
    assert not any(task.done() for task in tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    bench.idle()


async def test_who_is_pushed_out_of_one_line_stays_in_the_other() -> None:
    bench = Bench(Limits(concurrency=1), Limits(concurrency=1), length=1)
    first, second = bench.filled()
    both = bench.asks()
    await bench.settled()
    other = bench.asks([bench.gates[0]], share=Share("other", priority=0))
    await bench.settled()
    second.release(None)
    assert (await both).gate is bench.gates[1]
    first.release(None)
    assert (await other).gate is bench.gates[0]
    bench.idle()


async def test_a_full_line_is_no_matter_where_another_has_a_place() -> None:
    bench = Bench(Limits(concurrency=1), Limits(concurrency=1), length=1)
    _, second = bench.filled()
    other = bench.asks([bench.gates[0]])
    await bench.settled()
    both = bench.asks()
    await bench.settled()
    assert not both.done()
    second.release(None)
    assert (await both).gate is bench.gates[1]
    other.cancel()
    await asyncio.gather(other, return_exceptions=True)
    bench.idle()


async def test_who_is_first_in_a_line_that_waits_for_a_bucket_may_find_room_at_once() -> None:
    bench = Bench(Limits(tpm=600), Limits(concurrency=1), wait_s=30.0)
    bench.filled()
    bench.gates[0].admit(590)
    large = bench.asks([bench.gates[0]], tokens=200)
    await bench.settled()
    early = bench.asks(tokens=5, share=Share("early", priority=0))
    assert (await early).gate is bench.gates[0]
    large.cancel()
    await asyncio.gather(large, return_exceptions=True)
    bench.idle()


async def test_a_call_that_leaves_frees_its_place_synchronously() -> None:
    bench = Bench(Limits(concurrency=1), length=1)
    (permit,) = bench.filled()
    task = bench.asks()
    await bench.settled()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    bench.idle()
    after = bench.asks()
    await bench.settled()
    permit.release(None)
    assert (await after).gate is bench.gates[0]


async def test_a_call_that_leaves_just_as_it_is_let_in_gives_its_room_to_the_next() -> None:
    bench = Bench(Limits(rpm=100, concurrency=1))
    (permit,) = bench.filled()
    leaving, next_ = bench.asks(), bench.asks()
    await bench.settled()
    permit.release(None)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    assert leaving.cancelled()
    assert (await next_).gate is bench.gates[0]
    assert bench.gates[0].in_flight == 1
    assert bench.gates[0].rpm is not None
    assert bench.gates[0].rpm.level == 98  # the one that left took nothing
    bench.idle()


async def test_when_the_first_leaves_the_next_one_may_lack_less() -> None:
    bench = Bench(Limits(tpm=600), wait_s=30.0)
    bench.gates[0].admit(600)
    large, small = bench.asks(tokens=200), bench.asks(tokens=10)
    await bench.settled()
    bench.clock.advance(2.0)
    large.cancel()
    await asyncio.gather(large, return_exceptions=True)
    await drive(bench.clock, small)
    assert bench.clock.at == 2.0
    bench.idle()


async def test_an_edit_of_the_limits_lets_in_who_has_room_now() -> None:
    bench = Bench(Limits(rpm=60, concurrency=1))
    bench.filled()
    tasks = [bench.asks() for _ in range(3)]
    await bench.settled()
    bench.gates[0].change(Limits(rpm=600, concurrency=3))
    await asyncio.gather(*tasks[:2])
    assert bench.gates[0].in_flight == 3
    assert bench.gates[0].rpm is not None
    assert bench.gates[0].rpm.level == pytest.approx(590 - 2)  # as full as it was, less the two
    bench.gates[0].change(Limits())
    assert (await tasks[2]).gate is bench.gates[0]
    bench.idle()


async def test_who_has_room_arms_no_timer_and_makes_no_line() -> None:
    bench = Bench(Limits(rpm=60, tpm=600, concurrency=2))
    permit = bench.gates[0].take(10)
    assert permit is not None
    assert (bench.clock.armed, bench.gates[0].line) == (0, None)
    permit.release(10)
    assert (bench.clock.armed, bench.gates[0].line) == (0, None)
