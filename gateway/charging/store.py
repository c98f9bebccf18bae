"""The ledger's SQLite file: one connection writes and checkpoints, all others are read-only.

sqlite3 and OS errors end here, as StoreUnavailable.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain as joined
from typing import Any, Final
from zoneinfo import ZoneInfo

from gateway.charging import cards, chain, loading
from gateway.charging.cap_records import Used, used_before
from gateway.charging.caps import Meter
from gateway.charging.image import Image
from gateway.charging.records import Row, public_record
from gateway.charging.schema import (
    COMMIT_NUMBER,
    DDL,
    MIGRATIONS,
    RECORD_INSERTS,
    SCHEMA_VERSION,
    SET_HEAD,
    WRITES,
    rows_of,
    select_sql,
)
from gateway.charging.spool import KEPT_FREE, SPOOL_BYTES, Commit, Spool, replay
from gateway.charging.tariffs import Tariffs
from gateway.config.model import Plan
from gateway.errors import GatewayError, StoreUnavailable

BUSY_S: Final = 0.5  # for a file that another process has locked: the answers of a commit wait for it
LOOK_BUSY_S: Final = 0.05  # the same for a look whether it takes commits again: there will be another
CHECKPOINT_PAGES: Final = 4_000  # of 4 kB: a busy page is written back once for the many times that it changed
log = logging.getLogger(__name__)
Statements = list[tuple[str, list[Row]]]
DEFECTS: Final = (  # of a commit, not of the file: no other time will take it
    sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError, sqlite3.DataError, OverflowError,
    TypeError,
)  # fmt: skip


class LockHeld(GatewayError):
    """Another process has the ledger open for writing."""


class Store:
    """State: the flock, the writing connection (None while `down` or broken), one that keeps the WAL open, the spool,
    the number of the last commit and the hash of the last record, and `cards`.

    While it is `down`, commits go to the spool; when `try_again` is set, the next one looks first whether the file
    takes writes again.

    `cards` are those of the configuration; each open finds, or appends, the versions that they have.

    `write` and `open` run in other threads, never at the same time: there is one commit in flight, none while broken.
    """

    def __init__(self, path: str, wanted: Tariffs | None = None) -> None:
        self.path = real_path(path)
        self.cards = dict(wanted or {})
        self._connection: sqlite3.Connection | None = None
        self._anchor: sqlite3.Connection | None = None
        self.down = self.try_again = False
        self._last_hash, self._number = chain.GENESIS, 0
        self._spool = Spool(f"{self.path}.spool")
        self._lock_file = _take_lock(f"{self.path}.lock")

    def open(self, plans: Mapping[str, Plan], zone: ZoneInfo, now_ms: int) -> Image:
        """A new connection, proven writable, and the image read from it. Raises StoreUnavailable."""
        try:
            self._drop()
            waiting = self._spool.open()
            self._connection = self._connect()
            with transaction(self._connection):
                self._connection.execute("UPDATE meta SET opened = opened + 1")  # proves that the file takes writes
                number, before = replay(self._connection, waiting)
                image = loading.load(self._connection, plans, zone, now_ms)
                image.cards = cards.append(self._connection, image.cards, self.cards, now_ms)
                loading.close_orphans(self._connection, image, now_ms)
                changes, records = image.take()
                linked = chain.chained(before, records)
                self._execute(self._connection, linked, rows_of(changes), number + 1)
            self._number, self._last_hash = number + 1, _last(linked, before)
            self._spool.clear()
            self.down = False
            self._mark_durable(changes)
            if self._anchor is None:
                self._anchor = read_only(self.path)
                self._anchor.execute("SELECT schema_version FROM meta").fetchall()
            return image
        except (
            sqlite3.Error,
            OSError,
            KeyError,
            ValueError,
            TypeError,
        ) as error:  # the last three: rows that are damaged
            self._drop()
            raise StoreUnavailable(f"the ledger {self.path} cannot be used: {error}") from error

    def write(self, records: list[Row], rows: Statements) -> None:
        """One transaction, durable when this returns: in the file, or in the spool while that takes none.

        Raises StoreUnavailable when it is in neither, or only the file can tell.
        """
        if self.try_again:
            self._look_again()
        linked = chain.chained(self._last_hash, records)
        number, last = self._number + 1, _last(linked, self._last_hash)
        if self.down and not linked and not any(values for _, values in rows):
            return  # it was for the look alone
        if self.down or not self._written(linked, rows, number):
            self._put_aside(Commit(number, self._last_hash, last, _statements(linked, rows)))
        self._number, self._last_hash = number, last

    def _written(self, linked: list[Row], rows: Statements, number: int) -> bool:
        """False when the file takes no commit. After a failure the handle is dropped: a failed fsync is never retried
        on it."""
        try:
            if self._connection is None:
                raise StoreUnavailable("the ledger's file is not open")
            with transaction(self._connection):
                self._execute(self._connection, linked, rows, number)
            return True
        except DEFECTS as error:
            self._drop()
            raise StoreUnavailable(f"commit failed: {error}") from error
        except (sqlite3.Error, OSError) as error:
            log.error("the ledger %s takes no commits, so they go to its spool: %s", self.path, error)
            self._drop()
            self.down = True
            return False

    def _put_aside(self, commit: Commit) -> None:
        try:
            self._spool.append(commit)
        except (OSError, TypeError) as error:
            raise StoreUnavailable(f"commit failed, and the spool took none: {error}") from error

    def _look_again(self) -> None:
        """Whether the file takes writes: what waits in the spool is the first of them."""
        self.try_again = False
        if not self.down:
            return
        try:
            self._connection = self._connect(LOOK_BUSY_S)
            with transaction(self._connection):
                self._connection.execute("UPDATE meta SET opened = opened + 1")
                if replay(self._connection, list(self._spool.commits())) != (self._number, self._last_hash):
                    raise sqlite3.DatabaseError("this is not the file that was written before")
            self._connection.execute(f"PRAGMA busy_timeout={BUSY_S * 1000:.0f}")
            self._spool.clear()
            self.down = False  # last: the loop looks at it meanwhile
            log.warning("the ledger %s takes commits again, and has what waited in the spool", self.path)
        except (sqlite3.Error, OSError) as error:
            log.warning("the ledger %s takes no commits yet: %s", self.path, error)
            self._drop()

    @property
    def spooled_bytes(self) -> int:
        return self._spool.used

    @property
    def roomy(self) -> bool:
        """The spool has room for more than the calls that are in flight."""
        return self._spool.used <= SPOOL_BYTES - KEPT_FREE

    def charges(self, tenant: str, after: int, limit: int) -> dict[str, Any]:
        """Records of a tenant with seq > after; `next` is None at the end."""
        sql = f"{select_sql('records')} WHERE tenant = ? AND seq > ? ORDER BY seq LIMIT ?"
        try:
            with contextlib.closing(read_only(self.path)) as connection:
                rows = connection.execute(sql, (tenant, after, limit)).fetchall()
        except sqlite3.Error as error:
            raise StoreUnavailable(f"the ledger cannot be read: {error}") from error
        data = [public_record(row) for row in rows]
        return {"data": data, "next": data[-1]["seq"] if len(data) == limit and data else None}

    def used_before(self, meters: Sequence[Meter]) -> Used:
        """As `cap_records.used_before`. Raises StoreUnavailable."""
        try:
            with contextlib.closing(read_only(self.path)) as connection:
                return used_before(connection, meters)
        except sqlite3.Error as error:
            raise StoreUnavailable(f"the ledger cannot be read: {error}") from error

    def close(self) -> None:
        if self._anchor is not None:
            self._anchor.close()
            self._anchor = None
        self._drop()
        self._spool.close()
        os.close(self._lock_file)

    def _connect(self, busy_s: float = BUSY_S) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=busy_s, isolation_level=None, check_same_thread=False, cached_statements=128
        )
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
            connection.executescript(DDL)
            _migrate(connection)
        except sqlite3.Error:
            connection.close()
            raise
        log.info("ledger %s opened with SQLite %s", self.path, sqlite3.sqlite_version)
        return connection

    def _execute(self, connection: sqlite3.Connection, records: list[Row], rows: Statements, number: int) -> None:
        for start in range(0, len(records), len(RECORD_INSERTS)):
            part = records[start : start + len(RECORD_INSERTS)]
            connection.execute(RECORD_INSERTS[len(part) - 1], list(joined.from_iterable(part)))
        for statement, values in rows:
            if values:
                connection.executemany(statement, values)
        if records:
            seq, *_, last_hash = records[-1]
            connection.execute(WRITES["chain_head"], (seq, last_hash, number))
        else:
            connection.execute(WRITES["counted"], (number,))

    def _drop(self) -> None:
        # The anchor is open, so this close is not the last one and does not checkpoint on a doubtful handle.
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def _mark_durable(self, changes: Any) -> None:
        for receipt, _, _ in changes.closings:
            receipt.durable = True


def _migrate(connection: sqlite3.Connection) -> None:
    """One version at a time, each whole or not at all."""
    versions = connection.execute("SELECT schema_version FROM meta").fetchall()
    if not versions:
        with transaction(connection):
            connection.execute("INSERT INTO meta VALUES (?, 0)", (SCHEMA_VERSION,))
            chain.begin(connection)
            connection.execute(COMMIT_NUMBER)
        return
    ((version,),) = versions
    if version > SCHEMA_VERSION:
        raise sqlite3.DatabaseError(f"schema version {version} is of a later gateway; this one knows {SCHEMA_VERSION}")
    for step in sorted(step for step in MIGRATIONS if step > version):
        with transaction(connection):
            for statement in MIGRATIONS[step]:
                connection.execute(statement)
            if step == chain.SINCE_VERSION:
                log.info("the ledger's records are being chained: about 10 s for a million")
                chain.cover(connection)
            connection.execute("UPDATE meta SET schema_version = ?", (step,))
        log.info("the ledger's schema is of version %d now", step)


def _last(linked: list[Row], before: str) -> str:
    return str(linked[-1][-1]) if linked else before


def _statements(linked: list[Row], rows: Statements) -> Statements:
    """All of a commit as it can be written later, by any version of the gateway."""
    found = [(statement, values) for statement, values in rows if values]
    if linked:
        found = [(WRITES["records"], linked), (SET_HEAD, [(linked[-1][0], linked[-1][-1])]), *found]
    return found


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """BEGIN IMMEDIATE ... COMMIT, or ROLLBACK and the error."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def real_path(path: str) -> str:
    """Where the ledger is. All symbolic links to one file must lead to one lock beside it."""
    return os.path.realpath(path)


def read_only(path: str) -> sqlite3.Connection:
    """A connection that can neither write nor checkpoint."""
    uri = f"file:{_quoted(real_path(path))}?mode=ro"
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)


def _quoted(path: str) -> str:
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _take_lock(path: str) -> int:
    try:
        lock_file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreUnavailable(f"cannot open {path}: {error}") from error
    try:
        fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock_file)
        raise LockHeld(f"{path} is held by another process: is a gateway already running on this ledger?") from error
    return lock_file
