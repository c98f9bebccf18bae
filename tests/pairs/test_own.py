"""What is particular to streams that are cut short, and to clients that speak a backend's own dialect."""

from __future__ import annotations

import time
from dataclasses import replace

import orjson
import pytest

from tests.pairs.conftest import BACKENDS, CLIENTS, KEY, POOR_KEY, Pairs
from tests.pairs.events import event
from tests.pairs.meaning import JSON, Backend, Client, Said
from tests.pairs.speaks_anthropic import AnthropicBackend, MessagesClient
from tests.pairs.speaks_chat import ChatClient
from tests.pairs.test_pairs import ANSWERS, CLOCK, HELLO, WEATHER, each_pair, heard

LONG = Said("word " * 4000, written=4000)


@each_pair
async def test_a_stream_that_a_package_ends_in_the_middle_has_a_proper_end(
    pairs: Pairs, client: Client, backend: Backend
) -> None:
    pairs.said = LONG
    body = client.asks(replace(HELLO, max_tokens=4000), f"m-{backend.kind}", stream=True)
    status, data = await pairs.send(client, body, POOR_KEY)
    assert status == 200
    told = client.hears_stream(data)
    assert (told.complete, told.stop, told.error) == (True, "length", "")
    assert LONG.text.startswith(told.text)
    assert 100 < len(told.text) < len(LONG.text)
    [charge] = await pairs.charges("poor")
    assert "quota_exhausted" in charge["flags"]
    assert charge["overage"] == "0"
    assert float(charge["charged"]) <= 5000
    assert told.written == charge["usage"]["output"]


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
async def test_what_was_read_from_a_cache_costs_that_although_the_stream_breaks(pairs: Pairs, client: Client) -> None:
    pairs.said, pairs.cut_after = Said("a text that is much longer than it comes", read=2000, cached=1536), 6
    status, _ = await pairs.call(client, AnthropicBackend(), HELLO, stream=True)
    assert status == 200
    [charge] = await pairs.charges()
    written = charge["usage"].pop("output")
    assert charge["usage"] == {"input": 464, "input_cached": 1536, "calls": 1}
    assert 0 < written < 10
    assert (charge["usage_source"], charge["flags"]) == ("estimated", ["estimated", "partial"])


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
async def test_what_was_read_from_a_cache_costs_that_although_the_package_ends(pairs: Pairs, client: Client) -> None:
    pairs.said = replace(LONG, read=20, cached=15)
    body = client.asks(replace(HELLO, max_tokens=4000), "m-anthropic", stream=True)
    status, data = await pairs.send(client, body, POOR_KEY)
    assert status == 200
    told = client.hears_stream(data)
    [charge] = await pairs.charges("poor")
    assert "quota_exhausted" in charge["flags"]
    assert (charge["usage"]["input"], charge["usage"]["input_cached"]) == (5, 15)
    if client.name != "chat":  # it did not ask
        assert (told.read, told.cached) == (20, 15)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@each_pair
async def test_calls_come_one_at_a_time_for_who_wants_that(
    pairs: Pairs, client: Client, backend: Backend, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if (client.name, backend.kind) in (("chat", "openai"), ("chat", "azure"), ("messages", "anthropic")):
        pytest.skip("passes as it is: the backend's to keep")
    monkeypatch.setattr(type(backend), "understands", lambda *_: HELLO)
    pairs.said = ANSWERS["parallel tools"]
    body = client.asks(replace(HELLO, tools=(WEATHER, CLOCK)), f"m-{backend.kind}", stream=stream)
    if client.name == "messages":
        body["tool_choice"] = {"type": "auto", "disable_parallel_tool_use": True}
    else:
        body["parallel_tool_calls"] = False
    status, data = await pairs.send(client, body)
    assert status == 200, data
    assert heard(client, data, stream=stream) == replace(pairs.said, calls=pairs.said.calls[:1])
    [charge] = await pairs.charges()
    assert charge["usage"]["output"] == pairs.said.written


@pytest.fixture
def own() -> tuple[MessagesClient, AnthropicBackend]:
    return MessagesClient(), AnthropicBackend()


async def test_a_message_reaches_its_own_backend_as_it_was_and_its_answer_comes_as_it_is(
    pairs: Pairs, own: tuple[MessagesClient, AnthropicBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, backend = own
    answer = {**backend.says(Said("found")), "container": {"id": "c1"}}
    answer["content"].insert(
        0, {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"q": 1}}
    )
    monkeypatch.setattr(AnthropicBackend, "understands", lambda *_: HELLO)
    monkeypatch.setattr(AnthropicBackend, "says", lambda *_: answer)
    body = client.asks(HELLO, "m-anthropic", stream=False)
    body["tools"] = [{"type": "web_search_20250305", "name": "web_search", "max_uses": 3}]
    body["messages"][0]["content"][0]["cache_control"] = {"type": "ephemeral", "ttl": "1h"}
    status, data = await pairs.send(client, body)
    assert (status, orjson.loads(data)) == (200, answer)
    assert pairs.bodies == [body | {"model": "backend-model"}]
    [charge] = await pairs.charges()
    assert charge["usage"] == {"input": 20, "output": 10, "calls": 1}


async def test_events_that_nobody_knows_pass_as_they_came(
    pairs: Pairs, own: tuple[MessagesClient, AnthropicBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, backend = own
    events = backend.events(Said("found"))
    news: JSON = {
        "type": "content_block_start",
        "index": 1,
        "content_block": {"type": "container_upload", "file_id": "f"},
    }
    events[-2:-2] = [
        event(news, "content_block_start"),
        event({"type": "content_block_stop", "index": 1}, "content_block_stop"),
        event({"type": "something_new", "x": [1]}, "something_new"),
    ]
    monkeypatch.setattr(AnthropicBackend, "events", lambda *_: events)
    status, data = await pairs.call(client, backend, HELLO, stream=True)
    assert (status, data) == (200, b"".join(events))


async def test_headers_of_the_dialect_reach_its_own_backend_only(
    pairs: Pairs, own: tuple[MessagesClient, AnthropicBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, backend = own
    seen = []
    understands = AnthropicBackend.understands

    def understood(self: AnthropicBackend, path: str, headers: dict[str, str], body: JSON) -> object:
        seen.append(headers.get("anthropic-beta"))
        return understands(self, path, headers, body)

    monkeypatch.setattr(AnthropicBackend, "understands", understood)
    monkeypatch.setattr(
        client, "headers", lambda key: {"x-api-key": key, "anthropic-version": "2023-06-01", "anthropic-beta": "b-1"}
    )
    status, _ = await pairs.call(client, backend, HELLO, stream=False)
    assert (status, seen) == (200, ["b-1"])


async def test_sdks_of_the_dialect_find_the_id_and_their_list_of_models(pairs: Pairs) -> None:
    client = MessagesClient()
    base = f"http://127.0.0.1:{pairs.app.port}"
    for body in (client.asks(HELLO, "m-openai", stream=False), client.asks(HELLO, "nope", stream=False)):
        async with pairs.http.post(f"{base}/v1/messages", json=body, headers=client.headers(KEY)) as answer:
            assert answer.headers["request-id"] == answer.headers["x-request-id"]
    async with pairs.http.get(f"{base}/v1/models", headers=client.headers(KEY)) as answer:
        listed = await answer.json()
    assert {"type": "model", "id": "m-openai", "display_name": "m-openai"}.items() <= listed["data"][0].items()
    assert (listed["has_more"], listed["first_id"]) == (False, "m-openai")
    async with pairs.http.get(f"{base}/v1/models/m-openai", headers=client.headers(KEY)) as answer:
        assert (await answer.json())["type"] == "model"


async def test_a_hold_covers_what_a_backend_may_add_by_itself(pairs: Pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    client = MessagesClient()
    monkeypatch.setattr(AnthropicBackend, "understands", lambda *_: HELLO)
    body = client.asks(HELLO, "m-anthropic", stream=False)
    body["tools"] = [{"type": "web_search_20250305", "name": "web_search"}]
    pairs.said = Said("found", read=90_000, written=5)
    status, _ = await pairs.send(client, body, POOR_KEY)
    assert status == 429
    status, _ = await pairs.send(client, body)
    assert status == 200
    [charge] = await pairs.charges()
    assert float(charge["reserved"]) >= 128_000
    assert (charge["usage"]["input"], charge["overage"]) == (90_000, "0")


@pytest.mark.parametrize("kind", [backend.kind for backend in BACKENDS])
async def test_a_hold_covers_a_document_of_any_length(pairs: Pairs, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for backend in BACKENDS:
        monkeypatch.setattr(type(backend), "understands", lambda *_: HELLO)
    pairs.said = Said("a summary", read=90_000, written=5)
    client = MessagesClient()
    body = client.asks(HELLO, f"m-{kind}", stream=False)
    pdf = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}
    body["messages"][0]["content"].append({"type": "document", "source": pdf})
    status, data = await pairs.send(client, body)
    assert status == 200, data
    [charge] = await pairs.charges()
    assert (charge["usage"]["input"], charge["overage"]) == (90_000, "0")
    assert float(charge["reserved"]) >= 90_000


async def test_an_answer_says_when_it_was_made(pairs: Pairs) -> None:
    client = ChatClient()
    status, data = await pairs.send(client, client.asks(HELLO, "m-anthropic", stream=False))
    assert status == 200
    assert abs(orjson.loads(data)["created"] - time.time()) < 60


@pytest.mark.parametrize(
    "more",
    [
        {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
        {"speed": "fast"},
        {"mcp_servers": [{"type": "url", "url": "https://x", "name": "x"}]},
    ],
)
async def test_what_costs_more_than_tokens_is_for_models_that_may_do_it(
    pairs: Pairs, monkeypatch: pytest.MonkeyPatch, more: JSON
) -> None:
    client = MessagesClient()
    monkeypatch.setattr(AnthropicBackend, "understands", lambda *_: HELLO)
    body = client.asks(HELLO, "m-anthropic", stream=False) | more
    status, data = await pairs.send(client, {**body, "model": "plain-anthropic"})
    assert (status, pairs.bodies) == (400, [])
    assert "extras" in client.error(orjson.loads(data))
    status, _ = await pairs.send(client, body)
    assert (status, len(pairs.bodies)) == (200, 1)


async def test_tools_that_a_client_runs_cost_nothing_more(pairs: Pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    client = MessagesClient()
    monkeypatch.setattr(AnthropicBackend, "understands", lambda *_: HELLO)
    body = client.asks(HELLO, "plain-anthropic", stream=False)
    body["tools"] = [{"type": "bash_20250124", "name": "bash"}]
    status, _ = await pairs.send(client, body)
    assert status == 200
