"""The loop's clock keeps the promises of the protocol."""

from __future__ import annotations

import asyncio
import time

from gateway.clock import LoopClock


async def test_now_is_the_loops_and_wall_is_unix_milliseconds() -> None:
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
