"""The ledger's file and its spool: commits take time, fail at each of their stages, and processes die at them."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gateway.charging.spool import Commit, Spool
from gateway.charging.store import BUSY_S, Store
from gateway.charging.writer import Writer
from gateway.errors import StoreUnavailable
from tests.charging.fakes import Failing

COMMIT_S = (0.0005, 0.0005, 0.001, 0.003, 0.02, 0.06, 0.4)
STAGES = ("begin", "execute", "commit", "after commit")
SPOOL_STAGES = ("not at all", "in part", "whole")  # what a failed append has left in the spool
SPOOL_BYTES = 48 * 1024  # of a life: it is full at times
KEPT_FREE = 12 * 1024
GOES_ON = 0.5  # the share of looks at a file that failed which find that it still does


@dataclass
class Disk:
    """What one process finds: `dead` is the process, whose crash `crash` tells. State: the stores that it opened."""

    rng: random.Random
    failing: float  # shares of commits
    crashing: float
    spool_failing: float = 0.0  # of those that go to the spool
    crash: Callable[[str], None] = lambda why: None
    dead: bool = False
    stores: list[Store] = field(default_factory=list)
    count: Callable[[str], None] = lambda what: None  # of what happens to it, which shows that it does

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

    def _connect(self, busy_s: float = BUSY_S) -> sqlite3.Connection:
        """A look whether the file takes commits again may find that it does not, or fail in the middle of replaying."""
        disk = self._disk
        if self.down and disk.failing and disk.chance(GOES_ON):
            raise sqlite3.OperationalError("unable to open database file")
        connection = super()._connect(busy_s)
        if self.down and disk.chance(disk.failing):
            return Failing(connection, disk.rng.choice(STAGES))  # type: ignore[return-value]
        return connection

    def close(self) -> None:
        if self in self._disk.stores:
            self._disk.stores.remove(self)
            super().close()


class SimSpool(Spool):
    """A spool that may take no entry, or a part of one, and whose process may die between it and the file."""

    def __init__(self, disk: Disk, *args: Any) -> None:
        super().__init__(*args)
        self._disk = disk

    def append(self, commit: Commit) -> None:
        disk = self._disk
        began = self.used
        if disk.chance(disk.crashing):
            super().append(commit)
            self._tear(began)
            disk.die("in the middle of an entry of the spool")
            raise OSError("nobody is there any more")
        if disk.chance(disk.spool_failing):
            left = disk.rng.choice(SPOOL_STAGES)
            if left != "not at all":
                super().append(commit)
            if left == "in part":
                self._tear(began)
            self._drop()
            raise OSError("the disk of the spool fails")
        super().append(commit)
        disk.count("a commit went to the spool")

    def clear(self) -> None:
        disk, waited = self._disk, self.used
        if waited and disk.chance(disk.crashing):
            disk.die("when the file had what the spool still has")
            raise OSError("nobody is there any more")
        if waited and disk.chance(disk.spool_failing):
            raise OSError("the disk of the spool fails")
        super().clear()
        if waited:
            disk.count("the file has what waited in the spool")

    def close(self) -> None:
        """A process that has died takes nothing away."""
        if self._disk.dead:
            self._drop()
        else:
            super().close()

    def _tear(self, began: int) -> None:
        """The last bytes of the entry have not reached the disk."""
        assert self._file is not None
        lost = self._disk.rng.randint(1, self.used - began)
        os.pwrite(self._file, bytes(lost), self.used - lost)


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
