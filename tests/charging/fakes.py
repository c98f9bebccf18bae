"""A clock that stands still, a store that fails, and short ways to a quote, a plan and an open ledger."""

from __future__ import annotations

import asyncio
import heapq
import sqlite3
from collections.abc import Callable
from typing import Any

from gateway.call import BUCKETS, Usage
from gateway.charging.ledger import Ledger, open_ledger
from gateway.charging.rating import Quote
from gateway.charging.records import Receipt
from gateway.charging.spool import Commit
from gateway.charging.tariffs import plain
from gateway.config.model import Plan, PlanGrant

RATES = dict.fromkeys(BUCKETS, 1)
PRICE = dict.fromkeys(BUCKETS, 2_000_000)
START_MS = 1_700_000_000_000
REAL_S = 0.01  # a shorter wait is a real one, as a pause between two commits


class FakeTimer:
    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class FakeClock:
    def __init__(self, ms: int = START_MS) -> None:
        self.ms = ms
        self._start_ms = ms
        self._timers: list[tuple[float, int, FakeTimer]] = []

    def now(self) -> float:
        return (self.ms - self._start_ms) / 1000

    def wall_ms(self) -> int:
        return self.ms

    def call_at(self, when: float, callback: Callable[[], None]) -> FakeTimer:
        timer = FakeTimer(callback)
        if when - self.now() <= REAL_S:
            asyncio.get_running_loop().call_later(REAL_S, lambda: timer.callback and timer.callback())
            return timer
        heapq.heappush(self._timers, (when, id(timer), timer))
        return timer

    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(min(delay_s, 0.01))

    def advance(self, ms: int) -> None:
        self.ms += ms
        while self._timers and self._timers[0][0] <= self.now():
            callback = heapq.heappop(self._timers)[2].callback
            if callback:
                callback()


def plan(credits_uc: int = 1000, every: str | None = None) -> Plan:
    return Plan("p", grants=(PlanGrant(credits_uc, every),) if credits_uc else ())


async def opened(path: object, clock: FakeClock, credits_uc: int = 1000, every: str | None = None) -> Ledger:
    plans = {"p": plan(credits_uc, every)}
    ledger = await open_ledger(f"{path}/l.db", clock, "Asia/Shanghai", plans, plain("standard", {"m": RATES}))
    ledger.apply_plan("t", plan(credits_uc, every))
    return ledger


def quote(input_uc: int = 100, max_tokens: int | None = 100, deadline_ms: int = START_MS * 2) -> Quote:
    return Quote("t", ("t",), "r", "chat", "m", "standard", 1, input_uc, 1, max_tokens, deadline_ms)


def settle(ledger: Ledger, charge_id: str, tokens: int, *flags: str) -> asyncio.Future[Receipt]:
    usage = Usage({"output": tokens}, flags=flags)
    return ledger.settle(charge_id, usage, model_served="m", backend="b", rates=RATES, price=PRICE)


class Failing:
    """The writing connection, failing once at a stage. `after commit` is an fsync of which nobody knows the result."""

    def __init__(self, inner: sqlite3.Connection, stage: str) -> None:
        self._inner = inner
        self._stage = stage

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        verb = sql.split()[0]
        if (verb, self._stage) in (("BEGIN", "begin"), ("COMMIT", "commit")):
            raise sqlite3.OperationalError("disk I/O error")
        if (verb, self._stage) == ("INSERT", "execute"):
            raise sqlite3.OperationalError("database or disk is full")
        cursor = self._inner.execute(sql, *values)
        if (verb, self._stage) == ("COMMIT", "after commit"):
            raise sqlite3.OperationalError("disk I/O error")
        return cursor

    def executemany(self, sql: str, rows: Any) -> sqlite3.Cursor:
        if self._stage == "execute":
            raise sqlite3.OperationalError("database or disk is full")
        return self._inner.executemany(sql, rows)

    def close(self) -> None:
        self._inner.close()


async def counted(ledger: Ledger) -> None:
    """Waits for what the records from before a cap say: they are read in a thread, after a commit."""
    while ledger._image.uncounted:
        await ledger.change(lambda image, now_ms: None)[1]
        await asyncio.sleep(0.001)


def fail_next(ledger: Ledger, stage: str) -> None:
    good = ledger._store._connection
    assert good is not None
    ledger._store._connection = Failing(good, stage)  # type: ignore[assignment]


def fail_both(ledger: Ledger, stage: str) -> None:
    """As `fail_next`, and the spool does not take the commit either."""
    fail_next(ledger, stage)
    spool = ledger._store._spool

    def fail(commit: Commit) -> None:
        del spool.append  # once
        raise OSError("the spool is full")

    spool.append = fail  # type: ignore[method-assign]


class Down:
    """The store takes nothing as long as this is open, and what it was asked for in vain."""

    def __init__(self, ledger: Ledger) -> None:
        self._store = ledger._store
        self.tries = 0

    def __enter__(self) -> Down:
        self._connect = self._store._connect

        def refuse(_: float = 0) -> sqlite3.Connection:
            self.tries += 1
            raise sqlite3.OperationalError("unable to open database file")

        self._store._connect = refuse  # type: ignore[method-assign, assignment]
        return self

    def __exit__(self, *_: object) -> None:
        self._store._connect = self._connect  # type: ignore[method-assign]


async def recovered(ledger: Ledger) -> None:
    async with asyncio.timeout(5):
        while not ledger.healthy:
            await asyncio.sleep(0.005)
