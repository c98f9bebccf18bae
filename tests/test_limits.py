"""Token buckets and concurrency, against a model in exact fractions."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config.model import Limits
from gateway.errors import RateLimited
from gateway.limits import Bucket, Gate, Gates, Permit
from tests.virtual import VirtualClock

TICK_S = 60 / 64  # exact in binary, so that fractions and floats agree


def gate(clock: VirtualClock, rpm: int | None = None, tpm: int | None = None, concurrency: int | None = None) -> Gate:
    return Gate(Limits(rpm, tpm, concurrency), clock)


def refusal(gate: Gate, tokens: int = 0) -> RateLimited:
    with pytest.raises(RateLimited) as caught:
        gate.admit(tokens)
    return caught.value


def test_a_bucket_starts_full_and_refills_evenly() -> None:
    clock = VirtualClock()
    limited = gate(clock, rpm=60)
    for _ in range(60):
        limited.admit(0)
    assert refusal(limited).kind == "rpm"
    clock.advance(1.0)
    limited.admit(0)
    assert refusal(limited).retry_after_s == pytest.approx(1.0)


def test_what_is_advised_is_exactly_enough() -> None:
    clock = VirtualClock()
    limited = gate(clock, tpm=1000)
    limited.admit(1000)
    wait_s = refusal(limited, 100).retry_after_s
    assert wait_s == pytest.approx(6.0)
    clock.advance(5.9)
    refusal(limited, 100)
    clock.advance(0.11)
    limited.admit(100)


def test_the_headers_of_a_refusal_advise_in_whole_seconds_and_exactly() -> None:
    clock = VirtualClock()
    limited = gate(clock, rpm=40)
    for _ in range(40):
        limited.admit(0)
    headers = refusal(limited).headers()
    assert (headers["retry-after"], headers["retry-after-ms"]) == ("2", "1500")
    assert headers["x-ratelimit-remaining-requests"] == "0"


def test_a_call_larger_than_the_bucket_needs_a_full_one_and_is_paid_for() -> None:
    clock = VirtualClock()
    limited = gate(clock, tpm=100)
    permit = limited.admit(250)
    permit.release(None)
    assert refusal(limited, 1).retry_after_s == pytest.approx((150 + 1) * 0.6)
    clock.advance(150 * 0.6 + 0.6)
    limited.admit(1)


def test_a_clock_that_goes_back_neither_takes_nor_gives() -> None:
    clock = VirtualClock()
    limited = gate(clock, rpm=60)
    clock.advance(100)
    for _ in range(50):
        limited.admit(0)
    clock.at = 0.0
    for _ in range(10):
        limited.admit(0)
    refusal(limited)
    clock.at = 100.0
    refusal(limited)
    clock.at = 101.0
    limited.admit(0)
    refusal(limited)


def test_an_hour_ahead_fills_a_bucket_once() -> None:
    clock = VirtualClock()
    limited = gate(clock, rpm=5)
    clock.advance(3600)
    for _ in range(5):
        limited.admit(0)
    refusal(limited)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), st.integers(1, 10**9))
def test_refill_never_lowers_and_never_overflows(times: list[float], capacity: int) -> None:
    bucket = Bucket(capacity, 0.0)
    bucket.level = 0.0
    for now in times:
        before = bucket.level
        bucket.refill(now)
        assert before <= bucket.level <= capacity


def test_a_refusal_takes_nothing() -> None:
    clock = VirtualClock()
    limited = gate(clock, rpm=10, tpm=100, concurrency=2)
    limited.admit(100)
    for _ in range(100):
        assert refusal(limited, 50).kind == "tpm"
    assert limited.in_flight == 1
    assert limited.rpm is not None
    assert limited.rpm.level == 9


def test_concurrency_is_given_back_once() -> None:
    limited = gate(VirtualClock(), concurrency=2)
    first = limited.admit(0)
    limited.admit(0)
    error = refusal(limited)
    assert (error.kind, error.status, error.headers()["retry-after"]) == ("concurrency", 429, "1")
    first.release(None)
    first.release(None)
    assert limited.in_flight == 1
    limited.admit(0)
    refusal(limited)


@pytest.mark.parametrize(("actual", "left"), [(None, 900), (30, 970), (100, 900), (400, 600), (0, 1000)])
def test_tpm_is_held_at_the_estimate_and_corrected(actual: int | None, left: int) -> None:
    limited = gate(VirtualClock(), tpm=1000)
    permit = limited.admit(100)
    assert limited.headers()["x-ratelimit-remaining-tokens"] == "900"
    permit.release(actual)
    permit.release(0)
    assert limited.headers()["x-ratelimit-remaining-tokens"] == str(left)


def test_a_correction_never_fills_beyond_the_brim() -> None:
    clock = VirtualClock()
    limited = gate(clock, tpm=1000)
    permit = limited.admit(500)
    clock.advance(60)
    limited.headers()
    permit.release(0)
    assert limited.headers()["x-ratelimit-remaining-tokens"] == "1000"


def test_headers_name_only_the_limits_there_are_and_are_of_now() -> None:
    clock = VirtualClock()
    assert gate(clock).headers() == {}
    assert gate(clock, concurrency=1).headers() == {}
    limited = gate(clock, rpm=60, tpm=600)
    limited.admit(60)
    assert limited.headers() == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-limit-tokens": "600",
        "x-ratelimit-remaining-tokens": "540",
        "x-ratelimit-reset-tokens": "6s",
    }
    clock.advance(3)
    assert limited.headers()["x-ratelimit-remaining-requests"] == "60"
    assert limited.headers()["x-ratelimit-reset-tokens"] == "3s"


def test_remaining_is_never_negative() -> None:
    limited = gate(VirtualClock(), tpm=10)
    limited.admit(10).release(10**9)
    assert limited.headers()["x-ratelimit-remaining-tokens"] == "0"


def test_each_name_has_its_own_gate() -> None:
    gates = Gates(VirtualClock())
    limits = Limits(rpm=1)
    gates.of("a", limits).admit(0)
    gates.of("b", limits).admit(0)
    refusal(gates.of("a", limits))
    refusal(gates.of("b", limits))


class Model:
    """The same limits, in fractions."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.levels = {"rpm": Fraction(limits.rpm or 0), "tpm": Fraction(limits.tpm or 0)}
        self.in_flight = 0

    def tick(self, ticks: int) -> None:
        for kind in self.levels:
            capacity = getattr(self.limits, kind) or 0
            self.levels[kind] = min(Fraction(capacity), self.levels[kind] + Fraction(capacity * ticks, 64))

    def admit(self, tokens: int) -> str | None:
        for kind, amount in (("rpm", 1), ("tpm", tokens)):
            capacity = getattr(self.limits, kind)
            if capacity and self.levels[kind] < min(amount, capacity):
                return kind
        if self.limits.concurrency is not None and self.in_flight >= self.limits.concurrency:
            return "concurrency"
        self.levels["rpm"] -= 1
        self.levels["tpm"] -= tokens
        self.in_flight += 1
        return None

    def release(self, held: int, actual: int | None) -> None:
        self.in_flight -= 1
        if actual is not None:
            self.levels["tpm"] = min(Fraction(self.limits.tpm or 0), self.levels["tpm"] + held - actual)


STEPS = st.one_of(
    st.tuples(st.just("tick"), st.integers(0, 40), st.none()),
    st.tuples(st.just("admit"), st.integers(0, 1500), st.none()),
    st.tuples(st.just("release"), st.integers(0, 20), st.none() | st.integers(0, 3000)),
)
LIMIT = st.none() | st.integers(1, 1000)


@settings(max_examples=300, deadline=None)
@given(st.builds(Limits, LIMIT, LIMIT, st.none() | st.integers(1, 5)), st.lists(STEPS, max_size=60))
def test_a_gate_decides_like_its_model(limits: Limits, steps: list[tuple[str, int, int | None]]) -> None:
    clock, model = VirtualClock(), Model(limits)
    limited = Gate(limits, clock)
    open_permits: list[tuple[Permit, int]] = []
    for step, number, actual in steps:
        if step == "tick":
            clock.at += number * TICK_S
            model.tick(number)
        elif step == "admit":
            if (expected := model.admit(number)) is None:
                open_permits.append((limited.admit(number), number))
            else:
                error = refusal(limited, number)
                assert (error.kind, (error.retry_after_s or 0) > 0) == (expected, True)
        elif open_permits:
            limited.headers()  # what was refilled so far counts before a correction is capped
            permit, held = open_permits.pop(number % len(open_permits))
            permit.release(actual)
            model.release(held, actual)
        assert limited.in_flight == model.in_flight


# -- other limits in mid-flight ------------------------------------------------------------------------------------


def test_a_bucket_of_another_size_is_as_full_as_before() -> None:
    clock = VirtualClock()
    limited = gate(clock, rpm=100, tpm=1000)
    for _ in range(25):
        limited.admit(20)
    limited.change(Limits(rpm=200, tpm=100))
    assert limited.rpm is not None
    assert limited.tpm is not None
    assert (limited.rpm.left, limited.tpm.left) == (150, 50)
    assert limited.headers()["x-ratelimit-limit-requests"] == "200"
    clock.advance(6)
    assert limited.headers()["x-ratelimit-remaining-requests"] == "170"


def test_time_passed_before_a_change_counts_at_the_old_rate() -> None:
    clock = VirtualClock()
    limited = gate(clock, rpm=60)
    for _ in range(60):
        limited.admit(0)
    clock.advance(30)
    limited.change(Limits(rpm=120))
    assert limited.rpm is not None
    assert limited.rpm.left == 60


def test_limits_that_come_and_go_and_calls_that_are_in_flight() -> None:
    limited = gate(VirtualClock(), concurrency=2)
    permits = [limited.admit(0) for _ in range(2)]
    limited.change(Limits(rpm=1, concurrency=1))
    assert refusal(limited).kind == "concurrency"
    permits[0].release(None)
    assert refusal(limited).kind == "concurrency"
    permits[1].release(None)
    limited.admit(0)
    limited.change(Limits())
    assert (limited.in_flight, limited.headers()) == (1, {})


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(1, 1000), st.integers(0, 50)), max_size=20))
def test_no_change_of_limits_fills_a_bucket(changes: list[tuple[int, int]]) -> None:
    limited = gate(VirtualClock(), rpm=1)
    limited.admit(0)
    for rpm, times in changes:
        limited.change(Limits(rpm=rpm))
        for _ in range(times):
            assert refusal(limited).kind == "rpm"


def test_gates_take_the_limits_they_are_asked_with_and_forget_only_who_is_idle() -> None:
    gates = Gates(VirtualClock())
    permit = gates.of("a", Limits(rpm=10)).admit(0)
    gates.of("b", Limits(rpm=10))
    assert gates.of("a", Limits(rpm=20)).concurrency is None
    rpm = gates.of("a", Limits(rpm=20)).rpm
    assert rpm is not None
    assert rpm.left == 18
    gates.keep({"c"})
    assert list(gates._gates) == ["a"]
    permit.release(None)
    gates.keep({"c"})
    assert not gates._gates
