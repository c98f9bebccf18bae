"""Charge records as files that are closed for good: named by their numbers, chained, the same bytes each time.

A file is written under another name, made durable and renamed, then its manifest likewise: who finds a manifest finds a
whole file. Files end at multiples of `every`, whenever and however often they are exported.
"""

from __future__ import annotations

import contextlib
import csv
import fcntl
import io
import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any, Final

import orjson

from gateway.charging import chain
from gateway.charging.records import JSON_COLUMNS, RECORD_COLUMNS, Row
from gateway.charging.store import read_only
from gateway.errors import StoreUnavailable

EVERY: Final = 50_000
FORMATS: Final = ("jsonl", "csv")
MANIFEST: Final = ".manifest.json"
SUMS: Final = ("charged", "overage", "cost")


class ExportRefused(Exception):
    """What is there does not fit together: nothing was written over it."""


@dataclass(slots=True)
class Manifest:
    """`before` is the hash before the first record, `charged` and `overage` are micro-credits, `cost` micro-units."""

    file: str
    first: int
    last: int = 0
    records: int = 0
    charged: int = 0
    overage: int = 0
    cost: int = 0
    before: str = chain.GENESIS
    last_hash: str = chain.GENESIS
    bytes: int = 0
    sha256: str = ""


@dataclass(frozen=True)
class Exported:
    """`last` is the number up to which there are files, `waiting` how many records come after it."""

    files: list[Manifest] = field(default_factory=list)  # new ones
    last: int = 0
    waiting: int = 0


def export(
    db_path: str, folder: Path, form: str, every: int, *, whole: bool, seen: Callable[[int], None] = lambda seq: None
) -> Exported:
    """Closes what is full, and with `whole` what is not. Raises ExportRefused, StoreUnavailable, OSError."""
    with _locked(folder):
        last = _checked(folder, form)
        try:
            with contextlib.closing(read_only(db_path)) as connection:
                head = _head(connection)
                _check_joint(connection, head, last)
                files = []
                while (end := _end(last.last, every, head.seq, whole)) is not None:
                    last = _written(connection, head, folder, form, last, end)
                    files.append(last)
                    seen(last.last)
        except sqlite3.Error as error:
            raise StoreUnavailable(f"the ledger cannot be read: {error}") from error
    return Exported(files, last.last, head.seq - last.last)


def _end(last: int, every: int, head: int, whole: bool) -> int | None:
    """The last number of the next file; None when there is none to close."""
    end = (last // every + 1) * every
    if end <= head:
        return end
    return head if whole and head > last else None


def _head(connection: sqlite3.Connection) -> chain.Head:
    head = chain.head(connection)
    if head is None:
        raise StoreUnavailable(
            "the ledger has no hash chain yet: it gets one when this version first opens it to serve"
        )
    return head


# -- what is there ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise ExportRefused(f"another export into {folder} is running") from error
    finally:
        os.close(handle)


def _checked(folder: Path, form: str) -> Manifest:
    """The last file that is closed; each of them is as it was written, and joins the one before."""
    last = Manifest("", 1)
    for path in sorted(folder.glob(f"records-*.{form}{MANIFEST}")):
        manifest = _manifest(path)
        if (manifest.first, manifest.before) != (last.last + 1, last.last_hash):
            raise ExportRefused(f"{manifest.file} does not follow record {last.last}: a file is missing, or changed")
        _check_file(folder / manifest.file, manifest)
        last = manifest
    return last


def _manifest(path: Path) -> Manifest:
    try:
        manifest = Manifest(**json.loads(path.read_bytes()))
    except (ValueError, TypeError) as error:
        raise ExportRefused(f"{path.name} is not a manifest any more") from error
    if f"{manifest.file}{MANIFEST}" != path.name:
        raise ExportRefused(f"{path.name} is the manifest of {manifest.file}")
    return manifest


def _check_file(path: Path, manifest: Manifest) -> None:
    try:
        with path.open("rb") as file:
            digest = file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise ExportRefused(f"{path.name} is gone; its manifest is there") from error
    if digest != manifest.sha256:
        raise ExportRefused(f"{path.name} was changed: its SHA-256 is {digest}, not {manifest.sha256}")


def _check_joint(connection: sqlite3.Connection, head: chain.Head, last: Manifest) -> None:
    """The ledger still has the history that was exported."""
    if last.last > head.seq:
        raise ExportRefused(
            f"record {last.last} was exported, and the ledger ends at {head.seq}: is it another ledger?"
        )
    for (stored,) in connection.execute("SELECT hash FROM records WHERE seq = ?", (last.last,)):
        if head.stored(last.last) and stored != last.last_hash:
            raise ExportRefused(f"record {last.last} has another hash than when it was exported: see moma verify")


# -- a new file ---------------------------------------------------------------------------------------------------


def _written(
    connection: sqlite3.Connection, head: chain.Head, folder: Path, form: str, last: Manifest, end: int
) -> Manifest:
    first = last.last + 1
    name = f"records-{first:012d}-{end:012d}.{form}"
    manifest = Manifest(name, first, last.last, before=last.last_hash, last_hash=last.last_hash)
    digest = sha256()
    with _durable(folder / name) as file:
        for line in _lines(connection, head, form, manifest, end):
            digest.update(line)
            manifest.bytes += file.write(line)
    manifest.sha256 = digest.hexdigest()
    with _durable(folder / f"{name}{MANIFEST}") as file:
        file.write(json.dumps(asdict(manifest), indent=2).encode() + b"\n")
    return manifest


def _lines(
    connection: sqlite3.Connection, head: chain.Head, form: str, manifest: Manifest, end: int
) -> Iterator[bytes]:
    """Also counts the records into the manifest, and follows the chain."""
    encoded = _json_line if form == "jsonl" else _csv_line
    if form == "csv":
        yield _csv_line(RECORD_COLUMNS)
    sql = f"{chain.select_sql(connection)} WHERE seq BETWEEN ? AND ? ORDER BY seq"
    for row in connection.execute(sql, (manifest.first, end)):
        record = dict(zip(RECORD_COLUMNS, row, strict=True))
        manifest.last_hash = _linked(row, manifest, head)
        manifest.last, manifest.records = record["seq"], manifest.records + 1
        for name in SUMS:
            setattr(manifest, name, getattr(manifest, name) + record[name])
        yield encoded((*row[:-1], manifest.last_hash))
    if manifest.last != end:
        raise ExportRefused(f"record {manifest.last + 1} is not in the ledger: see moma verify")


def _linked(row: Row, manifest: Manifest, head: chain.Head) -> str:
    seq, stored = row[0], row[-1]
    if seq != manifest.last + 1:
        raise ExportRefused(f"record {manifest.last + 1} is not in the ledger: see moma verify")
    try:
        computed = chain.link(manifest.last_hash, row[:-1])
    except TypeError:
        computed = ""
    if not computed or (head.stored(seq) and stored != computed):
        raise ExportRefused(f"the hash of record {seq} does not verify: see moma verify")
    return computed


def _json_line(row: Row) -> bytes:
    record = dict(zip(RECORD_COLUMNS, row, strict=True))
    for name in JSON_COLUMNS:
        if record[name] is not None:
            record[name] = orjson.Fragment(record[name])
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)


def _csv_line(row: Row) -> bytes:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(row)
    return line.getvalue().encode()


@contextlib.contextmanager
def _durable(path: Path) -> Iterator[Any]:
    """A file that is there whole or not at all."""
    new = path.with_name(f".{path.name}.new")
    try:
        with new.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
