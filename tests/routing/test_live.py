"""What is learnt from answers."""

from __future__ import annotations

import pytest

from gateway.config.model import Breaker
from gateway.routing.breaker import CLOSED, FAILURES_IN_A_ROW, OPEN
from gateway.routing.live import FIRST_OUTPUT, FIRST_TOKEN_S, HALVES_S, PER_TOKEN_S, Live, Measures

A = ("a", "m")


def stream(live: Live, first_s: float, per_token_s: float, tokens: int = 101, now: float = 0.0) -> None:
    live.ended(A, live.began(A, now))
    took_s = first_s + (tokens - 1) * per_token_s
    live.succeeded(A, began=now, now=now, first_token_s=first_s, took_s=took_s, output=tokens)


def whole(live: Live, took_s: float, tokens: float, now: float = 0.0) -> None:
    live.ended(A, live.began(A, now))
    live.succeeded(A, began=now, now=now, first_token_s=None, took_s=took_s, output=tokens)


def test_the_first_stream_is_believed_and_the_next_move_it() -> None:
    live = Live(Breaker())
    assert live.of(A).seconds(100, 0.0) is None
    stream(live, 1.0, 0.01)
    assert (live.of(A).first_token_s, live.of(A).per_token_s) == pytest.approx((1.0, 0.01))
    for _ in range(40):
        stream(live, 3.0, 0.05)
    assert (live.of(A).first_token_s, live.of(A).per_token_s) == pytest.approx((3.0, 0.05), rel=0.01)


def test_a_whole_answer_says_how_long_all_of_it_takes() -> None:
    live = Live(Breaker())
    expected_s = FIRST_TOKEN_S + 100 * PER_TOKEN_S
    whole(live, 2 * expected_s, 100)
    assert live.of(A).first_token_s == pytest.approx(2 * FIRST_TOKEN_S)
    assert live.of(A).seconds(100, 0.0) == pytest.approx(2 * expected_s)
    for _ in range(60):
        whole(live, 1.0, 100)
    assert live.of(A).seconds(100, 0.0) == pytest.approx(1.0, rel=0.01)


@pytest.mark.parametrize(("output", "took_s"), [(None, 1.0), (0.0, 1.0), (1.0, 0.0), (0.0, 0.0)])
def test_odd_answers_break_nothing(output: float | None, took_s: float) -> None:
    live = Live(Breaker())
    for first_s in (None, 0.0, 1.0):
        live.ended(A, live.began(A, 0.0))
        live.succeeded(A, began=0, now=0, first_token_s=first_s, took_s=took_s, output=output)
        seconds = live.of(A).seconds(100, 0.0)
        assert seconds is not None
        assert seconds >= 0.0


def test_an_estimate_halves_with_time_but_not_while_news_is_under_way() -> None:
    live = Live(Breaker())
    stream(live, 1.0, 0.0)
    assert live.of(A).seconds(0, HALVES_S) == pytest.approx(0.5)
    live.began(A, HALVES_S)
    assert live.of(A).seconds(0, HALVES_S) == pytest.approx(1.0)


def test_in_flight_by_target_and_by_backend() -> None:
    live = Live(Breaker())
    live.began(A, 0.0)
    live.began(("a", "n"), 0.0)
    assert (live.of(A).in_flight, live.in_flight["a"]) == (1, 2)
    live.ended(A, False)
    assert (live.of(A).in_flight, live.in_flight["a"]) == (0, 1)


def test_output_is_an_average_per_route() -> None:
    live = Live(Breaker())
    assert live.output("r") == FIRST_OUTPUT
    live.wrote("r", 10)
    assert live.output("r") == 10
    for _ in range(60):
        live.wrote("r", 500)
    assert live.output("r") == pytest.approx(500, rel=0.01)
    assert live.output("s") == FIRST_OUTPUT


def test_measures_that_are_forgotten_are_as_new() -> None:
    measures = Measures(Breaker())
    measures.feed(1.0, 1.0, 1.0)
    measures.forget()
    assert measures.seconds(1, 1.0) is None


# -- another generation of routes.yaml ------------------------------------------------------------------------------


def broken(live: Live, key: tuple[str, str], now: float = 0.0) -> None:
    for _ in range(FAILURES_IN_A_ROW):
        probe = live.began(key, now)
        live.failed(key, began=now, now=now)
        live.ended(key, probe)


def test_targets_that_stay_keep_all_and_those_that_are_gone_are_forgotten() -> None:
    live = Live(Breaker())
    stream(live, 1.0, 0.01)
    broken(live, ("b", "m"))
    broken(live, ("c", "m"))
    live.wrote("stays", 7.0)
    live.wrote("goes", 7.0)
    live.follow(Breaker(), {A, ("b", "m")}, set(), {"stays"}, 1.0)
    assert live.of(A).first_token_s == 1.0
    assert (live.state(("b", "m"), 1.0), live.troubled) == (OPEN, {("b", "m")})
    assert (live.output("stays"), live.output("goes")) == (7.0, FIRST_OUTPUT)
    assert set(live.in_flight) == {"a", "b"}


def test_a_target_that_is_gone_is_kept_until_its_last_call_has_ended() -> None:
    live = Live(Breaker())
    probe = live.began(A, 0.0)
    live.follow(Breaker(), set(), set(), set(), 1.0)
    live.failed(A, began=0.0, now=2.0)
    live.ended(A, probe)
    assert (live.of(A).in_flight, live.in_flight["a"]) == (0, 0)
    live.follow(Breaker(), set(), set(), set(), 3.0)
    assert (live._measures, live.in_flight, live.troubled) == ({}, {}, set())


def test_a_target_that_is_reached_in_another_way_begins_anew_whatever_its_calls_in_flight_say() -> None:
    live = Live(Breaker())
    stream(live, 1.0, 0.01)
    broken(live, A)
    attempts = [live.began(A, 1.0) for _ in range(FAILURES_IN_A_ROW)]
    live.follow(Breaker(), {A}, {A}, set(), 2.0)
    assert (live.state(A, 2.0), live.of(A).first_token_s, live.of(A).in_flight) == (CLOSED, None, FAILURES_IN_A_ROW)
    for probe in attempts:
        live.failed(A, began=1.0, now=3.0)
        live.ended(A, probe)
    assert live.state(A, 3.0) == CLOSED


def test_other_settings_count_for_breakers_that_are_known() -> None:
    live = Live(Breaker(min_requests=1000))
    for now in range(4):
        stream(live, 1.0, 0.01, now=float(now))
    live.follow(Breaker(min_requests=5, errors=0.2), {A}, set(), set(), 4.0)
    probe = live.began(A, 4.0)
    live.failed(A, began=4.0, now=4.0)
    live.ended(A, probe)
    assert live.state(A, 4.0) == OPEN
