"""Caps under a wall clock that is set forward and back, and put right: they count what began in the window of now."""

from __future__ import annotations

import random
import shutil
import sqlite3
from contextlib import closing
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from gateway.charging.audit import audit
from gateway.charging.caps import MOST, SINCE, Meter, bounds
from gateway.charging.directory import Edit
from gateway.charging.ledger import Ledger, open_ledger
from gateway.config.model import Caps
from gateway.errors import QuotaExhausted
from tests.charging import manage
from tests.charging.fakes import FakeClock, opened, quote, settle
from tests.charging.test_caps import HOUR_MS, MINUTE_MS, SHANGHAI, Tree

DAY_MS = 24 * HOUR_MS
MONTH_MS = 31 * DAY_MS
WINDOWS = ("total", "month", "week", "day", "5h")
# The last minutes of a Sunday that is the last day of its month: days, weeks and months end together.
EDGE_MS = int(datetime(2024, 3, 31, 23, 58, tzinfo=SHANGHAI).timestamp() * 1000)
CAPS = {window: {"credits": 10**9, "calls": 10**6} for window in WINDOWS}


def together(window: str, then_ms: int, now_ms: int) -> bool:
    """Whether what began then counts now: by the calendar, or by the steps of five minutes."""
    then, now = (datetime.fromtimestamp(ms / 1000, SHANGHAI).date() for ms in (then_ms, now_ms))
    if window == "5h":
        slots_ago = now_ms // (5 * MINUTE_MS) - then_ms // (5 * MINUTE_MS)
        return 0 <= slots_ago <= 60
    same = {"month": (then.year, then.month) == (now.year, now.month), "day": then == now, "total": True}
    return same[window] if window in same else then.isocalendar()[:2] == now.isocalendar()[:2]


class Moved(Tree):
    """A tree with credits from the first day on, whose team has all caps; and when each of its calls began."""

    def __init__(self, path: Path, caps: Caps | None = None, start_ms: int = EDGE_MS) -> None:
        super().__init__(path, CAPS if caps is None else caps)
        self.clock.ms = start_ms
        self.began: list[int] = []

    async def grow(self) -> Ledger:
        ledger = await super().grow()
        await manage.add_grant(ledger, "root", 10**6, starts_ms=1)[1]
        return ledger

    async def used(self) -> None:
        self.began.append(self.clock.ms)
        await self.call("ann", 1)

    async def agrees(self) -> None:
        await self.looked()
        caps = {(cap["window"], cap["unit"]): cap["used"] for cap in self.ledger.usage("team")["caps"]}
        for window in WINDOWS:
            expected = sum(together(window, ms, self.clock.ms) for ms in self.began)
            assert caps[window, "calls"] == str(expected), window
            assert float(caps[window, "credits"]) * 10**6 == pytest.approx(expected), window
        self.ledger.check_invariants()

    async def looked(self) -> None:
        """What the clock has made a meter forget is counted after the next commit."""
        self.ledger.usage("team")
        await manage.add_key(self.ledger, "root", f"{random.randbytes(16).hex()}")[1]
        await self.counted()

    def meters(self) -> list[Meter]:
        return self.ledger.tenant("team").meters


@pytest.mark.parametrize("after_ms", [0, 3 * MINUTE_MS])
@pytest.mark.parametrize("way", [1, -1])
@pytest.mark.parametrize("by_ms", [HOUR_MS, DAY_MS, MONTH_MS])
async def test_a_clock_that_is_set_and_put_right_leaves_caps_as_they_were(
    tmp_path: Path, by_ms: int, way: int, after_ms: int
) -> None:
    """Perhaps midnight passes meanwhile."""
    tree = Moved(tmp_path)
    await tree.grow()
    await tree.used()
    await tree.used()
    for step_ms in (way * by_ms, after_ms, -way * by_ms, 5 * MINUTE_MS, DAY_MS, way * by_ms, -way * by_ms):
        tree.clock.ms += step_ms
        await tree.agrees()
        await tree.used()
        await tree.agrees()
    await tree.end()


@pytest.mark.parametrize("by_ms", [HOUR_MS, DAY_MS, MONTH_MS])
@pytest.mark.parametrize("window", WINDOWS)
async def test_a_cap_that_is_used_up_stays_so_and_opens_when_its_window_ends(
    tmp_path: Path, window: str, by_ms: int
) -> None:
    tree = Moved(tmp_path, {window: {"calls": 1}})
    await tree.grow()
    await tree.call("ann", 1)
    tree.clock.ms += by_ms
    if not together(window, EDGE_MS, tree.clock.ms):
        await tree.call("ann", 1)
    with pytest.raises(QuotaExhausted):
        await tree.begin("ann", 1)
    tree.clock.ms -= by_ms
    with pytest.raises(QuotaExhausted):  # at once: no commit stands between
        await tree.begin("ann", 1)
    ends_ms = bounds(window, EDGE_MS, SHANGHAI)[1]
    if window != "total" and not together(window, EDGE_MS + by_ms, ends_ms):
        tree.clock.ms = ends_ms
        await tree.call("ann", 1)
    await tree.end()


@pytest.mark.parametrize("seed", range(8))
async def test_whatever_is_done_to_the_clock_caps_are_what_the_records_say(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    tree = Moved(tmp_path)
    await tree.grow()
    flying: list[str] = []
    for _ in range(80):
        step = rng.choice((1000, 7 * MINUTE_MS, HOUR_MS, 4 * HOUR_MS, DAY_MS, 9 * DAY_MS, MONTH_MS))
        tree.clock.ms += rng.choice((1, 1, -1)) * rng.randint(0, step)
        what = rng.random()
        if what < 0.2:
            tree.began.append(tree.clock.ms)
            flying.append(await tree.begin("ann", 1))
        elif what < 0.3 and flying:
            await settle(tree.ledger, flying.pop(rng.randrange(len(flying))), 1)
        elif what < 0.35 and not flying:
            await tree.ledger.aclose()
            await tree.open()
        else:
            await tree.used()
        if not flying:
            await tree.agrees()
    for name in flying:
        await settle(tree.ledger, name, 1)
    await tree.agrees()
    await tree.end()


async def test_a_cap_keeps_few_slots_wherever_the_clock_goes(tmp_path: Path) -> None:
    tree = Moved(tmp_path)
    await tree.grow()
    for _ in range(400):
        await tree.used()
        tree.clock.ms += 6 * MINUTE_MS
    for by_ms in (-MONTH_MS, MONTH_MS, -DAY_MS, DAY_MS):
        tree.clock.ms += by_ms
        await tree.agrees()
        assert max(len(meter.slots) for meter in tree.meters()) <= MOST["5h"]
    tree.clock.ms -= 40 * HOUR_MS
    for _ in range(10):  # up to what was beyond the horizon
        await tree.agrees()
        tree.clock.ms += 4 * HOUR_MS
    await tree.end()
    with closing(sqlite3.connect(tree.path)) as connection:
        rows = [n for (n,) in connection.execute("SELECT count(*) FROM cap_use GROUP BY account, span, unit")]
    assert max(rows) <= MOST["5h"] + 3


async def test_a_call_in_flight_counts_in_its_window_wherever_the_clock_was_meanwhile(tmp_path: Path) -> None:
    tree = Moved(tmp_path, {"day": {"calls": 1}})
    ledger = await tree.grow()
    name = await tree.begin("ann", 1)
    tree.clock.ms -= MONTH_MS  # before the cap was there: another meter takes its place
    await tree.call("ann", 1)
    tree.clock.ms += MONTH_MS
    with pytest.raises(QuotaExhausted):
        await tree.begin("ann", 1)
    await settle(ledger, name, 1)
    await tree.counted()
    assert tree.cap("team")["used"] == "1"
    await tree.end()


async def test_a_cap_that_a_crash_left_uncounted_is_counted_before_the_first_call(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    ledger = await tree.grow()
    await tree.call("ann", 100)
    durable = manage.edit(ledger, "team", Edit(caps={"total": {"credits": 150}}))[1]
    await durable
    copy = f"{tmp_path}/killed.db"
    for suffix in ("", "-wal", ".spool"):
        shutil.copy(tree.path + suffix, copy + suffix)
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("SELECT * FROM cap_use").fetchall() == []  # it died before that
    await ledger.aclose()
    tree.path = copy
    ledger = await tree.open()
    with pytest.raises(QuotaExhausted, match="the cap of"):
        await tree.begin("ann", 100)
    await tree.call("ann", 50)
    assert tree.cap("team")["used"] == "0.00015"
    await tree.end()


async def test_caps_follow_the_timezone(tmp_path: Path) -> None:
    """Half past seven in Shanghai is half past twelve at night in London, the same day."""
    tree = Moved(tmp_path, start_ms=int(datetime(2024, 3, 20, 7, 30, tzinfo=SHANGHAI).timestamp() * 1000))
    ledger = await tree.grow()
    await tree.used()
    tree.clock.ms += HOUR_MS
    await tree.used()
    await ledger.aclose()
    tree.ledger = await open_ledger(tree.path, tree.clock, "Europe/London", tree.plans)
    caps = {(cap["window"], cap["unit"]): cap["used"] for cap in tree.ledger.usage("team")["caps"]}
    assert (caps["day", "calls"], caps["total", "calls"]) == ("1", "2")
    london = ZoneInfo("Europe/London")
    for meter in tree.meters():
        assert all(bounds(meter.window, slot.start_ms, london)[0] == slot.start_ms for slot in meter.slots)
    await tree.end()


async def test_a_ledger_of_an_older_gateway_goes_on_counting(tmp_path: Path) -> None:
    """It said 0 where the span of its slots is now."""
    tree = Moved(tmp_path)
    ledger = await tree.grow()
    await tree.used()
    await ledger.aclose()
    with closing(sqlite3.connect(tree.path)) as connection:
        connection.execute("UPDATE cap_use SET used = 0 WHERE slot_ms = ?", (SINCE,))
        connection.commit()
    assert audit(tree.path) == []
    await tree.open()
    await tree.agrees()
    await tree.used()
    await tree.end()


async def test_a_grant_that_begins_after_a_jump_was_put_right_pays_from_then_on(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    ledger = await tree.grow()
    start_ms = tree.clock.ms
    manage.add_grant(ledger, "ann", 500, starts_ms=start_ms + DAY_MS)
    tree.clock.ms += MONTH_MS
    assert ledger.available_uc("ann") == 10_500
    tree.clock.ms -= MONTH_MS
    assert ledger.available_uc("ann") == 10_000
    tree.clock.ms += DAY_MS
    assert ledger.available_uc("ann") == 10_500
    await tree.end()


async def test_a_plan_renews_each_day_after_a_jump_was_put_right(tmp_path: Path) -> None:
    """The days between were not due by the clock that was ahead; the one that was has begun."""
    clock = FakeClock()
    ledger = await opened(tmp_path, clock, 100, "day")
    clock.ms += MONTH_MS
    assert ledger.available_uc("t") == 100
    clock.ms -= MONTH_MS
    for day in range(3):
        clock.ms += DAY_MS
        assert ledger.available_uc("t") == 100 + 100
        await ledger.reserve(f"c{day}", quote(0, 60), clamp=False)
        ledger.dispatched(f"c{day}", "b", "m")
        await settle(ledger, f"c{day}", 60)
    ledger.check_invariants()
    await ledger.aclose()
    assert audit(f"{tmp_path}/l.db") == []
