"""Renewals, caps and statements by the calendar: summer time both ways, odd offsets, the 31st and leap days."""

from __future__ import annotations

import calendar
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from gateway.charging import caps, statements
from gateway.charging.grants import period_bounds, period_number
from tests.charging.shop import Shop

HOUR_MS = 3_600_000
ZONES = (
    "UTC", "Asia/Shanghai", "Asia/Kathmandu", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe",
    "Africa/Cairo", "America/St_Johns",
)  # fmt: skip
ANCHORS = (
    "2024-01-31T00:00:00", "2024-02-29T12:00:00", "2023-12-31T23:59:59", "2024-03-31T02:30:00", "2024-10-27T02:30:00",
    "2024-03-10T02:15:00", "2024-11-03T01:30:00", "2024-04-26T00:15:00", "2024-08-15T08:00:00",
)  # fmt: skip


def ms(text: str, zone: ZoneInfo) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()) * 1000


def local(at_ms: int, zone: ZoneInfo) -> datetime:
    """Without the zone: what a clock on the wall shows."""
    return datetime.fromtimestamp(at_ms / 1000, zone).replace(tzinfo=None)


@pytest.mark.parametrize("zone_name", ZONES)
@pytest.mark.parametrize("anchor", ANCHORS)
def test_a_month_begins_at_the_anchors_time_on_a_day_that_it_has(zone_name: str, anchor: str) -> None:
    zone = ZoneInfo(zone_name)
    anchor_ms = ms(anchor, zone)
    first = local(anchor_ms, zone)
    for number in range(1, 60):
        start_ms, end_ms = period_bounds(anchor_ms, "month", number, zone)
        assert period_bounds(anchor_ms, "month", number - 1, zone)[1] == start_ms < end_ms
        year, month = divmod(first.year * 12 + first.month - 1 + number, 12)
        day = min(first.day, calendar.monthrange(year, month + 1)[1])
        due = first.replace(year=year, month=month + 1, day=day)
        shown = local(start_ms, zone)
        assert shown == due or (shown - due <= timedelta(hours=1) and not exists(due, zone)), (number, shown, due)


def exists(wall: datetime, zone: ZoneInfo) -> bool:
    """Not while clocks are put forward."""
    there = wall.replace(tzinfo=zone).astimezone(UTC).astimezone(zone)
    return there.replace(tzinfo=None, fold=0) == wall.replace(fold=0)


@pytest.mark.parametrize("zone_name", ZONES)
@pytest.mark.parametrize("every", ["month", "week", "day"])
def test_every_moment_lies_in_one_period(zone_name: str, every: str) -> None:
    zone, rng = ZoneInfo(zone_name), random.Random(f"{zone_name} {every}")
    for anchor in ANCHORS:
        anchor_ms = ms(anchor, zone)
        for _ in range(60):
            now_ms = anchor_ms + rng.randrange(4 * 366 * 24 * HOUR_MS)
            number = period_number(anchor_ms, every, now_ms, zone)
            start_ms, end_ms = period_bounds(anchor_ms, every, number, zone)
            assert start_ms <= now_ms < end_ms
            for moment, found in ((start_ms, number), (start_ms - 1, max(0, number - 1)), (end_ms, number + 1)):
                assert period_number(anchor_ms, every, moment, zone) == found


@pytest.mark.parametrize("zone_name", ZONES)
@pytest.mark.parametrize("window", ["day", "week", "month"])
def test_windows_of_caps_follow_each_other_through_summer_and_winter(zone_name: str, window: str) -> None:
    zone = ZoneInfo(zone_name)
    at_ms, until_ms = ms("2024-01-01T00:00:00", zone), ms("2025-03-01T00:00:00", zone)
    while at_ms < until_ms:
        start_ms, end_ms = caps.bounds(window, at_ms, zone)
        assert start_ms == at_ms
        assert caps.bounds(window, end_ms - 1, zone) == (start_ms, end_ms)
        begins = local(start_ms, zone)
        midnight = begins.replace(hour=0, minute=0)
        assert begins == midnight or not exists(midnight, zone)
        assert window != "month" or begins.day == 1
        assert window != "week" or begins.weekday() == 0
        at_ms = end_ms


@pytest.mark.parametrize("zone_name", ZONES)
def test_days_of_a_statement_leave_no_gap(zone_name: str) -> None:
    zone = ZoneInfo(zone_name)
    day = datetime(2024, 1, 1)
    before = None
    for _ in range(430):
        following = day + timedelta(days=1)
        from_ms, to_ms = statements.span(f"{day:%Y-%m-%d}", f"{following:%Y-%m-%d}", 0, zone)
        assert before in (None, from_ms)
        assert 23 * HOUR_MS <= to_ms - from_ms <= 25 * HOUR_MS
        day, before = following, to_ms


async def test_what_was_sold_on_the_31st_renews_on_the_last_of_each_month(tmp_path: Path) -> None:
    """Through a leap year, each period granted once, wherever somebody looks."""
    shop = await Shop(tmp_path, "2024-01-31T12:00").open()
    await shop.subscribe("month")
    days = ["2024-02-29", "2024-03-31", "2024-04-30", "2024-05-31", "2024-06-30", "2024-07-31", "2024-08-31"]
    for number, date in enumerate(days):
        shop.at(f"{date}T11:59:59")
        assert shop.sums()["granted"] == 3100 * (number + 1)
        shop.at(f"{date}T12:00")
        assert shop.left()[0][1] == 3100
        assert shop.sums()["granted"] == 3100 * (number + 2)
    await shop.end()


async def test_a_leap_day_is_the_28th_in_other_years(tmp_path: Path) -> None:
    shop = await Shop(tmp_path, "2024-02-29").open()
    await shop.subscribe("month")
    shop.at("2025-02-27T23:59:59")
    shop.live()
    before = shop.sums()["granted"]
    shop.at("2025-02-28")
    shop.live()
    assert shop.sums()["granted"] == before + 3100
    await shop.end()
