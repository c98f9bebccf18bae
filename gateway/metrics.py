"""Every metric, declared once (DESIGN.md section 7). Labels are configured names, never keys, URLs or user text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from gateway import __version__

_MODEL = ("gen_ai_request_model", "gen_ai_response_model", "gen_ai_provider_name")
# OpenTelemetry's GenAI conventions.
_DURATION_S = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_FIRST_TOKEN_S = (
    0.001,
    0.005,
    0.01,
    0.02,
    0.04,
    0.06,
    0.08,
    0.1,
    0.25,
    0.5,
    0.75,
    1.0,
    2.5,
    5.0,
    7.5,
    10.0,
    30.0,
    60.0,
)
_PER_TOKEN_S = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
_TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)
_OVERHEAD_S = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0)
_COMMIT_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0)
_BATCH = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """One registry per gateway."""

    def __init__(self) -> None:
        r = self.registry = CollectorRegistry()
        self.tokens = Histogram(
            "gen_ai_client_token_usage",
            "Tokens per call",
            (*_MODEL, "gen_ai_token_type"),
            registry=r,
            buckets=_TOKENS,
        )
        self.duration = Histogram(
            "gen_ai_server_request_duration_seconds", "Whole call", _MODEL, registry=r, buckets=_DURATION_S
        )
        self.first_token = Histogram(
            "gen_ai_server_time_to_first_token_seconds", "First content", _MODEL, registry=r, buckets=_FIRST_TOKEN_S
        )
        self.per_token = Histogram(
            "gen_ai_server_time_per_output_token_seconds", "After the first", _MODEL, registry=r, buckets=_PER_TOKEN_S
        )
        self.requests = Counter(
            "moma_requests_total", "Calls ended", ("route", "model", "backend", "outcome", "status"), registry=r
        )
        self.overhead = Histogram(
            "moma_overhead_seconds", "Total less waiting for backends", ("stream",), registry=r, buckets=_OVERHEAD_S
        )
        self.attempts = Counter("moma_attempts_total", "Tries against backends", ("backend", "outcome"), registry=r)
        self._attempts: dict[tuple[str, str], Counter] = {}  # labels() costs three times an increment
        self.credits = Counter("moma_credits_total", "Credits moved", ("tenant", "kind"), registry=r)
        self.cost = Counter("moma_cost_total", "What backends charge us, in the currency", ("model",), registry=r)
        self.usage_missing = Counter("moma_usage_missing_total", "Answers without usage", ("backend",), registry=r)
        self.usage_bad = Counter("moma_usage_bad_total", "Answers with impossible usage", ("backend",), registry=r)
        self.limit_refusals = Counter("moma_limit_refusals_total", "Calls refused by a limit", ("kind",), registry=r)
        self.commit_seconds = Histogram(
            "moma_ledger_commit_seconds", "A group commit with fsync", registry=r, buckets=_COMMIT_S
        )
        self.batch_size = Histogram("moma_ledger_batch_size", "Rows in a group commit", registry=r, buckets=_BATCH)
        self.open_holds = Gauge("moma_ledger_open_holds", "Holds not closed yet", registry=r)
        self.generation = Gauge("moma_config_generation", "Generation of routes.yaml in force", registry=r)
        self.build = Gauge("moma_build_info", "Version of the gateway", ("version",), registry=r)
        self.build.labels(__version__).set(1)

    def exposition(self) -> bytes:
        return generate_latest(self.registry)

    def committed(self, seconds: float, size: int) -> None:
        self.commit_seconds.observe(seconds)
        self.batch_size.observe(size)

    def attempted(self, backend: str, outcome: str) -> None:
        counter = self._attempts.get((backend, outcome))
        if counter is None:
            counter = self._attempts[backend, outcome] = self.attempts.labels(backend, outcome)
        counter.inc()


@dataclass(frozen=True, slots=True)
class TargetState:
    """What a scrape shows of a target."""

    backend: str
    model: str
    in_flight: int
    available: bool


class LiveGauges(Collector):
    """Gauges that are read from what runs when somebody asks: nothing has to keep them up to date.

    `tenants` gives (label, available micro-credits); entries of the same label are added up.
    """

    def __init__(
        self, targets: Callable[[], Iterable[TargetState]], tenants: Callable[[], Iterable[tuple[str, int]]]
    ) -> None:
        self._targets = targets
        self._tenants = tenants

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return ()  # or registering would read them before anything runs

    def collect(self) -> Iterator[GaugeMetricFamily]:
        labels = ("backend", "model")
        in_flight = GaugeMetricFamily("moma_backend_in_flight", "Attempts under way", labels=labels)
        available = GaugeMetricFamily("moma_backend_available", "1: may be asked; 0: ejected", labels=labels)
        breaker = GaugeMetricFamily("moma_breaker_state", "0 closed, 1 half-open, 2 open", labels=labels)
        for target in self._targets():
            key = (target.backend, target.model)
            in_flight.add_metric(key, target.in_flight)
            available.add_metric(key, float(target.available))
            breaker.add_metric(key, 0 if target.available else 2)
        yield from (in_flight, available, breaker)
        left: dict[str, int] = {}
        for label, uc in self._tenants():
            left[label] = left.get(label, 0) + uc
        credits_left = GaugeMetricFamily("moma_tenant_available_credits", "Credits left", labels=("tenant",))
        for label, uc in left.items():
            credits_left.add_metric((label,), uc / 1_000_000)
        yield credits_left
