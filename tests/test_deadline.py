"""One lazily moved timer for all calls; a cancel of its own never leaves the block."""

from __future__ import annotations

import asyncio
import random

import pytest

from gateway.clock import LoopClock
from gateway.deadline import Deadline, Deadlines
from gateway.errors import AttemptFailed
from tests.virtual import FOREVER, VirtualClock, drive


class CountingClock(VirtualClock):
    def __init__(self) -> None:
        super().__init__()
        self.made = 0

    def call_at(self, when, callback):  # type: ignore[no-untyped-def]
        self.made += 1
        return super().call_at(when, callback)


async def waits(clock: VirtualClock, deadline: Deadline, *phases: tuple[float | None, float]) -> None:
    """Each phase expects within the first and takes the second."""
    with deadline:
        for within_s, takes_s in phases:
            deadline.expect(within_s)
            await clock.sleep(takes_s)


@pytest.mark.parametrize(
    ("phases", "kind", "at"),
    [
        ([(10, 11)], "timeout", 10),
        ([(10, 9), (5, 6)], "timeout", 14),
        ([(30, 29), (2, 1), (30, 31)], "timeout", 60),
        ([(None, FOREVER)], "deadline", 100),
        ([(101, FOREVER)], "deadline", 100),
        ([(99, 98), (99, 98)], "deadline", 100),
        ([(100, FOREVER)], "timeout", 100),
    ],
)
async def test_the_nearer_of_wait_and_whole_ends_it(
    phases: list[tuple[float | None, float]], kind: str, at: float
) -> None:
    clock = VirtualClock()
    with pytest.raises(AttemptFailed) as caught:
        await drive(clock, waits(clock, Deadlines(clock).start(100), *phases))
    assert caught.value.kind == kind
    assert clock.at == pytest.approx(at)
    assert clock.armed == 0


async def test_in_time_nothing_happens_and_the_last_timer_ends_by_itself() -> None:
    clock = VirtualClock()
    await drive(clock, waits(clock, Deadlines(clock).start(100), (10, 9.9), (10, 9.9), (None, 50)))
    assert clock.armed == 1
    assert clock.step()
    assert clock.armed == 0
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_ten_thousand_chunks_need_a_handful_of_timers() -> None:
    clock = CountingClock()
    await drive(clock, waits(clock, Deadlines(clock).start(1e6), *[(30.0, 0.01)] * 10_000))
    assert clock.made - 10_000 <= 10  # each sleep is one


async def test_each_of_a_thousand_ends_at_its_own_time_by_a_handful_of_timers() -> None:
    clock = CountingClock()
    deadlines = Deadlines(clock)
    rng = random.Random(5)
    ended: dict[int, float] = {}

    async def one(number: int, at: float, *, late: bool) -> None:
        try:
            with deadlines.start(100) as deadline:
                deadline.expect(at)
                await clock.sleep(FOREVER if late else at / 2)
        except AttemptFailed:
            ended[number] = clock.at

    wanted = {number: rng.choice((5.0, 20.0, 60.0)) for number in range(1000)}
    late = {number for number in wanted if rng.random() < 0.1}
    await drive(clock, asyncio.gather(*(one(n, at, late=n in late) for n, at in wanted.items())))
    assert ended == pytest.approx({number: wanted[number] for number in late})
    assert clock.made - 1000 <= 10  # each sleep is one


async def test_a_deadline_serves_one_wait_after_another() -> None:
    clock = VirtualClock()
    deadline = Deadlines(clock).start(100)

    async def attempts() -> list[float]:
        ends = []
        for _ in range(3):
            with pytest.raises(AttemptFailed):
                await waits(clock, deadline, (40, FOREVER))
            ends.append(clock.at)
        return ends

    assert await drive(clock, attempts()) == [40, 80, 100]
    assert deadline.left_s == 0


async def test_a_block_entered_too_late_fails_at_its_first_wait() -> None:
    clock = VirtualClock()
    deadline = Deadlines(clock).start(1)
    clock.advance(5)
    with pytest.raises(AttemptFailed) as caught:
        await drive(clock, waits(clock, deadline, (10, 1)))
    assert (caught.value.kind, clock.at) == ("deadline", 5)


async def test_a_cancel_from_outside_is_not_a_timeout() -> None:
    clock = VirtualClock()
    task = asyncio.create_task(waits(clock, Deadlines(clock).start(100), (10, FOREVER)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert clock.step()
    assert clock.armed == 0


async def test_a_cancel_from_outside_wins_over_one_of_its_own() -> None:
    clock = VirtualClock()
    task = asyncio.create_task(waits(clock, Deadlines(clock).start(100), (10, FOREVER)))
    await asyncio.sleep(0)
    clock.advance(10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_task_lives_on_after_a_timeout() -> None:
    clock = VirtualClock()

    async def work() -> str:
        with pytest.raises(AttemptFailed):
            await waits(clock, Deadlines(clock).start(1), (1, 2))
        await clock.sleep(1)
        async with asyncio.timeout(5):
            await asyncio.sleep(0)
        return "on"

    assert await drive(clock, work()) == "on"


async def test_an_error_inside_passes_through() -> None:
    clock = VirtualClock()
    with pytest.raises(ZeroDivisionError), Deadlines(clock).start(1):
        raise ZeroDivisionError
    assert clock.step()
    assert clock.armed == 0


async def test_on_a_real_loop() -> None:
    clock = LoopClock(asyncio.get_running_loop())
    before = asyncio.all_tasks()

    async def waits() -> None:
        with Deadlines(clock).start(60) as deadline:
            deadline.expect(0.01)
            await asyncio.Event().wait()

    with pytest.raises(AttemptFailed):
        await waits()
    assert asyncio.all_tasks() == before


async def test_the_end_of_the_gateway_ends_every_wait_and_those_that_follow() -> None:
    clock = VirtualClock()
    deadlines = Deadlines(clock)
    deadline = deadlines.start(100)
    waiting = asyncio.create_task(waits(clock, deadline, (10, 11)))
    await asyncio.sleep(0)
    deadlines.end()
    with pytest.raises(AttemptFailed) as caught:
        await waiting
    assert (caught.value.kind, clock.at, deadline.left_s) == ("shutdown", 0, 0)
    for late in (deadline, deadlines.start(100)):
        with pytest.raises(AttemptFailed) as caught:
            await drive(clock, waits(clock, late, (10, 11)))
        assert (caught.value.kind, clock.at) == ("shutdown", 0)
