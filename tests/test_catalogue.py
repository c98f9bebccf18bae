"""Each package that is on sale in 2026: ordered, used by an SDK, exhausted or renewed, and right on a statement.

The terms are those of docs/packages.md, read from there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest

from tests.storefront import ADMIN_KEY, Storefront, open_storefront

M = 1_000_000


@pytest.fixture
async def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Storefront]:
    monkeypatch.setenv("MOMA_TEST_ADMIN_KEY", ADMIN_KEY)
    monkeypatch.setenv("MOMA_ADMIN_KEY", ADMIN_KEY)
    async with open_storefront(tmp_path) as opened:
        yield opened


@pytest.mark.parametrize(
    ("package", "size", "price"), [("family-10m", 10, "9.9"), ("family-40m", 40, "29.9"), ("family-80m", 80, "49.9")]
)
async def test_a_family_shares_a_month_of_tokens(shop: Storefront, package: str, size: int, price: str) -> None:
    """China Telecom, personal and family: any model, any kind of token."""
    await shop.tenant("home")
    for name in ("ann", "ben"):
        await shop.tenant(name, "home")
    status, order = await shop.order("T-1", "home", package)
    assert (status, order["price"], order["credits"]) == (201, price, str(size * M))
    assert await shop.call("ann", 3 * M, prompt=M, model="large") == 4 * M
    assert await shop.call("ben", (size - 6) * M) == (size - 6) * M
    assert await shop.available("ann") == str(2 * M)
    used = await shop.call("ann", 3 * M)  # what is left is less: the answer is cut to it
    assert used == 3 * int(shop.headers["x-moma-max-tokens"]) < 2 * M
    error = await shop.refused("ben", 3000)
    assert (error["code"], error["limit"], error["scope"]) == ("insufficient_quota", str(size * M), "ben")
    assert error["resets_at"].startswith("2026-01-31T16:00")  # the first of February in Shanghai
    left = int(await shop.available("ben"))
    shop.calendar.to("2026-02-01T00:00")
    assert await shop.available("ann") == str(size * M)
    assert await shop.statement("home", "2026-01-01", "2026-02-02") == {
        "granted": str(2 * size * M), "spent": str(size * M - left), "expired": str(left), "closing": str(size * M),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("package", "size", "plan"), [("dev-15m", 15, "basic"), ("dev-70m", 70, "open"), ("dev-150m", 150, "open")]
)
async def test_a_developers_tier_has_its_models(shop: Storefront, package: str, size: int, plan: str) -> None:
    """China Telecom, developers and SMEs: the plan says which models a tier has."""
    await shop.tenant("dev", plan=plan)
    await shop.order("D-1", "dev", package)
    await shop.call("dev", 5 * M)
    if plan == "basic":
        with pytest.raises(openai.NotFoundError):
            await shop.call("dev", 1000, model="large")
    else:
        await shop.call("dev", 5 * M, model="large")
    spent = 5 if plan == "basic" else 10
    assert await shop.available("dev") == str((size - spent) * M)
    assert (await shop.statement("dev", "2026-01-01", "2026-01-02"))["spent"] == str(spent * M)


async def test_a_team_buys_credits_over_all_models(shop: Storefront) -> None:
    """China Telecom, teams: as many as are wanted, each model at its rate."""
    await shop.tenant("team")
    await shop.tenant("member", "team")
    _, order = await shop.order("T-1", "team", "team-1k", 50)
    assert (order["price"], order["credits"]) == ("50", "50000")
    await shop.call("member", 1000, prompt=200, cached=100)  # 100 x 1 + 100 x 0.25 + 1000 x 2
    await shop.call("member", 1000, prompt=200, model="large")  # 200 x 3 + 1000 x 12
    assert await shop.available("member") == str(50_000 - 2_125 - 12_600)
    assert (await shop.statement("team", "2026-01-01", "2026-01-02"))["spent"] == "14725"
    _, said = await shop.admin("GET", "tenants/member/statement")
    assert [(row["model"], row["credits"]) for row in said["by_model"]] == [("large", "12600"), ("small", "2125")]


async def test_a_pack_lives_for_thirty_days(shop: Storefront) -> None:
    """China Mobile Beijing: one-time with validity."""
    await shop.tenant("ann")
    assert (await shop.order("B-1", "ann", "beijing-pack"))[1]["price"] == "5.99"
    await shop.call("ann", 500_000, prompt=500_000)
    shop.calendar.to("2026-01-30T23:59:59")
    await shop.call("ann", 200_000)
    shop.calendar.to("2026-01-31T00:00")
    assert (await shop.refused("ann"))["code"] == "insufficient_quota"
    assert await shop.statement("ann", "2026-01-01", "2026-02-01") == {
        "granted": "2000000", "spent": "1200000", "expired": "800000", "closing": "0",
    }  # fmt: skip


async def test_a_month_of_tokens_renews_and_ends_with_its_cancel(shop: Storefront) -> None:
    """China Mobile Beijing: monthly."""
    await shop.tenant("ann")
    _, order = await shop.order("B-2", "ann", "beijing-10m")
    await shop.call("ann", 9 * M)
    shop.calendar.to("2026-02-01T00:00")
    await shop.call("ann", 4 * M)
    await shop.admin("POST", f"subscriptions/{order['subscription']}/cancel", {})
    assert await shop.available("ann") == str(6 * M)
    shop.calendar.to("2026-03-01T00:00")
    await shop.refused("ann")
    assert await shop.statement("ann", "2026-01-01", "2026-04-01") == {
        "granted": str(20 * M), "spent": str(13 * M), "expired": str(7 * M), "closing": "0",
    }  # fmt: skip


async def test_a_wallet_is_filled_by_the_sellers_orders_once_each(shop: Storefront) -> None:
    """China Mobile Shanghai: 1 CNY is 400,000 tokens, paid by phone credit, with the seller's own order id."""
    await shop.tenant("ann")
    said = await asyncio.gather(*(shop.order("cmcc-7788", "ann", "shanghai-yuan", 25) for _ in range(20)))
    assert sorted(status for status, _ in said) == [200] * 19 + [201]
    assert {order["credits"] for _, order in said} == {"10000000"}
    assert (await shop.order("cmcc-7788", "ann", "shanghai-yuan", 26))[0] == 409
    await shop.call("ann", 4 * M)
    shop.calendar.to("2027-12-31T00:00")  # it never expires
    await shop.call("ann", M, model="large")
    await shop.order("cmcc-7789", "ann", "shanghai-yuan", 1)
    assert await shop.available("ann") == str(5 * M + 400_000)
    assert await shop.statement("ann", "2026-01-01", "2028-01-01") == {
        "granted": "10400000", "spent": "5000000", "expired": "0", "closing": "5400000",
    }  # fmt: skip


async def test_a_trial_is_had_once_by_whoever_has_a_code(shop: Storefront) -> None:
    """China Unicom Shanghai: 30M tokens for selected users."""
    for name in ("ann", "ben"):
        await shop.tenant(name)
    _, made = await shop.admin("POST", "codes", {"package": "unicom-trial", "count": 3})
    one, two, three = made["codes"]
    assert [await shop.redeem("ann", one), await shop.redeem("ann", one)] == [201, 200]
    assert [await shop.redeem("ben", one), await shop.redeem("ann", two)] == [409, 409]
    assert await shop.redeem("ben", three) == 201
    await shop.call("ann", 20 * M)
    shop.calendar.to("2026-02-15T00:00")
    await shop.refused("ann")
    assert (await shop.order("again", "ann", "unicom-trial"))[0] == 409
    assert await shop.statement("ann", "2026-01-01", "2026-03-01") == {
        "granted": str(30 * M), "spent": str(20 * M), "expired": str(10 * M), "closing": "0",
    }  # fmt: skip


async def test_a_tier_is_changed_in_mid_period(shop: Storefront) -> None:
    """Tencent Cloud Token Plan: 39 CNY a month for 35M; half a month later 99 CNY for 100M."""
    await shop.tenant("ann")
    _, order = await shop.order("Q-1", "ann", "token-lite")
    assert (order["credits"], order["price"]) == (str(35 * M), "39")
    await shop.call("ann", 30 * M)
    shop.calendar.to("2026-01-16T12:00")  # 15.5 of 31 days are left
    where = f"subscriptions/{order['subscription']}/change"
    asked = {"package": "token-standard", "order_id": "Q-2"}
    status, changed = await shop.admin("POST", where, asked)
    days = 16  # rounded up
    more = -(-65 * M * 10**6 * days // 31)
    assert (status, changed["change"]["credits"]) == (
        200,
        f"{more // 10**6}.{more % 10**6:06d}".rstrip("0").rstrip("."),
    )
    assert changed["change"]["price"] == f"{-(-60 * 10**6 * days // 31) / 10**6:.6f}".rstrip("0")
    assert (await shop.admin("POST", where, asked))[1]["change"] == changed["change"]
    await shop.call("ann", 20 * M)
    assert float(await shop.available("ann")) == pytest.approx(5 * M + more / 10**6 - 20 * M, abs=1e-6)
    shop.calendar.to("2026-02-01T00:00")
    assert await shop.available("ann") == str(100 * M)
    said = await shop.statement("ann", "2026-01-01", "2026-02-02")
    assert (said["spent"], said["closing"]) == (str(50 * M), str(100 * M))


async def test_seats_then_packs_by_expiry_then_nothing(shop: Storefront) -> None:
    """Alibaba Cloud Token Plan: seats in a pool, shared packs, blocked when used up, no carry-over."""
    await shop.tenant("team")
    await shop.tenant("member", "team", caps={"month": {"credits": 80 * M}})
    await shop.order("late", "team", "seat-pack")
    shop.calendar.to("2026-01-02T00:00")
    await shop.order("later", "team", "seat-pack")
    await shop.order("seats", "team", "seat", 3)
    await shop.call("member", 37 * M)  # 74M credits of the 75M of the seats
    shown = {grant["id"]: grant["spent"] for grant in (await shop.usage("member"))["grants"]}
    assert shown == {"g00000001": "0", "g00000002": "0", "g00000003": str(74 * M)}
    await shop.call("member", 3 * M - 1000)
    error = await shop.refused("member", 4 * M)
    assert (error["scope"], error["limit"]) == ("member", str(80 * M))  # its own cap
    await shop.call("team", 6 * M)
    shown = {grant["id"]: int(grant["spent"]) for grant in (await shop.usage("team"))["grants"]}
    assert shown["g00000003"] == 75 * M
    assert shown["g00000001"] > shown["g00000002"]  # the one that expires first
    await shop.call("team", 20 * M)
    while int(float(await shop.available("team"))) > 2000:
        await shop.call("team", 20 * M)
    assert (await shop.refused("team", 3000))["scope"] == "team"
    shop.calendar.to("2026-02-02T00:00")
    assert int(float(await shop.available("team"))) // M == 75  # and nothing of what was left


async def test_a_coding_plan_counts_calls_in_three_windows(shop: Storefront) -> None:
    """Alibaba and Baidu: 1,200 calls in five hours, 9,000 a week, 18,000 a month."""
    await shop.tenant("coder")
    await shop.order("C-1", "coder", "coding-lite")
    await shop.many("coder", 10, 1200)
    error = await shop.refused("coder", 10)
    assert (error["limit"], error["used"], error["scope"]) == ("1200", "1200", "coder")
    caps = {cap["window"]: (cap["limit"], cap["used"], cap["left"]) for cap in (await shop.usage("coder"))["caps"]}
    assert caps == {"5h": ("1200", "1200", "0"), "week": ("9000", "1200", "7800"), "month": ("18000", "1200", "16800")}
    shop.calendar.to("2026-01-01T05:05")
    await shop.call("coder", 10)
    assert (await shop.statement("coder", "2026-01-01", "2026-01-02"))["spent"] == str(1201 * 20)


async def test_a_fused_pack_takes_by_the_ratio_of_prices(shop: Storefront) -> None:
    """Qiniu: a token of a model costs its price over that of the reference model, here `small`."""
    await shop.tenant("ann")
    await shop.order("Q-1", "ann", "fused-100m")
    await shop.call("ann", 2 * M, prompt=M)
    await shop.call("ann", 2 * M, prompt=M, model="large")
    _, charges = await shop.admin("GET", "tenants/ann/charges")
    assert [(row["model_served"], row["charged"], row["cost"] // 2) for row in charges["data"]] == [
        ("small", str(5 * M), 5 * M), ("large", str(27 * M), 27 * M),  # the reference costs 2 CNY a million
    ]  # fmt: skip
    assert await shop.statement("ann", "2026-01-01", "2026-01-02") == {
        "granted": str(100 * M), "spent": str(32 * M), "expired": "0", "closing": str(68 * M),
    }  # fmt: skip


async def test_an_enterprise_pools_a_year_with_caps_of_its_departments(shop: Storefront) -> None:
    """A pool on the root, caps below it, and what is left of it ends with its year."""
    await shop.tenant("corp")
    await shop.tenant("legal", "corp", caps={"total": {"credits": 1000 * M}})
    await shop.tenant("sales", "corp", caps={"month": {"credits": 3000 * M}})
    await shop.order("E-1", "corp", "enterprise-year")
    for _ in range(4):
        await shop.call("legal", 110 * M)
    used = await shop.call("legal", 100 * M)  # 120M credits of its cap are left, 2 a token
    assert 50 * M < used <= 60 * M
    error = await shop.refused("legal", 10 * M)
    assert (error["scope"], error["limit"]) == ("legal", str(1000 * M))
    for _ in range(5):
        await shop.call("sales", 120 * M)
    spent = 2 * (440 * M + used + 600 * M)
    assert await shop.available("corp") == str(5000 * M - spent)
    shop.calendar.to("2026-12-31T23:59:59")
    assert await shop.available("corp") == str(5000 * M - spent)
    shop.calendar.to("2027-01-01T00:00")
    await shop.refused("sales")
    assert await shop.statement("corp", "2026-01-01", "2027-02-01") == {
        "granted": str(5000 * M), "spent": str(spent), "expired": str(5000 * M - spent), "closing": "0",
    }  # fmt: skip


async def test_an_enterprise_is_told_of_its_shares_and_billed_beyond_its_pool(shop: Storefront) -> None:
    """10 CNY for 1M credits, at most 8,000 CNY: 800M credits."""
    await shop.tenant("corp")
    await shop.tenant("sales", "corp")
    await shop.order("E-1", "corp", "enterprise-year")
    for _ in range(25):
        await shop.call("sales", 100 * M)  # 200M credits each: all of the pool
    assert await shop.available("sales") == "0"
    assert await levels(shop) == [("50%", "prepaid"), ("80%", "prepaid"), ("100%", "prepaid")]
    for _ in range(3):
        await shop.call("sales", 100 * M)
    assert 0 < await shop.call("sales", 100 * M) < 100 * M  # what is left of the cap, after the bound of the input
    error = await shop.refused("sales", 10 * M)
    assert error["code"] == "insufficient_quota"
    assert (await levels(shop))[3:] == [("50%", "payg"), ("80%", "payg")]
    _, said = await shop.admin("GET", "tenants/corp/statement", **{"from": "2026-01-01", "to": "2027-02-01"})
    [bill] = said["payg"]
    over = int(bill["credits"])
    assert 799 * M < over <= 800 * M
    assert (bill["price"], float(bill["amount"])) == ("10", over * 10 / M)
    assert (said["spent"], said["closing"], said["overage"]) == (str(5000 * M), "0", "0")
    assert (said["money"]["packs"], said["money"]["payg"]) == ("40000", bill["amount"])
    assert float(said["money"]["total"]) == 40_000 + float(bill["amount"])
    assert sum(int(one["drawn"]["standard"]) for one in said["by_member"] if one["drawn"]) == 5000 * M + over


async def levels(shop: Storefront) -> list[tuple[str, str]]:
    _, said = await shop.admin("GET", "alerts", tenant="corp")
    return [(one["level"], one["kind"]) for one in said["data"]]


async def test_an_enterprise_pays_by_the_month_and_carries_over(shop: Storefront) -> None:
    await shop.tenant("corp")
    await shop.order("E-2", "corp", "enterprise-month")
    await shop.call("corp", 50 * M)  # 100M of 420M
    shop.calendar.to("2026-02-01T00:00")
    assert await shop.available("corp") == str((420 + 210) * M)
    await shop.call("corp", 100 * M)  # 200M, of what rolled over first
    shop.calendar.to("2026-03-01T00:00")
    assert await shop.available("corp") == str((420 + 210) * M)
    assert await shop.statement("corp", "2026-01-01", "2026-03-02") == {
        "granted": str((3 * 420 + 2 * 210) * M), "spent": str(300 * M), "expired": str((320 + 430) * M),
        "closing": str(630 * M),
    }  # fmt: skip
