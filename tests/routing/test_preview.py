"""Who may come first, as far as chance decides it; and a preview that leaves the router as it is."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from gateway.config.model import Plan
from gateway.errors import ModelNotFound
from gateway.routing.live import Live
from gateway.routing.preview import MAX_DRAWS, Preview, preview
from gateway.routing.router import Router
from tests.virtual import backend, call, config, model, route

ANY = Plan("p")
MANY = [f"x{number}" for number in range(MAX_DRAWS + 6)]
WORLD = config(
    [backend(name) for name in ("a", "b", "c", *MANY)],
    [
        model("m", ("a", 1), ("b", 1_000_000), ("c", 5), quality=0.5),
        model("good", "a", "b", quality=0.9),
        model("wide", *MANY),
    ],
    [
        route("listed", "m", "good"),
        route("best", "m", "good", policy="best"),
        route("kept", "m", "good", policy="best", affinity="session"),
    ],
)


def previewed(router: Router, name: str, headers: dict[str, str] | None = None) -> Preview:
    return preview(router, call(headers, model=name), ANY, 10, tenant="t", now=0.0)


def firsts(name: str) -> set[tuple[str, str]]:
    router = Router(WORLD, random.Random(1), Live(WORLD.breaker))
    return {target.key for target in previewed(router, name).firsts}


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("m", {("a", "m"), ("b", "m"), ("c", "m")}),  # also who is drawn once in a million
        ("listed", {("a", "m")}),
        ("best", {("a", "good"), ("b", "good")}),
        ("wide", {(name, "wide") for name in MANY}),  # too many to try one by one
    ],
)
def test_who_may_come_first(name: str, keys: set[tuple[str, str]]) -> None:
    assert firsts(name) == keys


def test_a_conversation_leaves_nothing_to_chance() -> None:
    router = Router(WORLD, random.Random(1), Live(WORLD.breaker))
    talk = {"x-session-id": "s"}
    decision = router.route(call(talk, model="kept"), ANY, 10, tenant="t")
    router._live.affinity.keep(decision.conversation, ("b", "good"), 0.0)
    found = previewed(router, "kept", talk)
    assert [target.key for target in found.firsts] == [("b", "good")]
    assert found.warm is found.firsts[0]


def test_previews_do_not_turn_the_wheel() -> None:
    """As often as it is looked at, the next call goes where the preview says, and chance stays fair."""
    router = Router(WORLD, random.Random(1), Live(WORLD.breaker))
    served: Counter[str] = Counter()
    for number in range(300):
        said = [previewed(router, "good").decision for _ in range(1 + number % 3)]
        targets = router.route(call(model="good"), ANY, 10).targets
        assert all(decision is not None and list(decision.targets) == list(targets) for decision in said)
        served[targets[0].backend.name] += 1
    assert 100 < served["a"] < 200


def test_a_name_that_is_not_there_is_a_refusal() -> None:
    found = previewed(Router(WORLD, random.Random(1), Live(WORLD.breaker)), "nope")
    assert (found.route, found.short, found.decision) == (None, None, None)
    assert isinstance(found.refusal, ModelNotFound)
