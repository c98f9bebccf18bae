import asyncio
import contextlib
import os
import random
import sqlite3
from pathlib import Path

import pytest

from gateway.charging.image import CLOSED_KEPT
from gateway.charging.ledger import open_ledger
from gateway.clock import LoopClock
from gateway.errors import Conflict, StoreUnavailable
from tests.charging.fakes import plan, quote, settle
from tests.charging.killing import killed_after

ONLY_LONG = pytest.mark.skipif(os.environ.get("MOMA_LONG") != "1", reason="MOMA_LONG=1 runs it")


@pytest.mark.parametrize("kills", [10, pytest.param(200, marks=[pytest.mark.long, ONLY_LONG])])
def test_kill_9_loses_and_doubles_nothing_that_was_acknowledged(tmp_path: Path, kills: int) -> None:
    path, seed = f"{tmp_path}/l.db", random.Random(7)
    acknowledged: set[str] = set()
    for kill in range(kills):
        acknowledged |= killed_after("crash_child", path, kill * 1_000_000, seed.random() * 0.2)
    before = asyncio.run(resubmit(path, acknowledged))
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT seq, charge_id, charged, flags FROM records ORDER BY seq").fetchall()
        holds = connection.execute("SELECT count(*) FROM holds").fetchone()[0]
        spent = connection.execute("SELECT spent FROM grants").fetchone()[0]
    connection.close()
    ids = [charge_id for _, charge_id, _, _ in rows]
    assert len(rows) == before
    assert acknowledged <= set(ids)
    assert len(ids) == len(set(ids))
    assert [seq for seq, _, _, _ in rows] == list(range(1, len(rows) + 1))
    assert (holds, spent) == (0, sum(charged for _, _, charged, _ in rows))


async def resubmit(path: str, ids: set[str]) -> int:
    """Acknowledged ids are refused as closed, those too old for memory by the file; returns the number of records."""
    ledger = await open_ledger(path, LoopClock(asyncio.get_running_loop()), "UTC", {"p": plan(10**12)})
    with contextlib.closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT charge_id FROM records ORDER BY seq").fetchall()
    closed = [charge_id for (charge_id,) in rows]
    for charge_id in ids & set(closed[-CLOSED_KEPT:]):
        with pytest.raises(Conflict):
            await ledger.reserve(charge_id, quote(), clamp=False)
    for charge_id in sorted(ids - set(closed[-CLOSED_KEPT:]))[:1]:
        await ledger.reserve(charge_id, quote(), clamp=False)
        ledger.dispatched(charge_id, "b", "m")
        with pytest.raises(StoreUnavailable):
            await settle(ledger, charge_id, 10)
        while not ledger.healthy:
            await asyncio.sleep(0.05)
    ledger.check_invariants()
    number = len(ledger.charges("t", 0, 10**9)["data"])
    await ledger.aclose()
    return number
