"""closed, open, half-open: what opens a breaker, who may probe, what closes it, and the slow start after it."""

from __future__ import annotations

import random

import pytest

from gateway.config.model import Breaker as Settings
from gateway.routing.breaker import (
    CLOSED,
    FAILURES_IN_A_ROW,
    HALF_OPEN,
    LEAST_SHARE,
    LONGEST_COOLDOWN_S,
    OPEN,
    SLOW_START_S,
    Breaker,
)
from gateway.routing.live import Live
from gateway.routing.policies import Target
from tests.virtual import backend, model

SETTINGS = Settings(window_s=30, errors=0.5, min_requests=10, cooldown_s=20)


def fail(breaker: Breaker, now: float, times: int = 1) -> bool:
    return any([breaker.failed(now, now) for _ in range(times)])


def opened(at: float = 0.0) -> Breaker:
    breaker = Breaker(SETTINGS)
    assert fail(breaker, at, FAILURES_IN_A_ROW)
    return breaker


def test_five_failures_in_a_row_open_it() -> None:
    breaker = Breaker(SETTINGS)
    assert not fail(breaker, 0, FAILURES_IN_A_ROW - 1)
    assert breaker.state(0) == CLOSED
    assert fail(breaker, 0)
    assert (breaker.state(0), breaker.available(0), breaker.back_in_s(0)) == (OPEN, False, 20)


def test_few_errors_among_many_slow_answers_are_no_row() -> None:
    breaker = Breaker(SETTINGS)
    for number in range(10_000):  # a thousand calls a second, of which one in a hundred fails at once
        now = number / 1000
        breaker.succeeded(now - 5.0, now)
        if number % 100 == 0:
            fail(breaker, now)
    assert breaker.state(10.0) == CLOSED


@pytest.mark.parametrize(
    ("outcomes", "opens"),
    [
        ("ox" * 4, False),  # too few to tell
        ("ox" * 5, True),
        ("oox" * 10, False),
        ("ooo" + "x" * 4 + "o" + "xx", True),
        ("o" * 20 + "xxxxo" * 4, False),
        ("o" * 20 + "xxxxo" * 8, True),
    ],
)
def test_a_rate_of_errors_opens_it(outcomes: str, opens: bool) -> None:
    breaker = Breaker(SETTINGS)
    for outcome in outcomes:
        if outcome == "x":
            fail(breaker, 1.0)
        else:
            breaker.succeeded(1.0, 1.0)
        if breaker.state(1.0) == OPEN:
            break
    assert (breaker.state(1.0) == OPEN) == opens


def test_what_is_older_than_the_window_does_not_count() -> None:
    breaker = Breaker(SETTINGS)
    for second in range(400):  # one error in each 4 s among four good ones, in bursts that are far apart
        if second % 100 < 4:
            fail(breaker, second)
        if second % 100 == 4:
            breaker.succeeded(second, second)
    assert breaker.state(400) == CLOSED


def test_it_is_half_open_after_the_cooldown_with_one_probe_at_a_time() -> None:
    breaker = opened()
    assert [breaker.state(now) for now in (0, 19.9, 20)] == [OPEN, OPEN, HALF_OPEN]
    assert not breaker.began(19.9)
    assert breaker.began(20)
    assert (breaker.available(20), breaker.began(20)) == (False, False)
    breaker.ended(True)  # cancelled: no verdict
    assert (breaker.state(21), breaker.available(21)) == (HALF_OPEN, True)


def test_a_probe_that_answers_closes_it() -> None:
    breaker = opened()
    assert breaker.began(20)
    breaker.ended(True)
    assert breaker.succeeded(20, 21)
    assert (breaker.state(21), breaker.available(21)) == (CLOSED, True)
    assert not fail(breaker, 22, FAILURES_IN_A_ROW - 1)  # it starts anew
    assert fail(breaker, 22)
    assert breaker.back_in_s(22) == 20


def test_the_cooldown_doubles_with_each_probe_that_fails() -> None:
    breaker, now, cooldowns = opened(), 0.0, []
    for _ in range(7):
        cooldowns.append(breaker.back_in_s(now))
        now += cooldowns[-1]
        assert breaker.began(now)
        breaker.ended(True)
        assert breaker.failed(now, now)
    assert cooldowns == [20, 40, 80, 160, LONGEST_COOLDOWN_S, LONGEST_COOLDOWN_S, LONGEST_COOLDOWN_S]


def test_a_configured_cooldown_beyond_the_longest_holds() -> None:
    breaker = Breaker(Settings(cooldown_s=1000))
    fail(breaker, 0, FAILURES_IN_A_ROW)
    assert breaker.back_in_s(0) == 1000


def test_attempts_from_before_a_change_say_nothing() -> None:
    breaker = opened(at=10.0)
    assert not breaker.succeeded(9.0, 12.0)  # a long stream that was fine
    assert (breaker.state(12.0), breaker.failed(9.0, 31.0)) == (OPEN, False)
    assert breaker.began(31.0)
    breaker.ended(True)
    assert breaker.succeeded(31.0, 32.0)
    assert not any([breaker.failed(9.0, 33.0) for _ in range(20)])  # they hung, and their time is up now
    assert breaker.state(33.0) == CLOSED


def test_who_was_asked_for_want_of_others_neither_prolongs_the_cooldown_nor_is_disbelieved() -> None:
    breaker = opened()
    assert not breaker.failed(5.0, 25.0)
    assert breaker.back_in_s(5.0) == 15
    assert breaker.succeeded(6.0, 7.0)
    assert breaker.state(7.0) == CLOSED


def test_the_share_grows_after_a_recovery() -> None:
    breaker = opened()
    assert breaker.share(20) == 1.0
    breaker.began(20)
    breaker.ended(True)
    breaker.succeeded(20, 20)
    shares = [breaker.share(20 + part * SLOW_START_S) for part in (0, 0.5, 1, 2)]
    assert shares == pytest.approx([LEAST_SHARE, 0.5, 1, 1])


# -- among others -------------------------------------------------------------------------------------------------

TARGETS = [Target(backend(name), model("m", name), "m", 1) for name in "ab"]
A, B = (target.key for target in TARGETS)


def troubled() -> Live:
    """Where `a` is open since 0."""
    live = Live(SETTINGS)
    for _ in range(FAILURES_IN_A_ROW):
        live.ended(A, live.began(A, 0.0))
        live.failed(A, began=0.0, now=0.0)
    return live


def names(targets: list[Target]) -> str:
    return "".join(target.backend.name for target in targets)


def test_who_is_down_is_parted_from_the_others() -> None:
    live, rng = troubled(), random.Random(1)
    assert [names(part) for part in live.parted(TARGETS, 1.0, rng)] == ["b", "", "a"]
    assert [names(part) for part in live.parted(TARGETS, 20.0, rng)] == ["ab", "", ""]
    probe = live.began(A, 20.0)
    assert [names(part) for part in live.parted(TARGETS, 20.0, rng)] == ["b", "", "a"]
    live.ended(A, probe)
    assert [names(part) for part in live.parted(TARGETS, 20.0, rng)] == ["ab", "", ""]
    assert (live.state(A, 20.0), live.state(B, 20.0)) == (HALF_OPEN, CLOSED)


def test_a_recovered_target_gets_its_share_slowly_and_is_soon_forgotten() -> None:
    live, rng = troubled(), random.Random(2)
    live.ended(A, live.began(A, 20.0))
    live.succeeded(A, began=20.0, now=20.0, first_token_s=None, took_s=1.0, output=10)
    for age_s, share in ((0.0, LEAST_SHARE), (2.5, 0.25), (5.0, 0.5), (9.0, 0.9)):
        taken = sum(names(live.parted(TARGETS, 20.0 + age_s, rng)[0]) == "ab" for _ in range(4000)) / 4000
        assert taken == pytest.approx(share, abs=0.03)
    live.parted(TARGETS, 20.0 + SLOW_START_S, rng)
    assert not live.troubled


def test_what_was_measured_in_distress_is_forgotten() -> None:
    live = troubled()
    live.of(A).feed(0.0, 30.0, 1.0)
    live.ended(A, live.began(A, 20.0))
    live.succeeded(A, began=20.0, now=21.0, first_token_s=0.5, took_s=1.0, output=11)
    assert live.of(A).first_token_s == 0.5
    assert live.of(A).per_token_s == 0.05


def test_an_answer_does_not_contradict_a_check() -> None:
    """A backend that is being drained says no to checks and answers calls all the same."""
    breaker = Breaker(SETTINGS)
    breaker.hold(0.0, 10.0)
    assert not breaker.succeeded(1.0, 2.0)
    assert breaker.state(2.0) == OPEN
    assert breaker.began(10.0)  # no further check came: a probe decides
    assert breaker.succeeded(10.0, 11.0)
    assert breaker.state(11.0) == CLOSED
