"""A real gateway over a real scripted backend, on loopback sockets."""

from __future__ import annotations

import functools
import hashlib
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway import tokens
from gateway.app import App
from gateway.charging.ledger import open_ledger
from gateway.config.load import load
from gateway.demo.scripted import ScriptedBackend
from tests.charging import manage
from tests.stage import CONFIG, PLAN, Open, Stage
from tests.virtual import VirtualClock

KEY = "sk-moma-test-key-of-the-suite"
ADMIN_KEY = "admin-key-of-the-suite"
HASTY = ("first_token: 1s, idle: 1s, total: 5s", "first_token: 300ms, idle: 300ms, total: 1s")
ROUTES = """
version: 1
currency: CNY
timezone: UTC
server: {{admin_key: env:MOMA_TEST_ADMIN_KEY}}
storage: {{ledger: "sqlite:{ledger}"}}
defaults:
  timeout: {{connect: 1s, first_token: 1s, idle: 1s, total: 5s}}
  retry: {{attempts: 3, backoff: 10ms..100ms}}
backends:
  a: {{kind: openai, base_url: "{a}", keys: [env:MOMA_TEST_BACKEND_KEY]}}
  b: {{kind: openai, base_url: "{b}"}}
models:
  small: {{via: [a], context: 4k, max_output: 1k, price: {{input: 1, output: 2}}, rates: {{input: 1, output: 2}},
    endpoints: [chat, completions, embeddings], can: [tools, json]}}
  large: {{via: [b], context: 128k, max_output: 4k, price: {{input: 2, output: 8}}, rates: {{input: 3, output: 12}},
    endpoints: [chat, completions, embeddings], can: [tools, json]}}
routes:
  auto: {{pick: [small, large], policy: ordered}}
  long: {{pick: [small], policy: ordered, fallback: {{context: [large]}}}}
plans:
  pro: {{grants: [{{credits: 1M, every: month}}]}}
  tight: {{rpm: 2, concurrency: 1}}
  empty: {{}}
tenants:
  demo: {{plan: pro, keys: ["sha256:{key_hash}"]}}
"""


@dataclass
class World:
    """One gateway, two backends, a client with the tenant's key."""

    app: App
    a: ScriptedBackend
    b: ScriptedBackend
    http: aiohttp.ClientSession
    path: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.app.port}"

    async def chat(self, **body: Any) -> tuple[int, dict[str, Any], dict[str, str]]:
        asked = {"model": "small", "messages": [{"role": "user", "content": "hello there"}], **body}
        async with self.http.post(f"{self.url}/v1/chat/completions", json=asked) as answer:
            return answer.status, await answer.json(), {k.lower(): v for k, v in answer.headers.items()}

    async def charges(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.app.ledger.charges("demo", 0, 5000)["data"]
        return rows

    async def written(self) -> None:
        """Returns when all that the ledger has decided is in its file: what comes after it is."""
        await manage.add_key(self.app.ledger, "demo", secrets.token_hex(32))[1]


@pytest.fixture(scope="session", autouse=True)
def one_vocabulary() -> Iterator[None]:
    """Read once for all gateways of this process: it takes a third of a second, and two in three tests start one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokens, "_o200k", functools.cache(tokens._o200k))
        yield


@pytest.fixture
async def world(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> AsyncIterator[World]:
    monkeypatch.setenv("MOMA_TEST_ADMIN_KEY", ADMIN_KEY)
    monkeypatch.setenv("MOMA_TEST_BACKEND_KEY", "backend-secret")
    async with ScriptedBackend() as a, ScriptedBackend() as b:
        routes = tmp_path / "routes.yaml"
        key_hash = hashlib.sha256(KEY.encode()).hexdigest()
        text = ROUTES.format(ledger=tmp_path / "moma.db", a=a.base_url, b=b.base_url, key_hash=key_hash)
        routes.write_text(text.replace(*HASTY) if request.node.get_closest_marker("hasty") else text)
        app = App(load(routes))
        await app.start("127.0.0.1", 0)
        headers = {"authorization": f"Bearer {KEY}"}
        async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=0)) as http:
            yield World(app, a, b, http, tmp_path)
        await app.aclose()


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Open]:
    """A stage over a ledger of its own, given what the backends do."""
    clock = VirtualClock()
    ledger = await open_ledger(str(tmp_path / "l.db"), clock, "UTC", CONFIG.plans)
    ledger.apply_plan("t", PLAN)
    yield lambda script, **more: Stage(ledger, clock, script, **more)
    await ledger.aclose()
