"""The hash chain over the charge records: each hash covers its record and the hash of the one before (I14).

hash = SHA-256(hash of the record before, as 64 hex digits, followed by the record's text). The text is the record's
columns as they are stored, in their order and without the hash, as a JSON array in UTF-8 without spaces; NULL at its
end is left out, so that columns which come later leave the texts of older records as they are.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

import orjson

from gateway.charging.records import RECORD_COLUMNS, Row
from gateway.charging.tables import has_table

GENESIS: Final = "0" * 64  # stands for the hash before record 1
SINCE_VERSION: Final = 4  # of the schema
KEPT_EVERY: Final = 1_000  # of the records that are older than the chain: where a change among them is looked for


@dataclass(frozen=True)
class Head:
    """The last record's number and hash. Of the first `covered` records, made before there was a chain, only every
    KEPT_EVERY-th and the last have a stored hash: the hashes of the others can be computed all the same."""

    seq: int = 0
    hash: str = GENESIS
    covered: int = 0

    def stored(self, seq: int) -> bool:
        """Whether the record must have its hash in the file."""
        return seq >= self.covered or seq % KEPT_EVERY == 0


def text(row: Row) -> bytes:
    """`row` without its hash. Raises TypeError for what no ledger writes."""
    last = len(row)
    while row[last - 1] is None:
        last -= 1
    return orjson.dumps(row[:last])


def link(before: str, row: Row) -> str:
    return sha256(before.encode() + text(row)).hexdigest()


def chained(before: str, rows: Iterable[Row]) -> list[Row]:
    """The rows with their hashes, in the order of RECORD_COLUMNS."""
    linked = []
    for row in rows:
        before = link(before, row)
        linked.append((*row, before))
    return linked


def head(connection: sqlite3.Connection) -> Head | None:
    """None of a file that is older than the chain: it is brought up to date when it is opened for writing."""
    if not has_table(connection, "chain_head"):
        return None
    row = connection.execute("SELECT seq, hash, covered FROM chain_head").fetchone()
    if row is None:
        raise sqlite3.DatabaseError("the hash chain has lost its head")
    return Head(*row)


def select_sql(connection: sqlite3.Connection) -> str:
    """Records in RECORD_COLUMNS, with NULL for those that are not in the file yet."""
    there = {name for _, name, *_ in connection.execute("PRAGMA table_info(records)")}
    columns = [name if name in there else f"NULL AS {name}" for name in RECORD_COLUMNS]
    return f"SELECT {', '.join(columns)} FROM records"  # noqa: S608 - names of this project


def begin(connection: sqlite3.Connection) -> None:
    """For a new file."""
    connection.execute("INSERT INTO chain_head (seq, hash, covered) VALUES (0, ?, 0)", (GENESIS,))


def cover(connection: sqlite3.Connection) -> None:
    """For the migration: the chain over all records there are, which reads each and changes one in KEPT_EVERY."""
    begin(connection)
    seq, before, kept = 0, GENESIS, []
    for row in connection.execute(f"{select_sql(connection)} ORDER BY seq"):
        seq, before = row[0], link(before, row[:-1])
        if seq % KEPT_EVERY == 0:
            kept.append((before, seq))
    connection.executemany("UPDATE records SET hash = ? WHERE seq = ?", [*kept, (before, seq)])
    connection.execute("UPDATE chain_head SET seq = ?, hash = ?, covered = ?", (seq, before, seq))
