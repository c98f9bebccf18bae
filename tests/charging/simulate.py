"""Runs of the whole gateway under a virtual clock, each out of one seed, and what is wrong after each.

python -m tests.charging.simulate --seeds 200          # 0 to 199; ends with 1 when one fails
python -m tests.charging.simulate --seed 17 -v         # the same again, with its story
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import hashlib
import itertools
import logging
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

from gateway.charging import codes
from gateway.tenants import key_hash
from tests.charging import manage
from tests.charging.simulated import town
from tests.charging.simulated.books import Books
from tests.charging.simulated.disk import KEPT_FREE, SPOOL_BYTES, SimSpool, SimStore, SimWriter
from tests.charging.simulated.judge import happened, judge, leaks, statements
from tests.charging.simulated.loop import Stuck, VirtualLoop
from tests.charging.simulated.operations import OPERATIONS
from tests.charging.simulated.world import MOODS, Mood, World

STEPS = 60
GAP_S = (0.0, 0.0, 0.0, 0.0005, 0.01, 0.2)
CALM = Mood(0.0, leaving=0.0)
CHUNK = 100  # runs of a process, before it tells
MOST_TOLD = 20
FOUNDING = 1_000_000  # requests of those who set up the town have numbers that no life comes to


@dataclass
class Run:
    """`digest` is of all that happened: two runs of a seed have the same."""

    seed: int
    wrong: list[str] = field(default_factory=list)
    story: list[str] = field(default_factory=list)
    digest: str = ""
    calls: int = 0
    answered: int = 0
    dispatched: int = 0
    records: int = 0
    crashes: int = 0
    happened: Counter[str] = field(default_factory=Counter)


def run(seed: int, steps: int = STEPS) -> Run:
    """A life of the gateway, and what is wrong after it."""
    rng = random.Random(seed)
    mood = rng.choice(MOODS)
    ledger, key_ids = _peopled()
    found = Run(seed)
    with _folder(ledger) as folder, _world(rng, folder, mood, found.wrong) as world:
        world.key_ids, found.story = key_ids, world.story
        try:
            world.driver = world.own(_live(world, found, steps))
            world.loop.run_until_complete(world.driver)
        except Stuck as error:
            found.wrong.append(str(error))
            found.wrong += [f"{task.get_name()} waits: {task.get_coro()}" for task in world.loop.living()]
        except Exception:  # as of all that no crash ends, it is told in `unforeseen`
            world.tell("the run has failed")
        found.wrong += world.unforeseen
        found.crashes, found.calls = world.crashes, len(world.calls)
        found.answered = sum(asked.answer.complete and asked.answer.status == 200 for asked in world.calls)
        found.dispatched = sum(heard.reached for heard in world.backends.heard)
        found.happened.update(happened(world))
    return found


async def _live(world: World, found: Run, steps: int) -> None:
    await world.boot()
    weights, operations = zip(*OPERATIONS, strict=True)
    for _ in range(steps):
        (operation,) = world.rng.choices(operations, weights)
        await world.own(operation(world))
        world.check_now()
        await asyncio.sleep(world.rng.choice(GAP_S))
    await _ended(world, found)
    books = Books(world.path)
    found.wrong += judge(world, books)
    found.wrong += await statements(world, books)
    found.records = len(books.records)
    found.happened.update(kind for record in books.records for kind in record.kinds)
    found.happened["a month was cut"] = len(books.cuts)
    found.happened["a change is in the audit log"] = len(books.audit)
    found.digest = hashlib.sha256(repr((world.story, books.records)).encode()).hexdigest()
    await world.process.aclose()


async def _ended(world: World, found: Run) -> None:
    """Nothing fails any more, and all that runs ends; then the file is read once more, and what is due is booked."""
    world.mood = CALM
    world.process.disk.failing = world.process.disk.crashing = 0.0
    await world.quiet()
    world.check_now()
    found.wrong += leaks(world.process)
    await world.restart()
    for tenant in town.TENANTS:
        await world.admin("GET", f"tenants/{tenant}/statement")
    world.process.look()  # ends the cut of a month that a crash has broken off
    await asyncio.wait([*world.process.chores])
    world.check_now()


@contextmanager
def _world(rng: random.Random, folder: str, mood: Mood, wrong: list[str]) -> Iterator[World]:
    """On a loop of its own; what nobody has caught there is wrong."""
    loop = VirtualLoop(rng)
    loop.set_exception_handler(lambda _, context: _uncaught(world, context, wrong))
    world = World(loop, rng, folder, mood)
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", "coroutine .* was never awaited")  # of tasks that a kill ends unbegun
        stack.callback(loop.close)
        stack.callback(world.let_go)
        patch = mock.patch
        stack.enter_context(patch("gateway.charging.durable.Writer", lambda *a: SimWriter(world.process.disk, *a)))
        stack.enter_context(patch("gateway.charging.ledger.Store", lambda *a: SimStore(world.process.disk, *a)))
        stack.enter_context(patch("gateway.charging.store.Spool", lambda *a: SimSpool(world.process.disk, *a)))
        for module in ("store", "spool"):
            stack.enter_context(patch(f"gateway.charging.{module}.SPOOL_BYTES", SPOOL_BYTES))
            stack.enter_context(patch(f"gateway.charging.{module}.KEPT_FREE", KEPT_FREE))
        stack.enter_context(patch("gateway.app.ids", lambda kind: lambda: world.next_id(kind)))
        stack.enter_context(patch.dict(os.environ, MOMA_SIM_ADMIN_KEY=town.ADMIN_KEY))
        yield world
        loop.steps = 0  # a run that goes on and on is ended here
        if rest := loop.living():
            for task in rest:
                task.cancel()
            with contextlib.suppress(Stuck, asyncio.CancelledError):  # a crash ends who waits, too
                loop.run_until_complete(asyncio.wait(rest))


def _uncaught(world: World, context: dict[str, object], wrong: list[str]) -> None:
    if not world.crashes:  # what a killed process leaves behind, it leaves to nobody
        wrong.append(f"{context['message']}: {context.get('exception')!r}")


@contextmanager
def _folder(ledger: bytes) -> Iterator[str]:
    folder = tempfile.mkdtemp(prefix="moma-sim-", dir=town.MEMORY)
    try:
        Path(folder, "moma.db").write_bytes(ledger)
        yield folder
    finally:
        shutil.rmtree(folder)


@functools.cache
def _peopled() -> tuple[bytes, dict[str, str]]:
    """The file of a ledger with the town's tenants and keys in it, and the ids of the keys: made once."""
    key_ids: dict[str, str] = {}
    wrong: list[str] = []

    async def settle(world: World) -> None:
        world.names = itertools.count(FOUNDING)
        await world.boot()
        for tenant in town.TENANTS:
            if tenant != "solo":
                body = {"id": tenant, "plan": town.PLANS[tenant], "parent": town.PARENTS.get(tenant)}
                status, value = await world.admin("POST", "tenants", body)
                assert status == 201, value
        for secret, tenant in town.KEYS.items():
            key, durable = manage.add_key(world.process.ledger, tenant, key_hash(secret))
            await durable
            key_ids[secret] = key.id
        hashes = [codes.code_hash(code) for code in town.CODES]
        await world.process.ledger.change(codes.make, world.configs[0].packages["pack"], hashes, None)[1]
        for tenant in ("firm", "desk"):
            await world.admin("POST", f"tenants/{tenant}/grants", {"credits": "20k"})
        await world.process.aclose()

    with _folder(b"") as folder, _world(random.Random(0), folder, CALM, wrong) as world:
        world.loop.run_until_complete(world.own(settle(world)))
        ledger = Path(folder, "moma.db").read_bytes()
    assert not wrong, wrong
    return ledger, key_ids


@dataclass
class Tally:
    """Of many runs; `wrong` are lines, each with its seed."""

    seeds: int = 0
    calls: int = 0
    answered: int = 0
    dispatched: int = 0
    records: int = 0
    crashes: int = 0
    happened: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def add(self, other: Tally | Run) -> None:
        for name in ("calls", "answered", "dispatched", "records", "crashes"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.happened += other.happened
        if isinstance(other, Run):
            self.seeds += 1
            self.wrong += [f"seed {other.seed}: {line}" for line in other.wrong[:MOST_TOLD]]
        else:
            self.seeds += other.seeds
            self.wrong += other.wrong

    def __str__(self) -> str:
        return (
            f"{self.seeds:,} seeds: {self.calls:,} calls, {self.answered:,} complete answers, {self.dispatched:,} sent "
            f"to a backend, {self.records:,} records, {self.crashes:,} crashes; {len(self.wrong)} wrong"
        )


def tally(seeds: Sequence[int]) -> Tally:
    logging.disable(logging.CRITICAL)
    try:
        found = Tally()
        for seed in seeds:
            found.add(run(seed))
        return found
    finally:
        logging.disable(logging.NOTSET)


def tallied(seeds: Sequence[int], processes: int) -> Tally:
    """By several processes: each run is alone in its own."""
    found = Tally()
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        for part in pool.map(tally, [seeds[at : at + CHUNK] for at in range(0, len(seeds), CHUNK)]):
            found.add(part)
    return found


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seed", type=int, help="this one alone")
    options.add_argument("--seeds", type=int, default=200)
    options.add_argument("--first", type=int, default=0)
    options.add_argument("--processes", type=int, default=1)
    options.add_argument("-v", action="store_true", help="with its story")
    asked = options.parse_args()
    began = time.perf_counter()
    if asked.seed is not None:
        logging.disable(logging.CRITICAL)
        one, found = run(asked.seed), Tally()
        found.add(one)
        print(*(one.story if asked.v else ()), f"digest {one.digest}", sep="\n")
    else:
        found = tallied(range(asked.first, asked.first + asked.seeds), asked.processes)
    print(*found.wrong, f"{found}; {time.perf_counter() - began:.1f} s", sep="\n")
    return 1 if found.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
