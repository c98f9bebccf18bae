"""Background work that fails goes on, and says so."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest

from gateway.chores import RETRY_S, Chores
from tests.conftest import World
from tests.virtual import VirtualClock


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def passing(clock: VirtualClock, seconds: int) -> None:
    for _ in range(seconds):
        clock.advance(1)
        await settle()


def failing(outcomes: list[bool]) -> Callable[[], None]:
    def step() -> None:
        if not outcomes.pop(0):
            raise ZeroDivisionError

    return step


async def test_what_fails_is_named_logged_once_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    clock = VirtualClock()
    chores, outcomes = Chores(clock), [True, False, False, True, True]
    seen = []
    with caplog.at_level(logging.INFO):
        chores.every(1, "sweeping", failing(outcomes))
        await settle()
        for _ in range(5):
            await passing(clock, 1)
            seen.append(chores.down)
    assert seen == [[], ["sweeping"], ["sweeping"], [], []]
    assert [record.message for record in caplog.records] == [
        "sweeping failed; it is tried again", "sweeping works again",
    ]  # fmt: skip
    await chores.aclose()
    assert clock.armed == 0


async def test_what_is_done_once_is_tried_until_it_succeeds() -> None:
    clock = VirtualClock()
    chores, outcomes = Chores(clock), [False, False, True]
    step = failing(outcomes)

    async def load() -> None:
        step()

    chores.once("loading", load)
    await settle()
    assert chores.down == ["loading"]
    await passing(clock, int(2 * RETRY_S) + 1)
    assert (chores.down, outcomes, clock.armed) == ([], [], 0)
    await chores.aclose()


@pytest.fixture(
    params=[
        ("gateway.edge.Edge.sweep", "closing slow connections"),
        ("gateway.app.App._expire", "expiring overdue holds"),
    ],
    ids=["sweep", "expire"],
)
def down(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The name of what fails, for as long as it is in this list."""
    what, name = request.param
    broken = [name]

    def step(*_: object) -> None:
        if broken:
            raise ZeroDivisionError

    monkeypatch.setattr(what, step)
    monkeypatch.setattr("gateway.app.SWEEP_S", 0.05)
    monkeypatch.setattr("gateway.app.EXPIRE_EVERY_S", 0.05)
    return broken


async def test_readiness_names_what_is_down_until_it_works_again(down: list[str], world: World) -> None:
    async def reasons() -> list[str]:
        async with world.http.get(f"{world.url}/readyz") as answer:
            found: list[str] = (await answer.json())["reasons"]
            assert answer.status == (503 if found else 200)
            return found

    await asyncio.sleep(0.2)
    assert await reasons() == [f"{down.pop()} fails"]
    await asyncio.sleep(0.2)
    assert await reasons() == []
