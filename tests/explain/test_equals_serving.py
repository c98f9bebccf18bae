"""What explain says is what serving does next, and saying it changes nothing."""

from __future__ import annotations

import os
import random
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from gateway.call import Request
from gateway.charging.ledger import open_ledger
from gateway.routing.policies import Target
from gateway.tenants import Caller
from tests.explain.worlds import Gateway, random_callers, random_config, random_request
from tests.virtual import ListSink, VirtualClock, drive

CALLS_OF_A_WORLD = 20
ONLY_LONG = pytest.mark.skipif(os.environ.get("MOMA_LONG") != "1", reason="MOMA_LONG=1 runs it")


@pytest.mark.long
@ONLY_LONG
async def test_explain_equals_serving_on_1000_random_calls(tmp_path: Path) -> None:
    seen = await _worlds(tmp_path, range(50))
    assert seen.total() == 1000
    assert seen["served"] > 250
    assert seen.keys() > {
        "downgraded",
        "throttled",
        "insufficient_quota",
        "rate_limit_exceeded",
        "model_not_found",
        "no_backend_available",
    }


async def test_explain_equals_serving_on_100_random_calls(tmp_path: Path) -> None:
    seen = await _worlds(tmp_path, range(2000, 2005))
    assert seen["served"] > 25


async def _worlds(path: Path, seeds: range) -> Counter[str]:
    seen: Counter[str] = Counter()
    for seed in seeds:
        rng = random.Random(seed)
        settings, clock = random_config(rng), VirtualClock()
        callers = random_callers(rng, settings)
        plans = {caller.plan.name: caller.plan for caller in callers}
        ledger = await open_ledger(str(path / f"{seed}.db"), clock, "UTC", plans)
        for caller in callers:
            ledger.apply_plan(caller.tenant, caller.plan)
        gateway = Gateway(settings, ledger, clock, rng)
        for number in range(CALLS_OF_A_WORLD):
            request = random_request(rng, settings)
            seen[await _compared(gateway, rng.choice(callers), request, f"seed {seed}, call {number}")] += 1
            gateway.unsettle()
            clock.advance(rng.choice((0.0, 0.5, 5.0, 25.0)))
        await ledger.aclose()
    return seen


async def _compared(gateway: Gateway, caller: Caller, request: Request, which: str) -> str:
    gateway.ledger.available_uc(caller.tenant)  # what is due by the clock is booked
    before = gateway.state()
    said = await gateway.explainer.explain(caller, request)
    assert gateway.state() == before, which
    sent = len(gateway.client.sent)
    gateway.router.decisions.clear()
    sink = ListSink()
    reserved = _reserves(gateway)
    await drive(
        gateway.clock, gateway.pipeline.handle(caller, request, sink), busy=lambda: gateway.ledger._writer._busy
    )
    if "tenant" in said["waits"]:  # until later, when all may be different
        return "waits"
    decisions = gateway.router.decisions  # the second is of a cheaper route, where no credits cover the call
    cheaper = "downgraded" in (said["reason"] or "").split(";")
    for decision in decisions[-1:] if cheaper else decisions[:1]:
        assert said["order"] == _targets(decision.targets), which
        assert said["fallback"]["error"] == _targets(decision.on_error), which
        assert said["reason"] == decision.reason, which
        assert (said["route"], said["policy"]) == (decision.route, decision.policy), which
    if said["refusal"] is not None:
        _refused_alike(said["refusal"], sink, which)
        assert len(gateway.client.sent) == sent, which
        return str(said["refusal"]["code"])
    if said["waits"]:
        return "waits"
    decision = decisions[-1] if cheaper else decisions[0]
    assert Decimal(said["reserve"]) * 1_000_000 == reserved.pop(), which
    asked = gateway.client.sent[sent]
    target = next(target for target in decision.all if _target(target) == said["first"])
    assert (asked.backend, asked.body["model"]) == (target.backend.name, target.as_name), which
    return said["notes"][0].partition(":")[0] if said["notes"] and ":" in said["notes"][0] else "served"


def _reserves(gateway: Gateway) -> list[int]:
    """What the ledger holds for the call that follows."""
    held: list[int] = []
    plain = type(gateway.ledger).reserve

    async def reserve(*args: Any, **more: Any) -> Any:
        hold = await plain(gateway.ledger, *args, **more)
        held.append(hold.reserved_uc)
        return hold

    gateway.ledger.reserve = reserve  # type: ignore[method-assign]
    return held


def _refused_alike(refusal: dict[str, Any], sink: ListSink, which: str) -> None:
    error = sink.json["error"]
    told = {name: refusal[name] for name in error}
    assert (refusal["status"], told) == (sink.status, error), which
    if refusal["retry_after_s"] is not None:
        assert "retry-after" in sink.headers, which


def _targets(targets: Any) -> list[dict[str, str]]:
    return [_target(target) for target in targets]


def _target(target: Target) -> dict[str, str]:
    return {"model": target.model.name, "backend": target.backend.name}
