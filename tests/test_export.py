"""`moma export`: what it prints, and its exit codes."""

from __future__ import annotations

from pathlib import Path

from tests.test_cli import Shell, shell
from tests.test_verify import fill, forge

__all__ = ["shell"]


async def test_files_are_named_and_what_waits_too(shell: Shell, tmp_path: Path) -> None:
    await fill(shell.ledger, 5)
    folder = tmp_path / "out"
    assert shell.run("export", str(folder), "--every", "2") == 0
    lines = shell.out.splitlines()
    assert [line.split()[0] for line in lines[:2]] == [
        "records-000000000001-000000000002.jsonl",
        "records-000000000003-000000000004.jsonl",
    ]
    assert lines[2] == "records 5 to 5 wait until their file is full; --all closes it now"
    value = shell.json("export", str(folder), "--every", "2", "--all")
    assert [(each["first"], each["last"]) for each in value["files"]] == [(5, 5)]
    assert (value["last"], value["waiting"]) == (5, 0)
    assert shell.run("export", str(folder), "--every", "2") == 0
    assert shell.out == "no new file\n"


async def test_what_does_not_fit_is_a_no(shell: Shell, tmp_path: Path) -> None:
    await fill(shell.ledger, 2)
    forge(shell.ledger, "UPDATE records SET cost = 0 WHERE seq = 2")
    assert shell.run("export", str(tmp_path / "out"), "--all") == 1
    assert "the hash of record 2 does not verify" in shell.err


def test_wrong_use(shell: Shell, tmp_path: Path) -> None:
    assert shell.run("export", str(tmp_path / "out")) == 2
    assert shell.run("export", str(tmp_path / "out"), "--every", "0") == 2
    assert shell.run("export", str(shell.routes)) == 2
    assert "cannot write to" in shell.err
