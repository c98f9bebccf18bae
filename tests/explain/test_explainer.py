"""What is said of a call: what removed each candidate, scores, cost, credits, limits, and the refusal a client gets."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway import quote
from gateway.call import BUCKETS, Request
from gateway.charging.ledger import open_ledger
from gateway.charging.offers import Scope
from gateway.cli.explained import _reserve
from gateway.config.model import Cache, Config, Limits, Plan, PlanGrant
from gateway.explain.explainer import ANYBODY
from gateway.parse import parse_call
from gateway.routing.breaker import FAILURES_IN_A_ROW
from gateway.tenants import Caller
from tests.charging import manage
from tests.explain.worlds import IMAGE, TOOLS, Gateway
from tests.virtual import ListSink, VirtualClock, backend, config, drive, model, require, route

SETTINGS: Config = replace(config(
    [
        backend("north", region="north", chip="h20", limits=Limits(concurrency=2)),
        backend("south", region="south"),
        backend("abroad", region="us", tags=("far",)),
    ],
    [
        model("small", ("north", 1), ("south", 3), can=frozenset({"tools"}), quality=0.4,
              price=dict.fromkeys(BUCKETS, 1_000_000)),
        model("large", "south", "abroad", can=frozenset({"tools", "vision"}), quality=0.8, context=100_000,
              price=dict.fromkeys(BUCKETS, 4_000_000)),
        model("vectors", "north", endpoints=frozenset({"embeddings"})),
    ],
    [
        route("auto", "small", "large", policy="balanced", require=require(region=["north", "south"]),
              fallback_error=("large", "vectors"), affinity="session"),
        route("cheap", "small", "large", policy="cheapest"),
        route("seeing", "small", fallback_error=("large",)),
        route("cached", "small", cache="short"),
        *(route(policy, "small", "large", policy=policy) for policy in ("fastest", "best", "least_busy", "weighted")),
    ],
    aliases={"nick": "cheap"},
), caches={"short": Cache("short")})  # fmt: skip
RICH = Plan("rich", (PlanGrant(1_000_000_000_000),), Limits(rpm=3, tpm=10_000, concurrency=4))
PLANS = {"rich": RICH, "poor": Plan("poor"), "narrow": Plan("narrow", (PlanGrant(10**12),), allow=frozenset({"cheap"}))}


class Desk:
    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    async def ask(self, name: str, tenant: str = "rich", *, headers: dict[str, str] | None = None, **body: Any) -> Any:
        """`tenant` is also the name of its plan; "" is nobody in particular."""
        caller = Caller(tenant, PLANS[tenant], (tenant,)) if tenant else ANYBODY
        endpoint = body.pop("endpoint", "chat")
        if endpoint == "chat":
            body.setdefault("messages", [{"role": "user", "content": "x" * 400}])
        request = Request("r", endpoint, headers or {}, orjson.dumps({"model": name, **body}))
        value = await self.gateway.explainer.explain(caller, request)
        orjson.dumps(value)
        return value

    def open_breaker(self, *key: str) -> None:
        live, now = self.gateway.live, self.gateway.clock.now()
        for _ in range(FAILURES_IN_A_ROW):
            live.ended((key[0], key[1]), live.began((key[0], key[1]), now))
            live.failed((key[0], key[1]), began=now, now=now)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    clock = VirtualClock()
    ledger = await open_ledger(str(tmp_path / "l.db"), clock, "UTC", PLANS)
    for name, plan in PLANS.items():
        ledger.apply_plan(name, plan)
    yield Desk(Gateway(SETTINGS, ledger, clock, random.Random(1)))
    await ledger.aclose()


def removed(value: Any) -> dict[tuple[str, str], str]:
    return {(row["backend"], row["model"]): row["removed_by"] for row in value["candidates"] if row["removed_by"]}


def keys(targets: Any) -> list[tuple[str, str]]:
    return [(target["backend"], target["model"]) for target in targets]


async def test_who_is_left_comes_first_in_the_order_in_which_it_is_asked(desk: Desk) -> None:
    value = await desk.ask("cheap")
    assert keys(value["candidates"]) == keys(value["order"])
    assert [row["asked"] for row in value["candidates"]] == [1, 2, 3, 4]
    assert value["first"] == value["order"][0]
    assert (value["route"], value["policy"], value["live"], value["config"]) == ("cheap", "cheapest", True, 1)


@pytest.mark.parametrize(
    ("name", "body", "gone"),
    [
        ("auto", {}, {("abroad", "large"): "region", ("north", "vectors"): "endpoint"}),
        ("auto", {"messages": [{"role": "user", "content": IMAGE}]},
         {("north", "small"): "capability", ("south", "small"): "capability", ("abroad", "large"): "region",
          ("north", "vectors"): "endpoint"}),
        ("cheap", {"messages": [{"role": "user", "content": "x " * 20_000}]},
         {("north", "small"): "context", ("south", "small"): "context"}),
        ("vectors", {}, {("north", "vectors"): "endpoint"}),
        ("seeing", {"messages": [{"role": "user", "content": IMAGE}]},
         {("north", "small"): "capability", ("south", "small"): "capability", ("south", "large"): "refused",
          ("abroad", "large"): "refused"}),
    ],
)  # fmt: skip
async def test_the_constraint_that_removed_each(desk: Desk, name: str, body: Any, gone: Any) -> None:
    value = await desk.ask(name, tools=TOOLS, **body)
    assert removed(value) == gone
    assert all(row["detail"] for row in value["candidates"] if row["removed_by"])


async def test_a_name_that_the_plan_does_not_allow(desk: Desk) -> None:
    value = await desk.ask("auto", "narrow")
    assert set(removed(value).values()) == {"allow", "region", "endpoint"}
    assert (value["refusal"]["status"], value["refusal"]["code"]) == (404, "model_not_found")
    assert (value["order"], value["first"], value["reserve"]) == ([], None, None)
    assert (await desk.ask("nick", "narrow"))["alias_of"] == "cheap"


async def test_a_name_that_does_not_exist_says_what_was_meant(desk: Desk) -> None:
    value = await desk.ask("larg")
    assert value["candidates"] == []
    assert "did you mean large?" in " ".join(value["notes"])


async def test_an_open_breaker_removes_and_says_for_how_long(desk: Desk) -> None:
    desk.open_breaker("north", "small")
    value = await desk.ask("cheap")
    [row] = [row for row in value["candidates"] if row["removed_by"]]
    assert (row["backend"], row["removed_by"], row["breaker"]) == ("north", "breaker", "open")
    assert row["detail"] == "it keeps failing, and is tried again in 20 s"
    assert keys(value["order"])[-1] == ("north", "small")  # serving puts it last


async def test_when_all_are_down_the_one_that_is_back_soonest_is_asked(desk: Desk) -> None:
    desk.open_breaker("north", "small")
    desk.gateway.clock.advance(3.0)
    desk.open_breaker("south", "small")
    value = await desk.ask("cached")
    assert removed(value) == {}
    assert (value["first"]["backend"], [row["breaker"] for row in value["candidates"]]) == ("north", ["open", "open"])


async def test_a_fallback_is_asked_when_all_targets_are_down(desk: Desk) -> None:
    for name in ("north", "south"):
        desk.open_breaker(name, "small")
    value = await desk.ask("seeing")
    assert value["first"] == {"model": "large", "backend": "south"}
    assert keys(value["fallback"]["error"]) == [("south", "large"), ("abroad", "large")]


async def test_a_backend_at_its_limit_is_passed_over(desk: Desk) -> None:
    gate = desk.gateway.backend_gates.of("north", SETTINGS.backends["north"].limits)
    permits = [gate.admit(1), gate.admit(1)]
    value = await desk.ask("cached")
    assert removed(value) == {("north", "small"): "limit"}
    assert value["first"]["backend"] == "south"
    assert value["limits"]["backends"] == {"north": {"concurrency": {"limit": 2, "left": 0}}}
    permits[0].release(None)
    assert removed(await desk.ask("cached")) == {}


async def test_a_tenant_at_its_limit_is_refused_and_still_told_the_rest(desk: Desk) -> None:
    gate = desk.gateway.gates.of("rich", RICH.limits)
    for _ in range(3):
        gate.admit(10).release(10)
    value = await desk.ask("cheap")
    assert (value["refusal"]["status"], value["refusal"]["code"]) == (429, "rate_limit_exceeded")
    assert value["refusal"]["retry_after_s"] == pytest.approx(20.0)
    assert (value["first"], len(value["order"])) == (None, 4)
    assert value["limits"]["tenant"]["rpm"] == {"limit": 3, "left": 0, "reset_s": 60.0}


async def test_a_body_that_is_wrong_is_refused_as_by_serving(desk: Desk) -> None:
    value = await desk.ask("cheap", messages=7)
    assert (value["refusal"]["status"], value["refusal"]["param"]) == (400, "messages")
    assert value["candidates"] == []


async def test_what_is_held_and_whether_the_tenant_can_pay(desk: Desk) -> None:
    value = await desk.ask("cheap", max_tokens=100)
    assert value["funds"]["pays"]
    assert (value["funds"]["max_tokens"], value["funds"]["lowered_from"]) == (100, None)
    assert 500 < float(value["reserve"]) < 700  # 400 bytes and a template in, 100 tokens out, at 1 credit each
    assert value["funds"]["available"] == "1000000"
    poor = await desk.ask("cheap", "poor", max_tokens=100)
    assert (poor["refusal"]["code"], poor["funds"]["pays"], poor["first"]) == ("insufficient_quota", False, None)
    nobody = await desk.ask("cheap", "", max_tokens=100)
    assert (nobody["tenant"], nobody["funds"], nobody["reserve"]) == (None, None, value["reserve"])


async def test_output_that_the_package_does_not_cover_is_lowered(desk: Desk) -> None:
    manage.add_tenant(desk.gateway.ledger, "tight", "poor")
    manage.add_grant(desk.gateway.ledger, "tight", 800_000_000)
    caller = Caller("tight", PLANS["poor"], ("tight",))
    body = orjson.dumps({"model": "cheap", "messages": [{"role": "user", "content": "x" * 100}], "max_tokens": 1000})
    funds = (await desk.gateway.explainer.explain(caller, Request("r", "chat", {}, body)))["funds"]
    assert funds["pays"]
    assert 256 <= funds["max_tokens"] < funds["lowered_from"] == 1000


async def test_a_long_stream_on_a_small_package_holds_a_slice(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quote, "SLICE_TOKENS", 300)
    manage.add_tenant(desk.gateway.ledger, "tight", "poor")
    manage.add_grant(desk.gateway.ledger, "tight", 2_000_000_000)
    caller = Caller("tight", PLANS["poor"], ("tight",))
    asked = {"model": "large", "messages": [{"role": "user", "content": "x" * 100}], "max_tokens": 1000}
    for stream, held in ((True, 300), (False, None)):
        body = orjson.dumps({**asked, "stream": stream})
        value = await desk.gateway.explainer.explain(caller, Request("r", "chat", {}, body))
        assert (value["funds"]["slice_tokens"], value["funds"]["max_tokens"]) == (held, 1000)
        assert (float(value["reserve"]) < 1000) == stream
        assert ("for the first 300 of at most 1,000 tokens out" in _reserve(value)) == stream


async def test_a_target_that_no_pack_pays_for_is_removed_by_the_package(desk: Desk) -> None:
    """Explained as it is served: what is held of the pack covers the models of its scope only."""
    scope = Scope(models=frozenset({"large"}))
    manage.add_grant(desk.gateway.ledger, "poor", 10**12, scope=scope)
    value = await desk.ask("cheap", "poor", max_tokens=100)
    assert removed(value) == {("north", "small"): "package", ("south", "small"): "package"}
    assert {row["detail"] for row in value["candidates"] if row["removed_by"]} == {"no grant of poor pays for it"}
    assert (value["funds"]["pays"], value["reason"].endswith(";package")) == (True, True)
    assert {target["model"] for target in value["order"]} == {"large"}


async def test_a_target_whose_pack_pays_at_other_hours_says_at_which(desk: Desk) -> None:
    """It is a quarter past ten in the evening."""
    day = Scope(models=frozenset({"small"}), hours=frozenset({"08:00-22:00"}))
    manage.add_grant(desk.gateway.ledger, "poor", 10**12, scope=day)
    manage.add_grant(desk.gateway.ledger, "poor", 10**12, scope=Scope(models=frozenset({"large"})))
    value = await desk.ask("cheap", "poor", max_tokens=100)
    assert removed(value) == {("north", "small"): "package", ("south", "small"): "package"}
    assert {row["detail"] for row in value["candidates"] if row["removed_by"]} == {
        "no grant of poor pays for it at this hour; one does at 08:00-22:00"
    }


async def test_a_debt_is_taken_off_first(desk: Desk) -> None:
    ledger = desk.gateway.ledger
    account = ledger.tenant("rich")
    account.debt_uc = 999_999_000_000
    value = await desk.ask("cheap", max_tokens=300)
    assert value["funds"]["pays"] is False
    assert account.debt_uc == 999_999_000_000
    account.debt_uc = 400_000_000_000
    assert (await desk.ask("cheap"))["funds"]["available"] == "600000"
    account.debt_uc = 2 * 10**12
    assert "in debt" in (await desk.ask("cheap"))["refusal"]["message"]
    account.debt_uc = 0


async def test_a_store_that_is_away_is_what_the_client_would_hear_of(desk: Desk) -> None:
    desk.gateway.ledger._broken = True
    value = await desk.ask("cheap")
    desk.gateway.ledger._broken = False
    assert (value["refusal"]["status"], value["refusal"]["code"]) == (503, "store_unavailable")
    assert value["funds"]["pays"] is False


async def test_scores_are_the_terms_that_the_reason_gives(desk: Desk) -> None:
    value = await desk.ask("auto", headers={"x-moma-prefer": "quality"})
    assert value["weights"] == {"prefer": "quality", "cost": 0.25, "latency": 0.1, "quality": 0.65}
    first = value["candidates"][0]
    scores = first["scores"]
    by_hand = 0.25 * scores["cost"] + 0.1 * scores["latency"] + 0.65 * scores["quality"]
    assert scores["sum"] == pytest.approx(by_hand, abs=1e-5)
    assert value["reason"].startswith(
        f"balanced;prefer=quality;cost={scores['cost']:.2f};latency={scores['latency']:.2f};"
    )
    assert sorted(row["scores"]["sum"] for row in value["candidates"] if row["scores"])[0] == scores["sum"]


@pytest.mark.parametrize(
    ("name", "score"),
    [("cheap", "cost"), ("fastest", "seconds"), ("best", "quality"), ("least_busy", "load"), ("weighted", "weight"),
     ("cached", "place")],
)  # fmt: skip
async def test_each_policy_shows_what_it_orders_by(desk: Desk, name: str, score: str) -> None:
    value = await desk.ask(name)
    assert all(set(row["scores"]) == {score} for row in value["candidates"] if row["scores"])
    if name == "cheap":
        assert [row["scores"]["cost"] for row in value["candidates"]] == [
            pytest.approx(row["expected_cost"]) for row in value["candidates"]
        ]


async def test_chances_are_the_weights_of_those_that_may_come_first(desk: Desk) -> None:
    by_backend = {row["backend"]: row["chance"] for row in (await desk.ask("small"))["candidates"]}
    assert by_backend == {"north": 0.25, "south": 0.75}
    assert [row["chance"] for row in (await desk.ask("cached"))["candidates"]] == [1.0, 0.0]
    best = await desk.ask("best")
    assert {(row["model"], row["chance"]) for row in best["candidates"]} == {("large", 0.5), ("small", 0.0)}


async def test_a_conversation_shows_who_served_it(desk: Desk) -> None:
    first = await desk.ask("auto", headers={"x-session-id": "s"})
    assert first["affinity"] == {"by": "session", "last": None}
    decision = desk.gateway.router.route(
        _call("auto", {"x-session-id": "s"}), RICH, tenant="rich", now=desk.gateway.clock.now()
    )
    desk.gateway.live.affinity.keep(decision.conversation, ("south", "small"), desk.gateway.clock.now())
    again = await desk.ask("auto", headers={"x-session-id": "s"})
    assert again["affinity"]["last"] == again["first"] == {"model": "small", "backend": "south"}
    assert again["reason"].endswith(";affinity;removed=1")


def _call(name: str, headers: dict[str, str]) -> Any:
    body = {"model": name, "messages": [{"role": "user", "content": "x" * 400}]}
    return parse_call(Request("r", "chat", headers, orjson.dumps(body)))


async def test_what_was_measured_is_shown_and_what_was_not_is_not_guessed(desk: Desk) -> None:
    live, now = desk.gateway.live, desk.gateway.clock.now()
    live.ended(("south", "large"), live.began(("south", "large"), now))
    live.succeeded(("south", "large"), began=now, now=now, first_token_s=0.5, took_s=10.5, output=101)
    live.wrote("auto", 100)
    seconds = {
        (row["backend"], row["model"]): row["expected_seconds"] for row in (await desk.ask("auto"))["candidates"]
    }
    assert seconds[("south", "large")] == pytest.approx(0.5 + 100 * 0.1)
    assert seconds[("north", "small")] is None


async def test_what_becomes_of_a_call_in_the_cache(desk: Desk) -> None:
    assert (await desk.ask("cheap"))["cache"] == {"name": None, "verdict": "bypass", "why": "no cache on this route"}
    for more, verdict, why in (
        ({}, "bypass", "temperature"),
        ({"temperature": 0}, "miss", "kept for about 600 s"),
        ({"seed": 1, "headers": {"cache-control": "no-store"}}, "bypass", "no-store"),
        ({"seed": 1, "headers": {"cache-control": "only-if-cached"}}, "miss", "504"),
    ):
        cache = (await desk.ask("cached", **more))["cache"]
        assert (cache["name"], cache["verdict"]) == ("short", verdict)
        assert why in cache["why"]
    refusal = (await desk.ask("cached", temperature=0, headers={"cache-control": "max-age=x"}))["refusal"]
    assert (refusal["status"], refusal["param"]) == (400, "cache-control")


async def test_an_answer_that_is_stored_is_told_and_not_touched(desk: Desk) -> None:
    gateway = desk.gateway
    body = {"model": "cached", "temperature": 0, "messages": [{"role": "user", "content": "x" * 400}]}
    sink = ListSink()
    caller = Caller("rich", PLANS["rich"], ("rich",))
    gateway.mood = random.Random(3)
    request = Request("r", "chat", {}, orjson.dumps(body))
    await drive(
        gateway.clock, gateway.pipeline.handle(caller, request, sink), busy=lambda: gateway.ledger._writer._busy
    )
    assert sink.headers["x-moma-cache"] == "miss"
    caches = gateway.pipeline._cached._caches
    await caches.aclose()
    gateway.clock.advance(7.0)
    before = caches.states()
    cache = (await desk.ask("cached", temperature=0))["cache"]
    assert cache == {"name": "short", "verdict": "hit", "why": "its answer was stored 7 s ago"}
    fresh = (await desk.ask("cached", temperature=0, headers={"cache-control": "no-cache"}))["cache"]
    assert fresh["verdict"] == "miss"
    assert (await desk.ask("cached", temperature=0, headers={"cache-control": "max-age=5"}))["cache"][
        "verdict"
    ] == "miss"
    assert (await desk.ask("cached", "narrow", temperature=0))["cache"]["verdict"] == "miss"  # another tenant
    assert caches.states() == before
    queues = caches._caches["short"].answers._queues["rich"]
    assert [slot[1] for slot in queues._small.values()] == [0]


async def test_explaining_at_once_changes_nothing(desk: Desk) -> None:
    before = desk.gateway.state()
    await asyncio.gather(*(desk.ask(name) for name in ("auto", "cheap", "weighted", "nick") for _ in range(20)))
    assert desk.gateway.state() == before
