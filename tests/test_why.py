"""`moma why`: by the file, and by a gateway that runs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.cli import main
from tests.conftest import ADMIN_KEY, World
from tests.test_cli import Shell, shell
from tests.test_verify import fill

__all__ = ["shell"]


async def test_a_charge_is_explained_from_the_file(shell: Shell) -> None:
    await fill(shell.ledger, 2)
    assert shell.json("why", "ch-1")["record"]["charged"] == "0.000002"
    assert shell.run("why", "r") == 0
    for words in (
        "charge ch-1, record 2, request r", "chat of m, 2023-11-14T22:13:20Z", "m on b", "0.0002 credits",
        "0.000198 went back", "Price by card standard, version 1", "x 0.000001", "= 0.000002", "it comes first",
        "the only one that was there", "other charges of this request: ch-0",
    ):  # fmt: skip
        assert words in shell.out


async def test_a_charge_that_is_not_there(shell: Shell) -> None:
    await fill(shell.ledger, 1)
    assert shell.run("why", "ch-9") == 1
    assert "no charge or request 'ch-9'" in shell.err


async def test_a_running_gateway_explains_it(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, _, answer = await world.chat()
    record: dict[str, Any]
    [record] = await world.charges()
    assert answer
    monkeypatch.setenv("MOMA_ADMIN_KEY", ADMIN_KEY)
    args = ["why", record["request_id"], "-c", str(world.path / "routes.yaml"), "--url", world.url.removesuffix("/v1")]
    assert await asyncio.to_thread(main, args) == 0
    assert f"charge {record['charge_id']}, record 1" in capsys.readouterr().out
    assert "hash" in record
