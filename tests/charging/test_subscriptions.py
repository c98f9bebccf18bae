"""Packages that recur: periods, rollover, ends, changes; over restarts, each time once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.charging.offers import Scope
from gateway.errors import Conflict, InvalidValue, QuotaExhausted
from tests.charging.fakes import settle
from tests.charging.shop import Shop


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    shop = await Shop(tmp_path).open()
    yield shop
    await shop.end()


@pytest.mark.parametrize(
    ("start", "ends"),
    [
        ("2024-01-31", ["2024-02-29", "2024-03-31", "2024-04-30"]),
        ("2023-01-31", ["2023-02-28", "2023-03-31", "2023-04-30"]),
        ("2024-02-29", ["2024-03-29", "2024-04-29", "2024-05-29"]),
        ("2023-12-31T18:30", ["2024-01-31", "2024-02-29", "2024-03-31"]),
    ],
)
async def test_a_month_begins_on_the_day_of_the_sale_or_the_last_that_there_is(
    shop: Shop, start: str, ends: list[str]
) -> None:
    shop.at(start)
    await shop.subscribe("month")
    for end in ends:
        assert shop.left() == [("package:month", 3100, end)]
        shop.clock.ms = _ms(shop)


def _ms(shop: Shop) -> int:
    (grant,) = shop.live()
    assert grant.expires_ms is not None
    return grant.expires_ms


async def test_a_year_from_the_29th_of_february_is_of_the_28th(shop: Shop) -> None:
    shop.at("2024-02-29")
    await shop.subscribe("month")
    shop.at("2025-02-27T12:00")
    assert shop.left() == [("package:month", 3100, "2025-02-28")]
    shop.at("2025-02-28")
    assert shop.left() == [("package:month", 3100, "2025-03-29")]


async def test_a_renewal_that_runs_twice_grants_once(shop: Shop) -> None:
    one = await shop.subscribe("rolling")
    await shop.spend(900)
    shop.at("2024-02-01")
    image = shop.ledger._image
    for _ in range(3):
        image.refresh(image.accounts["t"], shop.clock.ms)
    one.period, before = 0, shop.sums()  # as if it were forgotten that the period has begun
    image.refresh(image.accounts["t"], shop.clock.ms)
    await shop.reopen()
    assert shop.sums() == before == {"granted": 2100, "spent": 900, "expired": 100, "revoked": 0}
    assert shop.left() == [("rollover:rolling", 100, "2024-03-01"), ("package:rolling", 1000, "2024-03-01")]


async def test_a_restart_before_the_commit_of_a_renewal_renews_again(shop: Shop) -> None:
    """The renewal is booked in memory by a look; what ends before the commit has left nothing in the file."""
    await shop.subscribe("rolling")
    shop.at("2024-02-01")
    shop.ledger._image.refresh(shop.ledger._image.accounts["t"], shop.clock.ms)
    shop.ledger._image.changes.__init__()  # type: ignore[misc] # lost with the process
    await shop.reopen()
    assert shop.left() == [("rollover:rolling", 300, "2024-03-01"), ("package:rolling", 1000, "2024-03-01")]
    assert shop.sums() == {"granted": 2300, "spent": 0, "expired": 1000, "revoked": 0}


@pytest.mark.parametrize(("spent", "rolled"), [(0, 300), (700, 300), (701, 299), (999, 1), (1000, 0)])
async def test_what_rolls_over_is_the_rest_up_to_the_ceiling(shop: Shop, spent: int, rolled: int) -> None:
    await shop.subscribe("rolling")
    if spent:
        await shop.spend(spent)
    shop.at("2024-02-01")
    expected = [("package:rolling", 1000, "2024-03-01")]
    assert shop.left() == [("rollover:rolling", rolled, "2024-03-01")] * bool(rolled) + expected


async def test_what_rolled_over_is_spent_first_and_rolls_on_up_to_the_ceiling(shop: Shop) -> None:
    await shop.subscribe("rolling", 2)
    shop.at("2024-02-01")
    await shop.spend(500)
    assert shop.left() == [("rollover:rolling", 100, "2024-03-01"), ("package:rolling", 2000, "2024-03-01")]
    shop.at("2024-03-01")
    assert shop.left() == [("rollover:rolling", 600, "2024-04-01"), ("package:rolling", 2000, "2024-04-01")]


@pytest.mark.parametrize("looks", [1, 7, 29])
async def test_what_rolls_over_does_not_depend_on_who_looked_when(shop: Shop, looks: int) -> None:
    await shop.subscribe("daily")
    await shop.spend(45)
    for _ in range(29 // looks):
        shop.clock.ms += looks * 86_400_000
        shop.live()
    shop.at("2024-01-30")
    assert shop.left() == [("rollover:daily", 70, "2024-01-31"), ("package:daily", 50, "2024-01-31")]
    assert shop.sums()["granted"] == 50 * 30 + 5 + 55 + 70 * 27


async def test_a_call_over_the_renewal_is_charged_to_what_it_held(shop: Shop) -> None:
    await shop.subscribe("rolling")
    flying = await shop.begin(400)
    shop.at("2024-02-01")
    shop.live()
    await settle(shop.ledger, flying, 150)
    assert shop.left() == [("rollover:rolling", 300, "2024-03-01"), ("package:rolling", 1000, "2024-03-01")]
    assert shop.sums() == {"granted": 2300, "spent": 150, "expired": 850, "revoked": 0}


async def test_a_subscription_of_so_many_periods_ends_by_itself(shop: Shop) -> None:
    await shop.subscribe("year")
    shop.at("2026-01-01")
    assert shop.left() == []
    assert shop.sums() == {"granted": 1200, "spent": 0, "expired": 1200, "revoked": 0}
    assert shop.ledger._image.accounts["t"].subscriptions == []


async def test_a_cancelled_subscription_runs_to_the_end_of_its_period(shop: Shop) -> None:
    one = await shop.subscribe("rolling")
    shop.at("2024-01-15")
    for _ in range(2):
        await shop.cancel(one)
    await shop.reopen()
    assert shop.left() == [("package:rolling", 1000, "2024-02-01")]
    assert shop.ledger._image.next_reset_ms(("t",), shop.clock.ms) is None
    shop.at("2024-02-01")
    assert shop.left() == []
    assert shop.sums() == {"granted": 1000, "spent": 0, "expired": 1000, "revoked": 0}


async def test_cancelled_now_what_is_left_is_revoked(shop: Shop) -> None:
    one = await shop.subscribe("rolling")
    shop.at("2024-02-10")
    await shop.spend(50)
    await shop.cancel(one, now=True)
    await shop.cancel(one)
    assert shop.left() == []
    assert shop.sums() == {"granted": 2300, "spent": 50, "expired": 1000, "revoked": 1250}
    shop.at("2024-06-01")
    assert shop.left() == []


async def test_an_edit_of_the_package_is_for_later_sales(shop: Shop) -> None:
    await shop.subscribe("month")
    shop.packages["month"] = shop.packages["large"]
    await shop.reopen()
    shop.at("2024-02-01")
    assert shop.left() == [("package:month", 3100, "2024-03-01")]


# -- changes ------------------------------------------------------------------------------------------------------


async def test_a_better_package_is_granted_by_the_days_that_are_left(shop: Shop) -> None:
    one = await shop.subscribe("month")
    shop.at("2024-01-22")
    order, _ = await shop.change(one, "large")
    assert order is not None
    assert (order.credits_uc, order.price) == (9000, 90_000)  # ten days of 31
    assert [left[1:] for left in shop.left()] == [(3100, "2024-02-01"), (9000, "2024-02-01")]
    assert await shop.change(one, "large") == (None, one)
    shop.at("2024-02-01")
    assert shop.left() == [("package:large", 31_000, "2024-03-01")]


async def test_back_and_forth_grants_and_costs_nothing_more(shop: Shop) -> None:
    one = await shop.subscribe("month")
    shop.at("2024-01-22")
    for number in range(10):
        order, _ = await shop.change(one, "large" if number % 2 == 0 else "month")
        assert order is not None
        assert (order.credits_uc, order.price) == ((9000, 90_000) if number == 0 else (0, 0))
    assert shop.sums()["granted"] == 12_100
    shop.at("2024-02-01")
    assert shop.left() == [("package:month", 3100, "2024-03-01")]


async def test_a_change_with_an_id_is_made_once(shop: Shop) -> None:
    one = await shop.subscribe("month")
    shop.at("2024-01-22")
    first = await shop.change(one, "large", order_id="U-1")
    await shop.reopen()
    shop.at("2024-01-25")
    again, _ = await shop.change(one, "large", order_id="U-1")
    assert again == first[0]
    with pytest.raises(Conflict):
        await shop.change(one, "large", 2, order_id="U-1")
    assert shop.sums()["granted"] == 12_100


async def test_more_seats_are_granted_at_once_and_fewer_from_the_next_period(shop: Shop) -> None:
    one = await shop.subscribe("month", 3)
    shop.at("2024-01-22")
    order, _ = await shop.change(one, quantity=5)
    assert order is not None
    assert (order.credits_uc, order.price) == (2000, 20_000)
    await shop.change(one, quantity=1)
    assert sum(uc for _, uc, _ in shop.left()) == 11_300
    shop.at("2024-02-01")
    assert shop.left() == [("package:month", 3100, "2024-03-01")]


async def test_another_recurrence_follows_the_period_that_runs(shop: Shop) -> None:
    one = await shop.subscribe("month")
    shop.at("2024-01-10")
    order, next_one = await shop.change(one, "daily")
    assert order is not None
    assert (next_one.id, next_one.started_ms, one.ended_ms) == ("s00000002", one.ended_ms, next_one.started_ms)
    assert shop.left() == [("package:month", 3100, "2024-02-01")]
    with pytest.raises(Conflict, match="ends with this period"):
        await shop.change(one, "large")
    await shop.change(next_one, "large")  # it has not begun: it will be another one
    await shop.reopen()
    shop.at("2024-02-01")
    assert shop.left() == [("package:large", 31_000, "2024-03-01")]


async def test_periods_and_what_rolls_over_keep_the_card_of_the_package(shop: Shop) -> None:
    await shop.subscribe("raw")
    await shop.reopen()
    shop.at("2024-02-01")
    assert shop.left() == [("rollover:raw", 300, "2024-03-01"), ("package:raw", 1000, "2024-03-01")]
    assert {grant.card for grant in shop.live()} == {"raw"}


async def test_a_package_of_another_card_follows_the_period_that_runs(shop: Shop) -> None:
    """Credits of one card are no more and no less than those of another."""
    one = await shop.subscribe("month")
    _, next_one = await shop.change(one, "raw")
    assert next_one.id != one.id
    assert [grant.card for grant in shop.live()] == ["standard"]
    shop.at("2024-02-01")
    assert [(grant.card, grant.granted) for grant in shop.live()] == [("raw", 1000)]


async def test_a_pack_keeps_its_scope_and_the_same_terms_are_no_change(shop: Shop) -> None:
    await shop.buy("o-1", "office")
    await shop.reopen()
    (grant,) = shop.live()
    assert grant.scope == Scope(models=frozenset({"m"}), tags=frozenset({"chat"}))
    assert (await shop.buy("o-1", "office"))[1] is False
    shop.packages["scoped"] = replace(shop.packages["raw"], name="scoped", scope={"models": ("m",)})
    one = await shop.subscribe("scoped")
    await shop.reopen()
    assert (await shop.change(shop.ledger._image.sold.subscriptions[one.id], "scoped"))[0] is None


async def test_a_subscription_that_waits_is_cancelled_at_once(shop: Shop) -> None:
    one = await shop.subscribe("month")
    _, next_one = await shop.change(one, "daily")
    await shop.cancel(next_one)
    shop.at("2024-02-01")
    assert shop.left() == []


async def test_what_cannot_be_changed(shop: Shop) -> None:
    one = await shop.subscribe("month")
    with pytest.raises(InvalidValue, match="does not recur"):
        await shop.change(one, "pack")
    with pytest.raises(InvalidValue, match="no such package"):
        await shop.change(one, "nothing")
    await shop.cancel(one)
    with pytest.raises(Conflict, match="ends with this period"):
        await shop.change(one, "large")
    shop.at("2024-03-01")
    with pytest.raises(Conflict, match="ends with this period"):
        await shop.change(one, "large")


# -- caps ---------------------------------------------------------------------------------------------------------


async def test_the_caps_of_a_package_bind_while_it_runs(shop: Shop) -> None:
    one = await shop.subscribe("calls", 2)
    for _ in range(4):
        await shop.spend(1)
    with pytest.raises(QuotaExhausted, match="4 calls in 5 hours"):
        await shop.begin(1, "m")
    await shop.reopen()
    with pytest.raises(QuotaExhausted, match="4 calls in 5 hours"):
        await shop.begin(1)
    await shop.buy("A-1", "pack")
    await shop.cancel(one)
    shop.at("2024-02-01")
    shop.live()
    await shop.buy("A-2", "pack")
    for _ in range(5):
        await shop.spend(1)
    assert shop.ledger.usage("t")["caps"] == []
