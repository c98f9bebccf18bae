"""A cap that is younger than the records: they are counted beside the traffic, and added in one step."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from gateway.charging import metering
from gateway.charging.caps import Meter
from gateway.charging.image import Image
from gateway.charging.store import Store
from gateway.clock import Clock
from gateway.errors import StoreUnavailable


async def count_back(image: Image, asked: Sequence[Meter], store: Store, clock: Clock) -> None:
    """All records that these lack are in the file."""
    try:
        used = await asyncio.to_thread(store.used_before, asked)
    except StoreUnavailable:  # after the next commit it is tried again
        return
    kept = [meter for meter in asked if meter.kept]  # a cap may have gone meanwhile
    metering.count(image.changes, [one for one in used if one[0].kept], kept, clock.wall_ms())
    for meter in kept:
        image.changed(image.accounts[meter.account])
    image.uncounted = [meter for meter in image.uncounted if meter.kept and meter.counted_to]
