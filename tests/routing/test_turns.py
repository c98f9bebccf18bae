"""Rounds over targets: each livey one once, those that wish to rest last."""

from __future__ import annotations

from gateway.config.model import Breaker
from gateway.routing.breaker import FAILURES_IN_A_ROW
from gateway.routing.live import Live
from gateway.routing.policies import Target
from gateway.routing.turns import Turns
from tests.virtual import VirtualClock, backend, model


def started(number: int) -> tuple[Turns, Live, VirtualClock, list[Target]]:
    clock = VirtualClock()
    targets = [Target(backend(f"b{place}"), model("m", "x"), "m", 1) for place in range(number)]
    return Turns(targets), Live(Breaker()), clock, targets


def eject(live: Live, target: Target, now: float) -> None:
    for _ in range(FAILURES_IN_A_ROW):
        live.ended(target.key, live.began(target.key, now))
        live.failed(target.key, began=now, now=now)


def test_each_is_fresh_once_a_round() -> None:
    turns, live, clock, _ = started(3)
    for left in ([0, 1, 2], [1, 2], [2]):
        assert turns.fresh(live, clock.now()) == left
        turns.ask(left[0])
    assert turns.fresh(live, clock.now()) == []
    assert turns.next_round(live, clock.now()) == [0, 1, 2]
    assert (turns.rounds, turns.tries) == (2, 3)


def test_the_ejected_are_left_out_unless_all_are() -> None:
    turns, live, clock, targets = started(3)
    eject(live, targets[0], clock.now())
    assert turns.fresh(live, clock.now()) == [1, 2]
    clock.advance(1)
    eject(live, targets[2], clock.now())
    clock.advance(1)
    eject(live, targets[1], clock.now())
    assert turns.fresh(live, clock.now()) == []
    assert turns.next_round(live, clock.now()) == [0, 2, 1]
    assert turns.rounds == 1  # nobody was asked: no round has passed


def test_who_wishes_to_rest_comes_last_and_is_waited_for_if_alone() -> None:
    turns, live, clock, targets = started(2)
    turns.ask(0)
    turns.failed(clock.now(), 9.0)
    turns.ask(1)
    turns.failed(clock.now(), 0.0)
    assert turns.rest_s(live, clock.now()) == 0
    assert turns.next_round(live, clock.now()) == [1, 0]
    eject(live, targets[1], clock.now())
    assert turns.rest_s(live, clock.now()) == 9.0
    clock.advance(Breaker().cooldown_s)
    assert turns.rest_s(live, clock.now()) == 0.0
    assert turns.next_round(live, clock.now()) == [0, 1]
