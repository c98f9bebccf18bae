"""A real gateway over scripted backends whose models serve every endpoint there is."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import openai
import pytest

from gateway.app import App
from gateway.config.load import load
from gateway.demo.scripted import ScriptedBackend
from tests.conftest import ADMIN_KEY, KEY, World

ROUTES = """
version: 1
currency: CNY
timezone: UTC
server: {{admin_key: env:MOMA_TEST_ADMIN_KEY}}
storage: {{ledger: "sqlite:{ledger}"}}
defaults:
  timeout: {{connect: 1s, first_token: 5s, idle: 5s, total: 30s}}
  retry: {{attempts: 3, backoff: 10ms..100ms}}
backends:
  a: {{kind: openai, base_url: "{a}"}}
  b: {{kind: openai, base_url: "{b}", on_disconnect: drain}}
models:
  judge: {{via: [{{backend: a, as: judge-v2}}, {{backend: b, as: judge-v2}}], context: 4k, max_output: 1,
    price: {{input: 1}}, rates: {{input: 2}}, endpoints: [rerank]}}
  vectors: {{via: [a], context: 4k, max_output: 1, price: {{input: 1}}, rates: {{input: 1}}, endpoints: [embeddings]}}
  painter: {{via: [{{backend: a, as: gpt-image-1}}], context: 4k, max_output: 1k, endpoints: [images],
    price: {{input: 5, output: 40, images: 100}}, rates: {{input: 1, input_image: 2, output: 3, images: 50}}}}
  speaker: {{via: [{{backend: a, as: tts-1}}], context: 4k, max_output: 2k, endpoints: [speech],
    price: {{input: 1, output: 1, audio_ms: 1}}, rates: {{input: 2, output: 1, audio_ms: "0.01"}}}}
  patient: {{via: [b], context: 4k, max_output: 2k, endpoints: [speech],
    price: {{input: 1, output: 1, audio_ms: 1}}, rates: {{input: 2, output: 1, audio_ms: "0.01"}}}}
  hearer: {{via: [{{backend: a, as: whisper-1}}, {{backend: b, as: whisper-b, weight: 1}}], context: 4k, max_output: 2k,
    price: {{input: 1, output: 1, audio_ms: 6}}, rates: {{input: 1, input_audio: 3, output: 2, audio_ms: "0.02"}},
    endpoints: [transcriptions, translations]}}
  talker: {{via: [a], context: 4k, max_output: 1k, price: {{input: 1, output: 2}}}}
routes:
  sure: {{pick: [judge, vectors, painter], policy: ordered, cache: short}}
  hear: {{pick: [hearer], policy: ordered}}
cache:
  short: {{mode: exact, ttl: 10m, charge: 50%, sampled: true}}
plans:
  pro: {{grants: [{{credits: 100M, every: month}}]}}
tenants:
  demo: {{plan: pro, keys: ["sha256:{key_hash}"]}}
"""


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setenv("MOMA_TEST_ADMIN_KEY", ADMIN_KEY)
    async with ScriptedBackend() as a, ScriptedBackend() as b:
        routes = tmp_path / "routes.yaml"
        key_hash = hashlib.sha256(KEY.encode()).hexdigest()
        routes.write_text(ROUTES.format(ledger=tmp_path / "moma.db", a=a.base_url, b=b.base_url, key_hash=key_hash))
        app = App(load(routes))
        await app.start("127.0.0.1", 0)
        while not app._parts.tokenizer.ready:  # what is counted here is counted exactly from then on
            await asyncio.sleep(0.01)
        headers = {"authorization": f"Bearer {KEY}"}
        async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=0)) as http:
            yield World(app, a, b, http, tmp_path)
        await app.aclose()


@pytest.fixture
async def sdk(world: World) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{world.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


Post = Callable[..., "aiohttp.client._RequestContextManager"]


@pytest.fixture
def post(world: World) -> Post:
    """A call of an endpoint, with a body of JSON."""
    return lambda path, headers=None, **body: world.http.post(f"{world.url}/v1/{path}", json=body, headers=headers)
