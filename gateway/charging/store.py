"""The ledger's SQLite file: one connection writes and checkpoints, all others are read-only.

sqlite3 and OS errors end here, as StoreUnavailable.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sqlite3
from collections.abc import Iterator, Mapping
from itertools import chain as joined
from typing import Any, Final
from zoneinfo import ZoneInfo

from gateway.charging import cards, chain, loading
from gateway.charging.caps import Meter, used_before
from gateway.charging.image import Image
from gateway.charging.records import Row, public_record
from gateway.charging.schema import DDL, MIGRATIONS, RECORD_INSERTS, SCHEMA_VERSION, WRITES, rows_of, select_sql
from gateway.config.model import Plan
from gateway.errors import GatewayError, StoreUnavailable

BUSY_MS: Final = 250  # for another program that has locked the file, once it is open: calls wait for commits
CHECKPOINT_PAGES: Final = 4_000  # of 4 kB: a busy page is written back once for the many times that it changed
log = logging.getLogger(__name__)
Statements = list[tuple[str, list[Row]]]


class LockHeld(GatewayError):
    """Another process has the ledger open for writing."""


class Store:
    """State: the flock, the writing connection (None while broken), one that keeps the WAL open, the last record's
    hash, and `rates`.

    `rates` are those of the configuration; each open finds, or appends, the version of the card that has them.

    `write` and `open` run in other threads, never at the same time: there is one commit in flight, none while broken.
    """

    def __init__(self, path: str, rates: cards.Rates | None = None) -> None:
        self.path = real_path(path)
        self.rates = rates
        self._connection: sqlite3.Connection | None = None
        self._anchor: sqlite3.Connection | None = None
        self._last_hash = chain.GENESIS
        self._lock_file = _take_lock(f"{self.path}.lock")

    def open(self, plans: Mapping[str, Plan], zone: ZoneInfo, now_ms: int) -> Image:
        """A new connection, proven writable, and the image read from it. Raises StoreUnavailable."""
        try:
            self._drop()
            self._connection = self._connect()
            with transaction(self._connection):
                self._connection.execute("UPDATE meta SET opened = opened + 1")  # proves that the file takes writes
                image = loading.load(self._connection, plans, zone)
                image.card_version = cards.in_force(self._connection, self.rates, now_ms)
                loading.close_orphans(self._connection, image, now_ms)
                changes, records = image.take()
                before = (chain.head(self._connection) or chain.Head()).hash
                last_hash = self._execute(self._connection, chain.chained(before, records), rows_of(changes))
            self._last_hash = last_hash or before
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
        """One transaction. After a failure the handle is dropped: a failed fsync is never retried on it."""
        try:
            if self._connection is None:
                raise StoreUnavailable("the ledger's file is not open")
            linked = chain.chained(self._last_hash, records)
            with transaction(self._connection):
                last_hash = self._execute(self._connection, linked, rows)
            self._last_hash = last_hash or self._last_hash
        except (sqlite3.Error, OSError, OverflowError, TypeError) as error:  # the last two: an integer beyond 64 bits
            self._drop()
            raise StoreUnavailable(f"commit failed: {error}") from error

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

    def used_before(self, meters: list[Meter], now_ms: int) -> list[tuple[Meter, int, int]]:
        """As `caps.used_before`."""
        try:
            with contextlib.closing(read_only(self.path)) as connection:
                return used_before(connection, meters, now_ms)
        except sqlite3.Error as error:
            raise StoreUnavailable(f"the ledger cannot be read: {error}") from error

    def close(self) -> None:
        if self._anchor is not None:
            self._anchor.close()
            self._anchor = None
        self._drop()
        os.close(self._lock_file)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, cached_statements=128)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
            connection.executescript(DDL)
            _migrate(connection)
            connection.execute(f"PRAGMA busy_timeout={BUSY_MS}")
        except sqlite3.Error:
            connection.close()
            raise
        log.info("ledger %s opened with SQLite %s", self.path, sqlite3.sqlite_version)
        return connection

    def _execute(self, connection: sqlite3.Connection, records: list[Row], rows: Statements) -> str | None:
        """Returns the hash of the last record, if there is one."""
        for start in range(0, len(records), len(RECORD_INSERTS)):
            part = records[start : start + len(RECORD_INSERTS)]
            connection.execute(RECORD_INSERTS[len(part) - 1], list(joined.from_iterable(part)))
        for statement, values in rows:
            if values:
                connection.executemany(statement, values)
        if not records:
            return None
        seq, *_, last_hash = records[-1]
        connection.execute(WRITES["chain_head"], (seq, last_hash))
        return str(last_hash)

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
        return
    ((version,),) = versions
    if version > SCHEMA_VERSION:
        raise sqlite3.DatabaseError(f"schema version {version} is of a later gateway; this one knows {SCHEMA_VERSION}")
    for step in range(version + 1, SCHEMA_VERSION + 1):
        with transaction(connection):
            for statement in MIGRATIONS[step]:
                connection.execute(statement)
            if step == chain.SINCE_VERSION:
                log.info("the ledger's records are being chained: about 10 s for a million")
                chain.cover(connection)
            connection.execute("UPDATE meta SET schema_version = ?", (step,))
        log.info("the ledger's schema is of version %d now", step)


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
