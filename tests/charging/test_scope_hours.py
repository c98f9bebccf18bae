"""Grants that pay at some hours of the day: judged when a call is reserved, by the wall clock of `timezone`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.charging.grants import NEVER_MS
from gateway.charging.offers import Scope
from gateway.errors import QuotaExhausted
from gateway.hours import MINUTE_MS, minute_of_day, spans, within
from tests.charging import manage
from tests.charging.test_rate_cards import CREDIT, Till, ms
from tests.charging.test_splitting import MEMORY

CARDS = "\n  other: {base: raw}\n"


def at_night(*hours: str, **more: frozenset[str]) -> Scope:
    return Scope(hours=frozenset(hours or ("22:00-08:00",)), **more)


async def open_till(folder: Path, now: str, zone: str = "Asia/Shanghai") -> Till:
    return await Till(folder, CARDS, now, zone).open()


def left(till: Till) -> list[float]:
    return [grant.available / CREDIT for grant in till.ledger._image.grants.values()]


@pytest.mark.parametrize(
    ("now", "pays"),
    [
        ("2027-01-01T21:59:59", False),
        ("2027-01-01T22:00", True),
        ("2027-01-02T00:00", True),
        ("2027-01-02T07:59:59", True),
        ("2027-01-02T08:00", False),
    ],
)
async def test_a_night_pack_pays_across_midnight(tmp_path: Path, now: str, pays: bool) -> None:
    till = await open_till(tmp_path, now)
    manage.add_grant(till.ledger, "t", 1000 * CREDIT, priority=10, scope=at_night())
    manage.add_grant(till.ledger, "t", 1000 * CREDIT, priority=20)
    await till.charge()
    assert left(till) == ([950, 1000] if pays else [1000, 950])
    assert till.ledger.available_uc("t") == (1950 if pays else 950) * CREDIT
    await till.end()


async def test_how_a_path_stands_is_known_until_the_hour_changes(tmp_path: Path) -> None:
    till = await open_till(tmp_path, "2027-01-01T12:00")
    image = till.ledger._image
    manage.add_grant(till.ledger, "t", 1000 * CREDIT)
    assert image.standing(("t",), till.clock.ms).until_ms == NEVER_MS
    manage.add_grant(till.ledger, "t", 1000 * CREDIT, scope=at_night())
    found = image.standing(("t",), till.clock.ms)
    assert (found.until_ms, len(found.burn), found.special) == (ms("2027-01-01T22:00"), 1, False)
    assert image.standing(("t",), found.until_ms - 1) is found
    later = image.standing(("t",), found.until_ms)
    assert (later.until_ms, len(later.burn), later.special) == (ms("2027-01-02T08:00"), 2, True)
    await till.end()


async def test_the_reserve_decides_which_packs_pay(tmp_path: Path) -> None:
    """Also for what is beyond the hold: by the packs of that hour, and not by those of the hour in which it ends."""
    till = await open_till(tmp_path, "2027-01-01T07:59")
    manage.add_grant(till.ledger, "t", 500 * CREDIT, priority=10, scope=at_night())
    manage.add_grant(till.ledger, "t", 1000 * CREDIT, priority=15, scope=at_night("08:00-22:00"))
    manage.add_grant(till.ledger, "t", 1000 * CREDIT, priority=20)
    begun = await till.begin()
    till.clock.advance(MINUTE_MS)
    record = await till.settle(begun, input=100, output=110)
    assert (record["charged"], left(till)) == ("540", [0, 1000, 960])
    till.clock.ms = ms("2027-01-02T21:59")
    begun = await till.begin()
    till.clock.advance(MINUTE_MS)
    await till.settle(begun, input=10, output=10)
    assert left(till) == [0, 950, 960]
    await till.end()


async def test_a_refusal_says_when_packs_pay(tmp_path: Path) -> None:
    till = await open_till(tmp_path, "2027-01-01T12:00")
    manage.add_grant(till.ledger, "t", 1000 * CREDIT, scope=at_night())
    with pytest.raises(
        QuotaExhausted, match=r"does not cover this call at this hour; some of it pays at 22:00-08:00"
    ) as caught:
        await till.begin()
    assert (caught.value.extra["limit"], caught.value.extra["resets_at"]) == ("0", "2027-01-01T14:00:00Z")
    till.clock.ms = ms("2027-01-01T22:00")
    await till.settle(await till.begin())
    await till.end()


async def test_hours_outlive_the_process_and_are_shown(tmp_path: Path) -> None:
    till = await open_till(tmp_path, "2027-01-01T23:00")
    scope = at_night("12:00-13:00", "22:00-08:00", models=frozenset({"glm"}))
    await manage.add_grant(till.ledger, "t", 1000 * CREDIT, scope=scope)[1]
    await till.edit(CARDS, restart=True)
    assert next(iter(till.ledger._image.grants.values())).scope == scope
    shown = till.ledger.usage("t")["grants"][0]["scope"]
    assert shown == {"models": ["glm"], "hours": ["12:00-13:00", "22:00-08:00"]}
    await till.end()


HOURS = st.sampled_from(["22:00-08:00", "08:00-22:00", "01:30-03:30", "02:15-02:16", "00:00-24:00"])
STEPS = st.lists(st.sampled_from([1, 59_999, 60_000, 1_800_000, 3_600_000, 20 * 3_600_000]), min_size=1, max_size=15)


@pytest.mark.parametrize(
    ("zone", "start"),
    [
        ("Asia/Shanghai", "2027-01-01T21:58"),
        ("Europe/Berlin", "2027-03-28T00:59"),
        ("Europe/Berlin", "2027-10-31T00:59"),
        ("Australia/Lord_Howe", "2027-04-04T00:29"),
    ],
)
@settings(max_examples=40, deadline=None)
@given(st.lists(HOURS, min_size=1, max_size=3), STEPS)
async def test_each_call_is_paid_by_packs_of_its_hour_alone(
    zone: str, start: str, packs: list[str], steps: list[Any]
) -> None:
    """Where clocks are set as well: what is remembered of a path never outlives an hour's edge."""
    of = ZoneInfo(zone)
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        till = await open_till(Path(folder), start, zone)
        for hours in packs:
            manage.add_grant(till.ledger, "t", 10**6 * CREDIT, priority=10, scope=at_night(hours))
        manage.add_grant(till.ledger, "t", 10**6 * CREDIT, priority=20)
        for step in steps:
            minute = minute_of_day(till.clock.ms, of)
            open_ = [f"g{n:08d}" for n, hours in enumerate(packs, 1) if within(minute, spans([hours]))]
            begun = await till.begin()
            till.clock.ms += step
            record = await till.settle(begun)
            assert [part["grant"] for part in record["parts"]] == [*open_, f"g{len(packs) + 1:08d}"][:1]
        await till.end()
