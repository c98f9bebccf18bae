"""What the ledger has of all that was asked."""

from __future__ import annotations

import asyncio
from typing import Any

from gateway.charging.audit import audit
from tests.conftest import World

PAGE = 1000


async def balanced(world: World) -> list[dict[str, Any]]:
    """The charge records, once nothing is held any more and the audit has found nothing."""
    ledger = world.app.ledger
    async with asyncio.timeout(5):
        while ledger.open_holds:
            await asyncio.sleep(0.01)
    ledger.check_invariants()
    await world.written()
    assert audit(str(world.path / "moma.db")) == []
    records: list[dict[str, Any]] = []
    after: int | None = 0
    while after is not None:
        page = ledger.charges("demo", after, PAGE)
        records, after = records + page["data"], page["next"]
    return records
