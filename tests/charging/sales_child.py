"""Sells, takes back and lets days pass, and prints each order once it is durable, until it is killed."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path

from gateway.charging import subscriptions
from gateway.errors import CallRejected
from tests.charging.shop import Shop

STEP_MS = 6 * 3_600_000
SOLD = ("daily", "pack", "rolling", "units", "month")


async def main(folder: str, start: int) -> None:
    shop = Shop(Path(folder))
    shop.clock.ms += start * STEP_MS
    await shop.open()
    number = start
    while True:
        name = f"A-{number}"
        order, _ = await shop.buy(name, SOLD[number % len(SOLD)], 1 + number % 3)
        sys.stdout.write(f"{name}\n")
        sys.stdout.flush()
        if number % 2:
            await shop.refund(name, 0 if number % 3 else 7)
        elif order.subscription:
            with contextlib.suppress(CallRejected):
                terms = order.subscription, None, "rolling", 4, shop.packages
                await shop.ledger.change(subscriptions.change, *terms)[1]
        shop.clock.ms += STEP_MS
        shop.live()
        number += 1


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
