"""Orders, refunds, compensations and codes: each id does it once, whatever is sent at once, lost or sent again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.charging import orders
from gateway.errors import Conflict, GatewayError, InvalidValue, NotFound, StoreUnavailable
from tests.charging.fakes import fail_both, recovered, settle
from tests.charging.shop import Shop, ms


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    shop = await Shop(tmp_path).open()
    yield shop
    await shop.end()


async def test_a_pack_is_granted_with_its_validity(shop: Shop) -> None:
    order, new = await shop.buy("A-1", "pack")
    assert (new, order.credits_uc, order.price) == (True, 500, 5_990_000)
    assert shop.left() == [("package:pack", 500, "2024-01-31")]
    shop.at("2024-01-31")
    assert shop.left() == []


async def test_quantity_multiplies_credits_and_price(shop: Shop) -> None:
    order, _ = await shop.buy("A-1", "units", 25)
    assert (order.credits_uc, order.price) == (10_000, 25_000_000)
    assert shop.left() == [("package:units", 10_000, "never")]


async def test_a_hundred_of_the_same_order_at_once_grant_once(shop: Shop) -> None:
    placed = await asyncio.gather(*(shop.buy("A-1", "pack") for _ in range(100)))
    assert sum(new for _, new in placed) == 1
    assert {id(order) for order, _ in placed} == {id(placed[0][0])}
    await shop.reopen()
    assert not (await shop.buy("A-1", "pack"))[1]
    assert shop.sums()["granted"] == 500


@pytest.mark.parametrize(("package", "quantity", "tenant"), [("units", 1, "t"), ("pack", 2, "t"), ("pack", 1, "u")])
async def test_the_same_id_with_other_content_is_refused(shop: Shop, package: str, quantity: int, tenant: str) -> None:
    await shop.buy("A-1", "pack")
    with pytest.raises(Conflict, match="is there already, with another"):
        await shop.buy("A-1", package, quantity, tenant)
    assert shop.sums()["granted"] == 500


async def test_an_order_is_answered_again_when_its_package_is_sold_no_more(shop: Shop) -> None:
    first, _ = await shop.buy("A-1", "pack")
    del shop.packages["pack"]
    assert await shop.buy("A-1", "pack") == (first, False)
    with pytest.raises(InvalidValue, match="no such package"):
        await shop.buy("A-2", "pack")


@pytest.mark.parametrize("stage", ["begin", "execute", "commit", "after commit"])
async def test_an_order_whose_commit_fails_is_sent_again_and_granted_once(shop: Shop, stage: str) -> None:
    fail_both(shop.ledger, stage)
    with pytest.raises(StoreUnavailable):
        await shop.buy("A-1", "month")
    await recovered(shop.ledger)
    _, new = await shop.buy("A-1", "month")
    assert new == (stage != "after commit")
    assert shop.left() == [("package:month", 3100, "2024-02-01")]


async def test_a_trial_is_sold_once_also_after_it_has_ended(shop: Shop) -> None:
    await shop.buy("A-1", "trial")
    shop.at("2025-01-01")
    await shop.reopen()
    with pytest.raises(Conflict, match="once for each tenant"):
        await shop.buy("A-2", "trial")
    with pytest.raises(InvalidValue, match="once for each tenant"):
        await shop.buy("A-2", "trial", 2, "u")
    assert (await shop.buy("A-2", "trial", tenant="u"))[1]


async def test_a_pool_is_a_package_on_the_parent(shop: Shop) -> None:
    await shop.buy("A-1", "month", quantity=3)
    await shop.spend(100, "m")
    assert shop.left("m") == [("package:month", 9200, "2024-02-01")]


async def test_what_burns_first_is_the_month_then_the_pack_then_compensation_then_the_wallet(shop: Shop) -> None:
    await shop.buy("A-1", "units")
    await shop.ledger.change(orders.compensate, "C-1", "t", 40, None, "standard")[1]
    await shop.buy("A-2", "pack")
    await shop.buy("A-3", "month")
    assert [source for source, *_ in shop.left()] == [
        "package:month", "package:pack", "compensation", "package:units",
    ]  # fmt: skip


async def test_debt_is_repaid_by_the_next_order(shop: Shop) -> None:
    await shop.buy("A-1", "trial")
    await settle(shop.ledger, await shop.begin(70), 100)
    await shop.buy("A-2", "pack")
    assert shop.left() == [("package:pack", 470, "2024-01-31")]
    assert shop.statement()["debt"] == "0"


# -- refunds ------------------------------------------------------------------------------------------------------


async def test_a_refund_takes_back_what_is_unspent_and_no_more(shop: Shop) -> None:
    await shop.buy("A-1", "pack")
    await shop.spend(120)
    taken, _ = await shop.refund("A-1")
    assert (taken.credits_uc, shop.left()) == (380, [])
    assert await shop.refund("A-1") == (taken, False)
    assert shop.sums() == {"granted": 500, "spent": 120, "expired": 0, "revoked": 380}
    said = shop.statement()
    assert [said[name] for name in ("granted", "spent", "revoked", "closing")] == ["0.0005", "0.00012", "0.00038", "0"]


async def test_a_refund_in_parts_is_each_time_once(shop: Shop) -> None:
    await shop.buy("A-1", "pack")
    assert (await shop.refund("A-1", 200, "R-1"))[0].credits_uc == 200
    assert not (await shop.refund("A-1", 200, "R-1"))[1]
    with pytest.raises(Conflict):
        await shop.refund("A-1", 100, "R-1")
    assert (await shop.refund("A-1", 900, "R-2"))[0].credits_uc == 300
    assert shop.sums()["revoked"] == 500


async def test_what_a_call_in_flight_holds_is_not_taken_back(shop: Shop) -> None:
    await shop.buy("A-1", "pack")
    flying = await shop.begin(200)
    assert (await shop.refund("A-1"))[0].credits_uc == 300
    await settle(shop.ledger, flying, 150)
    assert shop.sums() == {"granted": 500, "spent": 150, "expired": 50, "revoked": 300}
    assert shop.left() == []


async def test_a_refund_of_a_subscription_ends_it(shop: Shop) -> None:
    await shop.buy("A-1", "rolling")
    shop.at("2024-02-10")
    assert (await shop.refund("A-1"))[0].credits_uc == 1300
    shop.at("2024-05-01")
    assert shop.left() == []


async def test_what_has_expired_is_not_refunded(shop: Shop) -> None:
    await shop.buy("A-1", "pack")
    shop.at("2024-03-01")
    assert (await shop.refund("A-1"))[0].credits_uc == 0
    assert shop.sums()["expired"] == 500


async def test_a_refund_is_of_an_order(shop: Shop) -> None:
    await shop.buy("A-1", "pack")
    taken, _ = await shop.refund("A-1", refund_id="R-1")
    with pytest.raises(NotFound):
        await shop.refund("A-9")
    with pytest.raises(Conflict, match="cannot be taken back"):
        await shop.refund(taken.id)


async def test_a_compensation_is_given_once(shop: Shop) -> None:
    for _ in range(3):
        await shop.ledger.change(orders.compensate, "C-1", "t", 40, ms("2024-02-01"), "standard")[1]
    with pytest.raises(Conflict):
        shop.ledger.change(orders.compensate, "C-1", "t", 41, None, "standard")
    assert shop.left() == [("compensation", 40, "2024-02-01")]
    assert (await shop.refund("C-1"))[0].credits_uc == 40


# -- codes --------------------------------------------------------------------------------------------------------


async def test_of_a_thousand_who_redeem_a_code_at_once_one_wins(shop: Shop) -> None:
    await shop.codes("pack", "AAAAA-BBBBB")

    async def one(tenant: str) -> str:
        try:
            _, new = await shop.redeem("aaaaa bbbbb", tenant)
        except Conflict:
            return "late"
        return f"{tenant} {'new' if new else 'again'}"

    said = await asyncio.gather(*(one("t" if number % 2 else "u") for number in range(1000)))
    assert {word: said.count(word) for word in set(said)} == {"u new": 1, "u again": 499, "late": 500}
    assert shop.sums()["granted"] == 500
    await shop.reopen()
    assert not (await shop.redeem("AAAAA-BBBBB", "u"))[1]
    with pytest.raises(Conflict, match="has been redeemed"):
        await shop.redeem("AAAAA-BBBBB", "t")


async def test_a_code_has_the_terms_of_the_day_it_was_made(shop: Shop) -> None:
    await shop.codes("month", "A", "B")
    del shop.packages["month"]
    await shop.reopen()
    order, _ = await shop.redeem("B")
    assert (order.id, order.kind, order.package) == ("moma:code:b000001:2", "code", "month")
    assert shop.left() == [("package:month", 3100, "2024-02-01")]
    assert (await shop.refund(order.id))[0].credits_uc == 3100


async def test_a_code_that_is_none_or_too_old_grants_nothing(shop: Shop) -> None:
    await shop.codes("pack", "A", expires_ms=ms("2024-02-01"))
    with pytest.raises(NotFound):
        await shop.redeem("B")
    shop.at("2024-02-01")
    with pytest.raises(Conflict, match="expired"):
        await shop.redeem("A")
    assert shop.sums()["granted"] == 0


async def test_codes_of_a_trial_are_one_for_each_tenant(shop: Shop) -> None:
    await shop.codes("trial", "A", "B")
    await shop.redeem("A")
    with pytest.raises(Conflict, match="once for each tenant"):
        await shop.redeem("B")
    assert (await shop.redeem("B", "u"))[1]  # it was not used up by who could not have it


async def test_the_file_has_no_codes(shop: Shop) -> None:
    await shop.codes("pack", "ABCDE-FGHJK")
    await shop.redeem("ABCDE-FGHJK")
    await shop.ledger.aclose()
    files = [path.read_bytes() for path in Path(shop.path).parent.iterdir()]
    assert not any(word in data for data in files for word in (b"ABCDE", b"FGHJK"))
    await shop.open()


@pytest.mark.parametrize("quantity", [10**18, 10**9])
async def test_more_than_a_ledger_can_count_is_refused_whole(shop: Shop, quantity: int) -> None:
    shop.packages["huge"] = shop.packages["pack"].__class__("huge", 10**12, price=10**12)
    with pytest.raises(GatewayError, match="out of range"):
        await shop.buy("A-1", "huge", quantity)
    assert shop.ledger._image.sold.orders == {}
