"""When a commit starts: at once for a few, together under load, and never later than the gap allows."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from gateway.charging.changes import Changes
from gateway.charging.writer import BUSY, ENOUGH, GAP_S, Writer
from tests.virtual import VirtualClock


class Bench:
    """A writer over a list of calls; `gate` holds its thread inside a commit."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.waiting: list[int] = []
        self.batches: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.done = asyncio.Event()
        self.writer = Writer(
            asyncio.get_running_loop(), self.clock, self._write, self._take,
            self._committed, self._committed, lambda: len(self.waiting),
        )  # fmt: skip

    def _write(self, *_: object) -> None:
        self.gate.wait(10)

    def _take(self) -> Any:
        if not self.waiting:
            return None
        self.batches.append(len(self.waiting))
        self.waiting.clear()
        return Changes(), []

    def _committed(self, *_: object) -> None:
        self.done.set()

    def arrive(self, calls: int) -> None:
        for _ in range(calls):
            self.waiting.append(1)
            self.writer.kick()

    async def commits(self, batches: list[int]) -> None:
        async with asyncio.timeout(5):
            while self.batches != batches:
                await asyncio.sleep(0.001)

    async def quiet(self) -> None:
        """Nothing is committed although there is time for it."""
        before = list(self.batches)
        await asyncio.sleep(0.03)
        assert self.batches == before


@pytest.fixture
async def bench() -> Any:
    bench = Bench()
    yield bench
    bench.gate.set()
    await bench.writer.aclose()


async def test_whoever_is_alone_never_waits(bench: Bench) -> None:
    for number in range(5):  # the virtual clock stands still: each comes before the gap is over
        bench.arrive(1)
        await bench.commits([1] * (number + 1))


async def test_calls_of_one_step_share_a_commit(bench: Bench) -> None:
    bench.arrive(200)
    await bench.commits([200])


async def test_a_few_go_as_soon_as_the_commit_in_flight_ends(bench: Bench) -> None:
    bench.gate.clear()
    bench.arrive(1)
    await bench.commits([1])
    bench.arrive(BUSY - 2)
    bench.gate.set()
    await bench.commits([1, BUSY - 2])


async def test_under_load_the_next_waits_until_the_gap_is_over(bench: Bench) -> None:
    bench.arrive(BUSY + 1)
    await bench.commits([BUSY + 1])
    bench.arrive(3)
    await bench.quiet()
    bench.clock.advance(GAP_S)
    await bench.commits([BUSY + 1, 3])
    bench.arrive(1)  # 3 + 1: the load is gone
    await bench.commits([BUSY + 1, 3, 1])


async def test_under_load_the_next_goes_once_it_is_full(bench: Bench) -> None:
    bench.arrive(BUSY + 1)
    await bench.commits([BUSY + 1])
    bench.arrive(ENOUGH - 1)
    await bench.quiet()
    bench.arrive(1)
    await bench.commits([BUSY + 1, ENOUGH])


async def test_what_waits_when_it_closes_is_committed(bench: Bench) -> None:
    bench.arrive(BUSY + 1)
    await bench.commits([BUSY + 1])
    bench.arrive(3)
    closing = asyncio.create_task(bench.writer.aclose())
    await bench.commits([BUSY + 1, 3])
    await closing
    bench.writer = Bench().writer  # the fixture closes one, too
