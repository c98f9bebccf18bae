"""How long the event loop stands still for who looks: the table in docs/monitoring.md. `python -m benchmarks.seeing`.

The real metrics and the real status page, with a series for each of so many combinations of route, model and backend.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import generate_latest

from gateway.config.model import Config
from gateway.metrics import Metrics, TargetState
from gateway.status.page import document
from gateway.status.sections import View
from gateway.status.traffic import Traffic
from tests.virtual import VirtualClock, backend, config, model, route

MODELS = (3, 30, 300)
ROUTES = ("auto", "fast", "by-name")
BACKENDS = ("a", "b", "c")
ROUNDS = 5


def busy(models: int) -> Metrics:
    """As after calls to every model by every route at every backend."""
    metrics = Metrics()
    for number in range(models):
        for name in ROUTES:
            for at in BACKENDS:
                labels = (name, f"model-{number}", at)
                metrics.requests.inc((*labels, "completed", 200))
                metrics.requests.inc((*labels, "failed", 502))
                metrics.duration.observe(labels, 1.5)
                metrics.first_token.observe(labels, 0.3)
                metrics.per_token.observe(labels, 0.02)
                for kind in ("input", "output"):
                    metrics.tokens.observe((*labels, kind), 500)
    return metrics


def page(traffic: Traffic, settings: Config) -> bytes:
    now = traffic.now()
    targets = [TargetState(at, name, 1, 0) for name in settings.models for at in BACKENDS]
    return document(
        View(
            config=settings, generation=1, now_ms=0, up_s=60.0, not_ready=[], ledger_available=True, open_holds=0,
            targets=targets, tenants=[(str(number), 1) for number in range(51)], recent=traffic.recent(now), so_far=now,
            minutes=[(60, 1)] * 60,
        )
    ).encode()  # fmt: skip


def best_ms(work: Callable[[], object]) -> float:
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times) * 1000


def longest_ms(metrics: Metrics) -> float:
    """The longest piece of a scrape: nothing else runs on the loop meanwhile."""
    longest = []
    for _ in range(ROUNDS):
        at, times = time.perf_counter(), []
        for _ in metrics.registry.pieces():
            times.append(time.perf_counter() - at)
            at = time.perf_counter()
        longest.append(max(times))
    return min(longest) * 1000


def main() -> None:
    print("| models | combinations | scrape, ms | longest piece | by the library | look, ms | page, ms | page, kB |")
    print("|---|---|---|---|---|---|---|---|")
    for count in MODELS:
        print(line(count))


def line(count: int) -> str:
    metrics = busy(count)
    traffic = Traffic(metrics, VirtualClock())
    names = [f"model-{number}" for number in range(count)]
    settings = config(
        [backend(at) for at in BACKENDS], [model(name, *BACKENDS) for name in names], [route("auto", *names)]
    )
    figures = (
        best_ms(metrics.exposition),
        longest_ms(metrics),
        best_ms(lambda: generate_latest(metrics.registry)),
        best_ms(traffic.look),
        best_ms(lambda: page(traffic, settings)),
        len(page(traffic, settings)) / 1000,
    )
    cells = (f"{count}", f"{count * len(ROUTES) * len(BACKENDS):,}", *(f"{figure:,.1f}" for figure in figures))
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
