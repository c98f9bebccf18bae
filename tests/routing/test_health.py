"""Ejection after five failures in a row, for a growing while."""

from __future__ import annotations

from gateway.routing.health import FAILURES_TO_EJECT, FIRST_EJECTION_S, LONGEST_EJECTION_S, Health
from tests.virtual import VirtualClock

A, B = ("a", "m"), ("b", "m")


def failing(health: Health, times: int) -> None:
    for _ in range(times):
        health.failed(A)


def test_four_failures_are_forgiven_and_the_fifth_ejects() -> None:
    health = Health(VirtualClock())
    failing(health, FAILURES_TO_EJECT - 1)
    assert health.available(A)
    failing(health, 1)
    assert not health.available(A)
    assert health.back_in_s(A) == FIRST_EJECTION_S
    assert health.available(B)


def test_a_success_forgets_the_failures() -> None:
    health = Health(VirtualClock())
    for _ in range(10):
        failing(health, FAILURES_TO_EJECT - 1)
        health.succeeded(A)
    assert health.available(A)


def test_the_pause_doubles_with_every_ejection_up_to_the_longest() -> None:
    clock = VirtualClock()
    health = Health(clock)
    failing(health, FAILURES_TO_EJECT)
    pauses = []
    for _ in range(12):
        pauses.append(health.back_in_s(A))
        clock.advance(pauses[-1])
        assert health.available(A)
        failing(health, 1)  # one more is enough now
    assert pauses[:7] == [5, 10, 20, 40, 80, 160, LONGEST_EJECTION_S]
    assert set(pauses[7:]) == {LONGEST_EJECTION_S}


def test_a_success_after_an_ejection_starts_anew() -> None:
    clock = VirtualClock()
    health = Health(clock)
    failing(health, FAILURES_TO_EJECT)
    clock.advance(FIRST_EJECTION_S)
    health.succeeded(A)
    failing(health, FAILURES_TO_EJECT - 1)
    assert health.available(A)
    failing(health, 1)
    assert health.back_in_s(A) == FIRST_EJECTION_S


def test_failures_of_calls_still_in_flight_do_not_prolong_an_ejection() -> None:
    clock = VirtualClock()
    health = Health(clock)
    failing(health, 100)
    assert health.back_in_s(A) == FIRST_EJECTION_S
    clock.advance(FIRST_EJECTION_S)
    assert health.available(A)


def test_an_unknown_target_is_well() -> None:
    health = Health(VirtualClock())
    assert health.available(A)
    assert health.back_in_s(A) == 0
    health.succeeded(A)
