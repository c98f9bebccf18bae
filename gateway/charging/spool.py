"""Where commits wait while the ledger's file cannot be written: a file beside it, made ahead in its full size.

An entry is the length and the CRC-32 of a commit, and the commit as JSON. Entries follow each other from the start, and
their numbers too: what comes behind the last one is of an outage before, or torn.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import struct
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final
from zlib import crc32

import orjson

from gateway.charging.schema import SET_HEAD

SPOOL_BYTES: Final = 16 * 1024 * 1024  # some 25,000 charges
KEPT_FREE: Final = 4 * 1024 * 1024  # for the calls in flight: new ones are not taken beyond it
LARGEST: Final = 2**63  # integers of SQLite
_HEAD: Final = struct.Struct("<II")
_NUMBER: Final = "SELECT batch, hash FROM chain_head"
_COUNTED: Final = "UPDATE chain_head SET batch = ?"


@dataclass(frozen=True, slots=True)
class Commit:
    """A transaction of the ledger: `number` counts them, `before` and `last` are hashes of the chain of records."""

    number: int
    before: str
    last: str
    rows: Sequence[tuple[str, Sequence[Sequence[Any]]]]  # by statement


class Spool:
    """State: the file (None while there is none that can be relied on), and where its next entry begins."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.used = 0
        self._file: int | None = None

    def open(self) -> list[Commit]:
        """What waits in it. Makes the file where there is none. Raises OSError where the disk has no room for it."""
        self._drop()
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        _take_room(self._file)
        _sync_folder(self.path)
        return list(self.commits())

    def commits(self) -> Iterator[Commit]:
        """In order; the next entry goes behind the last of them."""
        assert self._file is not None
        data = os.pread(self._file, SPOOL_BYTES, 0)
        self.used, number = 0, None
        for commit, end in _entries(data):
            if number is not None and commit.number != number + 1:
                return
            self.used, number = end, commit.number
            yield commit

    def append(self, commit: Commit) -> None:
        """Durable when this returns. Raises OSError, TypeError for what no file can keep.

        After a failure the handle is given up: a failed fsync is never retried on it.
        """
        _check(commit)
        body = orjson.dumps(asdict(commit))
        entry = _HEAD.pack(len(body), crc32(body)) + body
        if self._file is None:
            raise OSError("the spool is not open")
        if not os.fstat(self._file).st_nlink:
            raise OSError("somebody has deleted the spool")
        if self.used + len(entry) > SPOOL_BYTES:
            raise OSError("the spool is full")
        try:
            written = os.pwrite(self._file, entry, self.used)
            os.fdatasync(self._file)
        except OSError:
            self._drop()
            raise
        if written < len(entry):
            raise OSError("the spool took a part of a commit only")
        self.used += len(entry)

    def clear(self) -> None:
        """All of it is in the ledger's file."""
        if self._file is not None and self.used:
            os.pwrite(self._file, _HEAD.pack(0, 0), 0)
            os.fdatasync(self._file)
        self.used = 0

    def close(self) -> None:
        """Leaves nothing behind where nothing waits."""
        if self._file is not None and not self.used:
            with contextlib.suppress(OSError):
                os.unlink(self.path)
        self._drop()

    def _drop(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.close(self._file)
            self._file = None


def _take_room(file: int) -> None:
    """Blocks of the disk for all of it, so that a full one does not matter later."""
    try:
        os.posix_fallocate(file, 0, SPOOL_BYTES)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # a file system that cannot be asked for them
            raise
        size = os.fstat(file).st_size
        os.pwrite(file, bytes(max(0, SPOOL_BYTES - size)), size)
    os.fsync(file)


def _sync_folder(path: str) -> None:
    """That a new file is there at all is to outlive a power cut."""
    folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def replay(connection: sqlite3.Connection, commits: Sequence[Commit]) -> tuple[int, str]:
    """Writes those that are not in the file yet; returns the number of the last commit, and the last record's hash.

    One that failed may be in the file after all: its number says so. Raises DatabaseError for a spool that is not of
    this file's history.
    """
    number, last = connection.execute(_NUMBER).fetchone()
    for commit in commits:
        if commit.number <= number and _has(connection, commit):
            continue
        if (commit.number, commit.before) != (number + 1, last):
            raise sqlite3.DatabaseError(
                f"its spool holds commit {commit.number}, which does not follow commit {number} of this file: it is of "
                "another ledger, or another copy of it. Move the spool aside to go on without what waits in it"
            )
        for statement, rows in commit.rows:
            connection.executemany(statement, rows)
        number, last = commit.number, commit.last
    connection.execute(_COUNTED, (number,))
    return number, last


def _has(connection: sqlite3.Connection, commit: Commit) -> bool:
    """Whether the file has the last record of a commit, if it has any."""
    heads = [row for statement, rows in commit.rows if statement == SET_HEAD for row in rows]
    sql = "SELECT 1 FROM records WHERE seq = ? AND hash = ?"
    return all(connection.execute(sql, head).fetchone() is not None for head in heads)


def _entries(data: bytes) -> Iterator[tuple[Commit, int]]:
    """Each with where it ends, up to the first that is torn."""
    start = 0
    while start + _HEAD.size <= len(data):
        length, crc = _HEAD.unpack_from(data, start)
        end = start + _HEAD.size + length
        body = data[start + _HEAD.size : end]
        if not length or end > len(data) or crc32(body) != crc:
            return
        yield Commit(**orjson.loads(body)), end
        start = end


def _check(commit: Commit) -> None:
    """JSON takes larger integers than the ledger's file does."""
    for _, rows in commit.rows:
        for row in rows:
            for value in row:
                if type(value) is int and not -LARGEST <= value < LARGEST:
                    raise TypeError("an integer beyond 64 bits")
