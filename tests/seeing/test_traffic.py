"""What the status page says there was lately."""

from __future__ import annotations

import pytest

from gateway.metrics import Metrics
from gateway.status.traffic import LOOK_EVERY_S, Traffic, quantile
from tests.virtual import VirtualClock

MODEL = ("auto", "small", "a")


def watched() -> tuple[Traffic, Metrics, VirtualClock]:
    metrics, clock = Metrics(), VirtualClock()
    return Traffic(metrics, clock), metrics, clock


def live(traffic: Traffic, metrics: Metrics, clock: VirtualClock, seconds: float, calls: float, errors: float) -> None:
    """`calls` and `errors` each time somebody looks."""
    for _ in range(int(seconds / LOOK_EVERY_S)):
        metrics.requests.inc((*MODEL, "completed", 200), calls)
        metrics.requests.inc((*MODEL, "failed", 502), errors)
        clock.at += LOOK_EVERY_S
        traffic.look()


def test_rates_are_of_the_last_five_minutes() -> None:
    traffic, metrics, clock = watched()
    live(traffic, metrics, clock, 600, calls=10, errors=0)
    live(traffic, metrics, clock, 300, calls=1, errors=1)
    recent = traffic.recent(traffic.now())
    assert recent.seconds == 300
    assert recent.rate("calls") == recent.rate("route_calls", "auto") == recent.rate("model_calls", "small") == 12
    assert recent.rate("errors") == 6
    assert recent.share("errors", "calls") == 0.5
    assert recent.share("errors", "calls", "nothing of the kind") is None


def test_before_the_first_look_rates_are_of_what_there_was() -> None:
    traffic, metrics, clock = watched()
    metrics.requests.inc((*MODEL, "completed", 200), 4)
    assert traffic.recent(traffic.now()).rate("calls") == 0  # no time has passed
    clock.at += 2
    assert traffic.recent(traffic.now()).rate("calls") == 120


@pytest.mark.parametrize(
    ("outcome", "status", "kind"),
    [
        ("completed", 200, "completed"),
        ("failed", 429, "errors"),
        ("failed", 502, "errors"),
        ("refused", 503, "errors"),
        ("refused", 429, "refusals"),
        ("refused", 504, "refusals"),  # only-if-cached
        ("aborted", 0, "aborted"),
    ],
)
def test_an_error_is_ours_and_a_refusal_the_clients(outcome: str, status: int, kind: str) -> None:
    traffic, metrics, clock = watched()
    metrics.requests.inc((*MODEL, outcome, status))
    clock.at += 60
    recent = traffic.recent(traffic.now())
    assert {what: recent.total(what) for what in ("calls", kind)} == {"calls": 1, kind: 1}
    assert sum(recent.total(what) for what in ("completed", "errors", "refusals", "aborted")) == 1


def test_what_a_client_can_bring_about_alone_is_no_failure_of_a_backend() -> None:
    traffic, metrics, clock = watched()
    for outcome in ("ok", "rejected", "deadline", "shutdown", "status", "connect", "timeout", "broken"):
        metrics.attempted("a", outcome)
    clock.at += 60
    recent = traffic.recent(traffic.now())
    assert (recent.total("failures", "a"), recent.total("attempts", "a")) == (4, 8)


def test_an_hour_of_minutes_is_kept() -> None:
    traffic, metrics, clock = watched()
    assert traffic.minutes() == []
    live(traffic, metrics, clock, 120, calls=2, errors=0)
    live(traffic, metrics, clock, 60, calls=1, errors=1)
    assert traffic.minutes() == [(12, 0), (12, 0), (12, 6)]
    live(traffic, metrics, clock, 7200, calls=3, errors=0)
    assert traffic.minutes() == [(18, 0)] * 60


def test_tokens_credits_cost_commits_and_tries_are_told_apart() -> None:
    traffic, metrics, clock = watched()
    metrics.tokens.observe((*MODEL, "input"), 100)
    metrics.tokens.observe((*MODEL, "output"), 20)
    metrics.credits.inc(("demo", "settled"), 7)
    metrics.credits.inc(("other", "settled"), 5)
    metrics.credits.inc(("demo", "reserved"), 1000)
    metrics.cost.inc(("small",), 0.5)
    metrics.attempted("a", "ok")
    metrics.attempted("a", "status")
    metrics.committed(0.002, 8)
    metrics.limit_refusals.inc(("rpm",))
    clock.at += 60
    recent, rate = traffic.recent(traffic.now()), traffic.recent(traffic.now()).rate
    assert [rate("tokens"), rate("tokens_input"), rate("tokens_output"), rate("tokens", "small")] == [120, 100, 20, 120]
    assert [rate("settled"), rate("settled", "demo"), rate("cost")] == [12, 7, 0.5]
    assert [recent.share("failures", "attempts", "a"), rate("limits", "rpm")] == [0.5, 1]
    assert [rate("commits"), rate("rows"), recent.quantile("commit", 0.99)] == [1, 8, pytest.approx(0.002, rel=0.02)]


def test_quantiles_are_of_one_backend_and_of_lately() -> None:
    traffic, metrics, clock = watched()
    for _ in range(100):
        metrics.first_token.observe(MODEL, 30.0)
    for _ in range(31):
        clock.at += LOOK_EVERY_S
        traffic.look()
    metrics.first_token.observe(MODEL, 0.05)
    metrics.first_token.observe(("auto", "large", "b"), 5.0)
    recent = traffic.recent(traffic.now())
    assert recent.quantile("first_token", 0.5, "a") == pytest.approx(0.05)
    assert recent.quantile("first_token", 0.5, "b") == pytest.approx(3.75)
    assert recent.quantile("first_token", 1.0) == 5.0
    assert recent.quantile("first_token", 0.5, "nobody") is None


@pytest.mark.parametrize(
    ("counts", "q", "expected"),
    [
        ([0, 0, 0], 0.5, None),
        ([4, 0, 0], 0.5, 0.5),
        ([4, 4, 0], 0.5, 1.0),
        ([4, 4, 0], 0.75, 2.0),
        ([0, 0, 9], 0.5, 3.0),  # beyond the last bound
        ([1, 0, 0], 0.0, 0.0),
    ],
)
def test_quantiles_are_those_of_prometheus(counts: list[int], q: float, expected: float | None) -> None:
    assert quantile((1.0, 3.0), counts, q) == expected
