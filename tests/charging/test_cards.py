"""Versions of the rate card: kept in the file, appended when the rates change, and what every charge is audited by."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gateway.app import App
from gateway.call import Usage
from gateway.charging.audit import audit
from gateway.charging.ledger import Ledger, open_ledger
from gateway.charging.rate_cards import put
from gateway.charging.schema import SCHEMA_VERSION
from gateway.charging.tariffs import Rates, plain
from gateway.charging.why import why
from gateway.config.load import load
from gateway.config.model import Plan, PlanGrant
from gateway.errors import InvalidValue, StoreUnavailable
from tests.charging import manage
from tests.charging.fakes import PRICE, FakeClock, fail_both, plan, quote, recovered
from tests.charging.older import as_version
from tests.conftest import World

CHEAP = {"m": {"input": 1, "output": 2}, "n": {"input": 5, "output": 5}}
DEAR = {**CHEAP, "m": {"input": 3, "output": 4}}


async def with_rates(folder: Path, rates: Rates | None) -> Ledger:
    cards = None if rates is None else plain("standard", rates)
    ledger = await open_ledger(f"{folder}/l.db", FakeClock(), "UTC", {"p": plan(10**6)}, cards)
    ledger.apply_plan("t", plan(10**6))
    return ledger


async def put_rates(ledger: Ledger, rates: Rates) -> int:
    return (await put(ledger, plain("standard", rates))).at(0).version


async def charge(ledger: Ledger, name: str, rates: Rates, *flags: str, model: str = "m", tokens: int = 10) -> int:
    asked = quote()
    asked.card_version = ledger.card_version
    await ledger.reserve(name, asked, clamp=False)
    ledger.dispatched(name, "b", model)
    usage = Usage({"input": 10, "output": tokens}, flags=flags)
    receipt = ledger.settle(name, usage, model_served=model, backend="b", rates=rates["m"], price=PRICE)
    return (await receipt).charged_uc


def rows(folder: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(f"{folder}/l.db", isolation_level=None)) as connection:
        return connection.execute(sql).fetchall()


def versions(folder: Path) -> list[Any]:
    return rows(folder, "SELECT card, version, json_extract(rates, '$.m.output') FROM rate_cards ORDER BY version")


async def test_the_same_rates_append_nothing_and_others_a_version(tmp_path: Path) -> None:
    turned = {name: dict(reversed(rates.items())) for name, rates in reversed(CHEAP.items())}
    for number, (rates, version) in enumerate([(CHEAP, 1), (turned, 1), (DEAR, 2), (DEAR, 2), (CHEAP, 3), (None, 3)]):
        ledger = await with_rates(tmp_path, rates)
        assert ledger.card_version == version
        assert await charge(ledger, f"c{number}", rates or CHEAP) == (70 if rates is DEAR else 30)
        await ledger.aclose()
    assert versions(tmp_path) == [("standard", 1, 2), ("standard", 2, 4), ("standard", 3, 2)]
    records = rows(tmp_path, "SELECT card_version, price_version FROM records ORDER BY seq")
    assert records == [(1, 1), (1, 1), (2, 2), (2, 2), (3, 3), (3, 3)]
    assert audit(f"{tmp_path}/l.db") == []


async def test_a_version_is_in_the_file_before_anything_is_charged_by_it(tmp_path: Path) -> None:
    ledger = await with_rates(tmp_path, CHEAP)
    assert versions(tmp_path) == [("standard", 1, 2)]
    assert ledger._writer.batches == 0
    await ledger.aclose()


@pytest.mark.parametrize("stage", ["commit", "after commit"])
async def test_the_version_outlives_a_store_that_failed(tmp_path: Path, stage: str) -> None:
    for rates in (CHEAP, DEAR):
        ledger = await with_rates(tmp_path, rates)
        await charge(ledger, f"before {ledger.card_version}", rates)
        if rates is CHEAP:
            await ledger.aclose()
    fail_both(ledger, stage)
    with pytest.raises(StoreUnavailable):
        await charge(ledger, "lost", DEAR)
    await recovered(ledger)
    assert ledger.card_version == 2
    await charge(ledger, "after", DEAR)
    await ledger.aclose()
    assert versions(tmp_path) == [("standard", 1, 2), ("standard", 2, 4)]
    assert audit(f"{tmp_path}/l.db") == []


async def test_a_reload_makes_a_version_durable_and_names_it(tmp_path: Path) -> None:
    ledger = await with_rates(tmp_path, CHEAP)
    assert await put_rates(ledger, dict(CHEAP)) == 1
    assert versions(tmp_path) == [("standard", 1, 2)]
    assert await put_rates(ledger, DEAR) == ledger.card_version == 2
    assert versions(tmp_path) == [("standard", 1, 2), ("standard", 2, 4)]
    assert await charge(ledger, "dear", DEAR) == 70
    assert await put_rates(ledger, CHEAP) == 3
    await ledger.aclose()
    ledger = await with_rates(tmp_path, CHEAP)
    assert ledger.card_version == 3
    await ledger.aclose()
    assert audit(f"{tmp_path}/l.db") == []


@pytest.mark.parametrize("stage", ["commit", "after commit"])
async def test_a_version_that_could_not_be_made_durable_is_not_in_force(tmp_path: Path, stage: str) -> None:
    ledger = await with_rates(tmp_path, CHEAP)
    fail_both(ledger, stage)
    with pytest.raises(StoreUnavailable):
        await put_rates(ledger, DEAR)
    with pytest.raises(StoreUnavailable):
        await put_rates(ledger, DEAR)
    await recovered(ledger)
    in_force = {version: output for _, version, output in versions(tmp_path)}
    assert in_force[ledger.card_version] == 2, "the old rates are those of the version that is named"
    await charge(ledger, "old", CHEAP)
    assert await put_rates(ledger, DEAR) == ledger.card_version
    await charge(ledger, "new", DEAR)
    await ledger.aclose()
    assert audit(f"{tmp_path}/l.db") == []


async def test_rates_of_a_reload_outlive_a_store_that_failed(tmp_path: Path) -> None:
    ledger = await with_rates(tmp_path, CHEAP)
    await put_rates(ledger, DEAR)
    fail_both(ledger, "commit")
    with pytest.raises(StoreUnavailable):
        await charge(ledger, "lost", DEAR)
    await recovered(ledger)
    assert ledger.card_version == 2
    await ledger.aclose()
    assert versions(tmp_path) == [("standard", 1, 2), ("standard", 2, 4)]


async def test_plans_and_tenants_of_a_reload_outlive_a_store_that_failed(tmp_path: Path) -> None:
    ledger = await with_rates(tmp_path, CHEAP)
    ledger.follow({"p": plan(10**6), "q": Plan("q", (PlanGrant(5),))}, {"t": "p", "new": "q"})
    assert (ledger.tenant("new").plan, ledger.available_uc("new")) == ("q", 5)
    fail_both(ledger, "commit")
    with pytest.raises(StoreUnavailable):
        await charge(ledger, "lost", CHEAP)
    await recovered(ledger)
    assert (ledger.tenant("new").plan, ledger.available_uc("new")) == ("q", 5)
    ledger.follow({"p": plan(10**6)}, {"t": "p"})
    assert ledger.tenant("new").plan == "q", "it is left alone"
    with pytest.raises(InvalidValue):
        manage.add_tenant(ledger, "late", "q")
    await ledger.aclose()


async def test_a_file_of_before_opens_and_no_card_is_claimed_for_its_records(tmp_path: Path) -> None:
    ledger = await with_rates(tmp_path, None)
    await charge(ledger, "by one card", CHEAP)
    await charge(ledger, "by another", DEAR)
    await ledger.aclose()
    rows(tmp_path, "DROP TABLE rate_cards")
    assert audit(f"{tmp_path}/l.db") == []
    ledger = await with_rates(tmp_path, DEAR)
    assert ledger.card_version == 2
    await charge(ledger, "new", DEAR)
    await ledger.aclose()
    assert versions(tmp_path) == [("standard", 2, 4)]
    assert audit(f"{tmp_path}/l.db") == []


async def test_a_file_of_before_cards_had_terms_opens_and_goes_on_with_its_version(tmp_path: Path) -> None:
    ledger = await with_rates(tmp_path, CHEAP)
    await charge(ledger, "old", CHEAP)
    await ledger.aclose()
    as_version(f"{tmp_path}/l.db", 5)
    assert audit(f"{tmp_path}/l.db") == []
    assert why(f"{tmp_path}/l.db", "old")["price"]["cards"][0]["hours"] == []
    ledger = await with_rates(tmp_path, CHEAP)
    assert ledger.card_version == 1
    await charge(ledger, "new", CHEAP)
    await ledger.aclose()
    assert rows(tmp_path, "SELECT schema_version FROM meta") == [(SCHEMA_VERSION,)]
    assert audit(f"{tmp_path}/l.db") == []


async def test_what_nobody_reported_recomputes_to_at_most_the_hold(tmp_path: Path) -> None:
    ledger = await with_rates(tmp_path, CHEAP)
    assert await charge(ledger, "bad", CHEAP, "bad_usage", tokens=9000) == 200
    assert await charge(ledger, "estimated", CHEAP, "estimated", tokens=9000) == 200
    assert await charge(ledger, "said", CHEAP, tokens=9000) == 18_010
    await ledger.aclose()
    assert audit(f"{tmp_path}/l.db") == []


@pytest.mark.parametrize(
    "forged",
    [
        "UPDATE records SET usage = '{\"output\":16}'",
        "UPDATE records SET model_served = 'n'",
        "UPDATE records SET model_served = 'nobody'",
        "UPDATE records SET card_version = 7",
        "UPDATE records SET status = 'voided'",
        "UPDATE records SET flags = '[\"bad_usage\"]', reserved = 29",
        'UPDATE rate_cards SET rates = \'{"m":{"input":1,"output":3}}\'',
    ],
)
async def test_a_charge_that_its_card_does_not_explain_is_found(tmp_path: Path, forged: str) -> None:
    ledger = await with_rates(tmp_path, CHEAP)
    await charge(ledger, "a", CHEAP)
    await ledger.aclose()
    assert audit(f"{tmp_path}/l.db") == []
    rows(tmp_path, forged)
    told = [line for line in audit(f"{tmp_path}/l.db") if not line.startswith("I14")]
    assert told == ["I8: record 1 has charged 30, not what its card says"]


async def test_an_edit_of_the_rates_and_a_restart_charge_by_a_new_version(world: World) -> None:
    assert (await world.chat())[0] == 200
    await world.app.aclose()
    routes = world.path / "routes.yaml"
    routes.write_text(routes.read_text().replace("rates: {input: 1, output: 2}", "rates: {input: 10, output: 20}"))
    world.app = App(load(routes))
    await world.app.start("127.0.0.1", 0)
    try:
        assert (await world.chat())[0] == 200
        before, after = await world.charges()
    finally:
        await world.app.aclose()
    assert [(r["rate_card"], r["price_version"]) for r in (before, after)] == [("standard", 1), ("standard", 2)]
    assert float(after["charged"]) == 10 * float(before["charged"]) > 0
    assert audit(str(world.path / "moma.db")) == []
