"""The simulation behind docs/routing.md, in small: the figures it is there for, and the same ones each time."""

from __future__ import annotations

import pytest

from benchmarks.routing import Outcome, Simulation

CALLS = 400


async def simulated(policy: str, prefer: str = "") -> Outcome:
    return await Simulation(policy, prefer=prefer).run(calls=CALLS)


def mean(outcome: Outcome) -> tuple[float, float]:
    """(cost, seconds) of a call."""
    served = outcome.served.total()
    return outcome.cost / served, sum(outcome.seconds) / served


async def test_the_same_seed_gives_the_same_figures() -> None:
    assert await simulated("balanced") == await simulated("balanced")


async def test_each_policy_does_what_it_is_for() -> None:
    weighted = mean(await simulated("weighted"))
    assert mean(await simulated("cheapest"))[0] < weighted[0] / 2
    assert mean(await simulated("fastest"))[1] < weighted[1] / 2
    assert mean(await simulated("balanced"))[0] < weighted[0]
    assert (await simulated("best")).served["expert"] > CALLS / 2
    assert all(weight > CALLS / 10 for weight in (await simulated("weighted")).served.values())


@pytest.mark.parametrize(("prefer", "measure"), [("cost", 0), ("latency", 1)])
async def test_what_a_client_prefers_gets_better(prefer: str, measure: int) -> None:
    assert mean(await simulated("balanced", prefer))[measure] < mean(await simulated("balanced"))[measure]


async def test_conversations_stay_together() -> None:
    alone = await Simulation("weighted").run(calls=60, turns=4)
    together = await Simulation("weighted", "prefix").run(calls=60, turns=4)
    assert alone.stayed < 0.5 * alone.turns
    assert together.stayed > 0.9 * together.turns
