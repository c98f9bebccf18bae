"""`moma reconcile`, and the hourly look of a gateway that serves."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.conftest import World
from tests.test_cli import Shell, shell
from tests.test_verify import fill, forge

__all__ = ["shell"]

MAP = "day=date,model=model,output=out"


async def test_records_against_balances(shell: Shell) -> None:
    await fill(shell.ledger, 3)
    assert shell.json("reconcile") == {"differences": []}
    assert shell.run("reconcile") == 0
    assert "agree" in shell.out
    forge(shell.ledger, "UPDATE grants SET spent = 7")
    assert shell.run("reconcile") == 1
    assert "grant g00000001" in shell.out
    assert "has spent 7, not 6" in shell.out


async def test_records_against_a_provider(shell: Shell, tmp_path: Path) -> None:
    await fill(shell.ledger, 3)
    file = tmp_path / "usage.csv"
    file.write_text("date,model,out\n2023-11-15,m,6\n")
    args = ("reconcile", "--provider", "b", "--file", str(file), "--map", MAP)
    value = shell.json(*args)
    assert (value["totals"], value["unexplained"]) == ({"output": {"ours": 6, "theirs": 6, "difference": 0}}, 0)
    file.write_text("date,model,out\n2023-11-15,m,9\n")
    assert shell.run(*args) == 1
    for words in ("2023-11-15", "+3", "none", "output: ours 6, theirs 9, difference +3", "1 are not explained"):
        assert words in shell.out


async def test_wrong_use(shell: Shell, tmp_path: Path) -> None:
    assert shell.run("reconcile") == 2  # no ledger
    await fill(shell.ledger, 1)
    assert shell.run("reconcile", "--provider", "b") == 2
    assert "belong together" in shell.err
    file = tmp_path / "usage.csv"
    assert shell.run("reconcile", "--provider", "x", "--file", str(file), "--map", MAP) == 2
    assert "There is no backend 'x'. Known: a, b." in shell.err
    assert shell.run("reconcile", "--provider", "b", "--file", str(file), "--map", MAP) == 2
    assert "cannot be read: No such file" in shell.err
    file.write_text("date,model,out\n2023-11-15,m,x\n")
    assert shell.run("reconcile", "--provider", "b", "--file", str(file), "--map", MAP) == 2
    assert "line 2: out is a whole number" in shell.err


async def test_a_gateway_looks_by_itself(world: World, caplog: pytest.LogCaptureFixture) -> None:
    def shown() -> float | None:
        return world.app.metrics.registry.get_sample_value("moma_reconcile_differences")

    assert (await world.chat())[0] == 200
    await world.app.reconcile()
    assert shown() == 0
    ledger = world.path / "moma.db"
    forge(ledger, "UPDATE entries SET uc = uc + 1")
    with caplog.at_level(logging.ERROR):
        await world.app.reconcile()
    assert shown() == 1
    assert "the ledger differs: I5: grant g00000001 has granted" in caplog.text
    forge(ledger, "ALTER TABLE entries RENAME TO moved")
    await world.app.reconcile()
    assert shown() == -1
    forge(ledger, "ALTER TABLE moved RENAME TO entries")
