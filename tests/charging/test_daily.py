"""Usage by day: added up once, whatever breaks off, in days of the configured timezone."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from gateway.charging import daily
from gateway.charging.daily import Daily, Day, days_of, keys_used, members_used
from gateway.errors import StoreUnavailable
from tests.charging.fakes import fail_both, recovered
from tests.charging.shop import Shop, ms


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    shop = await Shop(tmp_path).open()
    await shop.buy("A-1", "units", 10)
    yield shop
    await shop.end()


def of(shop: Shop) -> Daily:
    return Daily(shop.ledger, shop.path, "Asia/Shanghai")


def days(shop: Shop, tenant: str = "t") -> list[Day]:
    with closing(sqlite3.connect(shop.path)) as connection:
        return days_of(connection, [tenant], "2024-01-01")


async def test_a_day_is_one_of_the_timezone(shop: Shop) -> None:
    for now, uc in (("2024-01-01T23:59:59", 5), ("2024-01-02T00:00:00", 7), ("2024-01-02T23:00:00", 9)):
        shop.at(now)
        await shop.spend(uc)
    await shop.spend(2, "m")
    await of(shop).catch_up()
    assert days(shop) == [Day("2024-01-01", "m", 1, 0, 5), Day("2024-01-02", "m", 2, 0, 16)]
    assert days(shop, "m") == [Day("2024-01-02", "m", 1, 0, 2)]
    with closing(sqlite3.connect(shop.path)) as connection:
        assert keys_used(connection, "t", "2024-01-02") == {"": ms("2024-01-02T23:00:00")}
        assert members_used(connection, ["t", "m", "u"], "2024-01-02", 5) == [("t", 2, 0, 16), ("m", 1, 0, 2)]
        assert [day.output for day in days_of(connection, ["t", "m"], "2024-01-02")] == [18]


async def test_a_record_is_added_once(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daily, "AT_ONCE", 2)
    for _ in range(5):
        await shop.spend(1)
    assert await of(shop).add()
    assert days(shop)[0].calls == 2
    await of(shop).catch_up()
    await shop.reopen()
    await of(shop).catch_up()
    assert days(shop) == [Day("2024-01-01", "m", 5, 0, 5)]
    assert not await of(shop).add()


@pytest.mark.parametrize("stage", ["begin", "execute", "commit", "after commit"])
async def test_what_broke_off_is_neither_lost_nor_added_twice(shop: Shop, stage: str) -> None:
    await shop.spend(3)
    fail_both(shop.ledger, stage)
    with pytest.raises(StoreUnavailable):
        await of(shop).add()
    await of(shop).catch_up()  # a chore does not fail for it
    await recovered(shop.ledger)
    await shop.spend(4)
    await of(shop).catch_up()
    assert days(shop) == [Day("2024-01-01", "m", 2, 0, 7)]


@pytest.mark.parametrize("zone", ["Asia/Shanghai", "America/New_York", "Asia/Kathmandu", "Pacific/Kiritimati"])
def test_local_days_cover_a_day_of_utc_without_a_gap(zone: str) -> None:
    for number in (0, 19_000, 19_792, 19_793, 20_030):  # among them days on which New York changes its clock
        found = daily._local_days([number], ZoneInfo(zone))
        assert found[0][1] <= number * daily._DAY_MS
        assert found[-1][2] >= (number + 1) * daily._DAY_MS
        assert [end for _, _, end in found[:-1]] == [start for _, start, _ in found[1:]]
