"""Finished calls as metrics and lines: bounded labels, the conventions' buckets, nothing that was said."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.call import Usage
from gateway.metrics import Metrics
from gateway.recorder import Finished, Recorder


def finished(**more: Any) -> Finished:
    usage = Usage({"input": 100, "input_cached": 20, "output": 11, "calls": 1})
    values: dict[str, Any] = {
        "tenant": "t", "route": "auto", "model": "m", "backend": "b", "outcome": "completed",
        "status": 200, "stream": True, "attempts": 1, "usage": usage, "charged_uc": 1_500_000, "started": 10.0,
        "ended": 14.0, "waited_s": 3.9, "first_token_s": 0.9,
    }  # fmt: skip
    call = Finished("req-1")
    for name, value in (values | more).items():
        setattr(call, name, value)
    return call


class Kept:
    """A recorder with what came out of it."""

    def __init__(self, top: int = 50) -> None:
        self.metrics = Metrics()
        self.lines: list[bytes] = []
        self.recorder = Recorder(self.metrics, top=top, log=self.lines.append)

    def record(self, **more: Any) -> Kept:
        self.recorder.record(finished(**more))
        return self

    def value(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    @property
    def series(self) -> int:
        """Time series, a histogram as one."""
        return sum(
            not sample.name.endswith(("_bucket", "_sum", "_created"))
            for metric in self.metrics.registry.collect()
            for sample in metric.samples
        )


OF_CALL = {"gen_ai_request_model": "auto", "gen_ai_response_model": "m", "gen_ai_provider_name": "b"}


def test_a_call_is_counted_and_measured() -> None:
    kept = Kept().record()
    assert (
        kept.value("moma_requests_total", route="auto", model="m", backend="b", outcome="completed", status="200") == 1
    )
    assert kept.value("gen_ai_server_request_duration_seconds_sum", **OF_CALL) == 4.0
    assert kept.value("gen_ai_server_time_to_first_token_seconds_sum", **OF_CALL) == 0.9
    assert kept.value("gen_ai_server_time_per_output_token_seconds_sum", **OF_CALL) == pytest.approx(0.3)
    assert kept.value("gen_ai_client_token_usage_sum", **OF_CALL, gen_ai_token_type="input") == 120
    assert kept.value("gen_ai_client_token_usage_sum", **OF_CALL, gen_ai_token_type="output") == 11
    assert kept.value("moma_overhead_seconds_sum", stream="true") == pytest.approx(0.1)
    assert kept.value("moma_credits_total", tenant="t", kind="settled") == 1.5


def test_overage_is_counted_apart() -> None:
    kept = Kept().record(overage_uc=250_000)
    assert kept.value("moma_credits_total", tenant="t", kind="overage") == 0.25


@pytest.mark.parametrize("kind", ["rpm", "tpm", "concurrency", "quota"])
def test_refusals_are_counted_by_kind(kind: str) -> None:
    kept = Kept().record(outcome="refused", status=429, refusal=kind, backend="", model="", usage=None)
    assert kept.value("moma_limit_refusals_total", kind=kind) == 1
    assert kept.value("moma_requests_total", route="auto", model="", backend="", outcome="refused", status="429") == 1


@pytest.mark.parametrize(
    ("flags", "missing", "bad"),
    [
        ((), 0, 0),
        (("estimated",), 1, 0),
        (("bad_usage",), 0, 1),
        (("estimated", "partial"), 0, 0),
        (("zero_usage",), 0, 0),
    ],
)
def test_missing_and_bad_usage_are_the_backends(flags: tuple[str, ...], missing: int, bad: int) -> None:
    kept = Kept().record(usage=Usage({"output": 3}, "estimated", flags))
    assert kept.value("moma_usage_missing_total", backend="b") == missing
    assert kept.value("moma_usage_bad_total", backend="b") == bad


@pytest.mark.parametrize("output", [0, 1])
def test_one_token_has_no_time_per_token(output: int) -> None:
    kept = Kept().record(usage=Usage({"output": output} if output else {}))
    assert kept.value("gen_ai_server_time_per_output_token_seconds_count", **OF_CALL) == 0


def test_tenants_beyond_the_top_are_other() -> None:
    kept = Kept(top=3)
    for number in range(100):
        kept.record(tenant=f"t{number}")
    for name in ("t0", "t1", "t2"):
        assert kept.value("moma_credits_total", tenant=name, kind="settled") == 1.5
    assert kept.value("moma_credits_total", tenant="other", kind="settled") == 97 * 1.5


def test_series_are_bounded_whatever_tenants_call_themselves() -> None:
    kept = Kept(top=50)
    kept.record()
    before = kept.series
    for number in range(1000):
        kept.record(tenant=f"t{number}", request_id=f"req-{number}", attempts=number, charged_uc=number)
    assert kept.series - before <= 51


def test_series_stay_when_names_are_made_up() -> None:
    """What the pipeline gives for a call that was refused before it had a route."""
    kept = Kept().record(route="", model="", backend="", usage=None, outcome="refused", status=404)
    before = kept.series
    for number in range(600):
        kept.record(route="", model="", backend="", usage=None, outcome="refused", status=404, tenant=f"t{number}")
    assert kept.series == before


# OpenTelemetry's semantic conventions for generative AI, metrics.
CONVENTIONS = {
    "gen_ai_client_token_usage": [4.0**power for power in range(14)],
    "gen_ai_server_request_duration_seconds": [0.01 * 2**power for power in range(14)],
    "gen_ai_server_time_to_first_token_seconds": [
        0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0,
    ],
    "gen_ai_server_time_per_output_token_seconds": [
        0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5,
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", CONVENTIONS)
def test_buckets_are_those_of_the_conventions(name: str) -> None:
    kept = Kept().record()
    bounds = {
        float(sample.labels["le"])
        for metric in kept.metrics.registry.collect()
        for sample in metric.samples
        if sample.name == f"{name}_bucket"
    }
    assert sorted(bounds)[:-1] == pytest.approx(CONVENTIONS[name])


def test_every_call_is_one_line_of_json() -> None:
    kept = Kept().record().record(usage=None, outcome="aborted", backend="", model="", route="")
    assert [line.count(b"\n") for line in kept.lines] == [1, 1]
    assert all(line.endswith(b"\n") for line in kept.lines)
    first, second = map(orjson.loads, kept.lines)
    assert first == {
        "request_id": "req-1", "tenant": "t", "route": "auto", "model": "m", "backend": "b", "outcome": "completed",
        "status": 200, "stream": True, "attempts": 1,
        "usage": {"input": 100, "input_cached": 20, "output": 11, "calls": 1}, "charged_uc": 1_500_000,
        "duration_ms": 4000.0,
    }  # fmt: skip
    assert second["usage"] is None


def test_without_a_log_nothing_is_written() -> None:
    Recorder(Metrics(), top=1, log=None).record(finished())
