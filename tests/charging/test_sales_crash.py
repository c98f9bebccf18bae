"""kill -9 in the middle of selling and renewing: what was acknowledged is there, once, and the books are right."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from gateway.charging.audit import audit
from tests.charging.killing import killed_after
from tests.charging.sales_child import SOLD, STEP_MS
from tests.charging.shop import Shop

KILLS = 8


def test_kill_9_in_the_middle_of_sales(tmp_path: Path) -> None:
    rng, start = random.Random(5), 0
    acknowledged: set[str] = set()
    for _ in range(KILLS):
        acknowledged |= killed_after("sales_child", tmp_path, start, rng.random() * 0.15)
        assert audit(f"{tmp_path}/l.db") == []
        start = 5 + max(int(name.removeprefix("A-")) for name in acknowledged)
    assert len(acknowledged) > KILLS
    asyncio.run(sold_again(tmp_path, acknowledged, start))
    assert audit(f"{tmp_path}/l.db") == []


async def sold_again(folder: Path, acknowledged: set[str], start: int) -> None:
    """Every order that was answered is answered as it was, and grants nothing more."""
    shop = Shop(folder)
    shop.clock.ms += start * STEP_MS
    await shop.open()
    for tenant in ("t", "u"):
        shop.live(tenant)
    before = shop.sums()
    for name in acknowledged:
        number = int(name.removeprefix("A-"))
        _, new = await shop.buy(name, SOLD[number % len(SOLD)], 1 + number % 3)
        assert not new
    assert shop.sums() == before
    shop.ledger.check_invariants()
    await shop.ledger.aclose()
