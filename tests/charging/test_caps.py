"""Caps: windows, trees, clamps, restarts, and caps that are younger than what they count."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from gateway.charging.audit import audit
from gateway.charging.caps import MOST, bounds
from gateway.charging.directory import Edit
from gateway.charging.ledger import Ledger, open_ledger
from gateway.charging.rating import Quote
from gateway.config.model import Caps, Plan, PlanGrant
from gateway.errors import AccountNotActive, Conflict, InvalidValue, NotFound, QuotaExhausted
from tests.charging import manage
from tests.charging.fakes import START_MS, FakeClock, settle

HOUR_MS = 3_600_000
MINUTE_MS = 60_000
SHANGHAI = ZoneInfo("Asia/Shanghai")


def plan(caps: Caps, credits_uc: int = 0) -> Plan:
    return Plan("p", grants=(PlanGrant(credits_uc, None),) if credits_uc else (), caps=caps)


class Tree:
    """root > team > ann, and root > ben, with 10,000 uc on the root."""

    def __init__(self, path: Path, caps: Caps | None = None) -> None:
        self.path = f"{path}/l.db"
        self.clock = FakeClock()
        self.plans = {"p": plan(caps or {}), "free": plan({})}
        self.calls = 0

    async def open(self) -> Ledger:
        self.ledger = await open_ledger(self.path, self.clock, "Asia/Shanghai", self.plans)
        return self.ledger

    async def grow(self) -> Ledger:
        ledger = await self.open()
        for name, parent in (("root", None), ("team", "root"), ("ann", "team"), ("ben", "root")):
            await manage.add_tenant(ledger, name, "p" if name == "team" else "free", parent)[1]
        manage.add_grant(ledger, "root", 10_000)
        return ledger

    async def call(self, tenant: str, tokens: int = 100, *, clamp: bool = False, flags: tuple[str, ...] = ()) -> None:
        await self.begin(tenant, tokens, clamp=clamp)
        await settle(self.ledger, f"c{self.calls}", tokens, *flags)

    async def begin(self, tenant: str, tokens: int = 100, *, clamp: bool = False) -> str:
        self.calls += 1
        path = self.ledger.tenant(tenant).path
        quote = Quote(tenant, path, f"r{self.calls}", "chat", "m", "standard", 1, 0, 1, tokens, self.clock.ms * 2)
        hold = await self.ledger.reserve(f"c{self.calls}", quote, clamp=clamp)
        assert clamp or hold.max_tokens == tokens
        self.ledger.dispatched(f"c{self.calls}", "b", "m")
        return f"c{self.calls}"

    def cap(self, name: str) -> dict[str, Any]:
        (found,) = [cap for cap in self.ledger.usage(name)["caps"] if cap["account"] == name]
        return dict(found)

    async def counted(self) -> None:
        """Waits for what the records from before a cap say."""
        for _ in range(500):
            if not self.ledger._image.uncounted:
                return
            await asyncio.sleep(0.01)
        raise AssertionError("the records from before the cap were never counted")

    async def end(self) -> None:
        self.ledger.check_invariants()
        await self.ledger.aclose()
        assert audit(self.path) == []


async def test_a_team_stops_at_its_cap_and_others_go_on(tmp_path: Path) -> None:
    tree = Tree(tmp_path, {"month": {"credits": 250}})
    await tree.grow()
    await tree.call("ann")
    await tree.call("team")
    with pytest.raises(QuotaExhausted, match=r"the cap of 0\.00025 credits a month of team") as caught:
        await tree.begin("ann")
    assert caught.value.extra == {
        "limit": "0.00025", "used": "0.0002", "reserved": "0", "resets_at": "2023-11-30T16:00:00Z", "scope": "team",
    }  # fmt: skip
    await tree.call("ben", 300)
    await tree.call("ann", 50)
    await tree.end()


async def test_a_cap_lowers_max_tokens_before_it_refuses(tmp_path: Path) -> None:
    tree = Tree(tmp_path, {"day": {"credits": 400}})
    ledger = await tree.grow()
    name = await tree.begin("ann", 1000, clamp=True)
    assert ledger._image.holds[name].max_tokens == 400
    await settle(ledger, name, 100)
    name = await tree.begin("ann", 1000, clamp=True)
    assert ledger._image.holds[name].max_tokens == 300
    await settle(ledger, name, 100)
    with pytest.raises(QuotaExhausted, match="the cap of"):  # 200 are less than an answer is good for
        await tree.begin("ann", 1000, clamp=True)
    await tree.end()


async def test_calls_are_counted_when_they_were_answered(tmp_path: Path) -> None:
    tree = Tree(tmp_path, {"5h": {"calls": 3}})
    ledger = await tree.grow()
    ledger.close(await tree.begin("ann"), "failed")
    await tree.call("ann", flags=("partial",))
    await tree.call("ann", 0, flags=("zero_usage",))
    assert (tree.cap("team")["used"], tree.cap("team")["left"]) == ("2", "1")
    held = await tree.begin("ann")
    assert (tree.cap("team")["held"], tree.cap("team")["left"]) == ("1", "0")
    with pytest.raises(QuotaExhausted, match="3 calls in 5 hours of team"):
        await tree.begin("ann")
    await settle(ledger, held, 5)
    await tree.end()


async def test_a_rolling_window_lets_go_slot_by_slot(tmp_path: Path) -> None:
    tree = Tree(tmp_path, {"5h": {"calls": 2}})
    await tree.grow()
    start_ms = tree.clock.ms
    await tree.call("ann")
    tree.clock.advance(2 * HOUR_MS)
    await tree.call("ann")
    for ms, taken in ((5 * HOUR_MS - 1, 2), (5 * HOUR_MS + 5 * MINUTE_MS, 1), (7 * HOUR_MS + 5 * MINUTE_MS, 0)):
        tree.clock.advance(start_ms + ms - tree.clock.ms)
        assert tree.cap("team")["left"] == str(2 - taken)
    await tree.call("ann")
    await tree.end()


@pytest.mark.parametrize(
    ("window", "now", "start", "end"),
    [
        ("day", "2024-02-29T00:00", "2024-02-29", "2024-03-01"),
        ("day", "2024-02-28T23:59:59.999", "2024-02-28", "2024-02-29"),
        ("week", "2024-02-29T12:00", "2024-02-26", "2024-03-04"),
        ("week", "2024-12-30T00:00", "2024-12-30", "2025-01-06"),
        ("month", "2024-01-31T23:00", "2024-01-01", "2024-02-01"),
        ("month", "2024-12-01T00:00", "2024-12-01", "2025-01-01"),
    ],
)
def test_windows_are_those_of_the_calendar(window: str, now: str, start: str, end: str) -> None:
    now_ms, start_ms, end_ms = (
        int(datetime.fromisoformat(text).replace(tzinfo=SHANGHAI).timestamp() * 1000) for text in (now, start, end)
    )
    assert bounds(window, now_ms, SHANGHAI) == (start_ms, end_ms)


def test_a_day_of_summer_time_has_an_hour_less() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    start_ms, end_ms = bounds("day", int(datetime(2024, 3, 31, 12, tzinfo=berlin).timestamp() * 1000), berlin)
    assert end_ms - start_ms == 23 * HOUR_MS


async def test_what_is_used_outlives_the_process(tmp_path: Path) -> None:
    tree = Tree(tmp_path, {"5h": {"calls": 5}, "total": {"credits": 500}})
    await tree.grow()
    await tree.call("ann")
    tree.clock.advance(HOUR_MS)
    await tree.call("ann")
    await tree.begin("ann")  # the process ends under it
    await tree.ledger.aclose()
    await tree.open()
    caps = {cap["window"]: (cap["used"], cap["held"]) for cap in tree.ledger.usage("team")["caps"]}
    assert caps == {"5h": ("2", "0"), "total": ("0.0002", "0")}
    assert not tree.ledger._image.uncounted
    await tree.end()


async def test_slots_that_count_no_more_leave_the_file(tmp_path: Path) -> None:
    tree = Tree(tmp_path, {"5h": {"calls": 500}})
    ledger = await tree.grow()
    for _ in range(200):
        await tree.call("ann", 1)
        tree.clock.advance(10 * MINUTE_MS)
    ledger.check_invariants()
    await tree.end()
    with closing(sqlite3.connect(tree.path)) as connection:
        assert connection.execute("SELECT count(*) FROM cap_use").fetchone()[0] <= MOST["5h"] + 2


@pytest.mark.parametrize("restart", [False, True])
async def test_a_cap_of_a_plan_counts_what_was_used_before_it(tmp_path: Path, restart: bool) -> None:
    tree = Tree(tmp_path)
    ledger = await tree.grow()
    await tree.call("ann")
    tree.clock.advance(40 * 24 * HOUR_MS)
    await tree.call("ann", 30)
    await tree.call("ben", 7)
    flying = await tree.begin("ann")
    plans = {"p": plan({"total": {"credits": 1000}, "month": {"calls": 9}}), "free": plan({})}
    if restart:
        await ledger.aclose()
        tree.plans = plans
        ledger = await tree.open()
        ledger.follow({**plans}, {})
        await manage.add_key(ledger, "root", "00")[1]
    else:
        ledger.follow(plans, {})
    await tree.counted()
    if not restart:
        await settle(ledger, flying, 20)
    caps = {cap["window"]: cap["used"] for cap in ledger.usage("team")["caps"]}
    assert caps == ({"total": "0.00013", "month": "1"} if restart else {"total": "0.00015", "month": "2"})
    await tree.end()


async def test_a_cap_misses_nothing_that_is_on_its_way_to_the_file(tmp_path: Path) -> None:
    """Charges of an hour ago, of a commit in flight, of the next one, and of calls that have yet to end."""
    tree = Tree(tmp_path)
    ledger = await tree.grow()
    await tree.call("ann", 1)
    names = [await tree.begin("ann", tokens) for tokens in (10, 100, 1000)]
    first = settle(ledger, names[0], 10)
    for _ in range(3):  # its commit begins
        await asyncio.sleep(0)
    second = settle(ledger, names[1], 100)
    edited = manage.edit(ledger, "team", Edit(caps={"total": {"credits": 5000}}))[1]
    third = settle(ledger, names[2], 1000)
    await asyncio.gather(first, second, third, edited)
    await tree.counted()
    assert (tree.cap("team")["used"], tree.cap("team")["held"]) == ("0.001111", "0")
    await tree.end()


async def test_a_cap_that_comes_with_a_commit_in_flight_is_counted_after_it(tmp_path: Path) -> None:
    """Though another is about to be counted in that moment."""
    tree = Tree(tmp_path)
    ledger = await tree.grow()
    await tree.call("ann", 10)
    name, write = await tree.begin("ann", 100), ledger._writer._write
    settled = []

    def slowly(records: Any, rows: Any) -> None:
        time.sleep(0.05)
        write(records, rows)

    def at_commit(*_: object) -> None:
        ledger.on_commit = lambda *_: None
        ledger._writer._write = slowly
        settled.append(settle(ledger, name, 100))
        asyncio.get_running_loop().call_soon(
            manage.edit, ledger, "team", Edit(caps={"total": {"credits": 5000}})
        )  # when the commit with it has begun

    ledger.on_commit = at_commit
    await manage.edit(ledger, "ben", Edit(caps={"total": {"calls": 9}}))[1]
    await tree.counted()
    await asyncio.gather(*settled)
    await tree.counted()
    assert tree.cap("team")["used"] == "0.00011"
    await tree.end()


async def test_a_tenants_own_cap_takes_the_place_of_its_plans(tmp_path: Path) -> None:
    tree = Tree(tmp_path, {"month": {"credits": 100, "calls": 10}})
    ledger = await tree.grow()
    await tree.call("ann")
    with pytest.raises(QuotaExhausted):
        await tree.call("ann")
    await manage.edit(ledger, "team", Edit(caps={"month": {"credits": 300}}))[1]
    await tree.call("ann")
    assert {cap["unit"]: (cap["limit"], cap["used"]) for cap in ledger.usage("team")["caps"]} == {
        "credits": ("0.0003", "0.0002"), "calls": ("10", "2"),
    }  # fmt: skip
    await manage.edit(ledger, "team", Edit(caps={}))[1]
    with pytest.raises(QuotaExhausted):
        await tree.call("ann")
    await tree.end()


async def test_a_suspended_node_bars_all_below_it_and_comes_back(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    ledger = await tree.grow()
    flying = await tree.begin("ann")
    await manage.edit(ledger, "team", Edit(status="suspended"))[1]
    for name in ("ann", "team"):
        with pytest.raises(AccountNotActive, match="team is suspended"):
            await tree.begin(name)
    await tree.call("ben")
    await settle(ledger, flying, 10)  # what is under way is charged as ever
    await manage.edit(ledger, "team", Edit(status="active"))[1]
    await tree.call("ann")
    await tree.end()


async def test_a_closed_node_is_closed_for_ever_and_never_under_calls(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    ledger = await tree.grow()
    flying = await tree.begin("ann")
    with pytest.raises(Conflict, match="calls in flight"):
        manage.edit(ledger, "team", Edit(status="closed"))
    await settle(ledger, flying, 10)
    await manage.edit(ledger, "team", Edit(status="closed"))[1]
    await ledger.aclose()
    ledger = await tree.open()
    with pytest.raises(AccountNotActive, match="team is closed"):
        await tree.begin("ann")
    with pytest.raises(Conflict, match="for ever"):
        manage.edit(ledger, "team", Edit(status="active"))
    await tree.end()


async def test_a_moved_branch_takes_all_below_it_along(tmp_path: Path) -> None:
    tree = Tree(tmp_path, {"total": {"credits": 1000}})
    ledger = await tree.grow()
    await manage.add_tenant(ledger, "other", "free")[1]
    manage.add_grant(ledger, "other", 500)
    flying = await tree.begin("ann")
    await manage.edit(ledger, "team", Edit(parent="other"))[1]
    assert ledger.tenant("ann").path == ("other", "team", "ann")
    assert ledger.available_uc("ann") == 500
    await settle(ledger, flying, 40)  # from the pool that it held of
    await tree.call("ann")
    assert (ledger.available_uc("root"), ledger.available_uc("other")) == (9_960, 400)
    for parent, error in (("ann", Conflict), ("team", Conflict), ("nobody", NotFound)):
        with pytest.raises(error):
            manage.edit(ledger, "team", Edit(parent=parent, status="suspended"))
    assert ledger.tenant("team").status == "active"  # all of an edit, or nothing
    await ledger.aclose()
    ledger = await tree.open()
    assert ledger.tenant("ann").path == ("other", "team", "ann")
    await manage.edit(ledger, "team", Edit(parent=None))[1]
    assert ledger.tenant("ann").path == ("team", "ann")
    await tree.end()


async def test_no_move_makes_the_tree_too_deep(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    ledger = await tree.grow()
    for number in range(4):
        await manage.add_tenant(ledger, f"d{number}", "free", f"d{number - 1}" if number else None)[1]
    with pytest.raises(InvalidValue, match="at most 6 deep"):
        manage.edit(ledger, "root", Edit(parent="d3"))
    await manage.edit(ledger, "team", Edit(parent="d3"))[1]
    assert len(ledger.tenant("ann").path) == 6
    await tree.end()


@pytest.mark.parametrize("unit", ["credits", "calls"])
@pytest.mark.parametrize("calls", [10, 1000])
async def test_many_at_once_never_pass_a_cap(tmp_path: Path, unit: str, calls: int) -> None:
    """The package would pay for all of them, the cap for five."""
    tree = Tree(tmp_path, {"day": {unit: 5 if unit == "calls" else 500}})
    ledger = await tree.grow()
    manage.add_grant(ledger, "root", 10**6)

    async def one() -> bool:
        try:
            name = await tree.begin("ann")
        except QuotaExhausted:
            return False
        await asyncio.sleep(0)
        await settle(ledger, name, 100)
        return True

    assert sum(await asyncio.gather(*(one() for _ in range(calls)))) == 5
    await tree.end()


assert START_MS % (5 * MINUTE_MS) == 200_000  # in the middle of a slot


async def test_the_audit_counts_caps_and_says_when_it_cannot(tmp_path: Path) -> None:
    tree = Tree(tmp_path, {"month": {"credits": 1000}})
    await tree.grow()
    await tree.call("ann")
    await tree.ledger.aclose()
    assert audit(tree.path) == []
    with closing(sqlite3.connect(tree.path)) as connection:
        connection.execute("UPDATE cap_use SET used = used + 1 WHERE used > 0")
        connection.commit()
        assert [line for line in audit(tree.path) if line.startswith("I7: account team")]
        connection.execute("UPDATE records SET account_path = '{'")
        connection.commit()
    assert "I7: all records cannot be counted for caps" in audit(tree.path)
