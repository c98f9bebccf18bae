"""`make bench`: every table of docs/benchmarks.md, written to standard output. Ends with 1 when a bound is missed."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime

from benchmarks import cpu, ledger, memory, processes


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("part", nargs="?", choices=PARTS, help="one part of the tables; all when none is named")
    part = parser.parse_args().part
    print(f"Measured on {datetime.now(UTC):%Y-%m-%d}: {processes.machine()}; loopback, all on this machine.\n")
    missed = sum(PARTS[name]() for name in ([part] if part else PARTS))
    return 1 if missed else 0


def _cpu() -> int:
    print(f"CPU per call, {cpu.CONNECTIONS} connections in a closed loop, median of {cpu.ROUNDS} rounds in turns\n")
    print("| load | calls a round | bare relay, us | gateway, us | ratio | bound |\n|---|---|---|---|---|---|")
    rows = cpu.measure()
    for name, bare_us, ours_us, ratio, bound in rows:
        print(f"| {name} | {cpu.CALLS[name]:,} | {bare_us:.0f} | {ours_us:.0f} | {ratio:.2f} | {bound} |")
    print()
    return sum(row[3] > row[4] for row in rows)


def _ledger() -> int:
    print(f"Durable charges per second, {ledger.ROUNDS} rounds of {ledger.SECONDS:g} s each in turns\n")
    print("| concurrent | raw group commit | ledger | ratio | bound |\n|---|---|---|---|---|")
    rows = ledger.measure()
    for concurrent, raw, ours, ratio in rows:
        print(f"| {concurrent} | {raw:,.0f} | {ours:,.0f} | {ratio:.2f} | {ledger.BOUND} |")
    print()
    return sum(row[3] < ledger.BOUND for row in rows)


def _memory() -> int:
    found = memory.measure()
    print(f"Start and memory, {memory.CALLS:,} calls of W1 and W2 in turns, {memory.CONNECTIONS} connections\n")
    print("| what | figure | bound |\n|---|---|---|")
    print(f"| start to ready, s, median of {memory.STARTS} | {found.ready_s:.2f} | {memory.READY_BOUND_S:g} |")
    print(f"| resident after start, vocabulary loaded, MB | {found.idle_mb:.0f} | {memory.RSS_BOUND_MB:g} |")
    tenths = ", ".join(f"{mb:.0f}" for mb in found.after)
    print(f"| resident after each tenth of the calls, MB | {tenths} | {memory.RSS_BOUND_MB:g} |")
    print()
    return (found.ready_s > memory.READY_BOUND_S) + (max(found.after) > memory.RSS_BOUND_MB)


PARTS = {"cpu": _cpu, "ledger": _ledger, "memory": _memory}


if __name__ == "__main__":
    sys.exit(main())
