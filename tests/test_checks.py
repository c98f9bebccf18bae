"""Active checks against a real backend, and what the gateway makes of them."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.app import App
from gateway.config.load import load
from gateway.demo.scripted import HANG, Reply, ScriptedBackend, Seen
from tests.conftest import KEY

ROUTES = """
version: 1
storage: {{ledger: "sqlite:{folder}/moma.db"}}
backends:
  a: {{kind: openai, base_url: "{a}", keys: [env:MOMA_TEST_BACKEND_KEY], headers: {{x-team: red}},
    check: {{path: "/health?deep=1", every: 50ms, timeout: 100ms}}}}
  b: {{kind: openai, base_url: "{b}"}}
models:
  m: {{via: [a, b], context: 4k, max_output: 1k, price: {{input: 1, output: 2}}}}
plans: {{p: {{grants: [{{credits: 1M}}]}}}}
tenants: {{t: {{plan: p, keys: ["sha256:{key_hash}"]}}}}
"""


def metric(app: App, name: str, **labels: str) -> float:
    return app.metrics.registry.get_sample_value(name, labels) or 0.0


async def until(what: Any) -> None:
    async with asyncio.timeout(10):
        while not what():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("bad", [Reply(status=503), HANG, Reply(status=302, headers={"location": "/x"})])
async def test_a_backend_is_left_alone_while_its_check_says_no(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: Reply
) -> None:
    monkeypatch.setenv("MOMA_TEST_BACKEND_KEY", "backend-secret")
    checks: list[Seen] = []
    well = [True]

    def script(seen: Seen) -> Reply | None:
        if seen.method != "GET":
            return None
        checks.append(seen)
        return Reply(body={"ok": True}) if well[0] else bad

    async with ScriptedBackend() as a, ScriptedBackend() as b:
        a.script(script)
        routes = tmp_path / "routes.yaml"
        key_hash = hashlib.sha256(KEY.encode()).hexdigest()
        routes.write_text(ROUTES.format(folder=tmp_path, a=a.base_url, b=b.base_url, key_hash=key_hash))
        app = App(load(routes))
        await app.start("127.0.0.1", 0)
        try:
            await until(lambda: len(checks) >= 2)
            assert checks[0].path == "/health"
            assert checks[0].headers["authorization"] == "Bearer backend-secret"
            assert checks[0].headers["x-team"] == "red"
            assert metric(app, "moma_breaker_state", backend="a", model="m") == 0
            well[0] = False
            await until(lambda: metric(app, "moma_breaker_state", backend="a", model="m") == 2)
            assert metric(app, "moma_breaker_openings_total", backend="a", model="m", cause="check") == 1
            assert await served(app) == {"b"}
            assert app._not_ready() == []
            well[0] = True
            await until(lambda: metric(app, "moma_breaker_state", backend="a", model="m") == 0)
        finally:
            await app.aclose()


async def served(app: App) -> set[str]:
    """The backends that twenty calls went to."""
    backends = set()
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {KEY}"}) as http:
        for n in range(20):
            body = {"model": "m", "messages": [{"role": "user", "content": f"hello {n}"}]}
            async with http.post(f"http://127.0.0.1:{app.port}/v1/chat/completions", json=body) as answer:
                assert answer.status == 200
                backends.add(answer.headers["x-moma-backend"])
    return backends


def test_no_check_is_made_unless_it_is_written(tmp_path: Path) -> None:
    routes = tmp_path / "routes.yaml"
    text = ROUTES.format(folder=tmp_path, a="http://127.0.0.1:1/v1", b="http://127.0.0.1:1/v1", key_hash="0" * 64)
    routes.write_text(text)
    config = load(routes)
    assert config.backends["b"].check is None
    check = config.backends["a"].check
    assert check is not None
    assert (check.path, check.every_s, check.timeout_s) == ("/health?deep=1", 0.05, 0.1)
