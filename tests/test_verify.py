"""`moma verify` on a ledger's file, with and without a gateway."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from gateway.charging.audit import MOST
from gateway.charging.ledger import open_ledger
from gateway.charging.tariffs import plain
from gateway.cli import main
from tests.charging.fakes import RATES, FakeClock, plan, quote, settle
from tests.charging.older import as_version
from tests.conftest import World
from tests.test_cli import Shell, shell

__all__ = ["shell"]


async def fill(path: Path, charges: int) -> None:
    ledger = await open_ledger(
        str(path), FakeClock(), "Asia/Shanghai", {"p": plan(10**6)}, plain("standard", {"m": RATES})
    )
    ledger.apply_plan("t", plan(10**6))
    for number in range(charges):
        await ledger.reserve(f"ch-{number}", quote(), clamp=False)
        ledger.dispatched(f"ch-{number}", "b", "m")
        await settle(ledger, f"ch-{number}", number + 1)
    await ledger.aclose()


def forge(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
        connection.commit()


async def test_books_that_are_right(shell: Shell) -> None:
    await fill(shell.ledger, 3)
    value = shell.json("verify")
    assert (value["records"], value["found"], value["differences"]) == (3, 0, [])
    assert shell.run("verify") == 0
    assert shell.out.splitlines() == [
        "3 records: prices, balances and the hash chain are right.",
        f"last hash {value['last_hash']}",
    ]


async def test_a_ledger_without_a_chain(shell: Shell) -> None:
    await fill(shell.ledger, 3)
    as_version(str(shell.ledger), 3)
    assert shell.run("verify") == 0
    assert shell.out.startswith("3 records: prices and balances are right.\nlast hash none: there is a chain when")


async def test_each_difference_names_its_record_and_field(shell: Shell) -> None:
    await fill(shell.ledger, 3)
    forge(shell.ledger, "UPDATE records SET charged = 7 WHERE seq = 2")
    assert shell.run("verify", "--json") == 1
    assert '{"check": "I8", "subject": "record 2", "field": "charged", "says": "has charged 7' in shell.out
    assert shell.run("verify") == 1
    for words in ("record 2", "charged", "I8", "I14", "hash", "account t", "settled_uc"):
        assert words in shell.out


async def test_of_very_many_differences_the_first_are_told(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.charging.audit.MOST", 2)
    await fill(shell.ledger, 4)
    forge(shell.ledger, "UPDATE records SET request_id = 'x'")
    assert shell.run("verify") == 1
    assert "4 differences in 4 records, 2 not shown" in shell.out
    assert MOST == 1_000


def test_a_ledger_that_is_not_there(shell: Shell) -> None:
    assert shell.run("verify") == 2
    assert "the ledger cannot be read" in shell.err
    assert not shell.ledger.exists()


async def test_a_gateway_that_serves_is_verified_exported_and_reconciled(world: World, tmp_path: Path) -> None:
    for _ in range(2):
        assert (await world.chat())[0] == 200
    routes = ("-c", str(world.path / "routes.yaml"))
    for command in (("verify",), ("reconcile",), ("export", str(tmp_path / "out"), "--all")):
        assert await asyncio.to_thread(main, [*command, *routes]) == 0
    assert len(list((tmp_path / "out").iterdir())) == 2


async def test_it_reads_while_a_ledger_is_open(shell: Shell) -> None:
    ledger = await open_ledger(
        str(shell.ledger), FakeClock(), "Asia/Shanghai", {"p": plan(10**6)}, plain("standard", {"m": RATES})
    )
    ledger.apply_plan("t", plan(10**6))
    await ledger.reserve("a", quote(), clamp=False)
    ledger.dispatched("a", "b", "m")
    await settle(ledger, "a", 3)
    assert shell.json("verify")["records"] == 1
    await ledger.aclose()
