"""Sliced holds: a first slice, more in mid-stream, and never more than there is."""

from __future__ import annotations

import contextlib
import random
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.call import BUCKETS, Usage
from gateway.charging.audit import audit
from gateway.charging.directory import Edit
from gateway.charging.ending import Ending
from gateway.charging.ledger import Ledger
from gateway.charging.offers import RAW, offered
from gateway.charging.rating import Quote
from gateway.charging.records import Hold
from gateway.config.model import Payg
from gateway.errors import QuotaExhausted
from tests.charging import manage
from tests.charging.fakes import PRICE, FakeClock, opened, quote, settle

SLICE = 100


def sliced(max_tokens: int = 10_000, input_uc: int = 50, **more: object) -> Quote:
    return replace(quote(input_uc, max_tokens), slice_tokens=SLICE, **more)  # type: ignore[arg-type]


async def hold(ledger: Ledger, name: str = "a", asked: Quote | None = None, *, clamp: bool = False) -> Hold:
    found = await ledger.reserve(name, asked or sliced(), clamp=clamp)
    ledger.dispatched(name, "b", "m")
    return found


async def test_a_ceiling_that_is_large_against_what_there_is_holds_a_slice(tmp_path: Path) -> None:
    ledger = await opened(tmp_path, FakeClock(), 1000)
    small = await hold(ledger, "small", sliced(max_tokens=200))  # 250 of 1,000
    assert (small.reserved_uc, small.held_tokens) == (250, None)
    large = await hold(ledger, "large")
    assert (large.reserved_uc, large.held_tokens, large.max_tokens) == (150, SLICE, 10_000)
    ledger.check_invariants()
    await ledger.aclose()


async def test_what_cannot_grow_is_held_whole_or_clamped(tmp_path: Path) -> None:
    ledger = await opened(tmp_path, FakeClock(), 1000)
    whole = await ledger.reserve("a", replace(sliced(), slice_tokens=0), clamp=True)
    assert (whole.reserved_uc, whole.max_tokens, whole.held_tokens) == (1000, 950, None)
    await ledger.aclose()


async def test_less_than_a_slice_is_clamped_as_ever(tmp_path: Path) -> None:
    ledger = await opened(tmp_path, FakeClock(), 400)
    asked = replace(sliced(), slice_tokens=500)
    with pytest.raises(QuotaExhausted):
        await ledger.reserve("a", asked, clamp=False)
    clamped = await ledger.reserve("a", asked, clamp=True)
    assert (clamped.reserved_uc, clamped.max_tokens, clamped.held_tokens) == (400, 350, None)
    await ledger.aclose()


async def test_it_grows_to_what_there_is_and_is_charged_what_it_used(tmp_path: Path) -> None:
    ledger = await opened(tmp_path, FakeClock(), 800)
    found = await hold(ledger)
    assert ledger.extend("a", 300) == 300
    assert (found.reserved_uc, found.held_tokens) == (450, 400)
    assert ledger.extend("a", 400) == 350  # all that is left
    assert ledger.extend("a", 400) == 0
    ledger.check_invariants()
    assert ledger.available_uc("t") == 0
    receipt = await settle(ledger, "a", 500)
    assert (receipt.charged_uc, receipt.overage_uc, ledger.available_uc("t")) == (500, 0, 300)
    ledger.check_invariants()
    await ledger.aclose()
    assert audit(f"{tmp_path}/l.db") == []


async def test_never_beyond_what_was_asked_for_nor_after_its_end(tmp_path: Path) -> None:
    ledger = await opened(tmp_path, FakeClock(), 2000)
    await hold(ledger, "a", sliced(max_tokens=600))
    assert ledger.extend("a", 2048) == 500
    assert ledger.extend("a", 2048) == 0
    ledger.close("a", "aborted")
    assert ledger.extend("a", 10) == 0
    assert ledger.extend("unknown", 10) == 0
    await ledger.aclose()


async def test_a_cap_and_a_debt_and_a_suspension_refuse_more(tmp_path: Path) -> None:
    ledger = await opened(tmp_path, FakeClock(), 10_000)
    manage.edit(ledger, "t", Edit(caps={"day": {"credits": 700, "calls": 1}}))
    found = await hold(ledger)
    assert ledger.extend("a", 300) == 300  # one call it is already
    assert ledger.extend("a", 500) == 0  # less than is worth it: 250
    assert ledger.extend("a", 250) == 250
    ledger.check_invariants()
    manage.edit(ledger, "t", Edit(caps={"day": {}}))
    manage.edit(ledger, "t", Edit(status="suspended"))
    assert ledger.extend("a", 100) == 0
    manage.edit(ledger, "t", Edit(status="active"))
    assert ledger.extend("a", 100) == 100
    assert found.reserved_uc == 800
    ledger.check_invariants()
    await settle(ledger, "a", 10)
    ledger.check_invariants()
    await ledger.aclose()
    assert audit(f"{tmp_path}/l.db") == []


async def test_a_pool_of_the_family_pays_for_more(tmp_path: Path) -> None:
    ledger = await opened(tmp_path, FakeClock(), 0)
    manage.add_tenant(ledger, "child", "p", "t")
    own, _ = manage.add_grant(ledger, "child", 200, priority=10)
    pool, _ = manage.add_grant(ledger, "t", 5000, priority=20)
    found = await hold(ledger, "a", sliced(tenant="child", account_path=("t", "child")))
    assert ledger.extend("a", 1000) == 1000
    assert [(grant.id, uc) for grant, uc in found.parts] == [(own.id, 200), (pool.id, 950)]
    receipt = await settle(ledger, "a", 700)
    assert receipt.charged_uc == 700
    ledger.check_invariants()
    await ledger.aclose()
    assert audit(f"{tmp_path}/l.db") == []


async def test_what_was_prepaid_and_came_back_pays_before_the_purse(tmp_path: Path) -> None:
    """It is among the parts since the stream has grown, behind the purse with which that began."""
    ledger = await opened(tmp_path, FakeClock(), 400)
    terms = {
        "source_ref": None,
        "priority": 50,
        "starts_ms": 0,
        "expires_ms": None,
        "ending": Ending(Payg(1_000_000, 1_000_000)),
    }
    purse, durable = ledger.change(
        lambda image, now_ms: image.add_grant(image.accounts["t"], 500, now_ms, **terms)
    )  # fmt: skip
    await durable
    await ledger.reserve("other", replace(sliced(max_tokens=350), slice_tokens=0), clamp=False)  # all that is prepaid
    found = await hold(ledger)
    assert [grant.id for grant, _ in found.parts] == [purse.id]
    ledger.close("other", "aborted")
    assert ledger.extend("a", 300) == 300
    assert [uc for _, uc in found.parts] == [300, 150]
    receipt = await settle(ledger, "a", 450)
    assert (receipt.charged_uc, receipt.overage_uc, purse.spent) == (450, 0, 50)
    ledger.check_invariants()
    await ledger.aclose()
    assert audit(f"{tmp_path}/l.db") == []


async def test_a_pack_of_another_card_pays_for_more_by_units(tmp_path: Path) -> None:
    ledger = await opened(tmp_path, FakeClock(), 0)
    offer = offered("m", "b", "", frozenset(), dict.fromkeys(BUCKETS, 1) | {"calls": 7})
    manage.add_grant(ledger, "t", 450 * 1_000_000, card=RAW, priority=10)
    manage.add_grant(ledger, "t", 900, priority=20)
    asked = sliced(input_uc=57, offers=(offer,), input_tokens=50)
    found = await hold(ledger, "a", asked)
    assert found.covered == frozenset({("m", "b")})
    assert ledger.extend("a", 300) == 300  # out of the pack, whose tokens are a credit each
    assert ledger.extend("a", 500) == 500
    ledger.check_invariants()
    usage = Usage({"input": 50, "output": 800, "calls": 1})
    receipt = await ledger.settle(
        "a", usage, model_served="m", backend="b", rates=offer.rates["standard"], price=PRICE
    )  # fmt: skip
    assert receipt.overage_uc == 0
    ledger.check_invariants()
    await ledger.aclose()


@pytest.mark.parametrize("choices", [1, 2])
async def test_it_grows_at_the_rates_of_the_target_that_answers(tmp_path: Path, choices: int) -> None:
    """What was held for a fallback that costs twelve times as much pays twelve times the tokens."""
    ledger = await opened(tmp_path, FakeClock(), 6000)
    cheap = offered("m", "b", "", frozenset(), dict.fromkeys(BUCKETS, 1))
    dear = offered("n", "b", "", frozenset(), dict.fromkeys(BUCKETS, 12))
    asked = sliced(input_uc=600, output_uc_per_token=12 * choices, choices=choices, offers=(cheap, dear))
    found = await hold(ledger, "a", asked)
    assert (found.reserved_uc, found.held_tokens) == (600 + 12 * choices * SLICE, SLICE)
    assert ledger.extend("a", 2048) == 11 * SLICE
    assert found.reserved_uc == 600 + 12 * choices * SLICE
    assert ledger.extend("a", 300) == 300
    assert found.reserved_uc == 600 + choices * (12 * SLICE + 300)
    ledger.check_invariants()
    usage = Usage({"input": 50, "output": choices * 1500})
    receipt = await ledger.settle("a", usage, model_served="m", backend="b", rates=cheap.rates["standard"], price=PRICE)
    assert (receipt.charged_uc, receipt.overage_uc) == (50 + choices * 1500, 0)
    await ledger.aclose()


async def test_what_costs_nothing_is_paid_for_at_once(tmp_path: Path) -> None:
    ledger = await opened(tmp_path, FakeClock(), 6000)
    free = offered("m", "b", "", frozenset(), dict.fromkeys(BUCKETS, 0))
    dear = offered("n", "b", "", frozenset(), dict.fromkeys(BUCKETS, 12))
    await hold(ledger, "a", sliced(output_uc_per_token=12, offers=(free, dear)))
    assert ledger.extend("a", 100) == 10_000 - SLICE
    ledger.close("a", "aborted")
    await ledger.aclose()


@pytest.mark.parametrize("seed", range(20))
async def test_nobody_spends_more_than_there_is_whoever_extends_when(tmp_path: Path, seed: int) -> None:
    """Streams that each use less than they hold, in a random order, on one pool."""
    chance = random.Random(seed)
    ledger = await opened(tmp_path, FakeClock(), 3000)
    held: dict[str, Hold] = {}
    for number in range(200):
        name = chance.choice(list(held)) if held and chance.random() < 0.7 else ""
        if not name:
            with contextlib.suppress(QuotaExhausted):
                held[f"c{number}"] = await hold(ledger, f"c{number}", sliced(max_tokens=chance.choice([150, 5000])))
        elif chance.random() < 0.6:
            ledger.extend(name, chance.choice([50, 300]))
        else:
            one = held.pop(name)
            most = one.max_tokens if one.held_tokens is None else one.held_tokens
            receipt = await settle(ledger, name, chance.randint(0, most or 0))
            assert receipt.overage_uc == 0
        ledger.check_invariants()
    for name in held:
        ledger.close(name, "aborted")
    account = ledger.tenant("t")
    assert account.settled_uc <= 3000
    assert (account.debt_uc, account.loss_uc) == (0, 0)
    await ledger.aclose()
    assert audit(f"{tmp_path}/l.db") == []


async def test_a_row_that_is_there_follows_the_hold(tmp_path: Path) -> None:
    clock = FakeClock()
    ledger = await opened(tmp_path, clock, 5000)
    found = await hold(ledger)
    clock.advance(60)
    await manage.add_key(ledger, "t", "00")[1]
    assert ledger.extend("a", 500) == 500
    await manage.add_key(ledger, "t", "01")[1]
    with ledger._store._connection as connection:  # type: ignore[union-attr]
        [(reserved,)] = connection.execute("SELECT reserved FROM holds").fetchall()
    assert reserved == found.reserved_uc == 650
    await ledger.aclose()
