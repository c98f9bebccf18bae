"""Edits a tenant by the admin API and prints the number of each edit once it is durable, until it is killed."""

from __future__ import annotations

import asyncio
import sys

import orjson

from gateway.admin.api import Admin
from gateway.charging.ledger import open_ledger
from gateway.config.model import Plan
from tests.charging.fakes import FakeClock

PLANS = {"p": Plan("p")}


async def main(path: str, start: int) -> None:
    clock = FakeClock()
    ledger = await open_ledger(path, clock, "UTC", PLANS)
    ledger.apply_plan("t", PLANS["p"])
    admin = Admin(ledger=ledger, plans=lambda: PLANS, clock=clock)
    number = start
    while True:
        number += 1
        body = orjson.dumps({"caps": {"day": {"calls": number}}})
        await admin.handle("PATCH", "/admin/v1/tenants/t", {}, body)
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
