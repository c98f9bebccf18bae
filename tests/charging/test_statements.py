"""Statements: cut once, for good and by number; what was sold and used, and what is left."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing, suppress
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.charging.audit import audit, verified
from gateway.charging.cutting import Statements
from gateway.charging.directory import Edit
from gateway.config.model import Exhausted, Package, Payg
from gateway.errors import Conflict, InvalidValue, NotFound, QuotaExhausted, StoreUnavailable
from tests.charging import manage
from tests.charging.fakes import fail_both, recovered, settle
from tests.charging.shop import Shop

SUMS = ("opening", "granted", "spent", "expired", "revoked", "closing")


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    shop = await Shop(tmp_path).open()
    yield shop
    await shop.end()


def of(shop: Shop) -> Statements:
    return Statements(shop.ledger, shop.path, "Asia/Shanghai", "CNY", shop.clock)


async def cut(shop: Shop, month: str, tenant: str = "t") -> dict[str, Any]:
    found, _ = await of(shop).cut(tenant, month)
    return found


def uc(text: str) -> int:
    return int(Decimal(text) * 1_000_000)


def sums(value: dict[str, Any]) -> list[int]:
    return [uc(value[name]) for name in SUMS]


def kept(shop: Shop) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(shop.path)) as connection:
        return connection.execute("SELECT * FROM statements ORDER BY tenant, month").fetchall()


# -- the cut ------------------------------------------------------------------------------------------------------


async def test_a_statement_that_is_cut_never_changes(shop: Shop) -> None:
    await shop.buy("A-1", "pack")
    await shop.spend(40)
    shop.at("2024-02-03")
    first, new = await of(shop).cut("t", "2024-01")
    assert new
    assert sums(first) == [0, 500, 40, 460, 0, 0]
    assert (first["preliminary"], first["cut"]["records"], first["calls"]) == (False, 1, 1)
    rows = kept(shop)
    await shop.buy("A-2", "pack")
    await shop.spend(7)
    await shop.reopen()
    assert await of(shop).cut("t", "2024-01") == (first, False)
    assert kept(shop) == rows
    assert [tenant for tenant, *_ in rows] == ["m", "t", "u"]  # a month is cut for all


async def test_closing_is_the_opening_of_the_next(shop: Shop) -> None:
    await shop.subscribe("rolling")
    found = []
    for month, spent in (("2024-01", 100), ("2024-02", 950), ("2024-03", 0)):
        if spent:
            await shop.spend(spent)
        shop.at(f"2024-0{int(month[-1]) + 1}-05")
        found.append(await cut(shop, month))
    assert [sums(one) for one in found] == [
        [0, 1000, 100, 0, 0, 900],  # what ends at midnight is left at the end, and expires in the next month
        [900, 1300, 950, 900, 0, 350],
        [350, 1300, 0, 350, 0, 1300],
    ]
    assert audit(shop.path) == []


async def test_what_is_numbered_late_is_on_the_next(shop: Shop) -> None:
    """The wall clock went back behind the end of a month that was cut."""
    await shop.buy("A-1", "units")
    shop.at("2024-02-01")
    first = await cut(shop, "2024-01")
    shop.at("2024-01-31")
    await shop.spend(3)
    await shop.buy("A-2", "units")
    shop.at("2024-03-01")
    assert await cut(shop, "2024-01") == first
    later = await cut(shop, "2024-02")
    assert sums(later) == [400, 400, 3, 0, 0, 797]
    assert [line["order"] for line in later["lines"]] == ["A-2"]
    assert later["calls"] == 1
    assert audit(shop.path) == []


async def test_what_came_between_the_end_and_the_cut_is_on_the_next(shop: Shop) -> None:
    await shop.buy("A-1", "units")
    await shop.spend(5)
    shop.at("2024-02-10")
    await shop.spend(60)
    assert sums(await cut(shop, "2024-01")) == [0, 400, 5, 0, 0, 395]
    await shop.spend(2)
    shop.at("2024-03-10")
    await shop.spend(9)
    assert sums(await cut(shop, "2024-02")) == [395, 0, 62, 0, 0, 333]
    shop.clock.advance(100)
    held = await shop.begin(20)
    shop.clock.advance(100)
    running = await of(shop).of_month("t", "2024-03")
    assert (running["preliminary"], sums(running)) == (True, [333, 0, 9, 0, 0, 324])
    assert uc(running["reserved"]) == 20
    await settle(shop.ledger, held, 20)


async def test_months_in_between_are_cut_too_and_none_before_the_first(shop: Shop) -> None:
    await shop.buy("A-1", "units", 2)
    shop.at("2024-02-15")
    await shop.spend(1)
    shop.at("2024-06-01")
    assert sums(await cut(shop, "2024-02")) == [800, 0, 1, 0, 0, 799]
    assert sums(await cut(shop, "2024-05")) == [799, 0, 0, 0, 0, 799]
    assert [one["month"] for one in await of(shop).listed("t")] == ["2024-05", "2024-04", "2024-03", "2024-02"]
    with pytest.raises(Conflict, match="begin with 2024-02"):
        await cut(shop, "2024-01")
    assert audit(shop.path) == []


async def test_only_a_month_that_has_ended_is_cut(shop: Shop) -> None:
    shop.at("2024-02-29T23:59:59.999")
    with pytest.raises(Conflict, match="has not ended"):
        await cut(shop, "2024-02")
    for wrong in ("2024-13", "2024-2", "", "January", "99999-01"):
        with pytest.raises(InvalidValue, match="2026-11"):
            await cut(shop, wrong)
    with pytest.raises(InvalidValue, match="has not begun"):
        await of(shop).of_month("t", "2024-03")
    with pytest.raises(NotFound):
        await cut(shop, "2024-01", "ghost")
    shop.clock.ms += 1
    assert (await cut(shop, "2024-02"))["to"] == "2024-02-29T16:00:00Z"


async def test_the_ended_month_is_cut_by_itself(shop: Shop) -> None:
    await of(shop).cut_ended()  # the ledger began in this month
    assert kept(shop) == []
    shop.at("2024-02-01")
    await asyncio.gather(of(shop).cut_ended())
    await of(shop).cut_ended()
    assert [month for _, month, *_ in kept(shop)] == ["2024-01"] * 3


async def test_a_clock_that_went_back_is_waited_for(shop: Shop) -> None:
    shop.at("2024-03-02")
    await of(shop).cut_ended()
    shop.at("2024-02-02")
    await of(shop).cut_ended()
    assert [month for _, month, *_ in kept(shop)] == ["2024-02"] * 3
    shop.at("2024-04-02")
    await of(shop).cut_ended()
    assert {month for _, month, *_ in kept(shop)} == {"2024-02", "2024-03"}


async def test_who_came_later_has_none(shop: Shop) -> None:
    shop.at("2024-02-01")
    await cut(shop, "2024-01")
    await manage.add_tenant(shop.ledger, "late", "none")[1]
    with pytest.raises(Conflict, match="was not there yet"):
        await cut(shop, "2024-01", "late")
    shop.at("2024-03-01")
    assert sums(await cut(shop, "2024-02", "late")) == [0] * 6


@pytest.mark.parametrize("stage", ["begin", "execute", "commit", "after commit"])
async def test_a_cut_that_breaks_off_goes_on_where_it_was(shop: Shop, stage: str) -> None:
    await shop.buy("A-1", "units")
    shop.at("2024-02-01")
    statements = of(shop)
    begun = await statements._begin("2024-01")
    await shop.spend(5)
    fail_both(shop.ledger, stage)
    with pytest.raises(StoreUnavailable):
        await statements._write(begun)
    await recovered(shop.ledger)
    found = await cut(shop, "2024-01")
    assert (found["cut"]["records"], sums(found)) == (0, [0, 400, 0, 0, 0, 400])
    assert len(kept(shop)) == 3


async def test_a_chore_that_cannot_cut_does_not_fail(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    shop.at("2024-02-01")
    fail_both(shop.ledger, "commit")
    await of(shop).cut_ended()
    assert "2024-01 was not cut" in caplog.text
    await recovered(shop.ledger)
    await of(shop).cut_ended()
    assert len(kept(shop)) == 3


@given(st.lists(st.sampled_from(["spend", "member", "buy", "day", "month", "back", "cut"]), max_size=40))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_each_record_and_entry_is_on_one_statement(steps: list[str]) -> None:
    """Also when the clock goes back; `audit` counts them one by one."""

    async def walk(path: Path) -> None:
        shop = await Shop(path, "2024-01-30").open()
        await shop.subscribe("rolling")
        for number, step in enumerate([*steps, "month", "cut"]):
            if step in ("spend", "member"):
                with suppress(QuotaExhausted):
                    await shop.spend(3, "t" if step == "spend" else "m")
            elif step == "buy":
                await shop.buy(f"A-{number}", "pack")
            elif step == "cut":
                await of(shop).cut_ended()
                assert audit(shop.path) == []
            else:
                shop.clock.ms += {"day": 1, "month": 33, "back": -2}[step] * 86_400_000
        closed: dict[str, str] = {}
        for tenant, _, body, _ in kept(shop):
            value = orjson.loads(body)
            assert value["opening"] == closed.get(tenant, value["opening"])
            closed[tenant] = value["closing"]
        await shop.end()

    with TemporaryDirectory() as folder:
        asyncio.run(walk(Path(folder)))


# -- what belongs to a month ----------------------------------------------------------------------------------------


async def test_what_fell_due_unseen_is_on_the_month_in_which_it_did(shop: Shop) -> None:
    await shop.subscribe("month")
    await shop.buy("A-1", "pack")
    shop.at("2024-03-20")
    assert sums(await cut(shop, "2024-01")) == [0, 3600, 0, 500, 0, 3100]
    february = await cut(shop, "2024-02")
    assert sums(february) == [3100, 3100, 0, 3100, 0, 3100]
    assert [(line["kind"], line["at"], line["price"]) for line in february["lines"]] == [
        ("subscription", "2024-01-31T16:00:00Z", "0.031")
    ]


async def test_lines_have_their_prices(shop: Shop) -> None:
    one = await shop.subscribe("month", 2)
    await shop.buy("A-1", "pack")
    await shop.codes("units", "abc")
    await shop.redeem("abc")
    shop.at("2024-01-16")
    await shop.change(one, "large", 1, "U-1")  # 16 of 31 days: more by 24,800 credits and 0.248
    await shop.refund("A-1", 100)
    shop.at("2024-01-20")
    await shop.change(one, "month", 1, "D-1")  # from the next period on
    shop.at("2024-02-02")
    january = await cut(shop, "2024-01")
    lines = [(one["kind"], one["what"], uc(one["credits"]), one["price"], one["order"]) for one in january["lines"]]
    assert lines == [
        ("subscription", "month", 6200, "0.062", None),
        ("order", "pack", 500, "5.99", "A-1"),
        ("code", "units", 400, "1", "moma:code:b000001:1"),
        ("change", "large", 12_800, "0.128", "U-1"),
        ("refund", "pack", -100, "0", "A-1"),
    ]
    assert january["money"] == {
        "currency": "CNY", "subscriptions": "0.19", "packs": "5.99", "codes": "1", "payg": "0", "total": "7.18",
    }  # fmt: skip
    shop.at("2024-03-02")
    [line] = (await cut(shop, "2024-02"))["lines"]
    assert (line["kind"], uc(line["credits"]), line["price"]) == ("subscription", 3100, "0.031")


async def test_a_change_that_costs_and_grants_no_credits_is_a_line(shop: Shop) -> None:
    one = await shop.subscribe("month")
    shop.packages["dear"] = shop.packages["month"].__class__("dear", 3100, "month", price=62_000, priority=20)
    shop.at("2024-01-17")  # 15 of 31 days
    await shop.change(one, "dear", None, "U-1")
    shop.at("2024-02-02")
    found = await cut(shop, "2024-01")
    assert [(one["kind"], one["credits"], one["price"]) for one in found["lines"]] == [
        ("subscription", "0.0031", "0.031"),
        ("change", "0", "0.015"),
    ]


async def test_the_cut_months_of_a_purse_add_up_to_what_it_cost(shop: Shop) -> None:
    third = Exhausted(Payg(333_333_333_333, 100))  # a third of a millionth each
    shop.packages["third"] = Package("third", 1, valid_s=365 * 86_400.0, exhausted=third)
    await shop.buy("A-1", "third")
    amounts = []
    for number in range(1, 5):
        shop.at(f"2024-0{number}-10")
        await shop.spend(1)
        await shop.spend(1)
        shop.at(f"2024-0{number + 1}-02")
        found = await cut(shop, f"2024-0{number}")
        assert found["money"]["payg"] == found["money"]["total"] == found["payg"][0]["amount"]
        assert (found["lines"][0]["kind"] if found["lines"] else "order") == "order"  # what may be spent is no line
        amounts.append(uc(found["payg"][0]["amount"]))
    [whole] = shop.statement()["payg"]
    assert (amounts, uc(whole["amount"])) == ([1, 0, 1, 1], 3)
    assert audit(shop.path) == []


async def test_raw_and_standard_credits_are_never_added_up(shop: Shop) -> None:
    await shop.buy("A-1", "units")
    await shop.buy("A-2", "raw")
    usage = shop.ledger.usage("t")
    assert {card: uc(of["available"]) for card, of in usage["cards"].items()} == {"raw": 1000, "standard": 400}
    shop.at("2024-02-02")
    found = await cut(shop, "2024-01")
    assert {card: uc(of["closing"]) for card, of in found["cards"].items()} == {"standard": 400, "raw": 1000}
    assert [(one["package"], one["card"]) for one in found["by_package"]] == [
        ("package:raw", "raw"), ("package:units", "standard")
    ]  # fmt: skip


async def test_a_root_shows_its_members_and_a_member_its_use(shop: Shop) -> None:
    await shop.buy("A-1", "units")
    await shop.buy("A-2", "pack", tenant="m")
    await shop.spend(7)
    await shop.spend(520, "m")  # 500 of its own pack, which is spent first, and 20 of the family's
    shop.at("2024-02-02")
    root, member = await cut(shop, "2024-01"), await cut(shop, "2024-01", "m")
    assert [(one["tenant"], one["calls"], one["cards"], one["drawn"]) for one in root["by_member"]] == [
        ("t", 1, {"standard": "0.000007"}, {"standard": "0.000007"}),
        ("m", 1, {"standard": "0.00052"}, {"standard": "0.00002"}),
    ]
    assert (root["calls"], sums(root)) == (1, [0, 400, 27, 0, 0, 373])
    assert (member["calls"], sums(member)) == (1, [0, 500, 500, 0, 0, 0])
    assert member["by_model"][0]["credits"] == "0.00052"


async def test_a_member_that_moved_away_is_still_on_the_statement(shop: Shop) -> None:
    await shop.buy("A-1", "units")
    await shop.spend(20, "m")
    await manage.edit(shop.ledger, "m", Edit(parent=None))[1]
    assert sums(shop.statement()) == [0, 400, 20, 0, 0, 380]
    shop.at("2024-02-02")
    root = await cut(shop, "2024-01")
    assert sums(root) == [0, 400, 20, 0, 0, 380]
    assert [one["tenant"] for one in root["by_member"]] == ["t", "m"]
    await manage.edit(shop.ledger, "m", Edit(parent="t"))[1]
    await shop.spend(7, "m")
    await manage.edit(shop.ledger, "m", Edit(parent=None))[1]
    assert sums(await of(shop).of_month("t", "2024-02")) == [380, 0, 7, 0, 0, 373]


# -- moma verify ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("forged", "field"),
    [
        ("UPDATE statements SET body = replace(body, '\"calls\":1', '\"calls\":2') WHERE tenant = 't'", "calls"),
        ('UPDATE statements SET body = replace(body, \'"spent":"0.00004"\', \'"spent":"0.00003"\')', "spent"),
        ("UPDATE statements SET sha256 = 'aa' WHERE tenant = 'u'", "sha256"),
        ("UPDATE statements SET body = '{}' WHERE tenant = 'u'", "body"),
        ("DELETE FROM statements WHERE tenant = 't'", ""),
        ("UPDATE cuts SET last = 0", "cut"),
        ("UPDATE cuts SET hash = 'aa'", "hash"),
    ],
)
async def test_forged_statements_are_found(tmp_path: Path, forged: str, field: str) -> None:
    shop = await Shop(tmp_path).open()
    await shop.buy("A-1", "units")
    await shop.spend(40)
    shop.at("2024-02-02")
    await cut(shop, "2024-01")
    await shop.ledger.aclose()
    assert audit(shop.path) == []
    with closing(sqlite3.connect(shop.path)) as connection:
        connection.execute(forged)
        connection.commit()
    found = verified(shop.path).differences
    assert ("I15", field) in [(one.check, one.field) for one in found]


async def test_whose_digest_was_made_anew_is_found_by_its_figures(tmp_path: Path) -> None:
    shop = await Shop(tmp_path).open()
    await shop.buy("A-1", "units")
    shop.at("2024-02-02")
    found = await cut(shop, "2024-01")
    await shop.ledger.aclose()
    digest = found.pop("sha256")
    assert orjson.loads(kept(shop)[1][2]) == found
    assert digest == kept(shop)[1][3]
