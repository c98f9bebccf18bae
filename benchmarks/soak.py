"""`make soak`: a gateway under steady load, with 5 % of every fault, for half an hour. Does anything grow?

The gateway runs in a process of its own, which is asked for its memory, files and tasks; clients and backends are here.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import aiohttp
import uvloop

from gateway.app import App
from gateway.charging.audit import audit
from gateway.cli.serve import tune_memory
from gateway.config.load import load
from gateway.demo.scripted import CLOSED, HANG, RESET, Fault, Reply, ScriptedBackend, Seen, refusal
from gateway.tenants import key_hash

MINUTES = 30.0
RATE = 50.0
SHARE = 0.05  # of the calls, for each kind of fault
SAMPLE_S = 5.0
SETTLE_S = 8.0  # after the last calls: what has not come back by then never will
LOOK_S = 0.25
WARM = 0.2  # of the time: caches, pools and the allocator find their size
KEY = "sk-moma-soak"
SLOPE_BOUND_MB_H = 1.0
_ROUTES = """
version: 1
server: {{host: 127.0.0.1, max_body: 1MB}}
storage: {{ledger: "sqlite:{folder}/moma.db"}}
defaults: {{timeout: {{connect: 1s, first_token: 1s, idle: 1s, total: 5s}}, breaker: {{cooldown: 2s}}}}
backends:
  a: {{kind: openai, base_url: "{a}"}}
  b: {{kind: openai, base_url: "{b}"}}
models:
  m: {{via: [a, b], context: 128k, max_output: 16k, price: {{input: 2, output: 8}}, quality: 0.5}}
  n: {{via: [b], context: 128k, max_output: 16k, price: {{input: 1, output: 4}}, quality: 0.4}}
routes:
  auto: {{pick: [m, n], policy: balanced}}
plans:
  p: {{grants: [{{credits: 900000M}}], rpm: 1M, tpm: 1000M, concurrency: 1k}}
tenants:
  t: {{plan: p, keys: ["sha256:{key_hash}"]}}
"""
_CHUNK = b'data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"word "}}]}\n\n'
_USAGE = b'data: {"id":"c","choices":[],"usage":%b}\n\ndata: [DONE]\n\n'
_HONEST = b'{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}'


def _stream(*steps: bytes | float | Fault) -> Reply:
    return Reply(headers={"content-type": "text/event-stream"}, stream=[_CHUNK, 0.02, *steps])


BACKEND_FAULTS: dict[str, Reply] = {
    "503": refusal(503),
    "429": refusal(429, retry_after="1"),
    "reset": RESET,
    "closed": CLOSED,
    "hang": HANG,
    "html": Reply(body=b"<html>no</html>"),
    "stream reset": _stream(Fault.RESET),
    "stream cut": _stream(Fault.EOF),
    "stream hangs": _stream(Fault.HANG),
    "no usage": _stream(_CHUNK, b"data: [DONE]\n\n"),
    "lying usage": _stream(_USAGE % b'{"prompt_tokens":-5,"completion_tokens":1e99,"total_tokens":"7"}'),
}
CLIENT_FAULTS = (
    "leaves",
    "wrong key",
    "no JSON",
    "no model",
    "no HTTP",
    "half a body",
    "reads slowly",
    "n of a billion",
)


@dataclass
class Sample:
    """The gateway at one moment: resident memory in MB, open files, tasks, open holds."""

    at_s: float
    rss_mb: float
    files: int
    tasks: int
    holds: int


@dataclass
class Outcome:
    samples: list[Sample] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)  # of the ledger's audit, at the end
    calls: int = 0

    @property
    def slope_mb_h(self) -> float:
        """Median of the slopes between all pairs of samples behind the warm-up (Theil, Sen): peaks weigh little."""
        kept = self.samples[int(len(self.samples) * WARM) : -1]
        slopes = [
            (later.rss_mb - earlier.rss_mb) / (later.at_s - earlier.at_s)
            for n, earlier in enumerate(kept)
            for later in kept[n + 1 :]
        ]
        return median(slopes) * 3600

    def grown(self) -> list[str]:
        """What did not come back to where it was: the first sample is before the load, the last behind it."""
        first, last = self.samples[0], self.samples[-1]
        wrong = [] if last.files <= first.files + 4 else [f"{last.files} files, {first.files} before"]
        wrong += [] if last.tasks <= first.tasks else [f"{last.tasks} tasks, {first.tasks} before"]
        wrong += [f"{last.holds} holds are open"] if last.holds else []
        wrong += [f"{n} answers of 500" for n in [self.statuses["500"]] if n]
        return wrong + self.findings


async def soak(seconds: float, rate: float = RATE, seed: int = 1) -> Outcome:
    rng, outcome = random.Random(seed), Outcome()
    with tempfile.TemporaryDirectory(dir=".") as folder:
        async with ScriptedBackend() as a, ScriptedBackend() as b:
            for backend in (a, b):
                backend.script(_script(backend, rng))
            routes = Path(folder) / "routes.yaml"
            routes.write_text(
                _ROUTES.format(folder=folder, a=a.base_url, b=b.base_url, key_hash=key_hash(KEY)), encoding="utf-8"
            )
            async with _gateway(routes) as (port, sample):
                await _load(port, seconds, rate, rng, outcome, sample)
        outcome.findings = audit(f"{folder}/moma.db")
    return outcome


def _script(backend: ScriptedBackend, rng: random.Random) -> Callable[[Seen], Reply | None]:
    names = list(BACKEND_FAULTS)

    def choose(_: Seen) -> Reply | None:
        if len(backend.requests) > 1000:
            del backend.requests[:500]
        place = int(rng.random() / SHARE)
        return BACKEND_FAULTS[names[place]] if place < len(names) else None

    return choose


async def _load(
    port: int, seconds: float, rate: float, rng: random.Random, outcome: Outcome, sample: Callable[[], Sample]
) -> None:
    tasks: set[asyncio.Task[None]] = set()
    started = time.monotonic()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", connector=connector) as http:
        outcome.samples.append(await asyncio.to_thread(sample))
        next_sample_s = SAMPLE_S
        while (spent_s := time.monotonic() - started) < seconds:
            if spent_s >= next_sample_s:
                outcome.samples.append(await asyncio.to_thread(sample))
                next_sample_s += SAMPLE_S
            outcome.calls += 1
            task = asyncio.create_task(_call(http, port, rng, outcome))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            await asyncio.sleep(rng.expovariate(rate))
        await asyncio.gather(*tasks)
    outcome.samples.append(await asyncio.to_thread(sample))
    settled_s = time.monotonic() + SETTLE_S
    while outcome.grown() and time.monotonic() < settled_s:
        await asyncio.sleep(LOOK_S)
        outcome.samples[-1] = await asyncio.to_thread(sample)


async def _call(http: aiohttp.ClientSession, port: int, rng: random.Random, outcome: Outcome) -> None:
    place = int(rng.random() / SHARE)
    fault = CLIENT_FAULTS[place] if place < len(CLIENT_FAULTS) else ""
    if fault in ("no HTTP", "half a body"):
        outcome.statuses[fault] += 1
        await _raw(port, b"\x16\x03\x01 not http\r\n\r\n" if fault == "no HTTP" else _half_a_body())
        return
    body: dict[str, object] = {
        "model": "nothing" if fault == "no model" else rng.choice(("m", "n", "auto")),
        "messages": [{"role": "user", "content": "hello " * rng.randrange(1, 200)}],
        "stream": rng.random() < 0.5,
        "n": 10**9 if fault == "n of a billion" else 1,
    }
    data = b"{" if fault == "no JSON" else json.dumps(body).encode()
    headers = {"authorization": f"Bearer {'wrong' if fault == 'wrong key' else KEY}"}
    patience_s = rng.uniform(0.0, 0.2) if fault == "leaves" else 30.0
    try:
        async with asyncio.timeout(patience_s), http.post("/v1/chat/completions", data=data, headers=headers) as answer:
            async for _ in answer.content.iter_chunked(64 if fault == "reads slowly" else 65536):
                if fault == "reads slowly":
                    await asyncio.sleep(0.01)
            outcome.statuses[str(answer.status)] += 1
    except TimeoutError:
        outcome.statuses["left" if fault == "leaves" else "hung"] += 1
    except aiohttp.ClientError as error:
        outcome.statuses[type(error).__name__] += 1


def _half_a_body() -> bytes:
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 1000\r\n\r\n"
    )
    return head.encode() + b'{"model": "m"'


async def _raw(port: int, data: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    with contextlib.suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(0.3):
            await reader.read()
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


# -- the process of the gateway ----------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _gateway(routes: Path) -> AsyncIterator[tuple[int, Callable[[], Sample]]]:
    """Its port, and a function that asks it for a sample (it blocks: call it in a thread)."""
    process = await asyncio.to_thread(_start, routes)
    assert process.stdout is not None
    assert process.stdin is not None
    stdin, stdout = process.stdin, process.stdout
    try:
        port = int(await asyncio.to_thread(stdout.readline))
        started = time.monotonic()

        def sample() -> Sample:
            stdin.write("sample\n")
            stdin.flush()
            return Sample(time.monotonic() - started, **json.loads(stdout.readline()))

        yield port, sample
        stdin.close()
        assert await asyncio.to_thread(process.wait, 30) == 0
    finally:
        process.kill()
        process.wait()
        stdout.close()


def _start(routes: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.soak", "--serve", str(routes)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


async def _serve(routes: Path) -> None:
    """The gateway as `moma serve` runs it, which tells of itself for each line on standard input."""
    app = App(load(routes))
    await app.start(port=0)
    tune_memory()
    print(app.port, flush=True)
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        shown = {**_used(), "tasks": len(asyncio.all_tasks()), "holds": app.ledger.open_holds}
        print(json.dumps(shown), flush=True)
    await app.aclose()


def _used() -> dict[str, float]:
    gc.collect()
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return {"rss_mb": int(status.split("VmRSS:")[1].split()[0]) / 1024, "files": len(os.listdir("/proc/self/fd"))}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        uvloop.run(_serve(arguments.serve))
        return 0
    outcome = asyncio.run(soak(arguments.minutes * 60))
    first, last = outcome.samples[0], outcome.samples[-1]
    kinds = len(BACKEND_FAULTS) + len(CLIENT_FAULTS)
    print(f"{outcome.calls:,} calls in {arguments.minutes:g} minutes, {SHARE:.0%} of each of {kinds} faults\n")
    print("| what | before | in the middle | after |\n|---|---|---|---|")
    middle = outcome.samples[len(outcome.samples) // 2]
    for name in ("rss_mb", "files", "tasks", "holds"):
        print(f"| {name} | {getattr(first, name):.0f} | {getattr(middle, name):.0f} | {getattr(last, name):.0f} |")
    print(f"\nslope of the resident memory: {outcome.slope_mb_h:+.2f} MB/h (bound {SLOPE_BOUND_MB_H:g})")
    print("answers:", dict(outcome.statuses.most_common()))
    wrong = outcome.grown()
    print("\n".join(wrong) if wrong else "nothing grew; the ledger's audit finds nothing")
    return 1 if wrong or outcome.slope_mb_h > SLOPE_BOUND_MB_H else 0


if __name__ == "__main__":
    sys.exit(main())
