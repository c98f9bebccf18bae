"""Gauges that a scrape reads from the running parts, and the counters of what was moved."""

from __future__ import annotations

import asyncio

from gateway.demo.scripted import CLOSED, HANG
from gateway.metrics import LiveGauges, Metrics
from tests.conftest import World


async def scraped(world: World) -> dict[str, float]:
    async with world.http.get(f"{world.url}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


A, B = '{backend="a",model="small"}', '{backend="b",model="large"}'


async def test_a_target_is_closed_until_it_fails_and_open_while_it_is_ejected(world: World) -> None:
    shown = await scraped(world)
    assert [shown[f"moma_breaker_state{at}"] for at in (A, B)] == [0, 0]
    assert [shown[f"moma_backend_available{at}"] for at in (A, B)] == [1, 1]
    world.b.script(lambda _: CLOSED)
    for _ in range(3):
        assert (await world.chat(model="large"))[0] == 502
    shown = await scraped(world)
    assert [shown[f"moma_breaker_state{at}"] for at in (A, B)] == [0, 2]
    assert [shown[f"moma_backend_available{at}"] for at in (A, B)] == [1, 0]


async def test_in_flight_is_counted_by_target(world: World) -> None:
    world.b.script(lambda _: HANG)
    calls = [asyncio.create_task(world.chat(model="large")) for _ in range(3)]
    while world.b.in_flight < 3:
        await asyncio.sleep(0.01)
    assert (await scraped(world))[f"moma_backend_in_flight{B}"] == 3
    await asyncio.gather(*calls)
    assert (await scraped(world))[f"moma_backend_in_flight{B}"] == 0


async def test_credits_and_cost_add_up(world: World) -> None:
    charged = [float((await world.chat())[2]["x-moma-credits"]) for _ in range(3)]
    shown = await scraped(world)
    assert shown['moma_credits_total{kind="settled",tenant="demo"}'] == sum(charged)
    assert shown['moma_credits_total{kind="reserved",tenant="demo"}'] > sum(charged)
    assert shown['moma_tenant_available_credits{tenant="demo"}'] == 1_000_000 - sum(charged)
    cost = sum(record["cost"] for record in await world.charges())
    assert round(shown['moma_cost_total{model="small"}'] * 1_000_000) == cost > 0


async def test_what_expires_is_counted(world: World) -> None:
    ledger = world.app.ledger
    _, committed = ledger.add_grant("demo", 7_000_000, expires_ms=1_000)
    await committed
    ledger.usage("demo")
    await ledger.add_grant("demo", 1)[1]
    assert (await scraped(world))['moma_credits_total{kind="expired",tenant="demo"}'] == 7


def test_tenants_with_the_same_label_are_added_up() -> None:
    metrics = Metrics()
    metrics.registry.register(LiveGauges(list, lambda: [("other", 1_000_000), ("other", 500_000)]))
    assert metrics.registry.get_sample_value("moma_tenant_available_credits", {"tenant": "other"}) == 1.5
