"""Trees, renewals, debt, hold rows, and what a tenant is shown of its grants."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from gateway.charging.audit import audit
from gateway.charging.directory import Edit
from gateway.charging.grants import period_bounds, period_number
from gateway.charging.ledger import Ledger, open_ledger
from gateway.charging.rating import Quote
from gateway.errors import InvalidValue, NotFound, QuotaExhausted
from tests.charging import manage
from tests.charging.fakes import START_MS, FakeClock, opened, plan, quote, settle
from tests.charging.shop import Shop

DAY_MS = 86_400_000


def member(*path: str, input_uc: int = 100, max_tokens: int | None = 100) -> Quote:
    return Quote(path[-1], path, "r", "chat", "m", "standard", 1, input_uc, 1, max_tokens, START_MS * 2)


async def family(path: Path, pool_uc: int = 1000) -> Ledger:
    """family > team > ann, ben; the pool is on the family."""
    ledger = await open_ledger(f"{path}/l.db", FakeClock(), "UTC", {"p": plan(0)})
    for name, parent in (("family", None), ("team", "family"), ("ann", "team"), ("ben", "team")):
        await manage.add_tenant(ledger, name, "p", parent)[1]
    manage.add_grant(ledger, "family", pool_uc)
    return ledger


async def end(ledger: Ledger, path: Path) -> None:
    ledger.check_invariants()
    await ledger.aclose()
    assert audit(f"{path}/l.db") == []


async def test_members_draw_on_the_pool_of_their_ancestors(tmp_path: Path) -> None:
    ledger = await family(tmp_path)
    manage.add_grant(ledger, "ann", 50, priority=10)
    await ledger.reserve("a", member("family", "team", "ann"), clamp=False)
    await ledger.reserve("b", member("family", "team", "ben"), clamp=False)
    for name in "ab":
        ledger.dispatched(name, "b", "m")
        await settle(ledger, name, 120)
    records = {r["charge_id"]: r for tenant in ("ann", "ben") for r in ledger.charges(tenant)["data"]}
    assert [part["credits"] for part in records["a"]["parts"]] == ["0.00005", "0.00007"]  # its own first
    assert [part["credits"] for part in records["b"]["parts"]] == ["0.00012"]
    assert records["a"]["account_path"] == ["family", "team", "ann"]
    assert ledger.usage("ben")["available"] == ledger.usage("family")["available"] == "0.00081"
    assert ledger.tenant("ann").settled_uc == 120
    assert ledger.tenant("family").settled_uc == 0
    await end(ledger, tmp_path)


async def test_a_pool_is_shared_to_the_last_and_siblings_do_not_pay_each_other(tmp_path: Path) -> None:
    ledger = await family(tmp_path, 300)
    manage.add_grant(ledger, "ben", 500)
    await ledger.reserve("a", member("family", "team", "ann"), clamp=False)
    with pytest.raises(QuotaExhausted):
        await ledger.reserve("b", member("family", "team", "ann"), clamp=False)
    await ledger.reserve("c", member("family", "team", "ben"), clamp=False)
    with pytest.raises(NotFound):
        await ledger.reserve("d", member("family", "nobody"), clamp=False)
    await end(ledger, tmp_path)


async def test_debt_of_a_member_blocks_it_alone_and_the_pool_repays(tmp_path: Path) -> None:
    ledger = await family(tmp_path, 200)
    await ledger.reserve("a", member("family", "team", "ann"), clamp=False)
    ledger.dispatched("a", "b", "m")
    await settle(ledger, "a", 350)
    assert (ledger.tenant("ann").debt_uc, ledger.tenant("ann").loss_uc) == (150, 0)
    with pytest.raises(QuotaExhausted):
        await ledger.reserve("b", member("family", "team", "ann", input_uc=0, max_tokens=None), clamp=False)
    manage.add_grant(ledger, "family", 500)
    await ledger.reserve("c", member("family", "team", "ann"), clamp=False)
    assert ledger.tenant("ann").debt_uc == 0
    assert ledger.usage("family")["available"] == "0.00015"  # 500 less the debt and the hold
    await end(ledger, tmp_path)


async def test_a_tree_is_at_most_six_deep(tmp_path: Path) -> None:
    ledger = await open_ledger(f"{tmp_path}/l.db", FakeClock(), "UTC", {"p": plan(0)})
    for depth in range(6):
        manage.add_tenant(ledger, f"n{depth}", "p", f"n{depth - 1}" if depth else None)
    with pytest.raises(InvalidValue):
        manage.add_tenant(ledger, "n6", "p", "n5")
    await end(ledger, tmp_path)


def rows(path: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(f"{path}/l.db")) as connection:
        return connection.execute(sql).fetchall()


async def test_a_hold_is_written_after_50_ms_with_what_is_known_of_its_dispatch(tmp_path: Path) -> None:
    clock = FakeClock()
    ledger = await opened(tmp_path, clock)
    for name in ("short", "waiting", "sent", "sent later"):
        await ledger.reserve(name, quote(max_tokens=None), clamp=False)
    ledger.dispatched("sent", "b1", "m1")
    clock.advance(49)
    ledger.dispatched("short", "b", "m")
    await settle(ledger, "short", 10)
    assert rows(tmp_path, "SELECT charge_id FROM holds") == []
    clock.advance(1)
    await manage.add_key(ledger, "t", "00")[1]
    shown = "SELECT charge_id, dispatched, backend, model FROM holds ORDER BY charge_id"
    assert rows(tmp_path, shown) == [("sent", 1, "b1", "m1"), ("sent later", 0, "", ""), ("waiting", 0, "", "")]
    ledger.dispatched("sent later", "b2", "m2")
    await manage.add_key(ledger, "t", "01")[1]
    assert rows(tmp_path, shown)[1] == ("sent later", 1, "b2", "m2")
    await settle(ledger, "sent later", 5)
    assert len(rows(tmp_path, shown)) == 2
    await ledger.aclose()
    again = await opened(tmp_path, clock)
    flags = {r["charge_id"]: (r["status"], r["charged"], r["flags"]) for r in again.charges("t")["data"]}
    assert flags["sent"] == ("settled", "0", ["crash"])
    assert "waiting" not in flags
    await end(again, tmp_path)


def ms(zone: ZoneInfo, *parts: int) -> int:
    return int(datetime(*parts, tzinfo=zone).timestamp() * 1000)  # type: ignore[arg-type,misc]


@pytest.mark.parametrize(
    ("zone", "anchor", "every", "number", "start"),
    [
        ("Europe/Berlin", (2026, 3, 28, 2, 30), "day", 1, (2026, 3, 29, 3, 30)),  # an hour that is not there
        ("Europe/Berlin", (2026, 3, 28, 2, 30), "day", 2, (2026, 3, 30, 2, 30)),
        ("Europe/Berlin", (2026, 10, 24, 2, 30), "day", 2, (2026, 10, 26, 2, 30)),
        ("America/New_York", (2026, 1, 31, 12), "month", 1, (2026, 2, 28, 12)),
        ("America/New_York", (2026, 1, 31, 12), "month", 2, (2026, 3, 31, 12)),  # summer time: the wall time stays
        ("Asia/Shanghai", (2026, 5, 1, 0), "week", 3, (2026, 5, 22, 0)),
    ],
)
def test_periods_keep_the_wall_time_of_their_zone(
    zone: str, anchor: tuple[int, ...], every: str, number: int, start: tuple[int, ...]
) -> None:
    where = ZoneInfo(zone)
    begins, ends = period_bounds(ms(where, *anchor), every, number, where)
    assert begins == ms(where, *start)
    assert period_number(ms(where, *anchor), every, begins, where) == number
    assert period_number(ms(where, *anchor), every, ends - 1, where) == number
    assert period_number(ms(where, *anchor), every, begins - 1, where) == number - 1


async def test_a_renewal_is_granted_once_over_restarts_and_plan_edits(tmp_path: Path) -> None:
    clock = FakeClock()
    ledger = await opened(tmp_path, clock, 1000, "month")
    for _ in range(3):
        clock.advance(31 * DAY_MS)
        ledger.usage("t")
        await ledger.aclose()
        ledger = await opened(tmp_path, clock, 1000, "month")
    ledger.apply_plan("t", plan(9000, "month"))  # an edit is for the next period
    assert ledger.usage("t")["available"] == "0.001"
    await ledger.aclose()
    assert rows(tmp_path, "SELECT count(*), count(DISTINCT period), sum(granted) FROM grants") == [(4, 4, 4000)]
    ledger = await open_ledger(f"{tmp_path}/l.db", clock, "Asia/Shanghai", {"p": plan(9000, "month")})
    clock.advance(31 * DAY_MS)
    assert ledger.usage("t")["available"] == "0.009"
    await end(ledger, tmp_path)


async def test_grants_shown_add_up_and_ended_ones_stay_for_a_while(tmp_path: Path) -> None:
    clock = FakeClock()
    ledger = await opened(tmp_path, clock, 1000, "day")
    manage.add_grant(ledger, "t", 500, source_ref="pack")
    await ledger.reserve("a", quote(), clamp=False)
    ledger.dispatched("a", "b", "m")
    await settle(ledger, "a", 150)
    await ledger.reserve("long", quote(), clamp=False)
    clock.advance(DAY_MS)
    shown = ledger.usage("t")
    for grant in shown["grants"]:
        assert Decimal(grant["granted"]) == sum(Decimal(grant[k]) for k in ("available", "reserved", "spent"))
    for total in ("available", "reserved", "spent"):
        assert Decimal(shown[total]) == sum(Decimal(grant[total]) for grant in shown["grants"])
    [old] = shown["ended"]
    assert [old[k] for k in ("granted", "available", "reserved", "spent", "expired", "revoked")] == [
        "0.001", "0", "0.0002", "0.00015", "0.00065", "0",
    ]  # fmt: skip
    clock.advance(41 * DAY_MS)
    assert [grant["reserved"] for grant in ledger.usage("t")["ended"] if grant["id"] == old["id"]] == ["0.0002"]
    ledger.close("long", "aborted")
    assert old["id"] not in {grant["id"] for grant in ledger.usage("t")["ended"]}
    await end(ledger, tmp_path)


async def test_a_statement_has_what_a_member_took_before_it_moved_away(tmp_path: Path) -> None:
    shop = await Shop(tmp_path).open()
    await shop.buy("A-1", "pack")
    await shop.spend(300, "m")
    await manage.edit(shop.ledger, "m", Edit(parent="u"))[1]
    said = shop.statement()
    assert [said[name] for name in ("granted", "spent", "closing")] == ["0.0005", "0.0003", "0.0002"]
    await shop.end()
