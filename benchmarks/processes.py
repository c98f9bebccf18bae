"""The measured processes: started, asked for their CPU time and memory, ended."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from gateway.demo import processes as children

KEY = "sk-moma-benchmark"
_ROUTES = """
version: 1
server: {{host: 127.0.0.1}}
storage: {{ledger: "sqlite:{folder}/moma.db"}}
backends:
  a: {{kind: openai, base_url: "http://127.0.0.1:{upstream}/v1", keys: [env:MOMA_BENCHMARK_KEY]}}
  b: {{kind: anthropic, base_url: "http://127.0.0.1:{upstream}/v1", keys: [env:MOMA_BENCHMARK_KEY]}}
models:
  m: {{via: [a], context: 128k, max_output: 16k, price: {{input: 2, output: 8}}, rates: {{input: 1, output: 4}}}}
  n: {{via: [b], context: 128k, max_output: 16k, price: {{input: 2, output: 8}}, rates: {{input: 1, output: 4}}}}
  w: {{via: [a], context: 16k, max_output: 4k, price: {{input: 0, output: 0}}, endpoints: [transcriptions]}}
routes: {{free: {{pick: [m], cache: free}}, charged: {{pick: [m], cache: charged}}}}
cache: {{free: {{sampled: true, ttl: 1h}}, charged: {{sampled: true, ttl: 1h, charge: 10%}}}}
plans: {{p: {{grants: [{{credits: 900000M}}], rpm: 1000M, tpm: 900000M, concurrency: 10k}}}}
tenants: {{t: {{plan: p, keys: ["sha256:{key_hash}"]}}}}
"""


class Measured:
    """One process of interest."""

    def __init__(self, name: str, child: children.Child, port: int, ready_s: float) -> None:
        self.name = name
        self.port = port
        self.ready_s = ready_s
        self._child = child

    def cpu_s(self) -> float:
        """User and system time of its present threads so far, in nanoseconds: a tick would be 3 % of a round."""
        tasks = Path(f"/proc/{self._child.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9

    def rss_mb(self) -> float:
        status = Path(f"/proc/{self._child.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024


@contextlib.contextmanager
def started(name: str, path: str, *command: str, port: int) -> Iterator[Measured]:
    begun = time.perf_counter()
    environment = {**os.environ, "MOMA_BENCHMARK_KEY": "benchmark"}
    child = children.start(*command, env=environment, quiet=True)
    try:
        children.wait_ready(child, port, path, 30)
        yield Measured(name, child, port, time.perf_counter() - begun)
    finally:
        children.stop(child)


@contextlib.contextmanager
def upstream() -> Iterator[Measured]:
    port = children.free_port()
    with started("upstream", "/", "benchmarks.upstream", str(port), port=port) as measured:
        yield measured


@contextlib.contextmanager
def demo_backend() -> Iterator[Measured]:
    """It looks into what it is sent."""
    port = children.free_port()
    with started("demo backend", "/v1/models", "gateway.demo.backend", str(port), port=port) as measured:
        yield measured


@contextlib.contextmanager
def relay(upstream_port: int) -> Iterator[Measured]:
    port = children.free_port()
    url = f"http://127.0.0.1:{upstream_port}"
    with started("bare relay", "/", "benchmarks.relay", str(port), url, port=port) as measured:
        yield measured


@contextlib.contextmanager
def gateway(upstream_port: int, *arguments: str) -> Iterator[Measured]:
    """Everything on: keys, limits, choice, holds, durable settle, usage, metrics. The ledger's file is on this disk."""
    port = children.free_port()
    with tempfile.TemporaryDirectory(dir=".") as folder:
        key_hash = hashlib.sha256(KEY.encode()).hexdigest()
        routes = Path(folder) / "routes.yaml"
        routes.write_text(_ROUTES.format(folder=folder, upstream=upstream_port, key_hash=key_hash))
        command = ("gateway", "serve", "-c", str(routes), "--port", str(port), *arguments)
        with started("gateway", "/readyz", *command, port=port) as measured:
            yield measured


def machine() -> str:
    """Processor, cores and Python: never names or paths of this machine."""
    info = Path("/proc/cpuinfo").read_text()
    model = next((line.split(":", 1)[1].strip() for line in info.splitlines() if line.startswith("model name")), "?")
    return f"{model}, {os.cpu_count()} cores, {subprocess.check_output(['python3', '-V'], text=True).strip()}"
