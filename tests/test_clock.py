"""The loop's clock keeps the promises of the protocol."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from gateway.clock import LoopClock

Run = Callable[[Awaitable[None]], None]


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    chosen: Run = request.param
    return chosen


def test_now_has_the_base_of_the_loop_and_goes_on_within_a_step(run: Run) -> None:
    async def look() -> None:
        clock = LoopClock(asyncio.get_running_loop())
        assert abs(clock.now() - asyncio.get_running_loop().time()) < 0.1
        started, until = clock.now(), time.perf_counter() + 0.0003
        while time.perf_counter() < until:
            pass
        assert 0.0003 <= clock.now() - started + 1e-6 < 0.1

    run(look())


def test_nobody_is_woken_before_the_time_has_come(run: Run) -> None:
    async def look() -> None:
        clock, loop = LoopClock(asyncio.get_running_loop()), asyncio.get_running_loop()
        for number in range(100):
            woken: asyncio.Future[float] = loop.create_future()
            when = clock.now() + 0.001 + number * 1e-5
            until = time.perf_counter() + 0.0007  # the loop's own time stands still
            while time.perf_counter() < until:
                pass
            clock.call_at(when, lambda woken=woken: woken.set_result(clock.now()))  # type: ignore[misc]
            assert when <= await woken < when + 0.1
            started = clock.now()
            await clock.sleep(number * 1e-5)
            assert number * 1e-5 <= clock.now() - started

    run(look())


async def test_now_does_not_go_back_and_wall_is_unix_milliseconds() -> None:
    clock = LoopClock(asyncio.get_running_loop())
    earlier = clock.now()
    assert earlier <= clock.now()
    assert abs(clock.wall_ms() - time.time() * 1000) < 1000


async def test_timers_fire_once_in_order_unless_cancelled() -> None:
    clock = LoopClock(asyncio.get_running_loop())
    fired: list[str] = []
    done = asyncio.Event()
    clock.call_at(clock.now() + 0.02, done.set)
    clock.call_at(clock.now() + 0.01, lambda: fired.append("second"))
    clock.call_at(clock.now() - 1, lambda: fired.append("first"))
    clock.call_at(clock.now() + 0.005, lambda: fired.append("never")).cancel()
    await done.wait()
    assert fired == ["first", "second"]


async def test_sleep_lets_time_pass() -> None:
    clock = LoopClock(asyncio.get_running_loop())
    start = clock.now()
    await clock.sleep(0.01)
    assert clock.now() - start >= 0.009
