"""A real Prometheus scrapes a gateway under load: every rule and every query of a dashboard has something to say."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from dashboards import BOARDS
from gateway.demo.answers import Json
from gateway.demo.scripted import CLOSED, Reply, Seen, refusal
from tests.charging import manage
from tests.conftest import ADMIN_KEY, KEY, World
from tests.seeing import needs
from tests.seeing.gateways import another
from tests.seeing.prometheus import STEP_S, Prometheus
from tests.seeing.test_names import ALERTS, RECORDS

pytestmark = needs("prometheus", "prometheus")

PATIENCE_S = 30.0
WINDOW = "5s"
USAGE: dict[str, Json] = {
    "usage missing": {},
    "usage bad": {"usage": {"prompt_tokens": -1, "completion_tokens": -1, "total_tokens": -2}},
    "usage beyond the hold": {"usage": {"prompt_tokens": 9000, "completion_tokens": 1, "total_tokens": 9001}},
}


ILL = """  ill: {via: [{backend: b, as: ill}], context: 4k, max_output: 1k, price: {input: 1, output: 1}}
"""
CACHE = """cache:
  short: {mode: exact, ttl: 10m, scope: tenant}
"""
CACHED = """  kept: {pick: [small], policy: ordered, cache: short}
"""


def scripted(seen: Seen) -> Reply | None:
    """The last message says how it is answered; None is an honest answer."""
    if seen.body["model"] == "ill":
        return CLOSED
    asked = seen.body["messages"][-1]["content"]
    if asked in USAGE:
        choice = {"index": 0, "message": {"role": "assistant", "content": "well"}, "finish_reason": "stop"}
        return Reply(body={"id": "x", "object": "chat.completion", "model": "x", "choices": [choice], **USAGE[asked]})
    return {"fail": refusal(500), "leave": CLOSED}.get(asked)


async def post(world: World, path: str, key: str, **body: Any) -> Any:
    async with world.http.post(f"{world.url}{path}", json=body, headers={"authorization": f"Bearer {key}"}) as answer:
        return answer.status, await answer.read()


async def chat(world: World, content: str, key: str = KEY, **body: Any) -> int:
    messages = [{"role": "user", "content": content}]
    status, _ = await post(world, "/v1/chat/completions", key, model="large", messages=messages, **body)
    return int(status)


async def tenant(world: World, name: str, plan: str, credits_: int) -> str:
    await post(world, "/admin/v1/tenants", ADMIN_KEY, id=name, plan=plan)
    await post(world, f"/admin/v1/tenants/{name}/grants", ADMIN_KEY, credits=credits_)
    _, made = await post(world, f"/admin/v1/tenants/{name}/keys", ADMIN_KEY)
    return str(orjson.loads(made)["key"])


@asynccontextmanager
async def load(world: World) -> AsyncIterator[asyncio.Task[None]]:
    """Calls of every kind, again and again, until the context ends."""
    world.b.script(scripted)
    ledger = world.app.ledger
    manage.add_grant(ledger, "demo", 10**15)
    _, committed = manage.add_grant(ledger, "demo", 7_000_000, expires_ms=1_000)
    await committed
    tight, poor = await tenant(world, "tight", "tight", 10_000), await tenant(world, "poor", "empty", 600)

    async def one_of_each() -> None:
        for content in ("hello", *USAGE, "fail", "leave"):
            await chat(world, content)
        await chat(world, "a stream", stream=True)
        await world.chat(model="auto")
        await world.chat(model="ill")
        await world.chat(model="kept", temperature=0)
        await post(world, "/v1/responses", KEY, model="small", input="keep it")
        await post(world, "/admin/v1/reload", ADMIN_KEY)
        await chat(world, "hello", tight)
        await chat(world, "usage beyond the hold", poor, max_tokens=1)

    async def on_and_on() -> None:
        while True:
            await one_of_each()
            await asyncio.sleep(STEP_S / 2)

    task = asyncio.create_task(on_and_on())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def silent(prometheus: Prometheus, expressions: dict[str, str]) -> list[str]:
    """Those that give no series with a number."""
    found = {where: await prometheus.series(expr) for where, expr in expressions.items()}
    return [where for where, series in found.items() if not any(sample["value"][1] != "NaN" for sample in series)]


def queries() -> dict[str, str]:
    """Of all dashboards, with what Grafana puts in for its variables."""
    found = {}
    for board in BOARDS:
        for panel in board.panels:
            for legend, expr in panel.expressions.items():
                asked = re.sub(r"\$__rate_interval", WINDOW, expr)
                found[f"{board.name}: {panel.title}: {legend}"] = re.sub(r"\$\w+", ".*", asked)
    return found


async def test_every_rule_and_every_query_has_something_to_say(world: World, tmp_path: Path) -> None:
    async with (
        another(world, routes=ILL + CACHE, plans=CACHED) as world.app,
        load(world) as traffic,
        Prometheus(tmp_path, world.url.removeprefix("http://")) as prometheus,
    ):
        rung = {alert: f'ALERTS{{alertname="{alert}"}}' for alert in ("MomaUsageBad", "MomaBackendFails")}
        wanted = {record: record for record in RECORDS} | queries() | rung
        assert len(wanted) > 60
        for _ in range(int(PATIENCE_S / STEP_S)):
            await asyncio.sleep(STEP_S)
            missing = await silent(prometheus, wanted)
            if not missing:
                break
            assert not traffic.done(), traffic.exception()
        assert missing == []
        await legends_are_filled_in(prometheus)
        await rules_are_well(prometheus)


async def legends_are_filled_in(prometheus: Prometheus) -> None:
    """Each label that a legend names is there, or every line would have the same name."""
    asked = queries()
    for where, expr in asked.items():
        for sample in await prometheus.series(expr):
            for label in re.findall(r"{{(\w+)}}", where):
                assert label in sample["metric"], where


async def rules_are_well(prometheus: Prometheus) -> None:
    groups = (await prometheus.ask("rules"))["groups"]
    seen = [rule for group in groups for rule in group["rules"]]
    assert {rule["name"] for rule in seen} == {*RECORDS, *(alert["alert"] for alert in ALERTS)}
    assert {rule["name"]: rule.get("lastError") for rule in seen if rule["health"] != "ok"} == {}
    ringing = [alert for rule in seen for alert in rule.get("alerts", ())]
    assert ringing
    for alert in ringing:
        assert re.search(r"<no value>|<error|{{", alert["annotations"]["summary"]) is None


async def test_a_gateway_that_goes_away_is_seen(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And one whose metrics need a key is scraped with it, and not without."""
    monkeypatch.setenv("MOMA_TEST_METRICS_KEY", "the-key-of-metrics")
    key = tmp_path / "key"
    key.write_text("another")
    async with (
        another(world, "server: {metrics_key: env:MOMA_TEST_METRICS_KEY}") as app,
        Prometheus(tmp_path, f"127.0.0.1:{app.port}", key) as prometheus,
    ):
        assert await up(prometheus, "0") == "0"
        scraped = (await prometheus.ask("targets"))["activeTargets"][0]
        assert "401" in scraped["lastError"]
        key.write_text("the-key-of-metrics")
        assert await up(prometheus, "1") == "1"
        assert (await prometheus.series("moma_ready"))[0]["value"][1] == "1"
        await app.aclose()
        assert await up(prometheus, "0") == "0"
        pending = {alert["labels"]["alertname"] for alert in (await prometheus.ask("alerts"))["alerts"]}
        assert "MomaGatewayDown" in pending


async def up(prometheus: Prometheus, wanted: str) -> str:
    value = ""
    for _ in range(int(PATIENCE_S / STEP_S)):
        found = await prometheus.series('up{job="moma"}')
        value = found[0]["value"][1] if found else ""
        if value == wanted:
            break
        await asyncio.sleep(STEP_S)
    await asyncio.sleep(2 * STEP_S)  # for the rules
    return value
