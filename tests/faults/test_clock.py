"""The wall clock is set by an hour and by a month, both ways, under load: calls go on, and each is charged once."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from contextlib import closing

import pytest

from gateway.clock import LoopClock
from tests.charging import manage
from tests.conftest import World
from tests.faults.test_store import Load

HOUR_MS = 3_600_000
MONTH_MS = 31 * 24 * HOUR_MS
JUMPS = (HOUR_MS, -HOUR_MS, -HOUR_MS, HOUR_MS, MONTH_MS, -MONTH_MS, -MONTH_MS, MONTH_MS)


class SetClock(LoopClock):
    """State: how far the wall clock is off."""

    off_ms = 0

    def wall_ms(self) -> int:
        return super().wall_ms() + self.off_ms


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the gateway starts."""
    monkeypatch.setattr("gateway.app.LoopClock", SetClock)


async def test_a_clock_that_is_set_loses_and_doubles_nothing(world: World) -> None:
    """What would have ended by then has ended, and does not come back: a wallet pays on."""
    clock = world.app._parts.clock
    assert isinstance(clock, SetClock)
    await manage.add_grant(world.app.ledger, "demo", 10**12)[1]
    async with Load(world.url) as load:
        for jump_ms in JUMPS:
            await load.until_served()
            clock.off_ms += jump_ms
            world.app._expire(clock.wall_ms())
        await load.until_served()
    async with asyncio.timeout(5):
        while world.app.ledger.open_holds:
            await asyncio.sleep(0.01)
    await world.written()
    load.check(f"{world.path}/moma.db")
    assert load.others == {}
    world.app.ledger.check_invariants()
    with closing(sqlite3.connect(f"file:{world.path}/moma.db?mode=ro", uri=True)) as connection:
        ends = Counter(row[0] for row in connection.execute("SELECT status FROM records"))
        periods = [row[0] for row in connection.execute("SELECT period FROM grants WHERE period <> ''")]
    assert ends.keys() <= {"settled", "voided"}, "no hold of a call that goes on is closed by a clock"
    assert len(periods) == len(set(periods)), "a period is granted once"
