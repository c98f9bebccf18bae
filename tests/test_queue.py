"""Limits and the queue through the whole pipeline: what a client sees, what is held, what is counted."""

from __future__ import annotations

import asyncio
import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.app import App
from gateway.charging.ledger import open_ledger
from gateway.config.load import load
from gateway.config.model import Limits, Plan, PlanGrant, Queue
from gateway.demo.scripted import Reply
from gateway.tenants import Caller
from tests.conftest import World
from tests.stage import CONFIG, PLAN, Stage
from tests.virtual import FOREVER, OK, ListSink, Said, VirtualClock, drive, request, whole

GRANTS = (PlanGrant(1_000_000_000_000),)
SLOW = Said(pieces=[whole()], before=1.0)


@pytest.fixture
async def limited(tmp_path: Path) -> Any:
    """A stage whose backends have limits, and a queue of given length."""
    clock = VirtualClock()
    ledger = await open_ledger(str(tmp_path / "l.db"), clock, "UTC", CONFIG.plans)

    def opened(script: Any, limits: Limits, queue: Queue = Queue(), **more: Any) -> Stage:  # noqa: B008 - frozen
        for name in ("t", "u", "v"):
            ledger.apply_plan(name, PLAN)
        backends = {name: replace(backend, limits=limits) for name, backend in CONFIG.backends.items()}
        return Stage(ledger, clock, script, config=replace(CONFIG, backends=backends, queue=queue), **more)

    yield opened
    assert ledger.open_holds == 0
    ledger.check_invariants()
    await ledger.aclose()


def begun(stage: Stage, tenant: str = "t", plan: Plan = PLAN, **body: Any) -> tuple[asyncio.Task[None], ListSink]:
    sink = ListSink()
    handled = stage.pipeline.handle(Caller(tenant, plan, (tenant,)), request(**body), sink)
    return asyncio.get_running_loop().create_task(handled), sink


def noted(order: list[str], tenant: str, task: asyncio.Task[None]) -> None:
    order.append(tenant)


async def finished(stage: Stage, *calls: tuple[asyncio.Task[None], ListSink]) -> list[ListSink]:
    await drive(stage.clock, asyncio.gather(*(task for task, _ in calls)), busy=stage.busy)
    return [sink for _, sink in calls]


# -- backends -----------------------------------------------------------------------------------------------------


async def test_calls_wait_for_a_backend_at_its_limit_and_are_all_served(limited: Any) -> None:
    stage = limited(lambda _: SLOW, Limits(concurrency=2))
    sinks = await finished(stage, *[begun(stage) for _ in range(6)])
    assert [sink.status for sink in sinks] == [200] * 6
    assert stage.clock.at == pytest.approx(3.0)
    assert all(float(sink.headers["x-moma-overhead-ms"]) < 1 for sink in sinks)  # a wait is not our own time


async def test_a_wait_that_is_too_long_is_told_and_counted_apart(limited: Any) -> None:
    stage = limited(lambda _: Said(pieces=[whole()], before=100.0), Limits(concurrency=1), Queue(10, 3.0))
    (_, second) = await finished(stage, begun(stage), begun(stage))
    assert (second.status, second.json["error"]["code"]) == (429, "backend_overloaded")
    assert second.json["error"]["type"] == "rate_limit_error"
    assert "retry-after-ms" in second.headers
    assert stage.metric("moma_limit_refusals_total", kind="queue_timeout") == 1
    assert stage.metric("moma_limit_refusals_total", kind="queue") == 0


async def test_a_full_queue_is_told_at_once(limited: Any) -> None:
    stage = limited(lambda _: SLOW, Limits(concurrency=1), Queue(1, 3.0))
    calls = [begun(stage) for _ in range(3)]
    await asyncio.sleep(0)
    await asyncio.gather(calls[2][0])
    assert (calls[2][1].status, stage.clock.at) == (429, 0.0)
    assert stage.metric("moma_credits_total", tenant="t", kind="reserved") == 0  # nothing was held for it
    assert stage.pipeline._dispatcher._waiting.count == 1
    assert [sink.status for sink in await finished(stage, *calls)] == [200, 200, 429]
    assert stage.metric("moma_limit_refusals_total", kind="queue") == 1
    assert stage.pipeline._dispatcher._waiting.count == 0


async def test_a_full_queue_of_one_target_is_no_matter_where_another_has_room(limited: Any) -> None:
    stage = limited(lambda _: SLOW, Limits(concurrency=1), Queue(1, 3.0))
    sinks = await finished(stage, begun(stage), begun(stage), *[begun(stage, model="both") for _ in range(3)])
    assert [sink.status for sink in sinks] == [200, 200, 200, 200, 429]
    assert sinks[2].headers["x-moma-backend"] == "b"


async def test_without_a_queue_nobody_waits(limited: Any) -> None:
    stage = limited(lambda _: SLOW, Limits(concurrency=1), Queue(0))
    assert [sink.status for sink in await finished(stage, begun(stage), begun(stage))] == [200, 429]


async def test_a_call_waits_only_when_every_target_is_at_its_limit_and_takes_the_first_that_frees(limited: Any) -> None:
    before = {"a": 5.0, "b": 2.0}
    stage = limited(lambda sent: Said(pieces=[whole()], before=before[sent.backend]), Limits(concurrency=1))
    sinks = await finished(stage, *[begun(stage, model="both") for _ in range(3)])
    assert [sink.headers["x-moma-backend"] for sink in sinks] == ["a", "b", "b"]
    assert stage.clock.at == pytest.approx(5.0)


async def test_the_deadline_of_the_call_covers_the_queue(limited: Any) -> None:
    stage = limited(lambda _: SLOW, Limits(concurrency=1), Queue(10, 5.0))
    first = begun(stage)
    sink = ListSink()
    headers = {"x-stainless-read-timeout": "0.5"}
    second = asyncio.get_running_loop().create_task(stage.handle(sink, headers)), sink
    await finished(stage, first, second)
    assert (sink.status, sink.json["error"]["code"]) == (504, "deadline_exceeded")
    assert stage.metric("moma_limit_refusals_total", kind="queue_timeout") == 1


async def test_who_leaves_the_queue_holds_nothing_and_the_next_moves_up(limited: Any) -> None:
    stage = limited(lambda _: SLOW, Limits(concurrency=1), Queue(1, 5.0))
    first, leaving = begun(stage), begun(stage)
    await asyncio.sleep(0)
    assert stage.ledger.open_holds == 2  # what a call may cost is held while it waits
    leaving[0].cancel()
    await asyncio.gather(leaving[0], return_exceptions=True)
    assert stage.ledger.open_holds == 1
    sinks = await finished(stage, first, begun(stage))
    assert [sink.status for sink in sinks] == [200, 200]


async def test_tenants_take_turns(limited: Any) -> None:
    stage = limited(lambda _: SLOW, Limits(concurrency=1))
    calls = [begun(stage, tenant) for tenant in "ttttttuv"]
    order: list[str] = []
    for (task, _), tenant in zip(calls, "ttttttuv", strict=True):
        task.add_done_callback(functools.partial(noted, order, tenant))
    await finished(stage, *calls)
    assert "".join(order[:4]) in ("ttuv", "tuvt", "tutv", "tuv")
    assert set(order[:4]) == {"t", "u", "v"}


async def test_plans_decide_by_weight_and_priority(limited: Any) -> None:
    stage = limited(lambda _: SLOW, Limits(concurrency=1), Queue(100, 100.0))
    plans = {"t": Plan("w1", GRANTS), "u": Plan("w3", GRANTS, weight=3), "v": Plan("first", GRANTS, priority=0)}
    served: list[str] = []
    calls = [begun(stage, "t")]
    for tenant, plan in plans.items():
        calls += [begun(stage, tenant, plan) for _ in range(9 if tenant != "v" else 3)]
    await asyncio.sleep(0)
    for (task, _), tenant in zip(calls[1:], "t" * 9 + "u" * 9 + "v" * 3, strict=True):
        task.add_done_callback(functools.partial(noted, served, tenant))
    await finished(stage, *calls)
    assert served[:3] == ["v"] * 3
    assert (served[3:11].count("u"), served[3:11].count("t")) == (6, 2)


# -- tenants ------------------------------------------------------------------------------------------------------


async def test_a_tenant_beyond_its_concurrency_waits_for_its_own_calls(limited: Any) -> None:
    plan = Plan("p", GRANTS, Limits(concurrency=2))
    stage = limited(lambda _: SLOW, Limits(), Queue(10, 5.0))
    sinks = await finished(stage, *[begun(stage, "t", plan) for _ in range(4)], begun(stage, "u", plan))
    assert [sink.status for sink in sinks] == [200] * 5
    assert stage.clock.at == pytest.approx(2.0)
    assert all(float(sink.headers["x-moma-overhead-ms"]) < 1 for sink in sinks)


async def test_beyond_the_queue_a_tenant_hears_of_its_concurrency(limited: Any) -> None:
    plan = Plan("p", GRANTS, Limits(concurrency=1))
    stage = limited(lambda _: Said(pieces=[whole()], before=20.0), Limits(), Queue(1, 3.0))
    sinks = await finished(stage, *[begun(stage, "t", plan) for _ in range(3)])
    assert [sink.status for sink in sinks] == [200, 429, 429]
    assert {sink.json["error"]["code"] for sink in sinks[1:]} == {"rate_limit_exceeded"}
    assert stage.metric("moma_limit_refusals_total", kind="queue_timeout") == 1
    assert stage.metric("moma_limit_refusals_total", kind="concurrency") == 1


async def test_a_rate_is_never_waited_for(limited: Any) -> None:
    plan = Plan("p", GRANTS, Limits(rpm=1, tpm=100_000))
    stage = limited(lambda _: OK, Limits())
    (first,) = await finished(stage, begun(stage, "t", plan))
    (second,) = await finished(stage, begun(stage, "t", plan))
    assert (first.status, second.status, stage.clock.at) == (200, 429, 0.0)
    assert (second.headers["retry-after"], second.headers["retry-after-ms"]) == ("60", "60000")
    assert second.headers["x-ratelimit-limit-requests"] == "1"
    assert second.headers["x-ratelimit-remaining-requests"] == "0"
    assert second.headers["x-ratelimit-reset-requests"] == "1m0s"
    assert second.headers["x-ratelimit-reset-tokens"].endswith("ms")


@pytest.mark.parametrize(
    ("body", "status"), [({"model": "nope"}, 404), ({"max_tokens": 5}, 502), ({"max_tokens": -1}, 400)]
)
async def test_errors_after_admission_say_what_is_left_as_well(limited: Any, body: dict[str, Any], status: int) -> None:
    stage = limited(lambda _: Said(401), Limits(), plan=Plan("p", GRANTS, Limits(rpm=10)))
    sink = await stage.ask(**body)
    assert sink.status == status
    left = sink.headers.get("x-ratelimit-remaining-requests")
    assert left == (None if status == 400 else "9")


async def test_a_shutdown_ends_the_queue(limited: Any) -> None:
    stage = limited(lambda _: Said(before=FOREVER), Limits(concurrency=1), plan=Plan("p", GRANTS))
    calls = [begun(stage), begun(stage)]
    for _ in range(5):
        await asyncio.sleep(0)
    stage.pipeline._deadlines.end()
    sinks = await finished(stage, *calls)
    assert {sink.json["error"]["code"] for sink in sinks} == {"shutting_down"}


# -- over sockets -------------------------------------------------------------------------------------------------


async def rebuilt(world: World, path: Path, replaced: tuple[str, str]) -> App:
    """The world's gateway again, with another routes.yaml."""
    await world.app.aclose()
    routes = path / "routes.yaml"
    text = routes.read_text()
    assert replaced[0] in text
    routes.write_text(text.replace(*replaced).replace("retry:", "queue: {length: 2, wait: 2s}\n  retry:"))
    app = App(load(routes))
    await app.start("127.0.0.1", 0)
    return app


async def test_a_client_that_leaves_the_queue_frees_its_place(world: World, tmp_path: Path) -> None:
    world.app = await rebuilt(world, tmp_path, ('"}\nmodels:', '", limits: {concurrency: 1}}\nmodels:'))
    world.b.script(lambda _: Reply(before=(0.5,), body={"choices": [], "usage": {}}))

    def queued() -> float:
        return world.app.metrics.registry.get_sample_value("moma_queued_calls", {"limit": "backend"}) or 0.0

    calls = [asyncio.create_task(world.chat(model="large")) for _ in range(3)]
    async with asyncio.timeout(5):
        while queued() < 2:
            await asyncio.sleep(0.005)
    status, error, headers = await world.chat(model="large")
    assert (status, error["error"]["code"]) == (429, "backend_overloaded")
    assert int(headers["retry-after"]) >= 1
    waiting = [call for call in calls if not call.done()]
    waiting[-1].cancel()
    async with asyncio.timeout(5):
        while queued() > 1:
            await asyncio.sleep(0.005)
    assert (await world.chat(model="large"))[0] == 200
    await asyncio.gather(*calls, return_exceptions=True)
    assert len(world.b.requests) == 3
    assert queued() == 0
