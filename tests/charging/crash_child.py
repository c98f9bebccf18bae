"""Charges c0, c1, ... and prints each id once its receipt is there, until it is killed."""

from __future__ import annotations

import asyncio
import sys

from gateway.charging.ledger import open_ledger
from gateway.clock import LoopClock
from tests.charging.fakes import plan, quote, settle

LANES = 16


async def main(path: str, start: int) -> None:
    ledger = await open_ledger(path, LoopClock(asyncio.get_running_loop()), "UTC", {"p": plan(10**12)})
    ledger.apply_plan("t", plan(10**12))

    async def lane(number: int) -> None:
        while True:
            charge_id = f"c{number}"
            await ledger.reserve(charge_id, quote(), clamp=False)
            ledger.dispatched(charge_id, "b", "m")
            if number % 7 == 0:
                await asyncio.sleep(0.06)
            await settle(ledger, charge_id, 10)
            sys.stdout.write(charge_id + "\n")
            sys.stdout.flush()
            number += LANES

    await asyncio.gather(*(lane(start + number) for number in range(LANES)))


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
