"""Start to ready, and resident memory: after start with the vocabulary loaded, and over many calls."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median

import uvloop

from benchmarks import load, processes

CALLS = 100_000
CONNECTIONS = 32
SAMPLES = 10
STARTS = 5
READY_BOUND_S = 1.0
RSS_BOUND_MB = 200.0
_VOCABULARY_S = 3.0  # it is loaded in a thread after ready


@dataclass(frozen=True)
class Memory:
    """`after` holds the resident MB after each tenth of the calls."""

    ready_s: float
    idle_mb: float
    after: list[float]


def measure(calls: int = CALLS) -> Memory:
    with processes.upstream() as upstream:
        ready_s = median(_ready_s(upstream.port) for _ in range(STARTS))
        with processes.gateway(upstream.port) as gateway:
            time.sleep(_VOCABULARY_S)
            idle_mb, after = gateway.rss_mb(), []
            for n in range(SAMPLES):
                work = load.W2 if n % 2 else load.W1
                uvloop.run(load.run(gateway.port, work, processes.KEY, calls // SAMPLES, CONNECTIONS))
                after.append(gateway.rss_mb())
    return Memory(ready_s, idle_mb, after)


def _ready_s(upstream_port: int) -> float:
    with processes.gateway(upstream_port) as gateway:
        return gateway.ready_s


if __name__ == "__main__":
    print(measure())
