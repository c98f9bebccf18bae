"""Orders over targets."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from gateway.routing.policies import Ordered, Target, Weighted
from tests.virtual import backend, model


def targets(*weights: int) -> list[Target]:
    of = model("m", "x")
    return [Target(backend(f"b{place}"), of, "m", weight) for place, weight in enumerate(weights)]


def test_ordered_keeps_the_order() -> None:
    given = targets(1, 9, 5)
    assert Ordered().order(given) == given


@pytest.mark.parametrize("weights", [(1, 1), (1, 3), (1, 2, 7), (100, 1), (5, 5, 5, 5)])
def test_weighted_first_is_in_proportion(weights: tuple[int, ...]) -> None:
    draws = 40_000
    given, policy = targets(*weights), Weighted(random.Random(11))
    firsts = Counter(policy.order(given)[0].backend.name for _ in range(draws))
    for place, weight in enumerate(weights):
        share = weight / sum(weights)
        five_sigma = 5 * (share * (1 - share) / draws) ** 0.5
        assert firsts[f"b{place}"] / draws == pytest.approx(share, abs=five_sigma)


def test_weighted_second_is_in_proportion_among_the_rest() -> None:
    draws = 40_000
    given, policy = targets(6, 3, 1), Weighted(random.Random(12))
    orders = [[target.backend.name for target in policy.order(given)] for _ in range(draws)]
    after_first = Counter(order[1] for order in orders if order[0] == "b0")
    share = after_first["b1"] / after_first.total()
    assert share == pytest.approx(3 / 4, abs=5 * (0.75 * 0.25 / after_first.total()) ** 0.5)


def test_weighted_loses_and_doubles_nothing() -> None:
    given, policy = targets(1, 2, 3, 4), Weighted(random.Random(13))
    for _ in range(100):
        assert sorted(policy.order(given), key=given.index) == given
    assert policy.order([]) == []


def test_the_same_seed_gives_the_same_orders() -> None:
    given = targets(1, 2, 3)
    one, two = Weighted(random.Random(5)), Weighted(random.Random(5))
    assert [one.order(given) for _ in range(50)] == [two.order(given) for _ in range(50)]
