"""Every client dialect over every kind of backend: the same meaning on both sides, and settled rightly."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from tests.pairs.conftest import BACKENDS, CLIENTS, Pairs
from tests.pairs.meaning import (
    PNG,
    Ask,
    Assistant,
    Backend,
    Client,
    Image,
    Said,
    System,
    Text,
    Tool,
    ToolCall,
    ToolResult,
    User,
)

WEATHER = Tool(
    "get_weather",
    "The weather of a city.",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
CLOCK = Tool("get_time", "The time there.", {"type": "object", "properties": {"zone": {"type": "string"}}})
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
HELLO = Ask((User((Text("hello there"),)),))
BEIJING = ToolCall("call_1", "get_weather", {"city": "Beijing", "units": ["C", 1.5, None]})
TOKYO = ToolCall("call_2", "get_time", {"zone": "Asia/Tokyo"})
THREE_TURNS = Ask(
    (
        System("Be brief."),
        User((Text("weather in Beijing, and the time in Tokyo?"),)),
        Assistant("I look.", (BEIJING, TOKYO)),
        ToolResult("call_1", "get_weather", "sunny, 21 °C"),
        ToolResult("call_2", "get_time", "12:00"),
        Assistant("Sunny, and noon."),
        User((Text("and in Shanghai?"),)),
        Assistant("", (replace(BEIJING, id="call_3", arguments={"city": "Shanghai"}),)),
        ToolResult("call_3", "get_weather", "rain"),
    ),
    tools=(WEATHER, CLOCK),
)
ASKS = {
    "text": HELLO,
    "system": Ask((System("Speak Chinese."), *HELLO.turns), temperature=0.5),
    "chinese": Ask((User((Text('你好，世界 👋 "quoted" \\ \n end'),)),)),
    "long talk": Ask((User((Text("a"),)), Assistant("b"), User((Text("c"),)), Assistant("d"), User((Text("e"),)))),
    "image": Ask((User((Text("what is it?"), Image(PNG))),)),
    "tools": replace(HELLO, tools=(WEATHER, CLOCK)),
    "tools auto": replace(HELLO, tools=(WEATHER,), choice="auto"),
    "tools required": replace(HELLO, tools=(WEATHER,), choice="required"),
    "tools none": replace(HELLO, tools=(WEATHER,), choice="none"),
    "tool by name": replace(HELLO, tools=(WEATHER, CLOCK), choice="get_time"),
    "three turns": THREE_TURNS,
    "json_schema": replace(HELLO, schema=SCHEMA),
    "stop": replace(HELLO, stop=("END", "###")),
    "short": replace(HELLO, max_tokens=7),
}
ANSWERS = {
    "text": Said("Hello! How may I help?"),
    "chinese": Said('你好，世界 👋 "quoted" \\ \n end'),
    "length": Said("cut off in the mid", stop="length"),
    "filter": Said("I would rather", stop="filter"),
    "tool": Said("", (BEIJING,), stop="tools"),
    "parallel tools": Said("Let me look.", (BEIJING, TOKYO), stop="tools"),
    "thought": Said("42", thought="They ask for the answer. It is 42."),
    "thought and tool": Said("", (TOKYO,), thought="The time, then.", stop="tools"),
    "cached": Said("warm", read=2000, cached=1536, written=3),
}
each_pair = pytest.mark.parametrize(
    ("client", "backend"), [pytest.param(c, b, id=f"{c.name}-{b.kind}") for c in CLIENTS for b in BACKENDS]
)
either_way = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


def meant(ask: Ask) -> Ask:
    """`auto` is what a call means that does not say."""
    return replace(ask, choice="") if ask.choice == "auto" else ask


def heard(client: Client, data: bytes, *, stream: bool) -> Said:
    if not stream:
        return client.hears(orjson.loads(data))
    heard = client.hears_stream(data)
    assert heard.complete
    assert not heard.error
    return heard.said()


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS)
@each_pair
async def test_what_a_client_asks_is_what_a_backend_understands(
    pairs: Pairs, client: Client, backend: Backend, ask: Ask
) -> None:
    if ask.stop and client.name == "responses":
        pytest.skip("the dialect has no stop sequences")
    status, data = await pairs.call(client, backend, ask, stream=False)
    assert status == 200, data
    assert [meant(asked) for asked in pairs.asked] == [meant(ask)]
    assert pairs.bodies[0].get("model", "backend-model") == "backend-model"
    assert heard(client, data, stream=False) == pairs.said


@either_way
@pytest.mark.parametrize("said", ANSWERS.values(), ids=ANSWERS)
@each_pair
async def test_what_a_backend_says_is_what_a_client_hears_and_pays(
    pairs: Pairs, client: Client, backend: Backend, said: Said, *, stream: bool
) -> None:
    pairs.said = said
    status, data = await pairs.call(client, backend, replace(HELLO, tools=(WEATHER, CLOCK)), stream=stream)
    assert status == 200, data
    assert heard(client, data, stream=stream) == said
    [charge] = await pairs.charges()
    used = {"input": said.read - said.cached, "input_cached": said.cached, "output": said.written, "calls": 1}
    assert charge["usage"] == {bucket: n for bucket, n in used.items() if n}
    assert (charge["usage_source"], charge["status"], charge["flags"]) == ("reported", "settled", [])
    assert charge["charged"] == f"{_credits(said):.1f}".removesuffix(".0")


def _credits(said: Said) -> float:
    return said.read - said.cached + said.cached / 10 + said.written * 2


@either_way
@pytest.mark.parametrize(("status", "shown"), [(400, 400), (429, 429), (500, 502)])
@each_pair
async def test_a_backends_refusal_is_told_in_the_clients_words_and_costs_nothing(
    pairs: Pairs, client: Client, backend: Backend, status: int, shown: int, *, stream: bool
) -> None:
    pairs.refusal = status, "temperature: the model takes none"
    answered, data = await pairs.call(client, backend, HELLO, stream=stream)
    assert answered == shown
    message = client.error(orjson.loads(data))
    assert ("temperature: the model takes none" in message) == (status == 400)
    assert {(charge["status"], charge["charged"]) for charge in await pairs.charges()} <= {("voided", "0")}
    assert pairs.app.ledger.open_holds == 0


@each_pair
async def test_a_stream_that_breaks_never_looks_complete_and_is_charged_for_what_was_passed_on(
    pairs: Pairs, client: Client, backend: Backend
) -> None:
    pairs.said, pairs.cut_after = Said("a text that is much longer than what comes of it"), 6
    status, data = await pairs.call(client, backend, HELLO, stream=True)
    assert status == 200
    heard = client.hears_stream(data)
    assert not heard.complete
    assert heard.error
    assert pairs.said.text.startswith(heard.text)
    assert heard.text
    [charge] = await pairs.charges()
    assert charge["usage_source"] == "estimated"
    assert 0 < charge["usage"]["output"] <= 10


@each_pair
async def test_wrong_key_and_unknown_model_in_the_clients_words(pairs: Pairs, client: Client, backend: Backend) -> None:
    body = client.asks(HELLO, "nope", stream=False)
    status, data = await pairs.send(client, body)
    assert status == 404
    assert "nope" in client.error(orjson.loads(data))
    url = f"http://127.0.0.1:{pairs.app.port}{client.path}"
    async with pairs.http.post(url, json=body, headers=client.headers("sk-wrong")) as answer:
        assert answer.status == 401
        assert client.error(await answer.json())


@each_pair
async def test_a_bad_body_is_refused_in_the_clients_words(pairs: Pairs, client: Client, backend: Backend) -> None:
    asked: dict[str, Any] = client.asks(HELLO, f"m-{backend.kind}", stream=False)
    for bad in ({**asked, "temperature": "hot"}, {**asked, "messages": 3, "input": 3}, {"model": 1}):
        status, data = await pairs.send(client, bad)
        if status == 200 and bad.get("temperature"):
            continue  # a field that passes as it is: the backend's to refuse
        assert status == 400, data
        assert client.error(orjson.loads(data))
