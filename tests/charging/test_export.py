"""Exported files: closed once, chained to each other and to the ledger, the same bytes each time."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import sqlite3
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest

from gateway.charging.export import Exported, ExportRefused, export
from gateway.charging.records import RECORD_COLUMNS
from gateway.errors import StoreUnavailable
from tests.charging.fakes import FakeClock, opened
from tests.charging.older import as_version
from tests.charging.test_chain import changed, charge, void


async def filled(tmp_path: Path, first: int, last: int) -> str:
    ledger = await opened(tmp_path, FakeClock(), credits_uc=10**6)
    for number in range(first, last + 1):
        await charge(ledger, f"ch-{number}", number)
    await ledger.aclose()
    return f"{tmp_path}/l.db"


def exported(path: str, folder: Path, *, every: int = 3, form: str = "jsonl", whole: bool = False) -> Exported:
    return export(path, folder, form, every, whole=whole)


def data(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def spans(done: Exported) -> list[tuple[int, int]]:
    return [(manifest.first, manifest.last) for manifest in done.files]


async def test_only_full_files_are_closed_and_the_next_run_goes_on(tmp_path: Path) -> None:
    path, folder = await filled(tmp_path, 1, 7), tmp_path / "out"
    done = exported(path, folder)
    assert (spans(done), done.last, done.waiting) == ([(1, 3), (4, 6)], 6, 1)
    before = data(folder)
    assert exported(path, folder) == Exported([], 6, 1)
    assert data(folder) == before
    await filled(tmp_path, 8, 10)
    done = exported(path, folder)
    assert (spans(done), done.waiting) == ([(7, 9)], 1)
    assert before.items() <= data(folder).items()


@pytest.mark.parametrize("form", ["jsonl", "csv"])
async def test_the_same_records_are_the_same_bytes(tmp_path: Path, form: str) -> None:
    path = await filled(tmp_path, 1, 3)
    exported(path, tmp_path / "a", form=form)
    await filled(tmp_path, 4, 6)
    exported(path, tmp_path / "a", form=form)
    exported(path, tmp_path / "b", form=form)
    assert len(data(tmp_path / "a")) == 4
    assert data(tmp_path / "a") == data(tmp_path / "b")


async def test_a_file_that_was_closed_early_is_followed_by_the_rest_of_its_span(tmp_path: Path) -> None:
    path, folder = await filled(tmp_path, 1, 4), tmp_path / "out"
    assert spans(exported(path, folder, whole=True)) == [(1, 3), (4, 4)]
    assert exported(path, folder, whole=True) == Exported([], 4, 0)
    await filled(tmp_path, 5, 9)
    assert spans(exported(path, folder)) == [(5, 6), (7, 9)]


async def test_a_manifest_counts_sums_and_chains(tmp_path: Path) -> None:
    path, folder = await filled(tmp_path, 1, 6), tmp_path / "out"
    one, two = exported(path, folder).files
    content = (folder / two.file).read_bytes()
    manifest = json.loads((folder / f"{two.file}.manifest.json").read_bytes())
    assert (two.file, manifest["first"], manifest["last"]) == ("records-000000000004-000000000006.jsonl", 4, 6)
    assert (manifest["records"], manifest["charged"], manifest["overage"], manifest["cost"]) == (3, 15, 0, 30)
    assert manifest["before"] == one.last_hash
    assert (manifest["bytes"], manifest["sha256"]) == (len(content), sha256(content).hexdigest())
    records = [json.loads(line) for line in content.splitlines()]
    assert [record["seq"] for record in records] == [4, 5, 6]
    assert records[-1]["hash"] == manifest["last_hash"]
    assert records[0]["usage"] == {"output": 4}
    assert list(records[0]) == list(RECORD_COLUMNS)


async def test_csv_has_a_heading_and_the_columns_as_they_are_stored(tmp_path: Path) -> None:
    path, folder = await filled(tmp_path, 1, 3), tmp_path / "out"
    (manifest,) = exported(path, folder, form="csv").files
    with (folder / manifest.file).open(newline="") as file:
        rows = list(csv.reader(file))
    with closing(sqlite3.connect(path)) as connection:
        stored = connection.execute("SELECT * FROM records ORDER BY seq").fetchall()
    assert rows == [list(RECORD_COLUMNS), *(["" if value is None else str(value) for value in row] for row in stored)]


@pytest.mark.parametrize(
    ("hurt", "said"),
    [
        (lambda file: file.write_bytes(file.read_bytes().replace(b'"charged":1', b'"charged":2')), "was changed"),
        (lambda file: file.write_bytes(file.read_bytes()[:-1]), "was changed"),
        (lambda file: file.unlink(), "is gone"),
        (lambda file: Path(f"{file}.manifest.json").write_text("{"), "is not a manifest"),
        (lambda file: Path(f"{file}.manifest.json").unlink(), "does not follow record 0"),
    ],
)
async def test_a_file_that_was_changed_is_noticed(tmp_path: Path, hurt: object, said: str) -> None:
    path, folder = await filled(tmp_path, 1, 6), tmp_path / "out"
    file = folder / exported(path, folder).files[0].file
    assert callable(hurt)
    hurt(file)
    after = data(folder)
    with pytest.raises(ExportRefused, match=said):
        exported(path, folder)
    assert data(folder) == after


@pytest.mark.parametrize("seq", [3, 4, 6])
async def test_a_record_that_was_changed_is_not_exported(tmp_path: Path, seq: int) -> None:
    path = await filled(tmp_path, 1, 6)
    changed(path, f"UPDATE records SET request_id = 'x' WHERE seq = {seq}")
    with pytest.raises(ExportRefused, match=f"the hash of record {seq} does not verify"):
        exported(path, tmp_path / "other")
    assert [name for name in data(tmp_path / "other") if name.startswith(".")] == []


async def test_a_history_that_was_chained_anew_does_not_follow_what_was_exported(tmp_path: Path) -> None:
    path, folder = await filled(tmp_path, 1, 4), tmp_path / "out"
    exported(path, folder)
    os.unlink(path)
    with pytest.raises(ExportRefused, match="record 3 has another hash"):
        exported(await filled_otherwise(tmp_path), folder)
    os.unlink(path)
    with pytest.raises(ExportRefused, match="the ledger ends at 1: is it another"):
        exported(await filled(tmp_path, 1, 1), folder)


async def filled_otherwise(tmp_path: Path) -> str:
    ledger = await opened(tmp_path, FakeClock())
    for number in range(4):
        await void(ledger, f"other-{number}")
    await ledger.aclose()
    return f"{tmp_path}/l.db"


@pytest.mark.parametrize("forged", ["DELETE FROM records WHERE seq = 2", "DELETE FROM records WHERE seq = 3"])
async def test_a_gap_is_not_exported(tmp_path: Path, forged: str) -> None:
    path = await filled(tmp_path, 1, 3)
    changed(path, forged)
    with pytest.raises(ExportRefused, match="is not in the ledger"):
        exported(path, tmp_path / "out")


async def test_records_that_are_older_than_the_chain_have_their_hashes_too(tmp_path: Path) -> None:
    path = await filled(tmp_path, 1, 3)
    exported(path, tmp_path / "a")
    as_version(path, 3)
    with pytest.raises(StoreUnavailable, match="has no hash chain yet"):
        exported(path, tmp_path / "b")
    await filled(tmp_path, 4, 4)
    exported(path, tmp_path / "b")
    assert data(tmp_path / "a") == data(tmp_path / "b")


async def test_what_a_crash_left_is_written_again(tmp_path: Path) -> None:
    path, folder = await filled(tmp_path, 1, 3), tmp_path / "out"
    (manifest,) = exported(path, folder).files
    whole = data(folder)
    (folder / f"{manifest.file}.manifest.json").unlink()
    (folder / manifest.file).write_bytes(b"half")
    (folder / f".{manifest.file}.new").write_bytes(b"ha")
    exported(path, folder)
    assert data(folder) == whole


async def test_two_exports_do_not_write_at_once(tmp_path: Path) -> None:
    path, folder = await filled(tmp_path, 1, 3), tmp_path / "out"
    folder.mkdir()
    handle = os.open(folder, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(ExportRefused, match="another export"):
        exported(path, folder)
    os.close(handle)
    assert exported(path, folder).last == 3
