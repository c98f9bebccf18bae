"""What the pipeline does with answers works in every dialect: caches, followers, Idempotency-Key, counts."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import orjson
import pytest

from tests.pairs.conftest import KEY, Pairs
from tests.pairs.meaning import Backend, Client, Said
from tests.pairs.speaks_anthropic import MessagesClient
from tests.pairs.speaks_chat import ChatBackend
from tests.pairs.test_pairs import BEIJING, CLOCK, HELLO, WEATHER, each_pair, heard

SAID = Said("Let me look.", (BEIJING,), stop="tools", thought="Which city?")
ASK = replace(HELLO, tools=(WEATHER, CLOCK))


@pytest.mark.parametrize("first", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("then", [False, True], ids=["whole", "stream"])
@each_pair
async def test_a_stored_answer_is_given_as_it_was_whole_or_as_a_stream(
    pairs: Pairs, client: Client, backend: Backend, *, first: bool, then: bool
) -> None:
    pairs.said = SAID
    for stream in (first, then):
        status, data = await pairs.send(client, client.asks(ASK, f"kept-{backend.kind}", stream=stream))
        assert status == 200, data
        assert heard(client, data, stream=stream) == SAID
    assert len(pairs.asked) == 1
    own, hit = await pairs.charges()
    assert float(hit["charged"]) == float(own["charged"]) / 2


@each_pair
async def test_ten_at_once_are_one_call_of_a_backend(pairs: Pairs, client: Client, backend: Backend) -> None:
    pairs.said = SAID
    body = client.asks(ASK, f"kept-{backend.kind}", stream=True)
    answers = await asyncio.gather(*(pairs.send(client, body) for _ in range(10)))
    assert {heard(client, data, stream=True) == SAID for _, data in answers} == {True}
    assert len(pairs.asked) == 1


@each_pair
async def test_a_stream_is_given_again_by_its_idempotency_key(pairs: Pairs, client: Client, backend: Backend) -> None:
    pairs.said = SAID
    body = client.asks(ASK, f"m-{backend.kind}", stream=True)
    url = f"http://127.0.0.1:{pairs.app.port}{client.path}"
    answers = []
    for _ in range(2):
        headers = {**client.headers(KEY), "Idempotency-Key": "once"}
        async with pairs.http.post(url, json=body, headers=headers) as answer:
            answers.append(await answer.read())
    assert answers[0] == answers[1]
    assert heard(client, answers[0], stream=True) == SAID
    assert len(await pairs.charges()) == 1


async def test_the_input_of_a_message_is_counted_and_nothing_is_charged(pairs: Pairs) -> None:
    client, backend = MessagesClient(), ChatBackend()
    url = f"http://127.0.0.1:{pairs.app.port}{client.path}/count_tokens"
    counts = []
    for ask in (HELLO, ASK):
        body = client.asks(ask, f"m-{backend.kind}", stream=False)
        del body["max_tokens"]
        async with pairs.http.post(url, json=body, headers=client.headers(KEY)) as answer:
            assert answer.status == 200
            counts.append((await answer.json())["input_tokens"])
    assert 4 <= counts[0] <= 12
    assert counts[1] > counts[0] + 30
    assert pairs.asked == []
    assert await pairs.charges() == []
    async with pairs.http.post(url, json={"model": "m-openai"}, headers=client.headers("sk-no")) as answer:
        assert answer.status == 401
        assert client.error(await answer.json())


async def test_what_only_anthropic_knows_is_refused_by_its_name_and_not_dropped(pairs: Pairs) -> None:
    client = MessagesClient()
    body = client.asks(HELLO, "m-openai", stream=False)
    body["tools"] = [{"type": "web_search_20250305", "name": "web_search"}]
    status, data = await pairs.send(client, body)
    assert (status, pairs.asked) == (400, [])
    error = orjson.loads(data)["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", "tools[0]")
