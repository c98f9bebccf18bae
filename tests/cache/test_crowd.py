"""Many clients that ask the same at once, over real sockets, and operators who look at what is kept."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from openai import AsyncOpenAI

from gateway.app import App
from gateway.charging.audit import audit
from gateway.cli import main
from gateway.config.load import load
from gateway.demo.scripted import Reply, ScriptedBackend, Step
from tests.conftest import ADMIN_KEY

KEYS = {"one": "sk-moma-crowd-one", "two": "sk-moma-crowd-two"}
ROUTES = """
version: 1
server: {{admin_key: env:MOMA_TEST_ADMIN_KEY}}
storage: {{ledger: "sqlite:{folder}/moma.db"}}
defaults: {{timeout: {{first_token: 5s, idle: 5s, total: 20s}}}}
backends: {{a: {{kind: openai, base_url: "{a}"}}}}
models:
  small: {{via: [a], context: 8k, max_output: 1k, price: {{input: 1, output: 2}}, endpoints: [chat, embeddings]}}
routes:
  auto: {{pick: [small], cache: short}}
cache:
  short: {{ttl: 10m, charge: 10%}}
plans: {{pro: {{grants: [{{credits: 1M, every: month}}]}}}}
tenants:
  one: {{plan: pro, keys: ["sha256:{one}"]}}
  two: {{plan: pro, keys: ["sha256:{two}"]}}
"""
CLIENTS = 200
WORDS = [f"word{number} " for number in range(40)]


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
    choices = [] if more else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return b"data: " + json.dumps({"id": "c", "model": "small", "choices": choices, **more}).encode() + b"\n\n"


USAGE = {"prompt_tokens": 10, "completion_tokens": 40, "total_tokens": 50}


def slow_stream() -> Reply:
    """Two seconds for forty words."""
    steps: list[Step] = [chunk({"role": "assistant", "content": ""})]
    for word in WORDS:
        steps += [chunk({"content": word}), 0.05]
    return Reply(stream=[*steps, chunk({}, "stop"), chunk({}, usage=USAGE), b"data: [DONE]\n\n"])


@dataclass
class Town:
    """A gateway with a cache, its backend, and its tenants."""

    app: App
    a: ScriptedBackend
    http: aiohttp.ClientSession
    folder: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.app.port}"

    async def post(self, tenant: str = "one", path: str = "chat/completions", **body: Any) -> tuple[str, bytes]:
        """(x-moma-cache, body)."""
        asked = {"model": "auto", "messages": [{"role": "user", "content": "hello"}], "temperature": 0, **body}
        headers = {"authorization": f"Bearer {KEYS[tenant]}"}
        async with self.http.post(f"{self.url}/v1/{path}", json=asked, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            return answer.headers["x-moma-cache"], await answer.read()

    async def admin(self, method: str, query: str = "") -> tuple[int, Any]:
        headers = {"authorization": f"Bearer {ADMIN_KEY}"}
        async with self.http.request(method, f"{self.url}/admin/v1/cache{query}", headers=headers) as answer:
            return answer.status, await answer.json()

    def charges(self, tenant: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.app.ledger.charges(tenant, 0, 5000)["data"]
        return rows


@pytest.fixture
async def town(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Town]:
    monkeypatch.setenv("MOMA_TEST_ADMIN_KEY", ADMIN_KEY)
    hashes = {name: hashlib.sha256(key.encode()).hexdigest() for name, key in KEYS.items()}
    async with ScriptedBackend() as a:
        (tmp_path / "routes.yaml").write_text(ROUTES.format(folder=tmp_path, a=a.base_url, **hashes))
        app = App(load(tmp_path / "routes.yaml"))
        await app.start("127.0.0.1", 0)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
            yield Town(app, a, http, tmp_path)
        await app.aclose()
        assert audit(str(tmp_path / "moma.db")) == []


def text_of(stream: bytes) -> str:
    """What a client reads; it must end with [DONE]."""
    *events, done, rest = stream.split(b"\n\n")
    assert (done, rest) == (b"data: [DONE]", b"")
    return "".join(
        choice["delta"].get("content") or "" for event in events for choice in json.loads(event[6:])["choices"]
    )


async def test_200_identical_streams_make_one_call_and_200_complete_answers(town: Town) -> None:
    town.a.script(lambda seen: slow_stream())

    async def client(number: int) -> tuple[str, bytes]:
        await asyncio.sleep(number * 0.005)  # the last comes when half has been sent
        return await town.post(stream=True)

    answers = await asyncio.gather(*map(client, range(CLIENTS)))
    assert [text_of(body) for _, body in answers] == ["".join(WORDS)] * CLIENTS
    assert len(town.a.requests) == 1
    assert sorted(cache for cache, _ in answers) == ["coalesced"] * (CLIENTS - 1) + ["miss"]
    charges = town.charges("one")
    assert sorted(row["charged"] for row in charges) == ["5"] * (CLIENTS - 1) + ["50"]
    assert await town.post(stream=True)
    assert len(town.a.requests) == 1


async def test_the_leader_leaves_in_mid_stream_and_199_get_complete_answers(town: Town) -> None:
    town.a.script(lambda seen: slow_stream())
    leader = asyncio.create_task(town.post(stream=True))
    while not town.a.requests:
        await asyncio.sleep(0.01)
    followers = [asyncio.create_task(town.post(stream=True)) for _ in range(CLIENTS - 1)]
    await asyncio.sleep(0.7)
    leader.cancel()
    answers = await asyncio.gather(*followers)
    assert [text_of(body) for _, body in answers] == ["".join(WORDS)] * (CLIENTS - 1)
    assert {cache for cache, _ in answers} == {"coalesced"}
    [seen] = town.a.requests
    assert not seen.disconnected
    assert sorted(row["charged"] for row in town.charges("one")) == ["5"] * (CLIENTS - 1) + ["50"]
    assert town.app.ledger.open_holds == 0


async def test_when_all_have_left_the_backend_is_left_at_once(town: Town) -> None:
    town.a.script(lambda seen: slow_stream())
    clients = [asyncio.create_task(town.post(stream=True)) for _ in range(20)]
    while not town.a.requests:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.3)
    for task in clients:
        task.cancel()
    async with asyncio.timeout(1):
        await town.a.requests[0].ended.wait()
    assert town.a.requests[0].disconnected
    while town.app.ledger.open_holds:
        await asyncio.sleep(0.01)
    while not (charges := town.charges("one")):
        await asyncio.sleep(0.01)
    assert [row["flags"] for row in charges] == [["estimated", "partial"]]


async def test_tenants_never_share_an_answer_nor_a_call(town: Town) -> None:
    town.a.script(lambda seen: slow_stream())
    answers = await asyncio.gather(*(town.post(tenant, stream=True) for tenant in ("one", "two") * 5))
    assert len(town.a.requests) == 2
    assert sorted(cache for cache, _ in answers) == ["coalesced"] * 8 + ["miss"] * 2
    assert (await town.post("two", stream=True))[0] == "hit"
    assert (await town.post("two", stream=True, seed=1))[0] == "miss"


async def test_a_client_that_reads_nothing_holds_up_none_of_the_others(town: Town) -> None:
    long = [chunk({"content": "x" * 4000}) for _ in range(500)]
    stream = [chunk({"role": "assistant"}), *long, chunk({}, "stop"), chunk({}, usage=USAGE), b"data: [DONE]\n\n"]
    town.a.script(lambda seen: Reply(stream=stream))
    asked: dict[str, Any] = {"messages": [{"role": "user", "content": "a"}], "temperature": 0, "stream": True}
    body = json.dumps({"model": "auto", **asked})
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEYS['one']}\r\n"
    _, writer = await asyncio.open_connection("127.0.0.1", town.app.port, limit=1024)
    writer.write(f"{head}content-length: {len(body)}\r\n\r\n{body}".encode())
    while not town.a.requests:
        await asyncio.sleep(0.01)
    async with asyncio.timeout(5):
        answers = await asyncio.gather(*(town.post(**asked) for _ in range(3)))
    writer.close()
    assert {(cache, len(text_of(body))) for cache, body in answers} == {("coalesced", 2_000_000)}
    assert len(town.a.requests) == 1


async def test_a_shutdown_ends_calls_that_others_follow(town: Town) -> None:
    town.a.script(lambda seen: slow_stream())
    clients = [asyncio.create_task(town.post(stream=True)) for _ in range(5)]
    while not town.a.requests:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.3)
    town.app.hurry()
    await town.app.aclose()
    for _, body in await asyncio.gather(*clients):
        assert b"shutting_down" in body
        assert b"[DONE]" not in body


async def test_the_sdk_reads_the_same_answer_from_a_backend_and_from_the_cache_whole_and_streamed(town: Town) -> None:
    function = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
    asked: dict[str, Any] = {
        "model": "auto",
        "messages": [{"role": "user", "content": "How is the weather in Hohhot?"}],
        "tools": [{"type": "function", "function": function}],
        "logprobs": True,
        "temperature": 0,
    }
    async with AsyncOpenAI(base_url=f"{town.url}/v1", api_key=KEYS["one"], max_retries=0) as client:
        whole = (await client.chat.completions.create(**asked)).model_dump(exclude_unset=True)
        again = (await client.chat.completions.create(**asked)).model_dump(exclude_unset=True)
        async with client.chat.completions.stream(stream_options={"include_usage": True}, **asked) as stream:
            final = await stream.get_final_completion()
    assert again == whole
    assert len(town.a.requests) == 1
    [mine], [theirs] = final.choices, whole["choices"]
    assert mine.finish_reason == theirs["finish_reason"]
    assert (mine.message.content or None) == (theirs["message"].get("content") or None)
    calls = [(call.id, call.function.name, call.function.arguments) for call in mine.message.tool_calls or []]
    assert calls == [
        (call["id"], call["function"]["name"], call["function"]["arguments"])
        for call in theirs["message"].get("tool_calls") or []
    ]
    assert final.usage is not None
    assert final.usage.total_tokens == whole["usage"]["total_tokens"]


# -- operators ----------------------------------------------------------------------------------------------------


async def test_metrics_say_what_is_kept_and_what_was_asked_for(town: Town) -> None:
    for _ in range(3):
        await town.post()
    async with town.http.get(f"{town.url}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    assert 'moma_cache_lookups_total{cache="short",result="hit"} 2.0' in lines
    assert 'moma_cache_lookups_total{cache="short",result="miss"} 1.0' in lines
    assert 'moma_cache_entries{cache="short"} 1.0' in lines
    assert any(line.startswith('moma_cache_bytes{cache="short"} 1') for line in lines)
    assert any(line.startswith('moma_saved_cost_total{cause="exact_cache"}') for line in lines)


async def test_operators_look_and_purge(town: Town) -> None:
    for tenant in ("one", "two"):
        for seed in (1, 2):
            await town.post(tenant, seed=seed)
    status, value = await town.admin("GET")
    [cache] = value["data"]
    assert (status, cache["cache"], cache["entries"], cache["misses"], cache["hits"]) == (200, "short", 4, 4, 0)
    assert sorted((share["tenant"], share["entries"]) for share in cache["tenants"]) == [("one", 2), ("two", 2)]
    assert "hello" not in json.dumps(value)
    assert (await town.admin("DELETE", "?tenant=one"))[1]["purged"] == 2
    assert (await town.post("one", seed=1))[0] == "miss"
    assert (await town.admin("DELETE", "?cache=short&model=small"))[1]["purged"] == 3
    assert (await town.admin("DELETE"))[1] == {"purged": 0, "bytes": 0}


@pytest.mark.parametrize(
    ("method", "query", "status", "code"),
    [
        ("DELETE", "?cache=shrot", 404, "not_found"),
        ("DELETE", "?tenant=nobody", 404, "not_found"),
        ("DELETE", "?tenat=one", 400, "invalid_value"),
        ("POST", "", 405, "method_not_allowed"),
    ],
)
async def test_a_purge_that_names_nothing_is_refused(
    town: Town, method: str, query: str, status: int, code: str
) -> None:
    found, value = await town.admin(method, query)
    assert (found, value["error"]["code"]) == (status, code)


async def moma(town: Town, *args: str) -> int:
    return await asyncio.to_thread(main, ["cache", *args, "-c", str(town.folder / "routes.yaml"), "--url", town.url])


async def test_the_command_line_shows_and_purges(
    town: Town, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MOMA_ADMIN_KEY", ADMIN_KEY)
    for tenant in ("one", "one", "two"):
        await town.post(tenant)
    assert await moma(town, "show", "--json") == 0
    [cache] = json.loads(capsys.readouterr().out)["data"]
    assert (cache["entries"], cache["hits"]) == (2, 1)
    assert await moma(town, "show") == 0
    shown = capsys.readouterr().out
    assert "short" in shown
    assert "one" in shown
    assert await moma(town, "purge", "--json") == 2, "all needs --all"
    assert "--all" in capsys.readouterr().err
    assert await moma(town, "purge", "--tenant", "one", "--cache", "short", "--json") == 0
    assert json.loads(capsys.readouterr().out)["purged"] == 1
    assert await moma(town, "purge", "--cache", "shrot") == 1
    assert await moma(town, "purge", "--all") == 0
    assert "1" in capsys.readouterr().out


def test_a_cache_is_only_in_a_running_gateway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MOMA_ADMIN_KEY", "x")
    (tmp_path / "routes.yaml").write_text("version: 1\nserver: {port: 1}\n")
    for verb in (["show"], ["purge", "--all"]):
        assert main(["cache", *verb, "-c", str(tmp_path / "routes.yaml")]) == 2
        assert "No gateway answers at http://127.0.0.1:1" in capsys.readouterr().err
    assert not (tmp_path / "moma.db").exists()
