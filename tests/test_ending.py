"""What happens at the end of a package, by routes.yaml and real calls: paid afterwards, a cheaper route, slowly."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import orjson
import pytest

from gateway.charging.audit import audit
from gateway.charging.reconcile import reconciled
from gateway.cli import main
from gateway.demo.scripted import HANG, Reply
from tests.conftest import ADMIN_KEY, World

USED = {"prompt_tokens": 10, "completion_tokens": 45, "total_tokens": 55}  # 100 credits of small, 570 of large
SAID = {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
ANSWER = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [SAID], "usage": USED}
PACKAGES = """
packages:
  block: {credits: 1k, every: month}
  payg: {credits: 1k, every: month, exhausted: {payg: {price: 20000, cap: 10}}, alerts: [50%, 80%, 100%]}
  cheaper: {credits: 1k, every: month, exhausted: {downgrade: free}}
  raw: {credits: 300, card: raw, every: month, exhausted: {downgrade: free}}
  slow: {credits: 1k, every: month, exhausted: {throttle: {rpm: 2}}}
  all: {credits: 1k, every: month, exhausted: {payg: {price: 20000, cap: 10}, downgrade: free, throttle: {rpm: 2}}}
  only-large: {credits: 1k, valid: 30d, scope: {models: [large]}, exhausted: {throttle: {rpm: 2}}}
  pool: {credits: 1k, valid: 365d, price: 40000, exhausted: {payg: {price: 20000, cap: 20}}, alerts: [50%, 80%, 100%]}
"""
MODELS = """models:
  gift: {via: [a], context: 4k, max_output: 1k, price: {input: 1, output: 2}, rates: {input: 0, output: 0}}"""
ROUTES = """routes:
  free: {pick: [gift]}"""


class Desk:
    """A gateway that sells, and tenants that call."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.keys: dict[str, str] = {}
        self.orders = 0

    async def admin(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"authorization": f"Bearer {ADMIN_KEY}"}
        url = f"{self.world.url}/admin/v1/{path}"
        async with self.world.http.request(method, url, json=body, headers=headers) as answer:
            value = await answer.json()
            assert answer.status < 300, value
            return value

    async def tenant(self, name: str, package: str = "", plan: str = "empty", parent: str | None = None) -> None:
        await self.admin("POST", "tenants", {"id": name, "plan": plan, "parent": parent})
        self.keys[name] = (await self.admin("POST", f"tenants/{name}/keys"))["key"]
        if package:
            await self.buy(name, package)

    async def buy(self, tenant: str, package: str) -> Any:
        self.orders += 1
        return await self.admin(
            "POST", "orders", {"order_id": f"A-{self.orders}", "tenant": tenant, "package": package}
        )

    async def call(self, tenant: str, model: str = "small") -> tuple[int, Any, dict[str, str]]:
        """One that takes 100 credits of small, and may be answered from a cache."""
        async with self.world.http.post(
            f"{self.world.url}/v1/chat/completions",
            json={
                "model": model,
                "max_tokens": 45,
                "temperature": 0,
                "messages": [{"role": "user", "content": "hello there"}],
            },
            headers={"authorization": f"Bearer {self.keys[tenant]}"},
        ) as answer:
            return answer.status, await answer.json(), {name.lower(): value for name, value in answer.headers.items()}

    async def calls(self, tenant: str, number: int) -> list[int]:
        return [(await self.call(tenant))[0] for _ in range(number)]

    async def usage(self, tenant: str) -> Any:
        headers = {"authorization": f"Bearer {self.keys[tenant]}"}
        async with self.world.http.get(f"{self.world.url}/v1/usage", headers=headers) as answer:
            return await answer.json()

    async def records(self, tenant: str) -> list[dict[str, Any]]:
        await self.world.written()
        return list((await self.admin("GET", f"tenants/{tenant}/charges"))["data"])

    async def statement(self, tenant: str) -> Any:
        return await self.admin("GET", f"tenants/{tenant}/statement")

    async def reload(self, before: str, after: str) -> None:
        file = self.world.path / "routes.yaml"
        text = file.read_text()
        assert before in text
        file.write_text(text.replace(before, after))
        await self.admin("POST", "reload")


@pytest.fixture
async def desk(world: World) -> AsyncIterator[Desk]:
    for backend in (world.a, world.b):
        backend.script(lambda _: Reply(body=ANSWER))
    desk = Desk(world)
    await desk.reload("models:\n", f"{MODELS}\n")
    await desk.reload("routes:\n", f"{ROUTES}\n")
    await desk.reload("plans:\n", f"{PACKAGES}\nplans:\n")
    yield desk
    world.app.ledger.check_invariants()
    await world.written()
    path = str(world.path / "moma.db")
    assert audit(path) == []
    assert reconciled(path, 0) == []


async def test_a_package_that_blocks_is_over(desk: Desk) -> None:
    await desk.tenant("ann", "block")
    assert (await desk.calls("ann", 12))[-2:] == [429, 429]
    _, body, headers = await desk.call("ann")
    assert body["error"]["code"] == "insufficient_quota"
    assert headers["x-should-retry"] == "false"


async def test_calls_beyond_the_package_are_billed_up_to_a_hard_cap(
    desk: Desk, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk.tenant("ann", "payg")
    statuses = await desk.calls("ann", 16)
    assert statuses[:14] == [200] * 14
    assert statuses[-1] == 429
    spent = 100 * statuses.count(200)
    usage = await desk.usage("ann")
    assert (usage["spent"], usage["available"]) == ("1000", "0")  # of the package: what is billed stands apart
    [purse] = usage["payg"]
    over = spent - 1000
    assert purse["spent"] == str(over)
    assert (purse["price"], purse["cap"], purse["package"]) == ("20000", "10", "package:payg")
    assert float(purse["amount"]) == over * 0.02 <= 10
    said = await desk.statement("ann")
    assert [said[name] for name in ("granted", "spent", "closing", "overage")] == ["1000", "1000", "0", "0"]
    [billed] = said["payg"]
    assert (billed["credits"], float(billed["amount"]), billed["grant"]) == (str(over), over * 0.02, purse["id"])
    assert sum(int(model["credits"]) for model in said["by_model"]) == spent
    monkeypatch.delenv("MOMA_ADMIN_KEY", raising=False)
    assert main(["statement", "ann", "-c", str(desk.world.path / "routes.yaml")]) == 0
    told = f"to be paid: {billed['amount']} for {over} credits beyond the package, at 20000 for 1M"
    assert told in capsys.readouterr().out


async def test_the_account_page_shows_what_is_to_be_paid(desk: Desk) -> None:
    await desk.tenant("ann", "payg")
    await desk.calls("ann", 14)
    async with (
        aiohttp.ClientSession(desk.world.url, cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser,
        browser.post("/account", data={"key": desk.keys["ann"]}) as answer,
    ):
        text = await answer.text()
    assert "Beyond the packages" in text
    assert "20,000.00 for 1M" in text
    assert "8.00 of at most 10.00" in text


async def test_a_call_that_is_half_covered_is_split(desk: Desk) -> None:
    await desk.tenant("ann", "payg")
    await desk.admin("POST", "tenants/ann/grants", {"credits": 50, "priority": 1})
    await desk.calls("ann", 11)
    *_, last = await desk.records("ann")
    assert [part["credits"] for part in last["parts"]] == ["50", "50"]
    why = await desk.admin("GET", f"charges/{last['charge_id']}")
    assert [(grant["kind"], grant["paid"]) for grant in why["grants"]][1:] == [("prepaid", "50"), ("payg", "50")]


async def test_the_cap_holds_for_many_calls_at_once(desk: Desk) -> None:
    await desk.tenant("ann", "payg")
    statuses = [status for status, _, _ in await asyncio.gather(*(desk.call("ann") for _ in range(200)))]
    assert 10 <= statuses.count(200) <= 15
    [purse] = (await desk.usage("ann"))["payg"]
    assert float(purse["amount"]) <= 10
    assert purse["reserved"] == "0"
    assert all(record["overage"] == "0" for record in await desk.records("ann"))


async def test_a_call_goes_to_a_cheaper_route_before_dispatch(desk: Desk) -> None:
    await desk.tenant("ann", "cheaper")
    await desk.calls("ann", 10)
    status, _, headers = await desk.call("ann")
    assert (status, headers["x-moma-model"], headers["x-moma-route"]) == (200, "gift", "free")
    assert "downgraded" in headers["x-moma-reason"].split(";")
    assert headers["x-moma-credits"] == "0"
    *_, last = await desk.records("ann")
    assert (last["model_requested"], last["model_served"], last["flags"]) == ("small", "gift", ["downgraded"])
    assert last["charged"] == "0"


async def test_a_model_for_nothing_goes_on_after_tokens_of_the_card_raw(desk: Desk) -> None:
    """Which pays a credit for each of its tokens, as long as there are any."""
    await desk.tenant("ann", "raw")
    records = [await desk.call("ann") for _ in range(8)]
    assert [status for status, _, _ in records] == [200] * 8
    models = [headers["x-moma-model"] for _, _, headers in records]
    assert models == ["small"] * models.count("small") + ["gift"] * models.count("gift")
    assert 0 < models.count("small") <= 5
    *_, last = await desk.records("ann")
    assert last["overage"] == "0"
    assert sum(float(record["charged"]) for record in await desk.records("ann")) <= 300


async def test_a_plan_need_not_allow_the_cheaper_route(desk: Desk) -> None:
    await desk.reload("  empty: {}", "  empty: {allow: [small], exhausted: {downgrade: free}}")
    await desk.tenant("ann")
    status, body, _ = await desk.call("ann", "free")
    assert (status, body["error"]["code"]) == (404, "model_not_found")
    status, _, headers = await desk.call("ann")
    assert (status, headers["x-moma-model"]) == (200, "gift")


async def test_a_call_keeps_what_the_route_requires_that_it_asked_for(desk: Desk) -> None:
    """Its region, whatever a package says of its end."""
    await desk.reload('base_url: "' + desk.world.b.base_url + '"', f'base_url: "{desk.world.b.base_url}", region: home')
    await desk.reload(ROUTES, f"{ROUTES}\n  at-home: {{pick: [large], require: {{region: [home]}}}}")
    await desk.reload("  empty: {}", "  empty: {exhausted: {downgrade: free}}")
    await desk.tenant("ann")
    assert (await desk.call("ann", "large"))[2]["x-moma-model"] == "gift"
    status, body, _ = await desk.call("ann", "at-home")
    assert (status, body["error"]["code"]) == (429, "insufficient_quota")
    assert [seen.body["model"] for seen in desk.world.a.requests] == ["gift"]


async def test_a_cheaper_route_that_is_gone_or_no_cheaper_blocks(desk: Desk) -> None:
    await desk.reload("  empty: {}", "  empty: {exhausted: {downgrade: large}}\n  bare: {exhausted: {downgrade: free}}")
    await desk.tenant("ann")
    assert (await desk.call("ann"))[1]["error"]["code"] == "insufficient_quota"
    await desk.tenant("ben", "cheaper")
    await desk.calls("ben", 10)
    file = desk.world.path / "routes.yaml"
    file.write_text(file.read_text().replace("downgrade: free", "downgrade: long").replace(ROUTES, "routes:"))
    await desk.admin("POST", "reload")
    assert (await desk.call("ben"))[1]["error"]["code"] == "insufficient_quota"


async def test_calls_go_on_slowly_and_for_nothing(
    desk: Desk, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk.tenant("ann", "slow")
    assert await desk.calls("ann", 10) == [200] * 10  # of the tenth the package could not hold the most that it takes
    status, _, headers = await desk.call("ann")
    assert (status, headers["x-moma-credits"], headers["x-moma-model"]) == (200, "0", "small")
    assert "throttled" in headers["x-moma-reason"].split(";")
    status, body, headers = await desk.call("ann")
    assert (status, body["error"]["code"]) == (429, "rate_limit_exceeded")
    assert 0 < int(headers["retry-after"]) <= 31
    assert "used up" in body["error"]["message"]
    first, *_, last = await desk.records("ann")
    assert (first["flags"], last["flags"], last["charged"], last["usage"]["output"]) == ([], ["throttled"], "0", 45)
    assert (await desk.statement("ann"))["spent"] == "900"
    why = await desk.admin("GET", f"charges/{last['charge_id']}")
    assert (why["price"]["sum"], why["price"]["charged"]) == ("100", "0")
    monkeypatch.delenv("MOMA_ADMIN_KEY", raising=False)
    assert main(["why", last["charge_id"], "-c", str(desk.world.path / "routes.yaml")]) == 0
    assert "for nothing, as no credits covered it" in capsys.readouterr().out


async def test_a_stream_goes_on_as_well(desk: Desk) -> None:
    await desk.tenant("ann", "slow")
    await desk.calls("ann", 9)
    chunk = {"id": "c", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": "word"}}]}
    events = [chunk, {**chunk, "choices": [], "usage": USED}]
    stream = [*(b"data: " + orjson.dumps(event) + b"\n\n" for event in events), b"data: [DONE]\n\n"]
    desk.world.a.script([Reply(stream=stream)])
    asked = {
        "model": "small",
        "max_tokens": 45,
        "stream": True,
        "messages": [{"role": "user", "content": "hello there"}],
    }
    headers = {"authorization": f"Bearer {desk.keys['ann']}"}
    async with desk.world.http.post(f"{desk.world.url}/v1/chat/completions", json=asked, headers=headers) as answer:
        assert (await answer.text()).endswith("data: [DONE]\n\n")
        assert answer.headers["x-moma-reason"].endswith(";throttled")
    *_, last = await desk.records("ann")
    assert (last["charged"], last["flags"], last["usage"]["output"]) == ("0", ["throttled"], 45)


async def test_who_leaves_a_call_for_nothing_pays_nothing(desk: Desk) -> None:
    await desk.tenant("ann", "slow")
    await desk.calls("ann", 9)
    desk.world.a.script([HANG])
    left = asyncio.create_task(desk.call("ann"))
    while len(desk.world.a.requests) < 10:
        await asyncio.sleep(0.005)
    left.cancel()
    while desk.world.app.ledger.open_holds:
        await asyncio.sleep(0.005)
    *_, last = await desk.records("ann")
    assert (last["charged"], sorted(last["flags"])) == ("0", ["estimated", "partial", "throttled"])
    assert (await desk.call("ann"))[0] == 200  # and what it took of the limits is given back


@pytest.mark.parametrize(("package", "status"), [("slow", 200), ("block", 429)])
async def test_a_hit_in_a_cache_is_for_nothing_where_calls_go_on(desk: Desk, package: str, status: int) -> None:
    await desk.reload("models:\n", "cache:\n  half: {mode: exact, charge: 50%}\nmodels:\n")
    await desk.reload("  free: {pick: [gift]}", "  free: {pick: [gift]}\n  kept: {pick: [small], cache: half}")
    await desk.tenant("ann", package)
    assert [(await desk.call("ann", "kept"))[2]["x-moma-cache"] for _ in range(3)] == ["miss", "hit", "hit"]
    assert await desk.calls("ann", 7) == [200] * 7
    assert [(await desk.call("ann", "kept"))[0] for _ in range(5)] == [200, 200, status, status, status]
    if status == 200:
        *_, last = await desk.records("ann")
        assert (last["charged"], last["flags"]) == ("0", ["cache_hit", "charge:50%", "throttled"])
        assert (await desk.call("ann"))[0] == 200  # hits have taken nothing of its limits
    assert (await desk.statement("ann"))["spent"] == "1000"


async def test_an_answer_of_a_cheaper_route_is_not_kept_for_the_one_that_was_asked(desk: Desk) -> None:
    await desk.reload("models:\n", "cache:\n  full: {mode: exact, scope: account, charge: 100%}\nmodels:\n")
    await desk.reload("  free: {pick: [gift]}", "  free: {pick: [gift]}\n  kept: {pick: [small], cache: full}")
    await desk.tenant("ann", "cheaper")
    await desk.calls("ann", 10)
    said = [(await desk.call("ann", "kept"))[2] for _ in range(2)]
    assert [(one["x-moma-cache"], one["x-moma-model"]) for one in said] == [("miss", "gift")] * 2
    await desk.buy("ann", "block")
    said = [(await desk.call("ann", "kept"))[2] for _ in range(2)]
    assert [(one["x-moma-cache"], one["x-moma-model"]) for one in said] == [("miss", "small"), ("hit", "small")]


async def test_a_throttle_may_be_one_call_at_a_time(desk: Desk) -> None:
    await desk.reload("  empty: {}", "  empty: {exhausted: {throttle: {concurrency: 1}}}")
    await desk.tenant("ann")
    go_on = asyncio.Event()
    desk.world.a.script([Reply(body=ANSWER, before=[go_on])])
    first = asyncio.create_task(desk.call("ann"))
    while not desk.world.a.requests:
        await asyncio.sleep(0.005)
    status, body, _ = await desk.call("ann")
    assert (status, body["error"]["code"]) == (429, "rate_limit_exceeded")
    go_on.set()
    assert (await first)[0] == 200
    assert (await desk.call("ann"))[0] == 200


async def test_a_throttle_counts_only_what_it_lets_through(desk: Desk) -> None:
    await desk.tenant("ann", "slow")
    await desk.calls("ann", 12)
    assert (await desk.call("ann"))[0] == 429
    await desk.buy("ann", "block")
    assert await desk.calls("ann", 5) == [200] * 5


async def test_a_family_shares_one_throttle(desk: Desk) -> None:
    await desk.tenant("family", "slow")
    for name in ("ann", "ben"):
        await desk.tenant(name, parent="family")
    await desk.calls("ann", 9)
    assert [(await desk.call(name))[0] for name in ("ann", "ben", "ann")] == [200, 200, 429]


async def test_a_throttle_is_for_what_its_package_is_for(desk: Desk) -> None:
    await desk.tenant("ann", "only-large")
    assert (await desk.call("ann"))[1]["error"]["code"] == "insufficient_quota"
    assert [(await desk.call("ann", "large"))[0] for _ in range(3)] == [200, 200, 200]
    _, _, headers = await desk.call("ann", "auto")
    assert headers.get("x-moma-model") is None  # the third of the minute
    *_, last = await desk.records("ann")
    assert last["flags"] == ["throttled"]


async def test_a_throttle_is_no_way_round_a_cap(desk: Desk) -> None:
    await desk.tenant("ann", "slow")
    await desk.admin("PATCH", "tenants/ann", {"caps": {"month": {"credits": 200}}})
    assert await desk.calls("ann", 3) == [200, 429, 429]
    assert (await desk.call("ann"))[1]["error"]["scope"] == "ann"


async def test_first_what_is_paid_then_the_cheaper_route_then_slowly(desk: Desk) -> None:
    await desk.tenant("ann", "all")
    headers = [(await desk.call("ann"))[2] for _ in range(17)]
    models = [one["x-moma-model"] for one in headers]
    assert models[:14] == ["small"] * 14
    assert models[-1] == "gift"
    assert not any("throttled" in one["x-moma-reason"] for one in headers)  # a model for nothing never needs it


async def test_the_nearest_node_says_how_it_goes_on(desk: Desk) -> None:
    await desk.tenant("firm", "cheaper")
    await desk.tenant("team", "slow", parent="firm")
    await desk.calls("team", 20)
    _, _, headers = await desk.call("team")
    assert "downgraded" in headers["x-moma-reason"]  # of the firm, as the team says nothing of it
    await desk.reload("  empty: {}", "  empty: {exhausted: {downgrade: large}}")
    _, _, headers = await desk.call("team")
    assert "throttled" in headers["x-moma-reason"]  # its own plan names a route that costs too much


async def test_a_plan_alone_may_be_paid_afterwards(desk: Desk) -> None:
    await desk.tenant("ann")
    assert await desk.calls("ann", 1) == [429]
    await desk.reload("  empty: {}", "  empty: {exhausted: {payg: {price: 20000, cap: 10}}, alerts: [100%]}")
    statuses = await desk.calls("ann", 6)
    assert statuses[:4] == [200] * 4
    assert statuses[-1] == 429
    usage = await desk.usage("ann")
    assert (usage["available"], usage["grants"]) == ("0", [])
    [purse] = usage["payg"]
    assert (purse["package"], purse["spent"]) == ("plan:empty", str(100 * statuses.count(200)))


async def test_a_subscription_that_ends_takes_its_purse_along(desk: Desk) -> None:
    await desk.tenant("ann", "payg")
    assert await desk.calls("ann", 12) == [200] * 12
    await desk.admin("POST", "subscriptions/s00000001/cancel", {"now": True})
    assert (await desk.call("ann"))[0] == 429
    assert (await desk.usage("ann"))["payg"] == []
    [billed] = (await desk.statement("ann"))["payg"]
    assert (billed["credits"], billed["amount"]) == ("200", "4")


async def test_alerts_are_told_once(
    desk: Desk,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("MOMA_ADMIN_KEY", raising=False)
    caplog.set_level(logging.WARNING, "gateway.recorder")
    await desk.tenant("ann", "payg")
    await desk.calls("ann", 4)
    assert (await desk.usage("ann"))["alerts"] == []
    await desk.calls("ann", 6)
    levels = [(one["level"], one["kind"], one["spent"]) for one in (await desk.usage("ann"))["alerts"]]
    assert levels == [("50%", "prepaid", "500"), ("80%", "prepaid", "800"), ("100%", "prepaid", "1000")]
    await desk.calls("ann", 4)
    listed = (await desk.admin("GET", "alerts?tenant=ann"))["data"]
    assert [(one["level"], one["kind"]) for one in listed][3:] == [("50%", "payg"), ("80%", "payg")]
    assert (await desk.admin("GET", "alerts?tenant=demo"))["data"] == []
    assert [line for line in caplog.messages if line.startswith("alert: ann has spent 80% of 1000 credits")]
    async with desk.world.http.get(f"{desk.world.url}/metrics") as answer:
        assert 'moma_package_alerts_total{level="80%"} 2.0' in await answer.text()
    assert main(["alert", "list", "--json", "-c", str(desk.world.path / "routes.yaml")]) == 0
    assert json.loads(capsys.readouterr().out)["data"] == listed


async def test_explain_says_how_a_call_goes_on(desk: Desk) -> None:
    await desk.tenant("ann", "all")
    await desk.tenant("ben", "slow")
    asked = {"model": "small", "max_tokens": 45, "messages": [{"role": "user", "content": "hello there"}]}

    async def explained(tenant: str) -> Any:
        return await desk.admin("POST", "explain", {"tenant": tenant, "body": asked})

    assert (await explained("ann"))["notes"] == []
    await desk.calls("ann", 15)
    said = await explained("ann")
    assert (said["route"], said["first"], said["refusal"]) == ("free", {"model": "gift", "backend": "a"}, None)
    assert said["notes"][0].startswith("downgraded: ")
    await desk.calls("ben", 10)
    said = await explained("ben")
    assert (said["reserve"], said["refusal"], said["reason"]) == ("0", None, "weighted;throttled")
    await desk.calls("ben", 2)
    assert (await explained("ben"))["refusal"]["code"] == "rate_limit_exceeded"


async def test_an_enterprise_has_a_pool_caps_overage_and_alerts(desk: Desk) -> None:
    """The catalogue's row: an annual pool, caps per department, overage billed, alerts at 50, 80 and 100 %."""
    await desk.tenant("firm", "pool")
    for name in ("sales", "research"):
        await desk.tenant(name, parent="firm")
        await desk.admin("PATCH", f"tenants/{name}", {"caps": {"month": {"credits": 900}}})
    sales, research = await desk.calls("sales", 10), await desk.calls("research", 10)
    assert (sales.count(200), research.count(200)) == (8, 8)  # a ninth might take more than 900
    [purse] = (await desk.usage("research"))["payg"]
    assert (purse["account"], purse["spent"]) == ("firm", str(100 * 16 - 1000))
    said = await desk.statement("firm")
    assert (said["granted"], said["spent"], said["closing"]) == ("1000", "1000", "0")
    [billed] = said["payg"]
    assert billed["credits"] == purse["spent"]
    alerts = (await desk.admin("GET", "alerts"))["data"]
    assert [one["level"] for one in alerts if one["kind"] == "prepaid"] == ["50%", "80%", "100%"]
    assert {one["tenant"] for one in alerts} == {"firm"}
