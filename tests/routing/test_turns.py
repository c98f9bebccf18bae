"""Rounds over targets: each healthy one once, those that wish to rest last."""

from __future__ import annotations

from gateway.routing.health import FAILURES_TO_EJECT, Health
from gateway.routing.policies import Target
from gateway.routing.turns import Turns
from tests.virtual import VirtualClock, backend, model


def started(number: int) -> tuple[Turns, Health, VirtualClock, list[Target]]:
    clock = VirtualClock()
    targets = [Target(backend(f"b{place}"), model("m", "x"), "m", 1) for place in range(number)]
    return Turns(targets), Health(clock), clock, targets


def eject(health: Health, target: Target) -> None:
    for _ in range(FAILURES_TO_EJECT):
        health.failed(target.key)


def test_each_is_fresh_once_a_round() -> None:
    turns, health, clock, _ = started(3)
    for left in ([0, 1, 2], [1, 2], [2]):
        assert turns.fresh(health) == left
        turns.ask(left[0])
    assert turns.fresh(health) == []
    assert turns.next_round(health, clock.now()) == [0, 1, 2]
    assert (turns.rounds, turns.tries) == (2, 3)


def test_the_ejected_are_left_out_unless_all_are() -> None:
    turns, health, clock, targets = started(3)
    eject(health, targets[0])
    assert turns.fresh(health) == [1, 2]
    clock.advance(1)
    eject(health, targets[2])
    clock.advance(1)
    eject(health, targets[1])
    assert turns.fresh(health) == []
    assert turns.next_round(health, clock.now()) == [0, 2, 1]
    assert turns.rounds == 1  # nobody was asked: no round has passed


def test_who_wishes_to_rest_comes_last_and_is_waited_for_if_alone() -> None:
    turns, health, clock, targets = started(2)
    turns.ask(0)
    turns.failed(clock.now(), 9.0)
    turns.ask(1)
    turns.failed(clock.now(), 0.0)
    assert turns.rest_s(health, clock.now()) == 0
    assert turns.next_round(health, clock.now()) == [1, 0]
    eject(health, targets[1])
    assert turns.rest_s(health, clock.now()) == 9.0
    clock.advance(10)
    assert turns.rest_s(health, clock.now()) == 0.0
    assert turns.next_round(health, clock.now()) == [0, 1]
