"""One gateway for all clients, whose books are right in the end, and a summary that names what was not exercised."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

import aiohttp
import pytest
import pytest_asyncio

from gateway.app import App
from gateway.charging.audit import audit
from gateway.config.load import load
from gateway.demo import llama
from gateway.demo.processes import free_port, stop
from gateway.demo.scripted import ScriptedBackend
from tests.clients.answering import answers

KEY = "sk-moma-key-of-the-clients"
EMPTY_KEY = "sk-moma-key-without-credits"
OWN = ("OPENAI_", "ANTHROPIC_", "LITELLM_", "LLM_", "AIDER_")
ENDPOINTS = {"chat": "/v1/chat/completions", "messages": "/v1/messages", "responses": "/v1/responses"}
REAL = {"real": "chat", "real_messages": "messages", "real_responses": "responses"}  # the small model, through these
ROUTES = """
version: 1
currency: CNY
timezone: UTC
storage: {{ledger: "sqlite:{ledger}"}}
defaults:
  timeout: {{connect: 1s, first_token: 20s, idle: 20s, total: 60s}}
  retry: {{attempts: 2, backoff: 10ms..100ms}}
backends:
  scripted: {{kind: openai, base_url: "{scripted}"}}
  llama: {{kind: openai, base_url: "http://127.0.0.1:{llama}/v1"}}
models:
  large: {{via: [scripted], context: 200k, max_output: 64k, price: {{input: 2, output: 8}},
    rates: {{input: 3, output: 12}}, endpoints: [chat, completions, embeddings], can: [tools, json, vision]}}
  medium: {{via: [scripted], context: 200k, max_output: 64k, price: {{input: 1, output: 4}},
    can: [tools, json, vision]}}
  smollm2-135m: {{via: [llama], context: 2k, max_output: 512, price: {{input: 0, output: 0}}}}
aliases: {{gpt-4o-mini: large, claude-sonnet-4-5: large, text-embedding-3-small: large}}
routes:
  auto: {{pick: [large], policy: ordered}}
plans:
  pro: {{grants: [{{credits: 1000M}}]}}
  empty: {{}}
tenants:
  demo: {{plan: pro, keys: ["sha256:{key}"]}}
  empty: {{plan: empty, keys: ["sha256:{empty_key}"]}}
"""


@dataclass
class Served:
    """A running gateway, and the groups of checks that it cannot serve, with the reason."""

    app: App
    scripted: ScriptedBackend
    absent: Mapping[str, str]

    @property
    def environment(self) -> dict[str, str]:
        """What a script is told, beside what is around here; what clients would read by themselves is not."""
        around = {name: value for name, value in os.environ.items() if not name.startswith(OWN)}
        return {
            **around,
            "NO_PROXY": "127.0.0.1",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else LiteLLM fetches prices when it is imported
            "MOMA_URL": f"http://127.0.0.1:{self.app.port}",
            "MOMA_KEY": KEY,
            "MOMA_EMPTY_KEY": EMPTY_KEY,
            "MOMA_ABSENT": json.dumps(self.absent),
        }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    path = tmp_path_factory.mktemp("clients")
    port = free_port()
    small = await asyncio.to_thread(llama.start, port) if llama.available() else None
    async with ScriptedBackend() as scripted:
        scripted.script(answers)
        text = ROUTES.format(
            ledger=path / "moma.db", scripted=scripted.base_url, llama=port,
            key=sha256(KEY), empty_key=sha256(EMPTY_KEY),
        )  # fmt: skip
        (path / "routes.yaml").write_text(text)
        app = App(load(path / "routes.yaml"))
        await app.start("127.0.0.1", 0)
        absent = await not_served(f"http://127.0.0.1:{app.port}")
        if small is None:
            absent |= dict.fromkeys(REAL, "the wheels of the small model are not installed")
        absent |= {real: absent[group] for real, group in REAL.items() if group in absent}
        yield Served(app, scripted, absent)
        await app.aclose()
        assert audit(str(path / "moma.db")) == []
    if small is not None:
        await asyncio.to_thread(stop, small)


def sha256(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


async def not_served(url: str) -> dict[str, str]:
    """Endpoints that answer 404 to a call, which is not well formed and so costs nothing."""
    absent = {}
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {KEY}"}) as http:
        for group, path in ENDPOINTS.items():
            async with http.post(url + path, json={}) as answer:
                if answer.status == 404:
                    absent[group] = f"{path} is not served yet"
    return absent


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says what each client exercised and what it did not, however the tests went."""
    lines = [
        line
        for report in terminalreporter.getreports("passed") + terminalreporter.getreports("skipped")
        for name, line in report.user_properties
        if name == "client"
    ]
    if lines:
        terminalreporter.section("clients")
        for line in lines:
            terminalreporter.write_line(str(line))
