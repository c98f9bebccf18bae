"""`python -m benchmarks.overload`: what becomes of calls that are too many, and of backends that fail or hang.

The gateway, the backends and the load are processes of their own; with two cores the load takes from the gateway.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import re
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson
import uvloop

from benchmarks import open_loop, processes
from benchmarks.open_loop import Sent, percentile
from gateway.demo import processes as children

TENANTS = tuple(f"t{n}" for n in range(10))
HOG, NINE = TENANTS[0], TENANTS[1:]
STORM_RATE = 50.0
HANG_RATE = 40.0
_ROUTES = """
version: 1
storage: {{ledger: "sqlite:{folder}/moma.db"}}
defaults: {{queue: {{length: 100, wait: 5s}}}}
backends: {{{backends}}}
models:
  m: {{via: [{names}], context: 128k, max_output: 16k, price: {{input: 2, output: 8}}}}
plans: {{p: {{grants: [{{credits: 900000M}}]}}}}
tenants: {{{tenants}}}
"""


@dataclass(frozen=True)
class Bottleneck:
    """What a backend takes at once, and how long each call takes."""

    slots: int = 20
    takes_s: float = 0.05

    @property
    def peak(self) -> float:
        """Calls per second that it can serve."""
        return self.slots / self.takes_s


@dataclass
class Scene:
    """A gateway in front of backends, by their ports."""

    gateway: processes.Measured
    backends: list[int]
    bottleneck: Bottleneck

    def says(self, backend: int, path: str = "/") -> dict[str, int]:
        method = "GET" if path == "/" else "POST"
        request = urllib.request.Request(f"http://127.0.0.1:{self.backends[backend]}{path}", method=method)
        with urllib.request.urlopen(request, timeout=5) as answer:
            said: dict[str, int] = orjson.loads(answer.read())
            return said

    def breakers(self) -> dict[str, int]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.gateway.port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
        found = re.findall(r'^moma_breaker_state\{backend="(\w+)",model="m"\} (\S+)', text, re.MULTILINE)
        return {backend: int(float(state)) for backend, state in found}

    async def load(self, rates: dict[str, float], seconds: float) -> list[Sent]:
        return await open_loop.run(self.gateway.port, rates, seconds)


@contextlib.asynccontextmanager
async def scene(
    backends: int = 1,
    bottleneck: Bottleneck = Bottleneck(),
    *,
    limited: bool = True,
) -> AsyncIterator[Scene]:
    """`limited`: the gateway knows what the backends take at once."""
    with contextlib.ExitStack() as stack:
        ports = [children.free_port() for _ in range(backends)]
        slots = ("benchmarks.slots", str(bottleneck.takes_s), *map(str, ports))
        stack.enter_context(processes.started("slots", "/", *slots, port=ports[-1]))
        folder = stack.enter_context(tempfile.TemporaryDirectory(dir="."))
        routes = Path(folder) / "routes.yaml"
        routes.write_text(_routes(folder, ports, bottleneck.slots if limited else None))
        port = children.free_port()
        command = ("gateway", "serve", "-c", str(routes), "--port", str(port))
        gateway = stack.enter_context(processes.started("gateway", "/readyz", *command, port=port))
        yield Scene(gateway, ports, bottleneck)


def _routes(folder: str, ports: Sequence[int], slots: int | None) -> str:
    limits = f", limits: {{concurrency: {slots}}}" if slots else ""
    hashes = {name: hashlib.sha256(f"sk-{name}".encode()).hexdigest() for name in TENANTS}
    return _ROUTES.format(
        folder=folder,
        backends=", ".join(
            f'b{n}: {{kind: openai, base_url: "http://127.0.0.1:{port}/v1"{limits}}}' for n, port in enumerate(ports)
        ),
        names=", ".join(f"b{n}" for n in range(len(ports))),
        tenants=", ".join(f'{name}: {{plan: p, keys: ["sha256:{hashed}"]}}' for name, hashed in hashes.items()),
    )


@dataclass
class Overload:
    """One row: calls per second offered and served, times in ms, the share of one core that the gateway used."""

    times: float
    offered: float
    goodput: float
    rejected: int
    reject_p50: float
    reject_p99: float
    unadvised: int
    other: int  # neither served nor refused as overload
    served_p99: float
    lag_p99: float
    cpu: float


async def overload(at: Scene, times: float, seconds: float) -> Overload:
    """Goodput counts what was answered while the load lasted."""
    cpu_s, began = at.gateway.cpu_s(), time.perf_counter()
    calls = await at.load(dict.fromkeys(TENANTS, at.bottleneck.peak * times / len(TENANTS)), seconds)
    cpu = (at.gateway.cpu_s() - cpu_s) / (time.perf_counter() - began)
    served = [call for call in calls if call.status == 200]
    rejected = [call for call in calls if call.status == 429]
    return Overload(
        times=times,
        offered=len(calls) / seconds,
        goodput=sum(call.ended < began + seconds for call in served) / seconds,
        rejected=len(rejected),
        reject_p50=percentile([call.took_ms for call in rejected], 0.5),
        reject_p99=percentile([call.took_ms for call in rejected], 0.99),
        unadvised=sum(not call.advised for call in rejected),
        other=len(calls) - len(served) - len(rejected),
        served_p99=percentile([call.took_ms for call in served], 0.99),
        lag_p99=percentile([(call.at - call.due) * 1000 for call in calls], 0.99),
        cpu=cpu,
    )


@dataclass
class Fairness:
    """Of the nine tenants at half their share, without and with one at ten times its share; times in ms."""

    alone: list[float]
    beside: list[float]
    success: float
    hog_served: float  # calls per second


async def fairness(at: Scene, seconds: float) -> Fairness:
    share = at.bottleneck.peak / len(TENANTS)
    nine = dict.fromkeys(NINE, share / 2)
    alone = await at.load(nine, seconds)
    calls = await at.load({**nine, HOG: share * 10}, seconds)
    theirs = [call for call in calls if call.tenant != HOG]
    return Fairness(
        alone=[call.took_ms for call in alone],
        beside=[call.took_ms for call in theirs],
        success=sum(call.status == 200 for call in theirs) / len(theirs),
        hog_served=sum(call.status == 200 for call in calls if call.tenant == HOG) / seconds,
    )


async def storm(at: Scene, seconds: float) -> tuple[int, int]:
    """Calls of clients, and calls that backends got of them while all they said was 503."""
    for backend in range(len(at.backends)):
        at.says(backend, "/mode/503")
    before = sum(at.says(backend)["calls"] for backend in range(len(at.backends)))
    calls = await at.load({TENANTS[0]: STORM_RATE}, seconds)
    return len(calls), sum(at.says(backend)["calls"] for backend in range(len(at.backends))) - before


async def hang(at: Scene, seconds: float) -> dict[str, float]:
    """Half of the backends stop answering: after how many seconds the breaker of each is open."""
    half = [f"b{n}" for n in range(len(at.backends) // 2)]
    await at.load({TENANTS[0]: HANG_RATE}, 2.0)
    for name in half:
        at.says(int(name[1:]), "/mode/hang")
    began = time.perf_counter()
    load = asyncio.create_task(at.load({TENANTS[0]: HANG_RATE}, seconds))
    found: dict[str, float] = {}
    while len(found) < len(half) and not load.done():
        await asyncio.sleep(0.05)
        states = await asyncio.to_thread(at.breakers)
        for name, state in states.items():
            if state == 2:
                found.setdefault(name, time.perf_counter() - began)
    load.cancel()
    await asyncio.gather(load, return_exceptions=True)
    return found


async def report(seconds: float) -> int:
    """Prints the tables; returns how many bounds are missed."""
    missed = 0
    slots, takes_ms = Bottleneck().slots, Bottleneck().takes_s * 1000
    print(f"Open loop, ten tenants, {slots} slots of {takes_ms:.0f} ms, queue of 100, {seconds:g} s each\n")
    print(
        "| offered | calls/s | goodput/s | of the peak | refused | refused p50, p99, ms | served p99, ms"
        " | lag of the load p99, ms | CPU of the gateway |\n|---|---|---|---|---|---|---|---|---|"
    )
    async with scene() as at:
        await overload(at, 0.5, 2.0)
        rows = [await overload(at, times, seconds) for times in (1, 2, 5, 10)]
        peak = max(row.goodput for row in rows)
        for row in rows:
            missed += row.times > 1 and (row.goodput < 0.9 * peak or row.reject_p99 >= 20 or row.unadvised > 0)
            missed += row.other > 0
            print(
                f"| {row.times:g} x | {row.offered:,.0f} | {row.goodput:.0f} | {row.goodput / peak:.0%}"
                f" | {row.rejected:,} | {row.reject_p50:.1f}, {row.reject_p99:.1f} | {row.served_p99:.0f}"
                f" | {row.lag_p99:.1f} | {row.cpu:.0%} |"
            )
        print(f"\nMost calls at once in the backend: {at.says(0)['most']} of {slots}\n")
        missed += at.says(0)["most"] > slots
        fair = await fairness(at, seconds)
        alone, beside = percentile(fair.alone, 0.99), percentile(fair.beside, 0.99)
        missed += fair.success < 0.999 or beside >= 1.5 * alone
        print("One tenant at ten times its share, nine at half of theirs\n")
        print("| the nine | served | p99, ms |\n|---|---|---|")
        print(f"| alone | | {alone:.1f} |")
        print(f"| beside the one | {fair.success:.2%} | {beside:.1f} ({beside / alone:.2f} x) |\n")
        print(f"The one is served {fair.hog_served:.0f} calls a second.\n")
    async with scene(2, limited=False) as at:
        asked, sent = await storm(at, 30.0)
        missed += sent > 1.1 * asked
        print(f"Storm of 503 for 30 s: {asked:,} calls of clients, {sent:,} of the gateway ({sent / asked:.2f} x)\n")
    async with scene(4, limited=False) as at:
        opened = await hang(at, 10.0)
        missed += sum(opened.get(name, 99.0) >= 5.0 for name in ("b0", "b1")) + len(opened.keys() - {"b0", "b1"})
        times = ", ".join(f"{name} {took_s:.1f} s" for name, took_s in opened.items())
        print(f"Two of four backends hang, {HANG_RATE:g} calls a second: breakers open after {times}\n")
    return missed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overload", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each load")
    print(f"{processes.machine()}; loopback, all on this machine.\n")
    return 1 if uvloop.run(report(parser.parse_args().seconds)) else 0


if __name__ == "__main__":
    sys.exit(main())
