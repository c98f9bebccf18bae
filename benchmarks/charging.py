"""`python -m benchmarks.charging`: what packages, trees and caps cost, how a large ledger starts, who overspends."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from statistics import median
from typing import TypeVar

import uvloop

from benchmarks import processes
from benchmarks.overspend import table
from gateway.call import BUCKETS, Usage
from gateway.charging import directory
from gateway.charging.grants import PACK_PRIORITY
from gateway.charging.ledger import Ledger, open_ledger
from gateway.charging.offers import RAW, STANDARD, offered
from gateway.charging.rating import Quote
from gateway.cli.serve import tune_memory
from gateway.clock import LoopClock
from gateway.config.model import Plan, PlanGrant

CONCURRENT = 64
SECONDS = 1.5
ROUNDS = 5
POOLS = 1_000
DEPTH = 5
ACCOUNTS = 100_000
HOLDS = 10_000
AT_ONCE = (10, 100, 1_000, 5_000)
CAPS = {window: {"credits": 10**18, "calls": 10**9} for window in ("month", "day", "5h")}
_RATES = dict.fromkeys(BUCKETS, 1)
_PLANS = {"p": Plan("p", grants=(PlanGrant(10**15, None),)), "none": Plan("none"), "capped": Plan("capped", caps=CAPS)}
_USAGE = Usage({"input": 100, "output": 50})
_OFFER = offered("m", "a", "", frozenset(), _RATES)
T = TypeVar("T")
Build = Callable[[Ledger], list[str]]  # grows the accounts; returns who calls


def one_pool(ledger: Ledger) -> list[str]:
    ledger.apply_plan("t", _PLANS["p"])
    return ["t"]


def many_pools(ledger: Ledger) -> list[str]:
    names = [f"t{n}" for n in range(POOLS)]
    for name in names:
        ledger.change(directory.add_account, name, "p", None, ())
    return names


def deep(ledger: Ledger) -> list[str]:
    return _branch(ledger, "none")


def capped(ledger: Ledger) -> list[str]:
    return _branch(ledger, "capped")


def packs(ledger: Ledger) -> list[str]:
    """A raw pack, a scoped one and a wallet: what is held and paid goes by units."""
    ledger.apply_plan("t", _PLANS["p"])
    ledger.change(directory.add_grant, "t", 10**15, None, 10, None, None, RAW, None)
    return ["t"]


CASES: dict[str, Build] = {
    "one pool": one_pool,
    f"{POOLS:,} pools": many_pools,
    f"a tree of depth {DEPTH}, pool at its root": deep,
    "the same, six caps on each node": capped,
    "a pack of the card raw": packs,
}


def _branch(ledger: Ledger, plan: str) -> list[str]:
    for depth in range(DEPTH):
        ledger.change(directory.add_account, f"n{depth}", plan, f"n{depth - 1}" if depth else None, ())
    ledger.change(directory.add_grant, "n0", 10**15, None, PACK_PRIORITY, None, None, STANDARD, None)
    return [f"n{DEPTH - 1}"]


def _quote(ledger: Ledger, tenant: str, number: int, tokens: int = 256) -> Quote:
    path = ledger.tenant(tenant).path
    deadline_ms = int(time.time() * 1000) + 60_000
    return Quote(
        tenant, path, f"req-{number}", "chat", "m", "standard", 1, 200, 1, tokens, deadline_ms,
        input_tokens=200, offers=(_OFFER,),
    )  # fmt: skip


async def _charges(ledger: Ledger, names: list[str], seconds: float) -> int:
    until, counts = time.perf_counter() + seconds, [0] * CONCURRENT

    async def worker(which: int) -> None:
        while time.perf_counter() < until:
            number = which + CONCURRENT * counts[which]
            name = f"ch-{seconds}-{number}"
            await ledger.reserve(name, _quote(ledger, names[number % len(names)], number), clamp=False)
            ledger.dispatched(name, "a", "m")
            await ledger.settle(name, _USAGE, model_served="m", backend="a", rates=_RATES, price=_RATES)
            ledger.close(name, "completed")
            counts[which] += 1

    await asyncio.gather(*(worker(n) for n in range(CONCURRENT)))
    return sum(counts)


def throughput(build: Build) -> tuple[float, float, float]:
    """Charges/s, CPU per charge in us (loop and writer), bytes of the file per charge."""

    async def run(path: str) -> tuple[float, float, float]:
        ledger = await open_ledger(path, LoopClock(asyncio.get_running_loop()), "UTC", dict(_PLANS))
        names = build(ledger)
        warm = await _charges(ledger, names, SECONDS / 3)
        cpu_s = time.process_time()
        done = await _charges(ledger, names, SECONDS)
        cpu_s = time.process_time() - cpu_s
        await ledger.aclose()
        return done / SECONDS, cpu_s / done * 1e6, _size(path) / (done + warm)

    return _in_folder(run)


def boot(accounts: int, holds: int) -> tuple[float, float]:
    """Seconds that a ledger of so many accounts with a grant each, and open holds, takes to open; its MB."""

    async def grow(path: str) -> float:
        ledger = await open_ledger(path, LoopClock(asyncio.get_running_loop()), "UTC", dict(_PLANS))
        for number in range(accounts):
            _, durable = ledger.change(directory.add_account, f"t{number}", "p", None, ())
        for number in range(holds):
            name = f"ch-{number}"
            await ledger.reserve(name, _quote(ledger, f"t{number % accounts}", number), clamp=False)
            ledger.dispatched(name, "a", "m")
        await asyncio.sleep(0.2)  # until the holds are old enough to be written
        await durable
        await ledger.aclose()
        started = time.perf_counter()
        ledger = await open_ledger(path, LoopClock(asyncio.get_running_loop()), "UTC", dict(_PLANS))
        took_s = time.perf_counter() - started
        await ledger.aclose()
        return took_s

    async def run(path: str) -> tuple[float, float]:
        return await grow(path), _size(path) / 1e6

    return _in_folder(run)


def _size(path: str) -> int:
    return os.path.getsize(path)


def _in_folder(run: Callable[[str], Awaitable[T]]) -> T:
    async def within(path: str) -> T:
        return await run(path)

    with tempfile.TemporaryDirectory(dir=".") as folder:
        return uvloop.run(within(f"{folder}/ledger.db"))


def main() -> int:
    tune_memory()
    print(f"{processes.machine()}\n\n{CONCURRENT} calls at once, median of {ROUNDS} rounds of {SECONDS:g} s in turns\n")
    print("| accounts | charges/s | of the simple case | CPU a charge, us | bytes a charge |\n|---|---|---|---|---|")
    rounds = [{name: throughput(build) for name, build in CASES.items()} for _ in range(ROUNDS)]
    for name in CASES:
        ratio = median(each[name][0] / each["one pool"][0] for each in rounds)
        rate, cpu_us, size = (median(each[name][n] for each in rounds) for n in range(3))
        print(f"| {name} | {rate:,.0f} | {ratio:.0%} | {cpu_us:.1f} | {size:.0f} |")
    print("\n| ledger | opens in, s | MB |\n|---|---|---|")
    for accounts, holds in ((1, 0), (ACCOUNTS, 0), (1, HOLDS)):
        took_s, size_mb = boot(accounts, holds)
        print(f"| {accounts:,} accounts, {holds:,} open holds | {took_s:.2f} | {size_mb:.1f} |")
    return 1 if table(AT_ONCE) else 0


if __name__ == "__main__":
    sys.exit(main())
