"""The ledger's file: commits take time, fail at each of their stages, and processes die at them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gateway.charging.store import Store
from gateway.charging.writer import Writer
from gateway.errors import StoreUnavailable
from tests.charging.fakes import Failing

COMMIT_S = (0.0005, 0.0005, 0.001, 0.003, 0.02, 0.06, 0.4)
STAGES = ("begin", "execute", "commit", "after commit")


@dataclass
class Disk:
    """What one process finds: `dead` is the process, whose crash `crash` tells. State: the stores that it opened."""

    rng: random.Random
    failing: float  # shares of commits
    crashing: float
    crash: Callable[[str], None] = lambda why: None
    dead: bool = False
    stores: list[Store] = field(default_factory=list)

    def die(self, why: str) -> None:
        """Not a byte is written from here on."""
        if not self.dead:
            self.dead = True
            self.crash(why)

    def chance(self, share: float) -> bool:
        return share > 0 and self.rng.random() < share

    def let_go(self) -> None:
        """The kernel closes the files of a process that has died."""
        for store in self.stores:
            store.close()


class SimStore(Store):
    """A store whose file cannot always be opened, and whose process may die of it, before and after."""

    def __init__(self, disk: Disk, *args: Any) -> None:
        super().__init__(*args)
        self._disk = disk
        disk.stores.append(self)

    def open(self, *args: Any) -> Any:
        disk = self._disk
        if disk.chance(disk.crashing):
            disk.die("before the ledger was read")
        if disk.dead or disk.chance(disk.failing):
            raise StoreUnavailable("the file cannot be opened")
        image = super().open(*args)
        if disk.chance(disk.crashing):
            disk.die("when the ledger had been read")
        return image

    def close(self) -> None:
        if self in self._disk.stores:
            self._disk.stores.remove(self)
            super().close()


class SimWriter(Writer):
    """The writer without its thread: a commit is a later step of the loop."""

    def __init__(self, disk: Disk, *args: Any) -> None:
        super().__init__(*args)
        self._disk = disk
        self._jobs = self  # type: ignore[assignment]

    def _run(self) -> None:
        """The thread has nothing to do."""

    def put(self, job: list[Any] | None) -> None:
        if job is not None:
            asyncio.get_running_loop().call_later(self._disk.rng.choice(COMMIT_S), self._commit, job)

    def _commit(self, job: list[Any]) -> None:
        disk = self._disk
        if disk.chance(disk.crashing):
            disk.die("before a commit")
        if disk.dead:
            return
        changes, records, rows = job
        if disk.chance(disk.failing):
            self._fail_next(disk.rng.choice(STAGES))
        good = True
        try:
            self._write(records, rows)
        except Exception:
            good = False
        if disk.chance(disk.crashing):
            disk.die("after a commit, which nobody has heard of")
        else:
            self._loop.call_soon(self._done, changes, good, 0.0)

    def _fail_next(self, stage: str) -> None:
        store: Store = self._write.__self__  # type: ignore[attr-defined]
        if store._connection is not None:
            store._connection = Failing(store._connection, stage)  # type: ignore[assignment]
