"""A write-ahead log that a power cut left torn, truncated or damaged: what is recovered is a whole prefix."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from pathlib import Path

from gateway.charging import orders
from gateway.charging.audit import audit
from gateway.charging.ledger import open_ledger
from gateway.clock import LoopClock
from gateway.config.model import Plan
from tests.charging.fakes import plan, quote, settle
from tests.charging.shop import PACKAGES, Shop

CHARGES = 40
SALES = 25
CUTS = 200 if os.environ.get("MOMA_LONG") == "1" else 20


async def crashed(folder: Path) -> list[tuple[str, int]]:
    """A ledger's files as a crash leaves them, and after each receipt how long the log was by then."""
    ledger = await open_ledger(f"{folder}/live.db", LoopClock(asyncio.get_running_loop()), "UTC", {"p": plan(10**9)})
    ledger.apply_plan("t", plan(10**9))
    acknowledged = []
    for number in range(CHARGES):
        charge_id = f"c{number}"
        await ledger.reserve(charge_id, quote(), clamp=False)
        ledger.dispatched(charge_id, "b", "m")
        await settle(ledger, charge_id, number)
        acknowledged.append((charge_id, log_size(folder)))
    for suffix in ("", "-wal"):
        shutil.copy(f"{folder}/live.db{suffix}", f"{folder}/crash.db{suffix}")
    await ledger.aclose()
    return acknowledged


def log_size(folder: Path, name: str = "live.db") -> int:
    return Path(f"{folder}/{name}-wal").stat().st_size


def lay(folder: Path, log: bytes) -> str:
    path = f"{folder}/again.db"
    for suffix in ("", "-shm", "-wal"):
        Path(path + suffix).unlink(missing_ok=True)
    shutil.copy(f"{folder}/crash.db", path)
    Path(f"{path}-wal").write_bytes(log)
    return path


async def recover(folder: Path, log: bytes) -> list[str]:
    """The charge ids that a ledger has whose log is `log`; its books are right and it goes on charging."""
    path = lay(folder, log)
    ledger = await open_ledger(path, LoopClock(asyncio.get_running_loop()), "UTC", {"p": plan(10**9)})
    ledger.apply_plan("t", plan(10**9))
    ids = [record["charge_id"] for record in ledger.charges("t", 0, 1000)["data"]]
    await ledger.reserve("next", quote(), clamp=False)
    ledger.dispatched("next", "b", "m")
    assert (await settle(ledger, "next", 5)).seq == len(ids) + 1
    ledger.check_invariants()
    await ledger.aclose()
    assert audit(path) == []
    return ids


def test_a_torn_log_recovers_a_whole_prefix(tmp_path: Path) -> None:
    rng = random.Random(5)
    acknowledged = asyncio.run(crashed(tmp_path))
    log = Path(f"{tmp_path}/crash.db-wal").read_bytes()
    every = [charge_id for charge_id, _ in acknowledged]
    assert asyncio.run(recover(tmp_path, log)) == every
    shortened = 0
    for cut in range(CUTS):
        at = rng.randrange(len(log))
        damaged = bytearray(log)
        if cut % 3 == 0:
            del damaged[at:]
        elif cut % 3 == 1:  # blocks that never reached the disk
            damaged[at : at + rng.choice((1, 512, 4096))] = b""
        else:
            damaged[at] ^= 0xFF
        ids = asyncio.run(recover(tmp_path, bytes(damaged)))
        assert ids == every[: len(ids)]
        shortened += len(ids) < CHARGES
        before = [charge_id for charge_id, size in acknowledged if size <= at]
        assert len(ids) >= len(before), "a charge was lost whose log was whole"
    assert shortened > CUTS * 0.9
    print(f"\n{CUTS} torn, truncated or damaged logs: all recovered to a whole prefix")


async def sold(folder: Path) -> list[tuple[str, int]]:
    """As `crashed`, of a shop: orders, subscriptions, codes, caps, refunds, and the calls of those who bought."""
    shop = await Shop(folder).open()
    acknowledged = []
    await shop.codes("pack", *(f"code-{number}" for number in range(SALES)))
    for number in range(SALES):
        name = f"A-{number}"
        await shop.buy(name, ("daily", "pack", "rolling", "calls", "office")[number % 5])
        if number % 3 == 0:
            await shop.redeem(f"code-{number}")
        if number % 4 == 1:
            await shop.refund(name)
        await shop.spend(1 + number)
        acknowledged.append((name, log_size(folder, "l.db")))
        shop.clock.ms += 7 * 3_600_000
    for suffix in ("", "-wal"):
        shutil.copy(f"{folder}/l.db{suffix}", f"{folder}/crash.db{suffix}")
    await shop.ledger.aclose()
    return acknowledged


async def orders_of(path: str) -> list[str]:
    """Those that a ledger has, whose books are right and which goes on selling."""
    ledger = await open_ledger(path, LoopClock(asyncio.get_running_loop()), "Asia/Shanghai", {"none": Plan("none")})
    names = sorted(
        (name for name in ledger._image.sold.orders if name.startswith("A-")), key=lambda name: int(name[2:])
    )
    if "u" in {account.id for account in ledger.tenants()}:
        await ledger.change(orders.place, "next", "u", "pack", 1, PACKAGES)[1]
    ledger.check_invariants()
    await ledger.aclose()
    assert audit(path) == []
    return names


def test_a_torn_log_of_sales_recovers_a_whole_prefix(tmp_path: Path) -> None:
    rng = random.Random(7)
    acknowledged = asyncio.run(sold(tmp_path))
    log = Path(f"{tmp_path}/crash.db-wal").read_bytes()
    every = [name for name, _ in acknowledged]
    assert asyncio.run(orders_of(lay(tmp_path, log))) == every
    shortened = 0
    for _ in range(CUTS):
        at = rng.randrange(len(log))
        names = asyncio.run(orders_of(lay(tmp_path, log[:at] if rng.random() < 0.5 else damaged_at(log, at))))
        assert names == every[: len(names)]
        shortened += len(names) < len(every)
        assert len(names) >= sum(size <= at for _, size in acknowledged), "an order was lost whose log was whole"
    assert shortened > CUTS * 0.7


def damaged_at(log: bytes, at: int) -> bytes:
    return log[:at] + bytes([log[at] ^ 0xFF]) + log[at + 1 :]
