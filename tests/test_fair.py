"""The order in which waiting calls are served: shares, priorities, and who gives way when there is no place."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from gateway.fair import Line, Share, Waiter

HOG, NICE = Share("hog"), Share("nice")


def line(length: int = 1000) -> Line:
    return Line(length, 0.0)


def joined(line: Line, share: Share, count: int = 1) -> list[Waiter]:
    waiters = [Waiter(share, 0) for _ in range(count)]
    for waiter in waiters:
        assert line.join(waiter) is None
    return waiters


def served(line: Line, count: int, now: float = 0.0) -> list[Waiter]:
    out = []
    for _ in range(count):
        out.append(line.first())
        line.served(out[-1], now)
    return out


def tenants(waiters: list[Waiter]) -> list[str]:
    return [waiter.share.tenant for waiter in waiters]


async def test_a_tenant_with_many_calls_waiting_takes_turns_with_one_that_has_few() -> None:
    at = line()
    joined(at, HOG, 100)
    joined(at, NICE, 3)
    assert tenants(served(at, 7)) == ["hog", "nice", "hog", "nice", "hog", "nice", "hog"]


async def test_the_calls_of_one_tenant_are_served_in_their_order() -> None:
    at = line()
    waiters = joined(at, HOG, 20)
    assert served(at, 20) == waiters
    assert at.size == 0


async def test_turns_are_in_proportion_to_weight_all_along() -> None:
    at = line()
    shares = [Share("one", 1), Share("two", 2), Share("five", 5)]
    for share in shares:
        joined(at, share, 300)
    so_far: Counter[str] = Counter()
    for count in range(1, 300):
        so_far[served(at, 1)[0].share.tenant] += 1
        for share in shares:
            assert abs(so_far[share.tenant] - count * share.weight / 8) < 2


async def test_a_heavy_weight_cannot_shut_out_the_others() -> None:
    at = line()
    joined(at, Share("heavy", 1_000_000), 500)
    joined(at, Share("light", 1), 1)
    joined(at, HOG, 499)
    assert "hog" not in tenants(served(at, 500))
    assert set(tenants(served(at, 10))) == {"light", "hog"}


async def test_the_lowest_priority_is_always_first() -> None:
    at = line()
    joined(at, Share("late", priority=200), 3)
    joined(at, Share("usual"), 3)
    joined(at, Share("first", priority=0), 3)
    assert tenants(served(at, 9)) == ["first"] * 3 + ["usual"] * 3 + ["late"] * 3


async def test_who_was_away_has_saved_up_nothing() -> None:
    at = line()
    joined(at, HOG, 200)
    joined(at, NICE, 1)
    served(at, 100)
    joined(at, NICE, 50)
    assert Counter(tenants(served(at, 20))) == {"hog": 10, "nice": 10}


async def test_who_left_without_being_served_has_lost_nothing() -> None:
    at = line()
    joined(at, HOG, 10)
    for waiter in joined(at, NICE, 5):
        at.leave(waiter)
    joined(at, NICE, 1)
    assert "nice" in tenants(served(at, 2))


async def test_a_full_line_pushes_out_the_newest_of_whom_has_most() -> None:
    at = line(5)
    hogs = joined(at, HOG, 5)
    late = Waiter(HOG, 0)
    assert at.join(late) is late
    nice = Waiter(NICE, 0)
    assert at.join(nice) is hogs[-1]
    assert at.size == 5
    assert tenants(served(at, 5)).count("nice") == 1


async def test_what_is_most_counts_by_weight() -> None:
    at = line(6)
    joined(at, Share("heavy", 4), 2)
    lights = joined(at, Share("light", 1), 4)
    assert at.join(Waiter(Share("heavy", 4), 0)) is lights[-1]  # 3 of weight 4 are less than a quarter of 4 of weight 1
    newcomer = Waiter(Share("light", 1), 0)
    assert at.join(newcomer) is newcomer


async def test_nobody_who_waits_gives_way_for_a_small_difference() -> None:
    at = line(30)
    joined(at, HOG, 20)
    joined(at, NICE, 9)
    third = Share("third")
    joined(at, third, 1)
    assert at.join(Waiter(third, 0)) is not None  # from 20 to 2: it is the newest of the first that goes
    newcomer = Waiter(NICE, 0)
    assert at.join(newcomer) is newcomer  # from 19 to 10


async def test_a_late_priority_gives_way_to_an_early_one_and_never_the_other_way_round() -> None:
    at = line(2)
    early = joined(at, Share("first", priority=0), 1)
    late = joined(at, Share("late", priority=200), 1)
    newcomer = Waiter(Share("late", priority=200), 0)
    assert at.join(newcomer) is newcomer
    assert at.join(Waiter(Share("first", priority=0), 0)) is late[0]
    assert at.join(Waiter(NICE, 0)) is not early[0]


async def test_a_line_of_no_length_takes_nobody() -> None:
    at, waiter = line(0), Waiter(HOG, 0)
    assert at.join(waiter) is waiter
    assert at.size == 0


async def test_the_pace_of_the_line_tells_how_long_it_takes() -> None:
    at = line()
    joined(at, HOG, 400)
    assert at.empty_in_s(5.0) is None
    for n in range(1, 301):
        served(at, 1, n * 0.01)
    assert at.empty_in_s(3.0) == pytest.approx(100 * 0.01, rel=0.05)
    for n in range(1, 81):  # it has become ten times slower, and that is soon seen
        served(at, 1, 3.0 + n * 0.1)
    assert at.empty_in_s(11.0) == pytest.approx(20 * 0.1, rel=0.5)


async def test_a_random_walk_loses_nobody_and_keeps_the_order_of_each_tenant() -> None:
    rng = random.Random(7)
    shares = [Share(f"t{n}", rng.choice([1, 2, 5]), rng.choice([0, 100])) for n in range(6)]
    at, waiting = line(30), []  # as a model: all that wait, in the order in which they came
    for _ in range(5000):
        step = rng.random()
        if step < 0.5:
            waiter = Waiter(rng.choice(shares), 0)
            out = at.join(waiter)
            waiting.append(waiter)
            if out is not None:
                assert len(waiting) == 31
                waiting.remove(out)
        elif waiting and step < 0.9:
            (first,) = served(at, 1)
            assert first.share.priority == min(waiter.share.priority for waiter in waiting)
            assert first is next(waiter for waiter in waiting if waiter.share == first.share)
            waiting.remove(first)
        elif waiting:
            at.leave(waiting.pop(rng.randrange(len(waiting))))
        assert at.size == len(waiting) <= 30
    assert set(served(at, at.size)) == set(waiting)
