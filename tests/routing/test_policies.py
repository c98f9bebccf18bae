"""Orders over targets: tables of what is known and who comes first."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from gateway.call import BUCKETS, Call
from gateway.config.model import Breaker, Limits, Route
from gateway.routing.live import FIRST_OUTPUT, Live
from gateway.routing.policies import (
    Balanced,
    Cheapest,
    Fastest,
    LeastBusy,
    Ordered,
    Policy,
    Target,
    Weighted,
    policy_of,
    weights_of,
    worse,
)
from tests.virtual import backend, call, model

ASKED = call()
DRAWS = 2000


def targets(*weights: int) -> list[Target]:
    of = model("m", "x")
    return [Target(backend(f"b{place}"), of, "m", weight) for place, weight in enumerate(weights)]


def target(name: str, price: tuple[int, int] = (1, 1), *, concurrency: int | None = None, **more: Any) -> Target:
    """A model of its own on a backend of its own; the price is per 1M tokens in and out."""
    prices = dict.fromkeys(BUCKETS, 0) | {"input": price[0] * 1_000_000, "output": price[1] * 1_000_000}
    of = model(name, name, price=prices, **more)
    return Target(backend(name, limits=Limits(concurrency=concurrency)), of, name, 1)


def live(**seconds: tuple[float, float]) -> Live:
    """Where a stream of each target was seen: (first token, per token)."""
    known = Live(Breaker())
    for name, (first_s, per_token_s) in seconds.items():
        known.began((name, name), 0.0)
        known.ended((name, name), False)
        took_s = first_s + 99 * per_token_s
        known.succeeded((name, name), began=0.0, now=0.0, first_token_s=first_s, took_s=took_s, output=100)
    return known


def busy(known: Live, **in_flight: int) -> Live:
    for name, number in in_flight.items():
        for _ in range(number):
            known.began((name, name), 0.0)
    return known


def order(policy: Policy, given: Sequence[Target], asked: Call = ASKED, **more: Any) -> list[str]:
    return [target.backend.name for target in policy.order(given, asked, 0.0, **more)[0]]


def firsts(policy: Policy, given: Sequence[Target], asked: Call = ASKED, **more: Any) -> dict[str, float]:
    """Share of each target at the front."""
    found = Counter(order(policy, given, asked, **more)[0] for _ in range(DRAWS))
    return {name: number / DRAWS for name, number in found.items()}


# -- ordered and weighted -----------------------------------------------------------------------------------------


def test_ordered_keeps_the_order() -> None:
    given = targets(1, 9, 5)
    assert Ordered().order(given, ASKED, 0.0) == (given, "ordered")
    assert order(Ordered(), given, warm=2) == ["b2", "b0", "b1"]


@pytest.mark.parametrize("weights", [(1, 1), (1, 3), (1, 2, 7), (100, 1), (5, 5, 5, 5)])
def test_weighted_first_is_in_proportion(weights: tuple[int, ...]) -> None:
    draws = 40_000
    given, policy = targets(*weights), Weighted(random.Random(11))
    firsts = Counter(order(policy, given)[0] for _ in range(draws))
    for place, weight in enumerate(weights):
        share = weight / sum(weights)
        five_sigma = 5 * (share * (1 - share) / draws) ** 0.5
        assert firsts[f"b{place}"] / draws == pytest.approx(share, abs=five_sigma)


def test_weighted_second_is_in_proportion_among_the_rest() -> None:
    draws = 40_000
    given, policy = targets(6, 3, 1), Weighted(random.Random(12))
    orders = [order(policy, given) for _ in range(draws)]
    after_first = Counter(order[1] for order in orders if order[0] == "b0")
    share = after_first["b1"] / after_first.total()
    assert share == pytest.approx(3 / 4, abs=5 * (0.75 * 0.25 / after_first.total()) ** 0.5)


@pytest.mark.parametrize("warm", [None, 0, 3])
def test_no_policy_loses_or_doubles_a_target(warm: int | None) -> None:
    given = [target(name, quality=0.1 * place) for place, name in enumerate("abcd")]
    for name in ("ordered", "weighted", "cheapest", "fastest", "best", "least_busy", "balanced"):
        policy = policy_of(Route("r", ("m",), name), live(), random.Random(13))
        for _ in range(20):
            assert sorted(order(policy, given, warm=warm)) == ["a", "b", "c", "d"]
        assert order(policy, given[:1]) == ["a"]


def test_the_same_seed_gives_the_same_orders() -> None:
    given = targets(1, 2, 3)
    one, two = Weighted(random.Random(5)), Weighted(random.Random(5))
    assert [order(one, given) for _ in range(50)] == [order(two, given) for _ in range(50)]


# -- by one measure -----------------------------------------------------------------------------------------------

LONG_IN: Any = {"messages": [{"role": "user", "content": "x" * 40_000}], "max_tokens": 10}
LONG_OUT: Any = {"messages": [{"role": "user", "content": "x"}]}


@pytest.mark.parametrize(("body", "first"), [(LONG_IN, "reads"), (LONG_OUT, "writes")])
def test_cheapest_by_price_times_expected_tokens(body: Any, first: str) -> None:
    given = [target("reads", (1, 20)), target("writes", (4, 2)), target("dear", (9, 30))]
    policy = Cheapest(live(), "r", random.Random(1))
    assert order(policy, given, call(**body))[0] == first
    assert order(policy, given, call(**body))[2] == "dear"


def test_expected_output_is_what_the_route_wrote_before_and_never_more_than_was_asked_for() -> None:
    given, known = [target("a", (0, 10))], live()
    policy = Cheapest(known, "r", random.Random(1))

    def cost(**body: Any) -> str:
        return policy.order(given, call(**body), 0.0)[1]

    assert cost() == f"cheapest;cost={FIRST_OUTPUT * 10 / 1e6:.6f}"
    for _ in range(60):
        known.wrote("r", 1000)
    assert cost() == "cheapest;cost=0.010000"
    assert cost(n=3) == "cheapest;cost=0.030000"
    assert cost(max_tokens=50) == "cheapest;cost=0.000500"


@pytest.mark.parametrize(
    ("known", "first"),
    [
        ({"a": (1.0, 0.01), "b": (0.2, 0.01), "c": (2.0, 0.01)}, {"b": 1.0}),
        ({"a": (0.1, 0.10), "b": (0.9, 0.01), "c": (2.0, 0.05)}, {"b": 1.0}),
        ({"a": (1.0, 0.01), "b": (1.0, 0.01), "c": (9.0, 0.01)}, {"a": 0.5, "b": 0.5}),
        ({"a": (1.0, 0.01), "b": (9.0, 0.01)}, {"a": 0.5, "c": 0.5}),
        ({}, {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}),
    ],
    ids=["first token", "per token", "a tie is spread", "who is new is tried", "all are new"],
)
def test_fastest(known: dict[str, tuple[float, float]], first: dict[str, float]) -> None:
    given = [target(name) for name in "abc"]
    assert firsts(Fastest(live(**known), "r", random.Random(2)), given) == pytest.approx(first, abs=0.06)


def test_fastest_turns_away_from_who_is_loaded() -> None:
    given = [target("a", concurrency=10), target("b", concurrency=10)]
    for in_flight, first in ((0, "a"), (2, "a"), (9, "b")):
        known = busy(live(a=(1.0, 0.01), b=(1.5, 0.013)), a=in_flight)
        assert order(Fastest(known, "r", random.Random(1)), given)[0] == first


def test_one_call_tries_who_is_new_and_the_others_wait_for_its_news() -> None:
    given = [target("a"), target("new")]
    policy = Fastest(busy(live(a=(1.0, 0.01)), new=1), "r", random.Random(1))
    assert firsts(policy, given) == {"a": 1.0}


def test_who_was_slow_is_tried_again_after_a_time() -> None:
    given, known = [target("a"), target("slow")], live(a=(1.0, 0.01), slow=(4.0, 0.04))
    policy = Fastest(known, "r", random.Random(1))
    found = []
    for minute in range(5):
        now = minute * 60.0
        known.of(("a", "a")).at = now
        found.append(policy.order(given, ASKED, now)[0][0].backend.name)
    assert found[:2] == ["a", "a"]
    assert "slow" in found


@pytest.mark.parametrize(
    ("qualities", "first"),
    [((0.5, 0.9, 0.7), {"b": 1.0}), ((0.9, 0.5, 0.89), {"a": 0.5, "c": 0.5}), ((0.5, 0.5, 0.6), {"c": 1.0})],
)
def test_best(qualities: tuple[float, ...], first: dict[str, float]) -> None:
    given = [target(name, quality=quality) for name, quality in zip("abc", qualities, strict=True)]
    policy = policy_of(Route("r", ("m",), "best"), live(), random.Random(3))
    assert firsts(policy, given) == pytest.approx(first, abs=0.06)


@pytest.mark.parametrize(
    ("in_flight", "first"),
    [
        ({"a": 1, "b": 2, "c": 3}, {"a": 0.5, "b": 0.5}),
        ({"a": 5, "b": 11, "c": 8}, {"a": 1.0}),
        ({"a": 6, "b": 8, "c": 8}, {"b": 1.0}),
        ({}, {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}),
    ],
)
def test_least_busy_is_relative_to_the_limit(in_flight: dict[str, int], first: dict[str, float]) -> None:
    given = [target("a", concurrency=10), target("b", concurrency=20), target("c", concurrency=10)]
    policy = LeastBusy(busy(live(), **in_flight), random.Random(4))
    assert firsts(policy, given) == pytest.approx(first, abs=0.06)


# -- balanced -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "terms"),
    [
        ([1, 1, 1], [0, 0, 0]),
        ([1, 2, 4], [0, 0.5, 1]),
        ([8, 1, 4, 2], [1, 0, 2 / 3, 1 / 3]),
        ([1, 1.1], [0, 0.07]),
        ([0, 0], [0, 0]),
        ([0, 1, 100], [0, 0.35, 1]),
        ([5], [0]),
    ],
)
def test_a_term_is_how_many_times_worse(values: list[float], terms: list[float]) -> None:
    assert worse(values) == pytest.approx(terms, abs=0.01)


def test_weights_add_up_and_a_preference_takes_half() -> None:
    assert weights_of({}, "") == pytest.approx((0.5, 0.2, 0.3))
    assert weights_of({"cost": 0.9, "latency": 0.9}, "balanced") == pytest.approx((0.5, 0.5, 0.0))
    assert weights_of({}, "latency") == pytest.approx((0.25, 0.6, 0.15))
    assert weights_of({"cost": 1.0}, "quality") == pytest.approx((0.5, 0.0, 0.5))


CHEAP, QUICK, GOOD = (
    target("cheap", (1, 4), quality=0.5),
    target("quick", (4, 16), quality=0.6),
    target("good", (8, 32), quality=0.95),
)
MIXED: Any = {"cheap": (1.0, 0.04), "quick": (0.1, 0.005), "good": (1.0, 0.04)}


@pytest.mark.parametrize(
    ("weigh", "prefer", "first"),
    [
        ({}, "", "cheap"),
        ({}, "cost", "cheap"),
        ({}, "latency", "quick"),
        ({}, "quality", "good"),
        ({}, "balanced", "cheap"),
        ({"quality": 1.0}, "", "good"),
        ({"latency": 1.0}, "", "quick"),
        ({"latency": 0.5, "cost": 0.1}, "", "quick"),
        ({"quality": 0.8, "cost": 0.2}, "cost", "cheap"),
    ],
)
def test_balanced_weighs_and_a_client_may_prefer(weigh: dict[str, float], prefer: str, first: str) -> None:
    policy = Balanced(live(**MIXED), "r", weigh, random.Random(5))
    asked = call({"x-moma-prefer": prefer} if prefer else {})
    assert order(policy, [CHEAP, QUICK, GOOD], asked)[0] == first
    _, why = policy.order([CHEAP, QUICK, GOOD], asked, 0.0)
    assert why.startswith(f"balanced;prefer={prefer};cost=" if prefer else "balanced;cost=")


def test_the_example_of_the_documentation() -> None:
    """docs/routing.md goes through these numbers."""
    given = [target("small", (2, 8), quality=0.68), target("large", (6, 24), quality=0.82)]
    known = live(small=(0.3, 0.015), large=(0.6, 0.03))
    policy = Balanced(known, "r", {}, random.Random(1))
    text = call(messages=[{"role": "user", "content": "x" * (4000 - call().input_bound + 2)}])
    costs, seconds, lacking = policy.terms(given, text, 0.0)
    assert costs == pytest.approx([0.0, 0.79], abs=0.005)
    assert seconds == pytest.approx([0.0, 0.5], abs=0.005)
    assert lacking == pytest.approx([0.41, 0.0], abs=0.005)
    assert policy.order(given, text, 0.0)[1] == "balanced;cost=0.00;latency=0.00;quality=0.41"


def test_near_ties_are_spread_by_weight() -> None:
    of = model("m", "a", "b", "c")
    given = [Target(backend(name), of, "m", weight) for name, weight in (("a", 1), ("b", 3))]
    given.append(target("c", (5, 5)))
    policy = Balanced(live(), "r", {}, random.Random(6))
    assert firsts(policy, given) == pytest.approx({"a": 0.25, "b": 0.75}, abs=0.06)


# -- a warm prefix ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "warm", "stays"),
    [
        ("weighted", 2, True),
        ("cheapest", 1, True),
        ("cheapest", 2, False),
        ("fastest", 1, True),
        ("fastest", 2, False),
        ("best", 1, True),
        ("best", 2, False),
        ("balanced", 1, True),
        ("balanced", 2, False),
        ("least_busy", 1, True),
        ("least_busy", 2, False),
    ],
)
def test_a_warm_target_comes_first_unless_it_is_clearly_worse(policy: str, warm: int, stays: bool) -> None:
    given = [
        target("a", (100, 100), quality=0.80, concurrency=10),
        target("b", (110, 110), quality=0.79, concurrency=10),
        target("c", (300, 300), quality=0.40, concurrency=10),
    ]
    known = busy(live(a=(1.0, 0.01), b=(1.1, 0.011), c=(9.0, 0.09)), b=2, c=9)
    ranked, why = policy_of(Route("r", ("m",), policy), known, random.Random(7)).order(given, ASKED, 0.0, warm)
    assert (ranked[0] is given[warm]) == stays
    assert why.endswith(";affinity") == stays
