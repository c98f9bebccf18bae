"""One charge explained: its price, and who paid it in which order and why."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest

from gateway.call import Usage
from gateway.charging.flags import FLAGS
from gateway.charging.ledger import Ledger
from gateway.charging.rating import hit_flags
from gateway.charging.why import why
from gateway.errors import NotFound, StoreUnavailable
from tests.charging import manage
from tests.charging.fakes import PRICE, RATES, START_MS, FakeClock, opened, quote, settle


async def charged(ledger: Ledger, charge_id: str, tokens: int, *flags: str, held: int = 100) -> None:
    await ledger.reserve(charge_id, quote(held, 0), clamp=False)
    ledger.dispatched(charge_id, "b", "m")
    await settle(ledger, charge_id, tokens, *flags)


def told(path: Path, wanted: str) -> dict[str, Any]:
    return why(f"{path}/l.db", wanted)


async def test_usage_times_rate_is_the_sum(tmp_path: Path) -> None:
    ledger = await opened(tmp_path, FakeClock())
    await ledger.reserve("a", quote(), clamp=False)
    ledger.dispatched("a", "b", "m")
    usage = Usage({"input": 7, "output": 5})
    await ledger.settle("a", usage, model_served="m", backend="b", rates=RATES, price=PRICE)
    await ledger.aclose()
    price = told(tmp_path, "a")["price"]
    assert [(line["bucket"], line["quantity"], line["rate"], line["credits"]) for line in price["lines"]] == [
        ("input", 7, "0.000001", "0.000007"),
        ("output", 5, "0.000001", "0.000005"),
    ]
    assert (price["card"], price["version"], price["sum"], price["charged"]) == ("standard", 1, "0.000012", "0.000012")


async def test_an_estimate_is_at_most_what_was_held(tmp_path: Path) -> None:
    ledger = await opened(tmp_path, FakeClock())
    await charged(ledger, "a", 150, "estimated")
    await ledger.aclose()
    value = told(tmp_path, "a")
    assert (value["price"]["sum"], value["price"]["charged"]) == ("0.00015", "0.0001")
    assert value["flags"] == [{"flag": "estimated", "means": FLAGS["estimated"]}]


async def test_a_hit_pays_its_share_and_nobody_served_it(tmp_path: Path) -> None:
    ledger = await opened(tmp_path, FakeClock())
    await ledger.reserve("a", quote(5, None), clamp=False)
    usage = Usage({"output": 10})
    flags = hit_flags(333_333)
    await ledger.settle("a", usage, model_served="m", backend="", rates=RATES, price={}, status_flags=flags)
    await ledger.aclose()
    value = told(tmp_path, "a")
    assert (value["price"]["sum"], value["price"]["share"]) == ("0.00001", "0.000003")
    assert [each["flag"] for each in value["flags"]] == ["cache_hit", "charge:33.3333%"]
    assert "33.3333%" in value["flags"][1]["means"]


async def test_grants_are_told_in_burn_order_with_the_reason(tmp_path: Path) -> None:
    clock = FakeClock()
    ledger = await opened(tmp_path, clock, credits_uc=0)
    add = functools.partial(manage.add_grant, ledger)
    late, _ = add("t", 500, priority=30)
    soon, _ = add("t", 30, priority=30, expires_ms=START_MS + 10_000)
    first, _ = add("t", 50, priority=10)
    clock.advance(1000)
    second, _ = add("t", 5, priority=10)
    await charged(ledger, "before", 50)
    await charged(ledger, "a", 40, held=60)
    clock.advance(1000)
    await add("t", 1000, priority=1)[1]
    await ledger.aclose()
    grants = told(tmp_path, "a")["grants"]
    assert [(each["grant"], each["paid"]) for each in grants] == [
        (first.id, "0"), (second.id, "0.000005"), (soon.id, "0.00003"), (late.id, "0.000005"),
    ]  # fmt: skip
    assert [each["why"] for each in grants] == [
        "nothing was left of it", *["what comes before it did not cover the charge"] * 3,
    ]  # fmt: skip
    assert grants[0]["place"] == f"before {second.id} by age: it was granted first"
    assert grants[1]["place"] == f"before {soon.id} by priority: 10 is less than 30"
    assert grants[2]["place"].startswith(f"before {late.id} by expiry: it ends 2023-11-14T22:13:30Z, the other never")
    assert grants[3]["place"] == "the last of those that were there"
    paid = told(tmp_path, "before")["grants"]
    assert [each["why"] for each in paid] == ["it comes first", *["it was not needed"] * 3]


async def test_what_others_hold_is_passed_over(tmp_path: Path) -> None:
    ledger = await opened(tmp_path, FakeClock(), credits_uc=0)
    manage.add_grant(ledger, "t", 60, priority=1)
    manage.add_grant(ledger, "t", 100, priority=2)
    await ledger.reserve("other", quote(60, 0), clamp=False)
    await charged(ledger, "a", 10, held=20)
    await ledger.aclose()
    assert told(tmp_path, "a")["grants"][0]["why"] == "others held all that was left of it, 0.00006"


async def test_a_request_id_finds_its_last_charge(tmp_path: Path) -> None:
    ledger = await opened(tmp_path, FakeClock())
    for charge_id in ("a", "b", "c"):
        await charged(ledger, charge_id, 1)
    await ledger.aclose()
    value = told(tmp_path, "r")
    assert (value["record"]["charge_id"], value["other_charges"]) == ("c", ["b", "a"])


async def test_what_has_no_record(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable):
        told(tmp_path, "a")
    await (await opened(tmp_path, FakeClock())).aclose()
    with pytest.raises(NotFound, match="no charge or request 'a'"):
        told(tmp_path, "a")


async def test_a_void_costs_nothing_and_says_how_it_ended(tmp_path: Path) -> None:
    ledger = await opened(tmp_path, FakeClock())
    await ledger.reserve("a", quote(), clamp=False)
    ledger.dispatched("a", "b", "m")
    ledger.close("a", "aborted")
    await ledger.aclose()
    value = told(tmp_path, "a")
    assert (value["record"]["status"], value["price"]["charged"]) == ("voided", "0")
    assert [each["flag"] for each in value["flags"]] == ["aborted"]
