"""A gateway with one model, behind one honest backend of each kind: what a call asks for decides which can serve it."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest

from gateway.app import App
from gateway.config.load import load
from gateway.demo.scripted import Reply, ScriptedBackend, Seen
from tests.conftest import KEY, World
from tests.pairs.meaning import Backend, Said
from tests.pairs.speaks_anthropic import AnthropicBackend
from tests.pairs.speaks_gemini import GeminiBackend

MODEL = "any"
KINDS = ("plain", "azure", "anthropic", "gemini")  # models of one backend each
ROUTES = """
version: 1
currency: CNY
timezone: UTC
storage: {{ledger: "sqlite:{ledger}"}}
defaults: {{timeout: {{connect: 2s, first_token: 10s, idle: 10s, total: 15s}}, retry: {{attempts: 1}}}}
backends:
  plain: {{kind: openai, base_url: "{plain}/v1"}}
  azure: {{kind: azure, base_url: "{plain}/v1", keys: [env:MOMA_TEST_BACKEND_KEY]}}
  anthropic: {{kind: anthropic, base_url: "{anthropic}/v1", keys: [env:MOMA_TEST_BACKEND_KEY]}}
  gemini: {{kind: gemini, base_url: "{gemini}/v1beta", keys: [env:MOMA_TEST_BACKEND_KEY]}}
models:
  any: {{via: [plain, azure, anthropic, gemini], {model}}}
  plain: {{via: [plain], {model}}}
  azure: {{via: [azure], {model}}}
  anthropic: {{via: [anthropic], {model}}}
  gemini: {{via: [gemini], {model}}}
plans: {{pro: {{grants: [{{credits: 1000000M}}]}}}}
tenants: {{demo: {{plan: pro, keys: ["sha256:{key_hash}"]}}}}
"""
MODEL_LINES = """
    context: 128k, max_output: 4k, can: [tools, json, vision, reasoning],
    price: {input: 1, output: 2, images: 1, audio_ms: 1}, rates: {input: 1, output: 2, images: 1, audio_ms: 1},
    endpoints: [chat, completions, embeddings, rerank, images, speech, transcriptions, translations]"""


def honest(backend: Backend, seen: Seen) -> Reply:
    said = Said("hello")
    if backend.streams(seen.path, seen.body):
        return Reply(stream=backend.events(said))
    return Reply(body=backend.says(said))


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """`a` is what speaks as OpenAI does, `b` what does as Anthropic."""
    monkeypatch.setenv("MOMA_TEST_BACKEND_KEY", "the-key")
    async with AsyncExitStack() as stack:
        plain, anthropic, gemini = [await stack.enter_async_context(ScriptedBackend()) for _ in range(3)]
        anthropic.script(lambda seen: honest(AnthropicBackend(), seen))
        gemini.script(lambda seen: honest(GeminiBackend(), seen))
        routes, key_hash = tmp_path / "routes.yaml", hashlib.sha256(KEY.encode()).hexdigest()
        urls = {"plain": plain.url, "anthropic": anthropic.url, "gemini": gemini.url}
        routes.write_text(ROUTES.format(ledger=tmp_path / "moma.db", key_hash=key_hash, model=MODEL_LINES, **urls))
        app = App(load(routes))
        await app.start("127.0.0.1", 0)
        headers = {"authorization": f"Bearer {KEY}"}
        async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=0)) as http:
            yield World(app, plain, anthropic, http, tmp_path)
        await app.aclose()
