"""What is learnt from answers."""

from __future__ import annotations

import pytest

from gateway.config.model import Breaker
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
