"""What each policy does with live traffic: a gateway and five scripted backends over real sockets.

The backends are those of benchmarks.routing, ten times as fast. `python -m benchmarks.policies` takes three minutes.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles

import aiohttp

from benchmarks.routing import BACKENDS, INPUT_TOKENS, OUTPUT_TOKENS, POLICIES, Scripted
from gateway.app import App
from gateway.config.load import load
from gateway.demo.scripted import Reply, ScriptedBackend, Seen, Step, refusal
from gateway.tenants import key_hash

SECONDS = 20.0
RATE = 50.0  # calls a second, at random moments
FASTER = 10.0
OUTAGE = (0.4, 0.45)  # of the time, in which `shaky` answers nothing but 503
KEY = "sk-moma-benchmark"
_WORD = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"word "}}]}\n\n'
_END = b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}}\n\n'
_BODY = b'{"model":"auto","stream":true,"messages":[{"role":"user","content":"%b"}]}' % (b"word " * INPUT_TOKENS)


@dataclass
class Outcome:
    served: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    cost: float = 0.0  # units of currency
    failed: int = 0
    attempts: int = 0


def _routes(folder: str, policy: str, urls: dict[str, str]) -> str:
    """A model for each backend, and a route over all of them."""
    lines = [
        "version: 1",
        f'storage: {{ledger: "sqlite:{folder}/moma.db"}}',
        "defaults: {timeout: {first_token: 3s, idle: 3s, total: 30s}, breaker: {cooldown: 2s}}",
        "backends:",
        *(f'  {b.name}: {{kind: openai, base_url: "{urls[b.name]}", limits: {{concurrency: {b.concurrency}}}}}'
          for b in BACKENDS),
        "models:",
        *(f"  {b.name}: {{via: [{b.name}], context: 128k, max_output: 4k, quality: {b.quality}, "
          f"price: {{input: {b.price[0]}, output: {b.price[1]}}}}}" for b in BACKENDS),
        f"routes: {{auto: {{pick: [{', '.join(b.name for b in BACKENDS)}], policy: {policy}, affinity: none}}}}",
        "plans: {p: {grants: [{credits: 900000M}]}}",
        f'tenants: {{t: {{plan: p, keys: ["sha256:{key_hash(KEY)}"]}}}}',
    ]  # fmt: skip
    return "\n".join(lines)


def _script(scripted: Scripted, backend: ScriptedBackend, rng: random.Random, down: Callable[[], bool]) -> None:
    def say(_: Seen) -> Reply:
        if (scripted.name == "shaky" and down()) or rng.random() < scripted.errors:
            return refusal(503)
        load = (1.0 + backend.in_flight / scripted.concurrency) / FASTER
        tokens = max(2, round(rng.lognormvariate(0.0, 0.6) * OUTPUT_TOKENS / 1.197))
        quarter_s = (tokens - 1) * scripted.per_token_s * load / 4
        end = _END % (INPUT_TOKENS, tokens, INPUT_TOKENS + tokens)
        words: list[Step] = [_WORD, quarter_s] * 4
        return Reply(stream=[scripted.first_token_s * load, *words, end + b"data: [DONE]\n\n"])

    backend.script(say)


async def run(policy: str, seconds: float = SECONDS, seed: int = 1) -> Outcome:
    rng, outcome, started = random.Random(seed), Outcome(), time.monotonic()

    def down() -> bool:
        return OUTAGE[0] <= (time.monotonic() - started) / seconds < OUTAGE[1]

    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(dir="."))
        urls = {}
        for scripted in BACKENDS:
            backend = await stack.enter_async_context(ScriptedBackend())
            _script(scripted, backend, rng, down)
            urls[scripted.name] = backend.base_url
        routes = Path(folder, "routes.yaml")
        routes.write_text(_routes(folder, policy, urls), encoding="utf-8")  # noqa: ASYNC240
        app = App(load(routes))
        await app.start(port=0)
        stack.push_async_callback(app.aclose)
        headers = {"authorization": f"Bearer {KEY}"}
        connector = aiohttp.TCPConnector(limit=0)
        http = await stack.enter_async_context(aiohttp.ClientSession(headers=headers, connector=connector))
        started = time.monotonic()
        async with asyncio.TaskGroup() as calls:
            while time.monotonic() - started < seconds:
                calls.create_task(_call(http, f"http://127.0.0.1:{app.port}/v1/chat/completions", outcome))
                await asyncio.sleep(rng.expovariate(RATE))
        records = app.ledger.charges("t", 0, 1_000_000)["data"]
        outcome.cost = sum(record["cost"] for record in records) / 1e6
    return outcome


async def _call(http: aiohttp.ClientSession, url: str, outcome: Outcome) -> None:
    started = time.monotonic()
    async with http.post(url, data=_BODY) as answer:
        whole = (await answer.read()).endswith(b"[DONE]\n\n")
        if answer.status == 200 and whole:
            outcome.served[answer.headers["x-moma-backend"]] += 1
            outcome.seconds.append(time.monotonic() - started)
            outcome.attempts += int(answer.headers["x-moma-attempts"])
        else:
            outcome.failed += 1


def main() -> None:
    names = [scripted.name for scripted in BACKENDS]
    print(f"| policy | {' | '.join(names)} | cost of 1,000 calls | p50, s | p95, s | attempts a call | failed |")
    print("|---" * (len(names) + 6) + "|")
    for policy in POLICIES:
        outcome = asyncio.run(run(policy))
        total = outcome.served.total()
        cuts = quantiles(outcome.seconds, n=20)
        shares = " | ".join(f"{100 * outcome.served[name] / total:.0f} %" for name in names)
        print(
            f"| {policy} | {shares} | {outcome.cost / total * 1000:.2f} | {cuts[9]:.2f} | {cuts[18]:.2f} "
            f"| {outcome.attempts / total:.2f} | {outcome.failed} of {total + outcome.failed} |", flush=True,
        )  # fmt: skip


if __name__ == "__main__":
    main()
