"""The tables of docs/cache.md: what S3-FIFO keeps, and what a key and a hit cost. `python -m benchmarks.cache`.

`--data` is the folder of the traces (docs/cache.md says which); without it only the synthetic ones are run.
"""

from __future__ import annotations

import argparse
import bisect
import gzip
import itertools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median

import orjson
import uvloop
from cachetools import Cache, LRUCache

from benchmarks import load, processes
from gateway.cache.key import key_of
from gateway.cache.store import ENTRY_BYTES, Answers, Entry
from gateway.call import Request, Usage
from gateway.parse import parse_call

MOONCAKE = "mooncake_conversation.jsonl.gz"
SHARES = (0.01, 0.05, 0.2)  # of the bytes of all different entries
ROUNDS = 9
CALLS = 3_000
CONNECTIONS = 32
BODY_BYTES = 30_000
HITS = {
    "hit, whole, 0 %": load.Load("hit", load.chat("free", stream=False), b"}"),
    "hit, stream, 0 %": load.Load("hit", load.chat("free", stream=True), load.STREAM_END),
    "hit, whole, charged": load.Load("hit", load.chat("charged", stream=False), b"}"),
}
Trace = Sequence[tuple[bytes, int]]  # keys with the bytes of their answers


# -- what is kept -------------------------------------------------------------------------------------------------


def mooncake(folder: Path) -> Trace:
    """512-token blocks of a real service, in the order they were asked for."""
    with gzip.open(folder / MOONCAKE) as lines:
        return [(b"%d" % block, 0) for line in lines for block in orjson.loads(line)["hash_ids"]]


def conversations(folder: Path) -> Trace:
    """The same, by what all but the last two blocks of a prompt are: turns of a conversation, weighted by length."""
    with gzip.open(folder / MOONCAKE) as lines:
        asked = [orjson.loads(line) for line in lines]
    return [(b"%a" % one["hash_ids"][:3], 4 * one["output_length"]) for one in asked]


def zipf(skew: float, keys: int, calls: int, *, once: float = 0.0, seed: int = 1) -> Trace:
    """Some prompts are asked often; a share of calls is asked once and never again."""
    rng = random.Random(seed)
    weights = list(itertools.accumulate(1 / rank**skew for rank in range(1, keys + 1)))
    sizes = [int(rng.lognormvariate(7, 1)) for _ in range(keys)]
    fresh = itertools.count()

    def ask() -> tuple[bytes, int]:
        if rng.random() < once:
            return b"once-%d" % next(fresh), int(rng.lognormvariate(7, 1))
        number = bisect.bisect_left(weights, rng.random() * weights[-1])
        return b"%d" % number, sizes[number]

    return [ask() for _ in range(calls)]


def hit_ratio(cache: Cache[bytes, Entry], trace: Trace) -> float:
    hits = 0
    for key, size in trace:
        if cache.get(key) is not None:
            hits += 1
        elif size + ENTRY_BYTES <= cache.maxsize:
            cache[key] = Entry("t", "r", "m", "b", bytes(size), Usage({}), 0.0)
    return hits / len(trace)


def kept(data: Path | None) -> None:
    traces: dict[str, Trace] = {}
    if data is not None and (data / MOONCAKE).exists():
        traces["Mooncake, blocks of 512 tokens"] = mooncake(data)
        traces["Mooncake, first three blocks"] = conversations(data)
    else:
        print(f"(without {MOONCAKE}: --data names no folder that has it)\n")
    traces["Zipf 0.9"] = zipf(0.9, 20_000, 200_000)
    traces["Zipf 0.9, half of the calls once"] = zipf(0.9, 20_000, 200_000, once=0.5)
    print("| trace | calls | different | cache, share of the bytes | LRU | S3-FIFO |\n|---|---|---|---|---|---|")
    for name, trace in traces.items():
        different = dict(trace)
        total = sum(size + ENTRY_BYTES for size in different.values())
        for share in SHARES:
            size = int(total * share)
            lru = hit_ratio(LRUCache(size, getsizeof=lambda entry: entry.size), trace)
            ours = hit_ratio(Answers(size), trace)
            print(f"| {name} | {len(trace):,} | {len(different):,} | {share:.0%} | {lru:.3f} | {ours:.3f} |")


# -- what it costs ------------------------------------------------------------------------------------------------


def body_of(size: int) -> bytes:
    """Ten messages, a tool, and what else clients send."""
    text = "The quick brown fox jumps over the lazy dog. 敏捷的棕色狐狸。 "
    each = (text * (size // 10 // len(text.encode()) + 1))[: size // 11]
    messages = [{"role": "user" if place % 2 else "assistant", "content": each} for place in range(10)]
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    return orjson.dumps(
        {"model": "m", "messages": messages, "temperature": 0, "tools": [tool], "user": "u", "max_tokens": 9}
    )


def us(work: Callable[[], object], times: int = 300) -> float:
    rounds = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        for _ in range(times):
            work()
        rounds.append((time.perf_counter() - begun) / times * 1e6)
    return min(rounds)


def keys() -> None:
    print("| body | parse, us | key, us | key / parse |\n|---|---|---|---|")
    for size in (1_000, BODY_BYTES, 300_000):
        body = body_of(size)
        request = Request("r", "chat", {}, body)
        call = parse_call(request)
        parse_us = us(lambda request=request: parse_call(request))  # type: ignore[misc]
        key_us = us(lambda call=call: key_of(call, scope="tenant:t", version=bytes(32), max_output=None))  # type: ignore[misc]
        print(f"| {len(body):,} | {parse_us:.0f} | {key_us:.0f} | {key_us / parse_us:.2f} |")


def hits() -> None:
    """CPU of the gateway per call: hits against calls that a backend answers, in turns."""
    print("| call | gateway, us | against a call to a backend |\n|---|---|---|")
    with processes.upstream() as upstream, processes.gateway(upstream.port) as gateway:
        for name, (work, backend_us, hit_us) in measured(gateway):
            print(f"| {name} | {hit_us:.0f} | {hit_us / backend_us:.2f} ({work.name}: {backend_us:.0f}) |")


def measured(gateway: processes.Measured) -> Iterator[tuple[str, tuple[load.Load, float, float]]]:
    for name, hit in HITS.items():
        work = load.W2 if hit.end == load.STREAM_END else load.W1
        rounds = [(_cpu_us(gateway, work), _cpu_us(gateway, hit)) for _ in range(ROUNDS)][1:]
        yield name, (work, median(r[0] for r in rounds), median(r[1] for r in rounds))


def _cpu_us(target: processes.Measured, work: load.Load) -> float:
    before = target.cpu_s()
    uvloop.run(load.run(target.port, work, processes.KEY, CALLS, CONNECTIONS))
    return (target.cpu_s() - before) / CALLS * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cache", description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of the traces")
    data = parser.parse_args().data
    kept(data)
    print()
    keys()
    print()
    hits()


if __name__ == "__main__":
    main()
