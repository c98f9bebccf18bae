"""Looks at all targets together: who is silent, who is an outlier, and who is not."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from gateway.config.model import Breaker
from gateway.routing.breaker import CHECK, CLOSED, ERRORS, HALF_OPEN, LONGEST_COOLDOWN_S, OPEN, SILENT, SLOW
from gateway.routing.health import LOOK_S, SILENT_CALLS, SILENT_S, SLOW_FOR_S, Health
from gateway.routing.live import Key, Live

SETTINGS = Breaker()
A, B, C, D = (("a", "m"), ("b", "m"), ("c", "m"), ("d", "m"))
ALONE = ("a", "other")


class Ward:
    """Targets, a clock that looks each second, and attempts that are begun, heard of and ended by hand."""

    def __init__(self, *keys: Key) -> None:
        self.openings: Counter[tuple[Key, str]] = Counter()
        self.live = Live(SETTINGS, lambda key, cause: self.openings.update([(key, cause)]))
        self.health = Health(self.live)
        self.health.follow(SETTINGS, keys)
        self.now = 0.0

    def passes(self, seconds: float) -> None:
        for _ in range(round(seconds / LOOK_S)):
            self.now += LOOK_S
            self.health.look(self.now)

    def begins(self, key: Key, count: int = 1, *, stream: bool = False) -> list[object]:
        attempts = [object() for _ in range(count)]
        for attempt in attempts:
            self.live.began(key, self.now, attempt, stream=stream)
        return attempts

    def answers(self, key: Key, attempt: object, took_s: float, output: int = 100) -> None:
        self.live.ended(key, False, attempt)
        self.live.succeeded(
            key, began=self.now - took_s, now=self.now, first_token_s=None, took_s=took_s, output=output
        )

    def served(self, key: Key, took_s: float = 0.5, count: int = 1, output: int = 100) -> None:
        """Calls that began `took_s` ago and are answered now."""
        for _ in range(count):
            attempt = object()
            self.live.began(key, self.now - took_s, attempt)
            self.answers(key, attempt, took_s, output)

    def fails(self, key: Key, count: int = 1) -> None:
        for _ in range(count):
            attempt = object()
            self.live.began(key, self.now, attempt)
            self.live.ended(key, False, attempt)
            self.live.failed(key, began=self.now, now=self.now)

    def state(self, key: Key) -> int:
        return self.live.state(key, self.now)

    def cause(self, key: Key) -> str:
        return self.live.of(key).breaker.cause


# -- silence ------------------------------------------------------------------------------------------------------


def test_several_calls_that_nothing_is_heard_of_open_the_breaker_within_five_seconds() -> None:
    ward = Ward(A, B)
    ward.passes(10)
    ward.served(A)
    ward.begins(A, SILENT_CALLS)
    ward.passes(SILENT_S)
    assert ward.state(A) == CLOSED
    ward.passes(2)
    assert (ward.state(A), ward.cause(A)) == (OPEN, SILENT)
    assert ward.openings == {(A, SILENT): 1}
    assert not ward.live.available(A, ward.now)


def test_one_or_two_calls_may_just_be_long() -> None:
    ward = Ward(A, B)
    ward.passes(10)
    ward.served(A)
    ward.begins(A, SILENT_CALLS - 1)
    ward.passes(100)
    assert ward.state(A) == CLOSED


def test_calls_that_have_only_just_begun_do_not_count() -> None:
    ward = Ward(A)
    ward.passes(10)
    ward.served(A)
    ward.begins(A)
    ward.passes(3)
    ward.begins(A, 10)
    ward.passes(1)
    assert ward.state(A) == CLOSED
    ward.passes(2)
    assert ward.state(A) == OPEN


@pytest.mark.parametrize("usual_s", [5.0, 20.0, 60.0])
def test_a_model_that_thinks_for_long_is_not_suspected_of_it(usual_s: float) -> None:
    ward = Ward(A, B)
    ward.passes(100)
    ward.served(A, usual_s)
    ward.begins(A, 20)
    ward.passes(2 * usual_s)
    assert ward.state(A) == CLOSED
    ward.passes(4)
    assert ward.state(A) == OPEN


def test_one_long_answer_among_fifty_is_remembered() -> None:
    ward = Ward(A)
    ward.passes(100)
    ward.served(A, 30.0)
    ward.served(A, 0.2, count=30)
    ward.begins(A, 20)
    ward.passes(20)
    assert ward.state(A) == CLOSED


def test_long_answers_in_one_piece_say_nothing_of_the_first_token_of_a_stream() -> None:
    ward = Ward(A)
    ward.passes(100)
    ward.served(A, 60.0)
    attempt = ward.begins(A, stream=True)[0]
    ward.now += 0.3
    ward.live.heard(A, ward.now, attempt)
    ward.live.ended(A, False, attempt)
    ward.begins(A, SILENT_CALLS, stream=True)
    ward.passes(4)
    assert ward.state(A) == OPEN


def test_a_target_that_answers_others_is_alive() -> None:
    ward = Ward(A)
    ward.passes(10)
    ward.served(A)
    ward.begins(A, 10)
    for _ in range(60):
        ward.passes(1)
        ward.served(A)
    assert ward.state(A) == CLOSED


def test_a_target_whose_streams_flow_is_alive() -> None:
    ward = Ward(A)
    ward.passes(10)
    ward.served(A)
    ward.begins(A, 10)
    for _ in range(60):
        ward.passes(1)
        ward.live.of(A).heard_at = ward.now  # what dispatch does with each piece
    assert ward.state(A) == CLOSED


def test_who_was_never_heard_of_is_measured_by_its_peers() -> None:
    ward = Ward(A, B)
    ward.passes(10)
    ward.served(B, 0.5)
    ward.begins(A, SILENT_CALLS)
    ward.passes(4)
    assert ward.state(A) == OPEN


def test_where_nobody_knows_what_is_long_nobody_is_suspected() -> None:
    ward = Ward(A, B, ALONE)
    ward.passes(10)
    for key in (A, B, ALONE):
        ward.begins(key, 50)
    ward.passes(300)
    assert not ward.openings


def test_the_first_sign_of_life_takes_a_suspicion_back_at_once_and_whole() -> None:
    ward = Ward(A, B)
    ward.passes(10)
    ward.served(A)
    attempts = ward.begins(A, SILENT_CALLS)
    ward.passes(5)
    assert ward.state(A) == OPEN
    ward.answers(A, attempts[0], 5.0)
    ward.passes(1)
    assert ward.state(A) == CLOSED
    assert not ward.live.troubled
    assert ward.live.of(A).breaker.share(ward.now) == 1.0
    ward.fails(A, 5)
    assert (ward.state(A), ward.cause(A)) == (OPEN, ERRORS)  # it is a breaker like any other again


def test_after_the_cooldown_a_probe_decides() -> None:
    ward = Ward(A, B)
    ward.passes(10)
    ward.served(A)
    ward.begins(A, SILENT_CALLS)
    ward.passes(4)
    ward.passes(SETTINGS.cooldown_s)
    assert ward.state(A) == HALF_OPEN
    probe = object()
    assert ward.live.began(A, ward.now, probe)
    ward.passes(2)
    ward.live.of(A).heard_at = ward.now
    ward.passes(1)
    assert ward.state(A) == HALF_OPEN  # its first token is not yet an answer
    ward.live.ended(A, True, probe)
    ward.live.succeeded(A, began=ward.now - 3, now=ward.now, first_token_s=None, took_s=3.0, output=5)
    assert (ward.state(A), ward.cause(A)) == (CLOSED, "")
    assert ward.live.of(A).breaker.share(ward.now) < 1.0


def test_all_may_be_silent_and_then_all_are_asked() -> None:
    ward = Ward(A, B)
    ward.passes(10)
    ward.served(A)
    ward.begins(A, SILENT_CALLS)
    ward.begins(B, SILENT_CALLS)
    ward.passes(5)
    assert (ward.state(A), ward.state(B)) == (OPEN, OPEN)


def test_a_look_that_comes_late_accuses_nobody() -> None:
    ward = Ward(A)
    ward.passes(10)
    ward.served(A)
    ward.begins(A, 50)
    for _ in range(20):  # the process is stopped again and again: what was answered lies in the socket
        ward.now += 30
        ward.health.look(ward.now)
    assert ward.state(A) == CLOSED
    ward.passes(1)
    assert ward.state(A) == OPEN


def test_calls_that_ended_are_forgotten() -> None:
    ward = Ward(A)
    for attempt in ward.begins(A, 100) + ward.begins(A, 100, stream=True):
        ward.live.ended(A, False, attempt)
    assert not ward.live.of(A).unheard


# -- outliers -----------------------------------------------------------------------------------------------------


def errs(ward: Ward, key: Key, errors: int, calls: int) -> None:
    """Spread out, so that no row of failures opens the breaker."""
    for place in range(calls):
        if place * errors // calls != (place + 1) * errors // calls:
            ward.fails(key)
        else:
            ward.served(key)


@pytest.mark.parametrize(
    ("own", "peers", "out"),
    [((6, 20), (0, 20), True), ((6, 20), (1, 20), True), ((6, 20), (4, 20), False), ((1, 5), (0, 20), False)],
)
def test_who_fails_far_more_than_its_peers_is_ejected(own: tuple[int, int], peers: tuple[int, int], out: bool) -> None:
    ward = Ward(A, B, C)
    ward.passes(10)
    errs(ward, A, *own)
    errs(ward, B, *peers)
    errs(ward, C, *peers)
    ward.passes(1)
    assert (ward.state(A) == OPEN, ward.state(B), ward.state(C)) == (out, CLOSED, CLOSED)
    assert ward.openings == ({(A, ERRORS): 1} if out else {})


def test_without_peers_there_are_no_outliers() -> None:
    ward = Ward(A, ALONE)
    ward.passes(10)
    errs(ward, A, 8, 20)
    ward.served(ALONE, count=20)
    ward.passes(1)
    assert not ward.openings


def test_who_is_much_slower_than_its_peers_for_a_while_is_ejected() -> None:
    ward = Ward(A, B, C)
    for _ in range(5 + round(SLOW_FOR_S) + 2):  # ten answers of each, and then a while
        ward.passes(1)
        ward.served(A, 20.0, 2)
        ward.served(B, 1.0, 2)
        ward.served(C, 2.0, 2)
    assert (ward.cause(A), ward.state(B), ward.state(C)) == (SLOW, CLOSED, CLOSED)


def test_chips_that_differ_by_three_are_no_outliers() -> None:
    ward = Ward(A, B, C)
    for _ in range(60):
        ward.passes(1)
        ward.served(A, 9.0, 2)
        ward.served(B, 3.0, 2)
        ward.served(C, 3.0, 2)
    assert not ward.openings


def test_five_times_of_very_little_is_nothing() -> None:
    ward = Ward(A, B)
    for _ in range(60):
        ward.passes(1)
        ward.served(A, 0.5, 2)
        ward.served(B, 0.05, 2)
    assert not ward.openings


def test_one_long_answer_is_no_illness() -> None:
    ward = Ward(A, B)
    for second in range(60):
        ward.passes(1)
        ward.served(A, 60.0 if second == 20 else 0.5)
        ward.served(B, 0.5)
    assert not ward.openings


@pytest.mark.parametrize(("keys", "most"), [((A, B), 1), ((A, B, C), 1), ((A, B, C, D), 2)])
def test_never_more_than_half_of_the_peers_are_ejected(keys: tuple[Key, ...], most: int) -> None:
    ward = Ward(*keys)
    ward.passes(10)
    rng = random.Random(1)
    for _ in range(200):
        ward.passes(1)
        bad = (len(keys) + 1) // 2
        for key in keys[:bad]:
            if ward.state(key) == CLOSED:
                errs(ward, key, rng.choice([2, 3]), 7)
            elif ward.state(key) == HALF_OPEN:
                ward.served(key, 0.0)
        for key in keys[bad:]:
            ward.served(key, count=7)
        assert sum(ward.state(key) == OPEN for key in keys) <= most
    assert ward.openings


def test_who_is_ejected_again_soon_is_left_alone_for_longer() -> None:
    ward = Ward(A, B)
    pauses = []
    for _ in range(6):
        ward.passes(1)
        errs(ward, A, 6, 20)
        ward.served(B, count=20)
        ward.passes(1)
        assert ward.state(A) == OPEN
        pauses.append(ward.live.back_in_s(A, ward.now))
        ward.passes(pauses[-1])
        probe = object()
        assert ward.live.began(A, ward.now, probe)
        ward.live.ended(A, True, probe)
        ward.live.succeeded(A, began=ward.now, now=ward.now, first_token_s=None, took_s=0.5, output=5)
    assert pauses == [20, 40, 80, 160, LONGEST_COOLDOWN_S, LONGEST_COOLDOWN_S]


# -- checks -------------------------------------------------------------------------------------------------------


def test_a_bad_check_takes_out_all_targets_of_the_backend_until_a_good_one() -> None:
    ward = Ward(A, B, ALONE)
    ward.passes(10)
    ward.health.checked("a", good=False, now=ward.now, until=ward.now + 13)
    assert [ward.cause(key) for key in (A, B, ALONE)] == [CHECK, "", CHECK]
    assert [ward.state(key) for key in (A, B, ALONE)] == [OPEN, CLOSED, OPEN]
    ward.passes(10)
    ward.health.checked("a", good=False, now=ward.now, until=ward.now + 13)
    ward.passes(10)
    assert ward.state(A) == OPEN
    assert ward.openings == {(A, CHECK): 1, (ALONE, CHECK): 1}
    ward.health.checked("a", good=True, now=ward.now, until=ward.now + 13)
    assert (ward.state(A), ward.state(ALONE)) == (CLOSED, CLOSED)
    assert ward.live.of(A).breaker.share(ward.now) < 1.0  # taken back slowly


def test_when_checks_stop_calls_decide() -> None:
    ward = Ward(A)
    ward.health.checked("a", good=False, now=0.0, until=13.0)
    ward.passes(14)
    assert ward.state(A) == HALF_OPEN


def test_a_good_check_excuses_no_failed_calls() -> None:
    ward = Ward(A, B)
    ward.passes(10)
    ward.fails(A, 5)
    ward.health.checked("a", good=True, now=ward.now, until=ward.now + 13)
    assert (ward.state(A), ward.cause(A)) == (OPEN, ERRORS)
