"""Months that are cut while the wall clock is behind the accounts: whoever was charged has its statement."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from gateway.charging import cuts
from gateway.charging.audit import audit
from gateway.charging.cutting import Statements, keep
from tests.charging import manage
from tests.charging.shop import ZONE, Shop


def of(shop: Shop) -> Statements:
    return Statements(shop.ledger, shop.path, "Asia/Shanghai", "CNY", shop.clock)


def cut_of(shop: Shop, month: str) -> list[str]:
    with closing(sqlite3.connect(shop.path)) as connection:
        sql = "SELECT tenant FROM statements WHERE month = ? ORDER BY tenant"
        return [tenant for (tenant,) in connection.execute(sql, (month,))]


async def broken_off(shop: Shop, month: str) -> None:
    """The process ends when the first statements are there."""
    statements = of(shop)
    cut = await statements._begin(month)
    rows = next(cuts.statements_of(shop.path, cut, ZONE, "CNY"))
    await shop.ledger.change(keep, "statements", rows)[1]
    await shop.reopen()


@pytest.mark.parametrize("later", ["2024-02-01", "2023-12-15", "2024-04-01"])
async def test_a_cut_that_broke_off_reaches_who_was_charged_before_it_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, later: str
) -> None:
    shop = await Shop(tmp_path, "2024-01-01").open()
    shop.at("2024-03-10")
    await manage.add_tenant(shop.ledger, "z", "none")[1]
    shop.at("2024-01-20")  # the clock is behind z
    await shop.buy("A-1", "units", tenant="z")
    await shop.spend(7, "z")
    shop.at("2024-02-01")
    monkeypatch.setattr(cuts, "AT_ONCE", 3)
    await broken_off(shop, "2024-01")
    assert cut_of(shop, "2024-01") == ["m", "t", "u"]
    shop.at(later)
    await of(shop).cut_ended()
    assert cut_of(shop, "2024-01") == ["m", "t", "u", "z"]
    assert audit(shop.path) == []
    shop.at("2024-04-02")
    found, _ = await of(shop).cut("z", "2024-03")
    assert (found["opening"], found["closing"]) == ("0.000393", "0.000393")
    await shop.end()


async def test_a_month_from_before_all_accounts_is_cut_and_ended(tmp_path: Path) -> None:
    shop = await Shop(tmp_path, "2024-03-10").open()
    shop.at("2024-01-20")
    await shop.buy("A-1", "units")
    await shop.spend(7)
    shop.at("2024-02-03")
    found, new = await of(shop).cut("t", "2024-01")
    assert (new, found["spent"], found["calls"]) == (True, "0.000007", 1)
    await of(shop).cut_ended()
    assert audit(shop.path) == []
    await shop.end()


async def test_the_last_cut_of_an_older_ledger_is_ended_once(tmp_path: Path) -> None:
    shop = await Shop(tmp_path, "2024-01-01").open()
    shop.at("2024-02-01")
    await of(shop).cut("t", "2024-01")
    await shop.ledger.aclose()
    with closing(sqlite3.connect(shop.path)) as connection:
        connection.execute("DROP TABLE cuts_ended")
        connection.commit()
    await shop.open()
    assert await of(shop).cut_up_to("2024-01") == []
    assert cuts.begun(shop.path) is None
    await shop.end()
