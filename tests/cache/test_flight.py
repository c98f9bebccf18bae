"""One writer, many readers: what each gets, who waits for whom, and what is kept in memory meanwhile."""

from __future__ import annotations

import asyncio

import pytest

from gateway.cache.flight import AHEAD_BYTES, BEHIND_BYTES, Budget, Facts, Flight, Reader
from gateway.call import Answer
from gateway.errors import ServiceError
from tests.virtual import call

KB = bytes(1000)


def flight(limit: int = 10_000_000, budget: Budget | None = None) -> Flight:
    facts = Facts("m", "a", 0, None, None, b"")
    return Flight(
        call(stream=True), cache="c", tenant="t", limit=limit, budget=budget or Budget(10**9), facts=lambda: facts
    )


async def all_of(reader: Reader) -> bytes:
    parts = []
    while part := await reader.read():
        parts.append(part)
    return b"".join(parts)


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_each_reader_gets_all_however_late_it_comes() -> None:
    one = flight()
    first = one.join()
    reading = asyncio.ensure_future(all_of(first))
    await one.begin(200, {})
    await one.write(b"a")
    await turn()
    await one.write(b"b")
    late = one.join()
    assert await late.read() == b"ab"
    await one.write(b"c")
    await one.finish(b"end")
    assert await late.read() == b"c"
    assert await late.read() == b""
    assert await reading == b"abc"
    assert one.raw() == b"abcend"


async def test_the_writer_waits_while_it_is_far_ahead_of_the_only_reader() -> None:
    one = flight()
    reader = one.join()
    writing = asyncio.ensure_future(one.write(bytes(AHEAD_BYTES + 1)))
    await turn()
    assert not writing.done()
    await reader.read()
    await writing


async def test_who_waits_for_the_whole_answer_holds_nobody_up() -> None:
    one = flight()
    waiting = asyncio.ensure_future(one.join().closed())
    await turn()
    for _ in range(1_000):
        await asyncio.wait_for(one.write(KB), 1)
    await one.finish()
    assert one.whole
    one.close()
    await waiting


async def test_a_slow_reader_holds_up_neither_the_writer_nor_the_others() -> None:
    one = flight()
    slow, fast = one.join(), one.join()
    for _ in range(1_000):
        await asyncio.wait_for(one.write(KB), 1)
        await fast.read()
    await one.finish()
    assert len(await all_of(slow)) == 1_000_000


async def test_the_writer_goes_on_when_the_reader_that_it_waited_for_has_left() -> None:
    one = flight()
    reader, other = one.join(), one.join()
    writing = asyncio.ensure_future(one.write(bytes(AHEAD_BYTES + 1)))
    await turn()
    one.leave(reader)
    one.leave(reader)
    await turn()
    assert not writing.done(), "the other has read nothing either"
    await other.read()
    await writing


async def test_what_is_too_long_to_be_kept_is_forgotten_once_it_was_read() -> None:
    budget = Budget(10**9)
    one = flight(limit=100_000, budget=budget)
    readers = [one.join(), one.join()]
    for _ in range(5_000):
        await one.write(KB)
        for reader in readers:
            await reader.read()
        assert budget.used <= 101_000
    assert (one.whole, one.shared, one.kept) == (False, False, False)


async def test_who_falls_too_far_behind_is_sent_away_and_memory_stays_bounded() -> None:
    budget = Budget(10**9)
    one = flight(limit=100_000, budget=budget)
    slow, fast = one.join(), one.join()
    for _ in range(5_000):
        await one.write(KB)
        await fast.read()
        assert budget.used <= BEHIND_BYTES + 1000
    with pytest.raises(ServiceError):
        await slow.read()
    assert fast.read_bytes == 5_000_000


async def test_all_flights_of_a_cache_share_a_budget() -> None:
    budget = Budget(10_000)
    first, second = flight(budget=budget), flight(budget=budget)
    first.join()
    second.join()
    await first.write(bytes(6_000))
    await second.write(bytes(6_000))
    assert (first.whole, second.whole) == (True, False)


async def test_nothing_is_left_in_the_budget_when_all_is_over() -> None:
    budget = Budget(10**9)
    one = flight(budget=budget)
    quick, slow = one.join(), one.join()
    for _ in range(50):
        await one.write(KB)
    await one.finish()
    assert len(await all_of(quick)) == 50_000
    one.leave(quick)
    one.close()
    assert budget.used == 50_000, "one has not read it yet"
    assert len(await all_of(slow)) == 50_000
    one.leave(slow)
    assert budget.used == 0


async def test_a_reader_that_leaves_does_not_end_the_task_and_the_last_one_does() -> None:
    one = flight()
    ended = []

    async def work() -> None:
        try:
            one.start()
            await asyncio.Event().wait()
        finally:
            ended.append(True)
            one.close()

    readers = [one.join(), one.join()]
    task = asyncio.ensure_future(work())
    await turn()
    one.leave(readers[0])
    await turn()
    assert not ended
    one.leave(readers[1])
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended
    assert one.error is not None


async def test_a_task_that_is_left_before_its_first_step_still_runs_to_its_end() -> None:
    one = flight()
    ended = []

    async def work() -> None:
        try:
            one.start()
        finally:
            ended.append(True)

    reader = one.join()
    task = asyncio.ensure_future(work())
    one.leave(reader)
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    assert ended == [True]


async def test_leaving_after_the_end_ends_nothing() -> None:
    one = flight()
    reader = one.join()
    await one.send(Answer(200, {}, b"x"))
    one.leave(reader)
    assert (one.kept, one.shared) == (True, True)


async def test_a_cancelled_reader_leaves_no_other_waiting() -> None:
    one = flight()
    readers = [one.join() for _ in range(3)]
    tasks = [asyncio.ensure_future(all_of(reader)) for reader in readers]
    await turn()
    tasks[1].cancel()
    await one.write(b"x")
    await one.finish()
    assert set(await asyncio.gather(tasks[0], tasks[2])) == {b"x"}
    assert tasks[1].cancelled()
