"""CPU per call: the gateway with everything on against the bare relay, in turns within one run."""

from __future__ import annotations

from statistics import median

import uvloop

from benchmarks import load, processes

CONNECTIONS = 32
ROUNDS = 15  # in turns, because neighbours of the machine come and go within seconds
CALLS = {"W1": 4_000, "W2": 2_000}
BOUND = {"W1": 1.4, "W2": 1.6}


def measure(scale: float = 1.0) -> list[tuple[str, float, float, float, float]]:
    """Per load: its name, microseconds per call of the relay and of the gateway, their ratio, its bound."""
    rows = []
    with (
        processes.upstream() as upstream,
        processes.relay(upstream.port) as relay,
        processes.gateway(upstream.port) as gateway,
    ):
        for work in (load.W1, load.W2):
            calls = int(CALLS[work.name] * scale)
            for target in (relay, gateway):
                cpu_us(target, work, max(200, calls // 5))  # warm: connections, allocator, caches
            # In turns, so that a slow minute of the machine meets both; the ratio is taken within a round.
            rounds = [(cpu_us(relay, work, calls), cpu_us(gateway, work, calls)) for _ in range(ROUNDS)]
            ratio = median(ours / bare for bare, ours in rounds)
            bare_us, ours_us = median(r[0] for r in rounds), median(r[1] for r in rounds)
            rows.append((work.name, bare_us, ours_us, ratio, BOUND[work.name]))
    return rows


def cpu_us(target: processes.Measured, work: load.Load, calls: int) -> float:
    before = target.cpu_s()
    uvloop.run(load.run(target.port, work, processes.KEY, calls, CONNECTIONS))
    return (target.cpu_s() - before) / calls * 1e6


if __name__ == "__main__":
    for row in measure():
        print(*row)
