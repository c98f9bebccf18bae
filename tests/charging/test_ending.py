"""Purses and alerts in the ledger: hard caps, renewals, refunds, changes, restarts, old files."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing, suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import orjson
import pytest

from gateway.charging.audit import audit
from gateway.charging.beyond import Beyond, Throttle, beyond
from gateway.charging.directory import Edit
from gateway.charging.ending import Ending, ending_of, ending_text
from gateway.charging.ledger import open_ledger
from gateway.charging.packages import terms_of, terms_text
from gateway.charging.rating import Quote
from gateway.config.model import Exhausted, Limits, Package, Payg, Plan, PlanGrant
from gateway.errors import InvalidValue, QuotaExhausted
from tests.charging import manage
from tests.charging.fakes import FakeClock, fail_next, recovered, settle
from tests.charging.older import as_version
from tests.charging.shop import PACKAGES, PAYG, TWICE, Shop, ms

LATER = ("exhausted", "alerts")  # than the first packages


async def opened(path: Path) -> Shop:
    return await Shop(path).open()


def purses(shop: Shop) -> list[tuple[int, int, int]]:
    """Granted, spent, available of all there ever were."""
    found = [grant for grant in shop.ledger._image.grants.values() if grant.payg]
    return [(grant.granted, grant.spent, grant.available) for grant in found]


def told(shop: Shop) -> list[tuple[str, int]]:
    return [(alert.lot, alert.level // 10_000) for alert in shop.ledger._image.watch.alerts]


def test_a_cap_buys_credits_and_never_costs_more() -> None:
    for price, cap in ((12_000_000, 500_000_000), (7, 10), (999_999_999_999, 1_000_000_000_000), (3, 1)):
        payg = Payg(price, cap)
        assert payg.amount(payg.credits_uc) <= cap < payg.amount(payg.credits_uc + 1)
        assert payg.amount(0) == 0
        assert payg.amount(1) >= 1


@pytest.mark.parametrize("name", PACKAGES)
def test_terms_are_read_as_they_were_sold(name: str) -> None:
    assert terms_of(terms_text(PACKAGES[name])) == PACKAGES[name]
    older = {key: value for key, value in orjson.loads(terms_text(PACKAGES[name])).items() if key not in LATER}
    assert terms_of(orjson.dumps(older).decode()) == replace(PACKAGES[name], exhausted=Exhausted(), alerts=())


def test_what_a_grant_says_is_read_as_it_was_stored() -> None:
    for said in (Ending(), Ending(Payg(1, 2), alerts=(3,)), Ending(None, "auto", Limits(rpm=2), (1, 2)), None):
        assert ending_of(ending_text(said)) == said


async def test_the_purse_is_spent_last_and_to_the_last_credit(tmp_path: Path) -> None:
    shop = await opened(tmp_path)
    await shop.subscribe("over")
    await shop.buy("W-1", "units")  # a wallet, whose priority is the last of what is prepaid
    await shop.spend(300)
    await shop.spend(399)
    assert purses(shop) == [(200, 0, 200)]
    await shop.spend(201)
    assert purses(shop) == [(200, 200, 0)]
    with pytest.raises(QuotaExhausted):
        await shop.spend(1)
    assert shop.ledger.available_uc("t") == 0
    await shop.end()


async def test_what_calls_only_hold_makes_no_other_call_a_billed_one(tmp_path: Path) -> None:
    """One holds all of the package and the next some of the purse; each then uses little: the package pays both."""
    shop = await opened(tmp_path)
    await shop.subscribe("over")
    first, second = await shop.begin(300), await shop.begin(100)
    assert [(grant.available, grant.reserved) for grant in shop.live()] == [(0, 300), (100, 100)]
    await settle(shop.ledger, first, 10)
    await settle(shop.ledger, second, 20)
    assert purses(shop) == [(200, 0, 200)]
    third, fourth = await shop.begin(270), await shop.begin(100)
    await settle(shop.ledger, fourth, 20)  # before the other has given anything back
    await settle(shop.ledger, third, 270)
    assert purses(shop) == [(200, 20, 180)]
    await shop.end()


async def test_the_cap_is_exact_for_a_thousand_calls_at_once(tmp_path: Path) -> None:
    shop = await opened(tmp_path)
    await shop.subscribe("over")

    async def call() -> bool:
        try:
            name = await shop.begin(7)
        except QuotaExhausted:
            return False
        await settle(shop.ledger, name, 7)
        return True

    served = sum(await asyncio.gather(*(call() for _ in range(1000))))
    assert served == 500 // 7
    [(_, spent, _)] = purses(shop)
    assert spent == served * 7 - 300
    await shop.end()


async def test_the_purse_is_new_in_each_period_and_rolls_nothing_over(tmp_path: Path) -> None:
    shop = await opened(tmp_path)
    await shop.subscribe("over")
    await shop.spend(350)
    shop.at("2024-02-01")
    assert shop.left() == [("package:over", 300, "2024-03-01"), ("package:over", 200, "2024-03-01")]
    assert purses(shop) == [(200, 50, 0), (200, 0, 200)]
    said = shop.ledger.statement("t", "2024-01-01", "2024-02-01")
    await shop.spend(1)
    assert [purse["amount"] for purse in said["payg"]] == ["0.0001"]
    await shop.end()


async def test_the_months_of_a_purse_add_up_to_what_it_cost(tmp_path: Path) -> None:
    shop = await Shop(tmp_path).open()
    third = Exhausted(Payg(TWICE // 6, 100))  # a third of a millionth each
    shop.packages["third"] = Package("third", 1, valid_s=365 * 86_400.0, exhausted=third)
    await shop.buy("A-1", "third")
    for month in ("2024-01-10", "2024-02-10", "2024-03-10", "2024-04-10"):
        shop.at(month)
        await shop.spend(1)
        await shop.spend(1)
    spans = [f"2024-0{month}-01" for month in range(1, 6)]
    parts = [shop.ledger.statement("t", *span)["payg"] for span in pairwise(spans)]
    whole = shop.statement()["payg"]
    assert [purse["credits"] for purse in whole] == ["0.000007"]
    amounts = [round(float(purse["amount"]) * 1e6) for part in parts for purse in part]
    assert (amounts, sum(amounts)) == ([1, 0, 1, 1], round(float(whole[0]["amount"]) * 1e6))
    await shop.end()


@pytest.mark.parametrize("kind", ["over", "late"])
async def test_a_refund_ends_the_purse_and_takes_back_none_of_it(tmp_path: Path, kind: str) -> None:
    shop = await opened(tmp_path)
    await shop.buy("A-1", kind)
    await shop.spend(10)
    taken, _ = await shop.refund("A-1", 500, "R-1")
    assert (taken.credits_uc, purses(shop)) == (290, [(200, 0, 200)])
    await shop.spend(20)
    taken, _ = await shop.refund("A-1")
    assert (taken.credits_uc, purses(shop)) == (0, [(200, 20, 0)])
    with pytest.raises(QuotaExhausted):
        await shop.spend(1)
    assert [purse["credits"] for purse in shop.statement()["payg"]] == ["0.00002"]
    await shop.end()


async def test_what_is_cancelled_now_ends_its_purse_and_later_with_the_period(tmp_path: Path) -> None:
    shop = await opened(tmp_path)
    one, other = await shop.subscribe("over"), await shop.subscribe("over")
    await shop.cancel(one, now=True)
    await shop.cancel(other)
    assert purses(shop) == [(200, 0, 0), (200, 0, 200)]
    shop.at("2024-02-02")
    assert shop.left() == []
    await shop.end()


async def test_a_change_gets_its_purse_with_the_next_period(tmp_path: Path) -> None:
    shop = await opened(tmp_path)
    one = await shop.subscribe("plain")
    await shop.change(one, "over", 2)
    assert purses(shop) == []
    shop.at("2024-02-01")
    assert [uc for _, uc, _ in shop.left()] == [200, 600, 400]
    await shop.change(one, "plain")
    assert [uc for _, uc, _ in shop.left()] == [200, 600, 400]
    shop.at("2024-03-01")
    assert shop.left()[0][1] == 600
    assert purses(shop)[-1] == (400, 0, 0)
    await shop.end()


async def test_what_is_used_up_is_not_looked_at_by_calls_and_its_end_stays_in_force(tmp_path: Path) -> None:
    shop = await opened(tmp_path)
    slow = Exhausted(throttle=Limits(rpm=2))
    shop.packages["wallet"] = Package("wallet", 10, priority=50, exhausted=slow, alerts=(1_000_000,))
    for number in range(20):
        await shop.buy(f"W-{number}", "wallet")
        await shop.spend(10)
    await shop.buy("W-20", "wallet")
    assert [grant.available for grant in shop.live()] == [10]
    quote = Quote("t", ("t",), "r", "chat", "m", "standard", 1, 0, 1, 1, shop.clock.ms)
    assert shop.ledger.look(beyond, quote).throttle == Throttle(
        "t", Limits(rpm=2), shop.ledger._image.grants["g00000001"]
    )
    for number in range(21):
        await shop.refund(f"W-{number}")
    assert shop.ledger.look(beyond, quote) == Beyond()
    await shop.end()


async def test_a_quantity_whose_cap_is_out_of_range_is_refused(tmp_path: Path) -> None:
    shop = await opened(tmp_path)
    shop.packages["big"] = Package("big", 1, exhausted=Exhausted(Payg(1, 10**6)))
    with pytest.raises(InvalidValue, match="quantity"):
        await shop.buy("A-1", "big", 2)
    await shop.end()


async def test_what_a_member_spent_is_billed_also_after_it_has_moved(tmp_path: Path) -> None:
    shop = await opened(tmp_path)
    await shop.subscribe("over")
    await shop.spend(350, "m")
    before = shop.statement()["payg"]
    await manage.edit(shop.ledger, "m", Edit(parent="u"))[1]
    await shop.spend(10)
    assert [purse["credits"] for purse in (*before, *shop.statement()["payg"])] == ["0.00005", "0.00006"]
    assert shop.statement("u")["payg"] == shop.statement("m")["payg"] == []
    await shop.end()


async def test_a_purse_pays_debts_that_are_billed_then(tmp_path: Path) -> None:
    shop = await opened(tmp_path)
    await shop.buy("A-1", "trial")
    name = await shop.begin(70)
    await settle(shop.ledger, name, 90)
    assert shop.ledger.tenant("t").debt_uc == 20
    await shop.subscribe("named")  # with a scope: it pays no debt
    await shop.subscribe("over")
    await shop.spend(1)
    assert shop.ledger.tenant("t").debt_uc == 0
    await shop.spend(299 - 20)
    await manage.add_tenant(shop.ledger, "n", "none", "t")[1]
    await shop.buy("A-9", "trial", tenant="n")
    name = await shop.begin(70, "n")
    await settle(shop.ledger, name, 500)
    await shop.subscribe("over")
    await shop.spend(1, "n")
    spent = sum(spent for _, spent, _ in purses(shop))
    assert sum(float(purse["credits"]) for purse in shop.statement()["payg"]) * 1e6 == pytest.approx(spent)
    await shop.end()


async def test_the_purse_of_a_plan_is_one_of_the_month(tmp_path: Path) -> None:
    metered = Plan("metered", exhausted=PAYG, alerts=(1_000_000,))
    free = Plan("free", (PlanGrant(10, "month"),))
    clock = FakeClock(ms("2024-01-31"))
    ledger = await open_ledger(f"{tmp_path}/l.db", clock, "Asia/Shanghai", {"metered": metered, "free": free})
    await manage.add_tenant(ledger, "t", "metered")[1]
    image = ledger._image
    assert [grant.available for grant in image.burn_list(("t",), clock.ms)] == [200]
    await manage.edit(ledger, "t", Edit(plan="free"))[1]  # what runs lives to its end
    assert [grant.available for grant in image.burn_list(("t",), clock.ms)] == [10, 200]
    clock.ms = ms("2024-02-29")
    assert [grant.available for grant in image.burn_list(("t",), clock.ms)] == [10]
    await manage.edit(ledger, "t", Edit(plan="metered"))[1]
    assert [grant.available for grant in image.burn_list(("t",), clock.ms)] == [10, 200]
    ledger.check_invariants()
    await ledger.aclose()
    assert audit(f"{tmp_path}/l.db") == []


# -- alerts -------------------------------------------------------------------------------------------------------


async def test_each_level_is_told_once_for_each_period(tmp_path: Path) -> None:
    shop = await opened(tmp_path)
    await shop.subscribe("over")
    await shop.spend(149)
    assert told(shop) == []
    await shop.spend(1)
    assert told(shop) == [("s00000001:0", 50)]
    await shop.reopen()
    await shop.spend(1)
    assert told(shop) == [("s00000001:0", 50)]
    await shop.spend(149)
    assert told(shop)[1:] == [("s00000001:0", 80), ("s00000001:0", 100)]
    shop.at("2024-02-01")
    await shop.spend(150)
    assert told(shop)[3:] == [("s00000001:1", 50)]
    await shop.end()


async def test_what_rolled_over_and_what_a_change_granted_count_together(tmp_path: Path) -> None:
    shop = await opened(tmp_path)
    one = await shop.subscribe("over")
    shop.at("2024-02-01")
    await shop.spend(199)  # of 300 and 100 that rolled over
    assert told(shop) == []
    await shop.change(one, "over", 2)  # at once 300 more
    await shop.spend(150)
    assert told(shop) == []
    await shop.spend(1)
    assert told(shop) == [("s00000001:1", 50)]
    await shop.end()


async def test_calls_of_members_count_for_the_pool(tmp_path: Path) -> None:
    shop = await opened(tmp_path)
    await shop.buy("A-1", "late")
    await shop.buy("A-2", "late")
    await shop.spend(300, "m")
    assert told(shop) == [("order:A-1", 50), ("order:A-1", 80), ("order:A-1", 100)]
    await shop.spend(300, "m")
    await shop.spend(100, "m")
    assert told(shop)[6:] == [("payg-order:A-1", 50)]
    await shop.end()


@pytest.mark.parametrize("where", ["begin", "execute", "commit", "after commit"])
async def test_an_alert_is_as_durable_as_what_was_spent(tmp_path: Path, where: str) -> None:
    shop = await opened(tmp_path)
    await shop.subscribe("over")
    fail_next(shop.ledger, where)
    with suppress(Exception):
        await shop.spend(150)
    await recovered(shop.ledger)
    spent = shop.sums()["spent"]
    assert told(shop) == ([("s00000001:0", 50)] if spent else [])
    await shop.spend(150)
    assert told(shop)[:1] == [("s00000001:0", 50)]
    await shop.end()


async def test_a_refund_may_bring_a_level_about(tmp_path: Path) -> None:
    shop = await opened(tmp_path)
    await shop.buy("A-1", "late")
    await shop.spend(100)
    await shop.refund("A-1", 100, "R-1")
    await shop.ledger.change(lambda image, now_ms: None)[1]
    assert told(shop) == [("order:A-1", 50)]
    await shop.end()


async def test_a_file_from_before_is_brought_up_to_date(tmp_path: Path) -> None:
    shop = await Shop(tmp_path).open()
    await shop.buy("A-1", "month")
    await shop.ledger.aclose()
    as_version(shop.path, 6)
    assert audit(shop.path) == []
    await shop.open()
    assert shop.statement()["payg"] == []
    await shop.subscribe("over")
    await shop.spend(3300)
    assert purses(shop) == [(200, 0, 200)]
    await shop.end()


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        (
            "UPDATE grants SET ending = replace(ending, '400', '40') WHERE period LIKE 'payg-%'",
            "more than its cap of 40",
        ),
        ("UPDATE grants SET period = 'payg-order:none' WHERE period LIKE 'payg-%'", "stands behind nothing"),
    ],
)
async def test_the_audit_knows_purses(tmp_path: Path, sql: str, says: str) -> None:
    shop = await opened(tmp_path)
    await shop.buy("A-1", "late")
    await shop.ledger.aclose()
    with closing(sqlite3.connect(shop.path)) as connection:
        connection.execute(sql)
        connection.commit()
    assert any(says in line for line in audit(shop.path))
