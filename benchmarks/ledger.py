"""Charges per second of the ledger, against a raw loop that commits the same rows in groups, in the same run."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import threading
import time
from pathlib import Path
from queue import SimpleQueue
from statistics import median

import uvloop

from gateway.call import BUCKETS, Usage
from gateway.charging import chain
from gateway.charging.ledger import Ledger, open_ledger
from gateway.charging.rating import Quote
from gateway.charging.records import RECORD_COLUMNS
from gateway.charging.schema import COMMIT_NUMBER, DDL, RECORD_INSERTS, WRITES
from gateway.cli.serve import tune_memory
from gateway.clock import LoopClock
from gateway.config.model import Plan, PlanGrant

CONCURRENT = (1, 8, 64, 256)
ROUNDS = 9  # in turns: what else the machine does comes and goes within seconds
BOUND = 0.8
SECONDS = 0.8
WARM_S = 0.8  # before each: a journal that has yet to grow is no figure of a gateway that runs for days
_RATES = dict.fromkeys(BUCKETS, 1)
_PLAN = Plan("p", grants=(PlanGrant(10**15, None),))


def measure(seconds: float = SECONDS) -> list[tuple[int, float, float, float]]:
    """Per number of concurrent calls: raw loop and ledger in charges/s, and their ratio (median of the rounds)."""
    rows = []
    tune_memory()  # as in the process that serves; for the raw loop too
    for concurrent in CONCURRENT:
        rounds = [(_raw(concurrent, seconds), _ledger(concurrent, seconds)) for _ in range(ROUNDS)]
        ratio = median(ours / raw for raw, ours in rounds)
        rows.append((concurrent, median(r[0] for r in rounds), median(r[1] for r in rounds), ratio))
    return rows


def _ledger(concurrent: int, seconds: float) -> float:
    async def run(path: str) -> float:
        ledger = await open_ledger(path, LoopClock(asyncio.get_running_loop()), "UTC", {"p": _PLAN})
        ledger.apply_plan("t", _PLAN)
        await asyncio.gather(*(_charge(ledger, f"w{n}", time.perf_counter() + WARM_S) for n in range(concurrent)))
        until = time.perf_counter() + seconds
        counts = await asyncio.gather(*(_charge(ledger, f"{n}", until) for n in range(concurrent)))
        await ledger.aclose()
        return sum(counts) / seconds

    with tempfile.TemporaryDirectory(dir=".") as folder:
        return uvloop.run(run(f"{folder}/ledger.db"))


async def _charge(ledger: Ledger, worker: str, until: float) -> int:
    done, deadline_ms = 0, int(time.time() * 1000) + 60_000
    usage = Usage({"input": 100, "output": 50}, "reported", ())
    while time.perf_counter() < until:
        charge_id = f"ch-{worker}-{done}"
        quote = Quote("t", ("t",), f"req-{worker}-{done}", "chat", "m", "standard", 1, 200, 1, 256, deadline_ms)
        try:
            await ledger.reserve(charge_id, quote, clamp=False)
            ledger.dispatched(charge_id, "a", "m")
            await ledger.settle(charge_id, usage, model_served="m", backend="a", rates=_RATES, price=_RATES)
        finally:
            ledger.close(charge_id, "completed")
        done += 1
    return done


class _GroupCommit:
    """Rows queue while a commit is in flight; the thread writes them all with one fsync. Nothing is decided."""

    def __init__(self, path: str, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: list[tuple[tuple[object, ...], asyncio.Future[None]]] = []
        self._busy = False
        self._jobs: SimpleQueue[list[tuple[tuple[object, ...], asyncio.Future[None]]] | None] = SimpleQueue()
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        self._connection.executescript(DDL)
        self._connection.execute(COMMIT_NUMBER)
        chain.begin(self._connection)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def commit(self, row: tuple[object, ...]) -> asyncio.Future[None]:
        done: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append((row, done))
        if not self._busy:
            self._busy = True
            self._loop.call_soon(self._start)
        return done

    def close(self) -> None:
        self._jobs.put(None)
        self._thread.join()
        self._connection.close()

    def _start(self) -> None:
        batch, self._waiting = self._waiting, []
        self._busy = bool(batch)
        if batch:
            self._jobs.put(batch)

    def _run(self) -> None:
        written = 0
        while (batch := self._jobs.get()) is not None:
            self._connection.execute("BEGIN IMMEDIATE")
            rows = [(written + n, *row) for n, (row, _) in enumerate(batch, 1)]
            self._connection.executemany(RECORD_INSERTS[0], rows)
            # The grant, the account and the head of the chain are rows of every charge's commit.
            self._connection.execute(WRITES["grants"], _GRANT)
            self._connection.execute(WRITES["accounts"], _ACCOUNT)
            self._connection.execute(WRITES["chain_head"], (written + len(batch), _HASH, 1))
            self._connection.execute("COMMIT")
            written += len(batch)
            self._loop.call_soon_threadsafe(self._done, batch)

    def _done(self, batch: list[tuple[tuple[object, ...], asyncio.Future[None]]]) -> None:
        self._start()
        for _, done in batch:
            done.set_result(None)


_GRANT = ("g1", "t", 10**15, 5, 0, 0, 0, None, 20, "standard", None, 0, "2026-11", None, None, None)
_ACCOUNT = ("t", "p", None, '["t"]', "[]", 0, None, 0, 5, 0, "active", "{}")
_HASH = "5e" * 32
_AFTER_IDS = (
    "t", '["t"]', "chat", "m", "m", "a", "standard", 1, 1, "settled", '{"input":100,"output":50}', "reported",
    456, 150, 0, 0, 0, '{"g1":150}', 150, "[]", 1_700_000_000_000, 1_700_000_000_001, None, "key_000001",
    _HASH,
)  # fmt: skip
assert len(RECORD_COLUMNS) == len(_AFTER_IDS) + 3  # seq, charge_id, request_id come before


def _raw(concurrent: int, seconds: float) -> float:
    async def run(path: str) -> float:
        loop = _GroupCommit(path, asyncio.get_running_loop())

        async def charge(worker: str, until: float) -> int:
            done = 0
            while time.perf_counter() < until:
                await loop.commit((f"ch-{worker}-{done}", f"req-{worker}-{done}", *_AFTER_IDS))
                done += 1
            return done

        await asyncio.gather(*(charge(f"w{n}", time.perf_counter() + WARM_S) for n in range(concurrent)))
        until = time.perf_counter() + seconds
        counts = await asyncio.gather(*(charge(f"{n}", until) for n in range(concurrent)))
        loop.close()
        return sum(counts) / seconds

    with tempfile.TemporaryDirectory(dir=".") as folder:
        return uvloop.run(run(str(Path(folder) / "raw.db")))


if __name__ == "__main__":
    for row in measure():
        print(*row)
