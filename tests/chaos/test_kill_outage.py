"""kill -9 while the ledger's file takes no commits and calls go on: what was answered is charged, once."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
from pathlib import Path

import pytest

from gateway.demo.scripted import ScriptedBackend
from tests.chaos.gateway_process import GatewayProcess
from tests.chaos.test_kill import CLIENTS, ONLY_LONG, Books, Load, _invariants, _until_all_rest

SPARED = 0.3  # of the outages end before the kill


@pytest.mark.parametrize("kills", [6, pytest.param(60, marks=[pytest.mark.long, ONLY_LONG])])
async def test_kill_9_in_an_outage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kills: int) -> None:
    rng = random.Random(5)
    load_ = Load(rng)
    in_outage = 0
    async with ScriptedBackend() as backend:
        backend.script(load_.reply)
        gateway = GatewayProcess(tmp_path, backend.base_url, backend.base_url)
        text = gateway.routes.read_text()
        gateway.routes.write_text(text.replace('moma.db"}', 'moma.db", when_down: serve, exposure: 900000M}'))
        books = Books(gateway.ledger)
        await gateway.start()
        clients = [asyncio.create_task(load_.client(gateway.url, number)) for number in range(CLIENTS)]
        try:
            for _ in range(kills):
                load_.going.set()
                await asyncio.sleep(rng.uniform(0.02, 0.3))
                with contextlib.closing(sqlite3.connect(gateway.ledger, isolation_level=None)) as other:
                    other.execute("BEGIN IMMEDIATE")  # whoever holds it, the gateway cannot write
                    before = len(load_.complete)
                    await asyncio.sleep(rng.uniform(1.0, 2.0))
                    in_outage += len(load_.complete) - before
                    if rng.random() < SPARED:
                        other.execute("ROLLBACK")
                        await asyncio.sleep(rng.uniform(0.0, 2.0))
                    gateway.kill()
                load_.going.clear()
                await _until_all_rest(load_)
                backend.requests.clear()
                await gateway.start()
                assert (await gateway.usage())["reserved"] == "0"
                books.check(load_.complete)
        finally:
            gateway.kill()
            for task in clients:
                task.cancel()
            await asyncio.gather(*clients, return_exceptions=True)
    await _invariants(tmp_path, monkeypatch)
    assert load_.twice == []
    assert in_outage > kills * 5, "the gateway was never under load"
    print(
        f"\n{kills} kills, {len(load_.complete)} complete answers, {in_outage} of them in outages, "
        f"{books.charges} charges"
    )
