"""A gateway whose models are behind one scripted backend of each kind."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.adapters.kinds import ADAPTERS
from gateway.app import App
from gateway.config.load import load
from gateway.demo.scripted import Fault, Reply, ScriptedBackend, Seen
from tests.charging import manage
from tests.pairs.meaning import JSON, Ask, Backend, Client, Said
from tests.pairs.speaks_anthropic import AnthropicBackend, MessagesClient
from tests.pairs.speaks_chat import AzureBackend, ChatBackend, ChatClient
from tests.pairs.speaks_gemini import GeminiBackend
from tests.pairs.speaks_responses import ResponsesClient

KEY = "sk-moma-test-key-of-the-pairs"
POOR_KEY = "sk-moma-test-key-of-a-small-package"
ROUTES = """
version: 1
currency: CNY
timezone: UTC
storage: {{ledger: "sqlite:{ledger}"}}
defaults: {{timeout: {{connect: 2s, first_token: 5s, idle: 5s, total: 20s}}, retry: {{attempts: 1}}}}
backends: {{{backends}}}
models: {{{models}}}
routes: {{{routes}}}
cache: {{all: {{ttl: 10m, sampled: true, charge: 50%}}}}
plans: {{pro: {{grants: [{{credits: 100M}}]}}, small: {{grants: [{{credits: 5k}}]}}}}
tenants:
  demo: {{plan: pro, keys: ["sha256:{key_hash}"]}}
  poor: {{plan: small, keys: ["sha256:{poor_hash}"]}}
"""
MODEL = (
    "{name}-{kind}: {{via: [{{backend: {kind}, as: backend-model}}], context: 128k, max_output: 4k,"
    " price: {{input: 1, input_cached: 0.1, output: 2}}, rates: {{input: 1, input_cached: 0.1, output: 2}},"
    " can: [tools, json, vision, reasoning{more}]}}"
)
SAID = Said("hello")
BACKENDS: Sequence[Backend] = [
    b for b in (ChatBackend(), AzureBackend(), AnthropicBackend(), GeminiBackend()) if b.kind in ADAPTERS
]
CLIENTS: Sequence[Client] = [ChatClient(), MessagesClient(), ResponsesClient()]


@dataclass
class Pairs:
    """What backends have understood is in `asked`; what they say next is `said`, or one of what else may happen."""

    app: App
    http: aiohttp.ClientSession
    asked: list[Ask] = field(default_factory=list)
    bodies: list[JSON] = field(default_factory=list)
    said: Said = SAID
    refusal: tuple[int, str] | None = None
    cut_after: int | None = None  # events

    def reply(self, backend: Backend, seen: Seen) -> Reply:
        self.bodies.append(seen.body)
        self.asked.append(backend.understands(seen.path, seen.headers, seen.body))
        if self.refusal is not None:
            status, message = self.refusal
            return Reply(status, body=backend.refuses(status, message))
        if not backend.streams(seen.path, seen.body):
            return Reply(body=backend.says(self.said))
        events = backend.events(self.said)
        if self.cut_after is not None:
            return Reply(stream=[*events[: self.cut_after], 0.05, Fault.RESET])
        return Reply(stream=events)

    async def call(self, client: Client, backend: Backend, ask: Ask, *, stream: bool) -> tuple[int, bytes]:
        return await self.send(client, client.asks(ask, f"m-{backend.kind}", stream=stream))

    async def send(self, client: Client, body: JSON, key: str = KEY) -> tuple[int, bytes]:
        url = f"http://127.0.0.1:{self.app.port}{client.path}"
        async with self.http.post(url, json=body, headers=client.headers(key)) as answer:
            return answer.status, await answer.read()

    async def charges(self, tenant: str = "demo") -> list[dict[str, Any]]:
        """All of them, once all that the ledger has decided is in its file."""
        await manage.add_key(self.app.ledger, "demo", secrets.token_hex(32))[1]
        rows: list[dict[str, Any]] = self.app.ledger.charges(tenant, 0, 5000)["data"]
        return rows


def hashed(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


@pytest.fixture
async def pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pairs]:
    monkeypatch.setenv("MOMA_TEST_PAIRS_KEY", "the-key")
    servers = [ScriptedBackend() for _ in BACKENDS]
    for server in servers:
        await server.__aenter__()
    backends = ", ".join(
        f'{b.kind}: {{kind: {b.kind}, base_url: "{b.base_url(s.url)}", keys: [env:MOMA_TEST_PAIRS_KEY], {b.settings}}}'
        for b, s in zip(BACKENDS, servers, strict=True)
    )
    routes = tmp_path / "routes.yaml"
    named = {"m": ", extras", "plain": ""}
    models = ", ".join(MODEL.format(kind=b.kind, name=n, more=m) for n, m in named.items() for b in BACKENDS)
    kept = ", ".join(f"kept-{b.kind}: {{pick: [m-{b.kind}], cache: all}}" for b in BACKENDS)
    parts = {"backends": backends, "models": models, "routes": kept}
    hashes = {"key_hash": hashed(KEY), "poor_hash": hashed(POOR_KEY)}
    routes.write_text(ROUTES.format(ledger=tmp_path / "moma.db", **parts, **hashes))
    app = App(load(routes))
    await app.start("127.0.0.1", 0)
    async with aiohttp.ClientSession() as http:
        world = Pairs(app, http)
        for backend, server in zip(BACKENDS, servers, strict=True):
            server.script(lambda seen, backend=backend: world.reply(backend, seen))  # type: ignore[misc]
        yield world
    await app.aclose()
    for server in servers:
        await server.__aexit__()
