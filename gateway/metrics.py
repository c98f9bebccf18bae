"""Every metric, declared once (DESIGN.md section 7). Labels are configured names, never keys, URLs or user text."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate, chain, islice
from typing import Final

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway import __version__

# Outcomes of tries that say nothing against a backend: an answer, a call that it rejected (400, 409, 413, 422), the end
# of a client's patience, our own end. All others are the kinds of AttemptFailed.
NO_FAILURE: Final = frozenset({"ok", "rejected", "deadline", "shutdown"})

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
PIECE_SERIES = 50
_BATCH = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


Labels = tuple[str | int, ...]


class Registry(CollectorRegistry):
    """State: the library's, and which collectors write their lines themselves (`Lines`) and which do not."""

    def __init__(self) -> None:
        super().__init__()
        self._ours: list[Lines] = []
        self._others: list[Collector] = []

    def register(self, collector: Collector) -> None:
        super().register(collector)
        if isinstance(collector, Lines):
            self._ours.append(collector)
        else:
            self._others.append(collector)

    def pieces(self) -> Iterator[bytes]:
        """Prometheus' text format, in pieces of a few milliseconds: calls may move, and series appear, in between.

        Ours take a tenth of what the library would take for them.
        """
        lines = chain.from_iterable(collector.lines() for collector in self._ours)
        while piece := "".join(islice(lines, PIECE_SERIES)):
            yield piece.encode()
        yield generate_latest(_Several(self._others))


class _Several(Collector):
    def __init__(self, collectors: Iterable[Collector]) -> None:
        self._collectors = collectors

    def collect(self) -> Iterator[Metric]:
        for collector in self._collectors:
            yield from collector.collect()


class Lines(Collector):
    """What is exposed without the library. Label values are escaped, in the order of their names."""

    def lines(self) -> Iterator[str]:
        """First what it is, then all lines of one series at a time."""
        raise NotImplementedError


def _labelled(names: tuple[str, ...], values: Labels) -> str:
    return ",".join(f'{name}="{_escaped(str(value))}"' for name, value in sorted(zip(names, values, strict=True)))


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


class Count:
    """The value of a counter for one set of labels."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0


class Distribution:
    """A histogram for one set of labels: the observations in each bucket (the last is +Inf), and their sum."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value


class Counts(Lines):
    """A counter with labels. Ours, like `Distributions`: a call moves fifteen, and the library takes a lock for each.

    State: the count per labels, which who moves it often keeps. All of it, and the scrape, belongs to the loop.
    """

    def __init__(self, registry: CollectorRegistry, name: str, text: str, labels: tuple[str, ...]) -> None:
        self._about = (name, text, labels)
        self._series: dict[Labels, Count] = {}
        registry.register(self)

    def of(self, labels: Labels) -> Count:
        count = self._series.get(labels)
        if count is None:
            count = self._series[labels] = Count()
        return count

    def inc(self, labels: Labels, by: float = 1.0) -> None:
        self.of(labels).value += by

    def values(self) -> Iterator[tuple[Labels, float]]:
        return ((labels, count.value) for labels, count in self._series.items())

    def lines(self) -> Iterator[str]:
        name, text, labels = self._about
        yield f"# HELP {name}_total {text}\n# TYPE {name}_total counter\n"
        for values, count in list(self._series.items()):
            yield f"{name}_total{{{_labelled(labels, values)}}} {count.value!r}\n"

    def collect(self) -> Iterator[CounterMetricFamily]:
        name, text, labels = self._about
        family = CounterMetricFamily(name, text, labels=labels)
        for values, count in self._series.items():
            family.add_metric([str(value) for value in values], count.value)
        yield family


class Distributions(Lines):
    """A histogram with labels. State: the distribution per labels."""

    def __init__(
        self, registry: CollectorRegistry, name: str, text: str, labels: tuple[str, ...], bounds: tuple[float, ...]
    ) -> None:
        self._about = (name, text, labels)
        self.bounds = bounds
        self._series: dict[Labels, Distribution] = {}
        registry.register(self)

    def of(self, labels: Labels) -> Distribution:
        series = self._series.get(labels)
        if series is None:
            series = self._series[labels] = Distribution(self.bounds)
        return series

    def observe(self, labels: Labels, value: float) -> None:
        self.of(labels).observe(value)

    def values(self) -> Iterator[tuple[Labels, Distribution]]:
        return iter(self._series.items())

    def lines(self) -> Iterator[str]:
        name, text, labels = self._about
        yield f"# HELP {name} {text}\n# TYPE {name} histogram\n"
        ends = [f'le="{bound}"}} ' for bound in self._shown]
        for values, series in list(self._series.items()):
            said = _labelled(labels, values)
            start = f"{name}_bucket{{{said}," if said else f"{name}_bucket{{"
            seen = list(accumulate(series.counts))
            buckets = "".join([f"{start}{end}{count}\n" for end, count in zip(ends, seen, strict=True)])
            yield f"{buckets}{name}_sum{{{said}}} {series.total!r}\n{name}_count{{{said}}} {seen[-1]}\n"

    @property
    def _shown(self) -> list[str]:
        return [*(str(float(bound)) for bound in self.bounds), "+Inf"]

    def collect(self) -> Iterator[HistogramMetricFamily]:
        name, text, labels = self._about
        family = HistogramMetricFamily(name, text, labels=labels)
        bounds = self._shown
        for values, series in self._series.items():
            buckets = list(zip(bounds, accumulate(series.counts), strict=True))
            family.add_metric([str(value) for value in values], buckets, series.total)
        yield family


class Metrics:
    """One registry per gateway."""

    def __init__(self) -> None:
        r = self.registry = Registry()
        self.tokens = Distributions(
            r, "gen_ai_client_token_usage", "Tokens per call", (*_MODEL, "gen_ai_token_type"), _TOKENS
        )
        self.duration = Distributions(r, "gen_ai_server_request_duration_seconds", "Whole call", _MODEL, _DURATION_S)
        self.first_token = Distributions(
            r, "gen_ai_server_time_to_first_token_seconds", "First content", _MODEL, _FIRST_TOKEN_S
        )
        self.per_token = Distributions(
            r, "gen_ai_server_time_per_output_token_seconds", "After the first", _MODEL, _PER_TOKEN_S
        )
        ended = ("route", "model", "backend", "outcome", "status")
        self.requests = Counts(r, "moma_requests", "Calls ended", ended)
        self.overhead = Distributions(
            r, "moma_overhead_seconds", "Total less waiting for backends", ("stream",), _OVERHEAD_S
        )
        self.attempts = Counts(r, "moma_attempts", "Tries against backends", ("backend", "outcome"))
        self.credits = Counts(r, "moma_credits", "Credits moved", ("tenant", "kind"))
        self.package_alerts = Counts(r, "moma_package_alerts", "Shares of packages that were spent", ("level",))
        self.cost = Counts(r, "moma_cost", "What backends charge us, in the currency", ("model",))
        self.saved = Counts(r, "moma_saved_cost", "What backends would have charged us, in the currency", ("cause",))
        self.usage_missing = Counts(r, "moma_usage_missing", "Answers without usage", ("backend",))
        self.usage_bad = Counts(r, "moma_usage_bad", "Answers with impossible usage", ("backend",))
        self.limit_refusals = Counts(r, "moma_limit_refusals", "Calls refused by a limit", ("kind",))
        self.queued = Gauge("moma_queued_calls", "Calls that wait for room at a limit", ("limit",), registry=r)
        self.openings = Counts(r, "moma_breaker_openings", "Breakers opened", ("backend", "model", "cause"))
        self.kept = Counts(r, "moma_responses_kept", "Responses to keep, and what became of them", ("outcome",))
        self.kept_bytes = Gauge("moma_responses_bytes", "What kept responses take on disk", registry=r)
        self.commit_seconds = Distributions(r, "moma_ledger_commit_seconds", "A group commit with fsync", (), _COMMIT_S)
        self.batch_size = Distributions(r, "moma_ledger_batch_size", "Rows in a group commit", (), _BATCH)
        self.open_holds = Gauge("moma_ledger_open_holds", "Holds not closed yet", registry=r)
        self.spooled = Gauge("moma_ledger_spool_bytes", "Commits that wait for the store, of 16 MB", registry=r)
        self.ledger_available = Gauge("moma_ledger_available", "1: the store takes commits", registry=r)
        self.reconcile_differences = Gauge(
            "moma_reconcile_differences",
            "Where records and balances differ, looked at hourly; -1: they could not be read",
            registry=r,
        )
        self.ready = Gauge("moma_ready", "1: takes calls, as /readyz says", registry=r)
        self.generation = Gauge("moma_config_generation", "Generation of routes.yaml in force", registry=r)
        self.reloaded = Gauge(
            "moma_config_last_reload_successful",
            "0: the one before it is in force",
            registry=r,
        )
        self.reloads = Counts(r, "moma_config_reloads", "Times that routes.yaml was read again", ("outcome",))
        self.build = Gauge("moma_build_info", "Version of the gateway", ("version",), registry=r)
        self.build.labels(__version__).set(1)
        ProcessCollector(registry=r)  # CPU, memory, files: one event loop is full when it has used up one core

    def exposition(self) -> bytes:
        return b"".join(self.registry.pieces())

    def refused(self, status: int) -> None:
        """What is refused before it is a call: without a valid key or body, while shutting down, or no HTTP."""
        self.requests.inc(("", "", "", "refused", status))

    def kept_response(self, outcome: str) -> None:
        self.kept.inc((outcome,))

    def committed(self, seconds: float, size: int) -> None:
        self.commit_seconds.observe((), seconds)
        self.batch_size.observe((), size)

    def attempted(self, backend: str, outcome: str) -> None:
        self.attempts.inc((backend, outcome))


@dataclass(frozen=True, slots=True)
class TargetState:
    """What a scrape shows of a target."""

    backend: str
    model: str
    in_flight: int
    breaker: int  # 0 closed, 1 half-open, 2 open


@dataclass(frozen=True, slots=True)
class CacheState:
    """What a scrape shows of a cache; `lookups` by result: hit, miss, bypass, coalesced."""

    cache: str
    entries: int
    bytes: int
    lookups: Mapping[str, int]


class CacheGauges(Collector):
    """Read from the caches when somebody asks."""

    def __init__(self, caches: Callable[[], Iterable[CacheState]]) -> None:
        self._caches = caches

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return ()

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        lookups = CounterMetricFamily("moma_cache_lookups", "Calls on routes with a cache", labels=("cache", "result"))
        size = GaugeMetricFamily("moma_cache_bytes", "What answers take in memory", labels=("cache",))
        entries = GaugeMetricFamily("moma_cache_entries", "Answers kept", labels=("cache",))
        for state in self._caches():
            size.add_metric((state.cache,), state.bytes)
            entries.add_metric((state.cache,), state.entries)
            for result, count in state.lookups.items():
                lookups.add_metric((state.cache, result), count)
        yield from (lookups, size, entries)


class LiveGauges(Collector):
    """Gauges that are read from what runs when somebody asks: nothing has to keep them up to date.

    `tenants` gives (label, available micro-credits), each label once.
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
        available = GaugeMetricFamily(
            "moma_backend_available", "1: may be asked; 0: its breaker is open", labels=labels
        )
        breaker = GaugeMetricFamily("moma_breaker_state", "0 closed, 1 half-open, 2 open", labels=labels)
        for target in self._targets():
            key = (target.backend, target.model)
            in_flight.add_metric(key, target.in_flight)
            available.add_metric(key, float(target.breaker < 2))
            breaker.add_metric(key, target.breaker)
        yield from (in_flight, available, breaker)
        credits_left = GaugeMetricFamily("moma_tenant_available_credits", "Credits left", labels=("tenant",))
        for label, uc in self._tenants():
            credits_left.add_metric((label,), uc / 1_000_000)
        yield credits_left
