"""Gauges that a scrape reads from the running parts, and the counters of what was moved."""

from __future__ import annotations

import asyncio
from typing import Any

from gateway.demo.scripted import CLOSED, Reply
from gateway.metrics import Metrics
from gateway.recorder import Recorder
from tests.charging import manage
from tests.conftest import ADMIN_KEY, World


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
    done = asyncio.Event()
    world.b.script(lambda _: Reply(before=(done,)))
    calls = [asyncio.create_task(world.chat(model="large")) for _ in range(3)]
    while world.b.in_flight < 3:
        await asyncio.sleep(0.01)
    assert (await scraped(world))[f"moma_backend_in_flight{B}"] == 3
    done.set()
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
    await world.chat()
    ledger = world.app.ledger
    _, committed = manage.add_grant(ledger, "demo", 7_000_000, expires_ms=1_000)
    await committed
    ledger.usage("demo")
    await manage.add_grant(ledger, "demo", 1)[1]
    assert (await scraped(world))['moma_credits_total{kind="expired",tenant="demo"}'] == 7


def recorder(top: int) -> tuple[Recorder, Metrics]:
    metrics = Metrics()
    return Recorder(metrics, top=top, log=None), metrics


def test_a_look_at_tenants_gives_none_of_them_a_label() -> None:
    kept, metrics = recorder(top=2)
    names = ["a", "b", "c", "d"]
    assert kept.by_label(names) == {"a": ["a"], "b": ["b"], "other": ["c", "d"]}
    kept.expired("a", 1_000_000)
    kept.credited("d", "settled", 1_000_000)
    assert kept.by_label(names) == {"d": ["d"], "a": ["a"], "other": ["b", "c"]}
    kept.credited("c", "settled", 1_000_000)
    kept.credited("a", "settled", 1_000_000)
    assert kept.by_label(names) == {"c": ["c"], "d": ["d"], "other": ["a", "b"]}
    assert kept.by_label(["d"]) == {"d": ["d"]}
    samples = {(s.labels["tenant"], s.labels["kind"]) for m in metrics.credits.collect() for s in m.samples}
    assert samples == {("other", "expired"), ("d", "settled"), ("c", "settled"), ("other", "settled")}


def test_a_tenant_may_be_called_other() -> None:
    kept, _ = recorder(top=1)
    kept.credited("other", "settled", 1)
    assert kept.by_label(["a", "other", "b"]) == {"other": ["other", "a", "b"]}


async def asked(world: World, method: str, path: str, key: str, **body: object) -> dict[str, Any]:
    headers = {"authorization": f"Bearer {key}"}
    async with world.http.request(method, f"{world.url}{path}", json=body, headers=headers) as answer:
        assert answer.status in (200, 201), await answer.text()
        value: dict[str, Any] = await answer.json()
        return value


async def test_tenants_with_traffic_have_the_labels_and_a_pool_counts_once(world: World) -> None:
    await asked(world, "POST", "/admin/v1/tenants", ADMIN_KEY, id="family", plan="empty")
    await asked(world, "POST", "/admin/v1/tenants/family/grants", ADMIN_KEY, credits="1M")
    members = [f"a{number:02}" for number in range(60)]
    for name in members:
        await asked(world, "POST", "/admin/v1/tenants", ADMIN_KEY, id=name, plan="empty", parent="family")
    await asked(world, "POST", "/admin/v1/tenants/a59/grants", ADMIN_KEY, credits=2)
    await scraped(world)  # which gives no label away
    for name in ["a55", *members[:50]]:
        key = (await asked(world, "POST", f"/admin/v1/tenants/{name}/keys", ADMIN_KEY))["key"]
        messages = [{"role": "user", "content": "hello"}]
        await asked(world, "POST", "/v1/chat/completions", key, model="small", messages=messages, max_tokens=1)
    shown = await scraped(world)
    left = {name.split('"')[1]: value for name, value in shown.items() if "_available_credits" in name}
    assert set(left) == {"a55", *members[:49], "other"}
    pool = left["a55"]
    assert 0 < pool < 1_000_000
    assert left["other"] == 1_000_000 + pool + 2  # demo's, the pool once for all the others, and what only a59 has
    assert 'moma_credits_total{kind="settled",tenant="a55"}' in shown
