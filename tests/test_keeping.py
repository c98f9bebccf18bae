"""`/v1/responses` as OpenAI's SDK uses it: a conversation that the gateway keeps."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from openai import AsyncOpenAI, BadRequestError, NotFoundError

from gateway.charging.directory import Edit
from gateway.demo.scripted import Reply, Seen
from gateway.errors import NotFound
from tests.charging import manage
from tests.conftest import KEY, World

OTHER_KEY = "sk-moma-of-another-tenant"


@pytest.fixture
async def client(world: World) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{world.url}/v1", api_key=KEY, max_retries=0) as made:
        yield made


def heard(world: World) -> list[Any]:
    return [seen.body["messages"] for seen in world.a.requests]


def text_of(message: Any) -> str:
    content = message["content"]
    return str(content if isinstance(content, str) else content[0]["text"])


async def test_a_conversation_goes_on_from_its_last_response(world: World, client: AsyncOpenAI) -> None:
    first = await client.responses.create(model="small", input="one", instructions="Be brief.")
    second = await client.responses.create(model="small", input="two", previous_response_id=first.id)
    async with client.responses.stream(model="small", input="three", previous_response_id=second.id) as stream:
        async for _ in stream:
            pass
        third = await stream.get_final_response()
    assert (second.previous_response_id, third.previous_response_id) == (first.id, second.id)
    assert [message["role"] for message in heard(world)[2]] == ["user", "assistant", "user", "assistant", "user"]
    assert [text_of(message) for message in heard(world)[2]][::2] == ["one", "two", "three"]
    assert heard(world)[0][0]["role"] in ("system", "developer")
    again = await client.responses.retrieve(third.id)
    assert again.output_text == third.output_text
    items = [item async for item in client.responses.input_items.list(third.id, order="asc")]
    assert len(items) == 5
    used = [charge["usage"]["output"] for charge in await world.charges()]
    assert used == [answer.usage.output_tokens for answer in (first, second, third) if answer.usage]


async def test_what_is_not_kept_cannot_be_gone_on_from(world: World, client: AsyncOpenAI) -> None:
    unkept = await client.responses.create(model="small", input="one", store=False)
    kept = await client.responses.create(model="small", input="one")
    await client.responses.delete(kept.id)
    for gone in (unkept.id, kept.id, "resp_nope"):
        with pytest.raises(BadRequestError, match="not found") as caught:
            await client.responses.create(model="small", input="two", previous_response_id=gone)
        assert caught.value.code == "previous_response_not_found"
        with pytest.raises(NotFoundError):
            await client.responses.retrieve(gone)
    assert len(world.a.requests) == 2


async def test_a_response_is_nobody_elses(world: World, client: AsyncOpenAI) -> None:
    await manage.add_tenant(world.app.ledger, "other", "pro")[1]
    await manage.add_key(world.app.ledger, "other", hashlib.sha256(OTHER_KEY.encode()).hexdigest())[1]
    mine = await client.responses.create(model="small", input="my secret")
    async with AsyncOpenAI(base_url=f"{world.url}/v1", api_key=OTHER_KEY, max_retries=0) as stranger:
        with pytest.raises(NotFoundError):
            await stranger.responses.retrieve(mine.id)
        with pytest.raises(NotFoundError):
            await stranger.responses.delete(mine.id)
        with pytest.raises(BadRequestError, match="not found"):
            await stranger.responses.create(model="small", input="go on", previous_response_id=mine.id)
    assert (await client.responses.retrieve(mine.id)).id == mine.id


async def test_a_tool_loop_over_kept_turns(world: World, client: AsyncOpenAI) -> None:
    called = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}
    message = {"role": "assistant", "content": None, "tool_calls": [called]}
    usage = {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10}

    def asked(seen: Seen) -> Reply | None:
        if any(one["role"] == "tool" for one in seen.body["messages"]):
            return None
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
        head = {"id": "x", "object": "chat.completion", "created": 1, "model": "m"}
        return Reply(body={**head, "choices": [choice], "usage": usage})

    world.a.script(asked)
    schema = {"type": "object", "properties": {}}
    tools: Any = [{"type": "function", "name": "f", "parameters": schema, "strict": False}]
    first = await client.responses.create(model="small", input="call f", tools=tools)
    [call] = first.output
    assert call.type == "function_call"
    result: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": "42"}]
    second = await client.responses.create(model="small", input=result, tools=tools, previous_response_id=first.id)
    assert second.status == "completed"
    assert [one["role"] for one in heard(world)[1]] == ["user", "assistant", "tool"]
    assert heard(world)[1][1]["tool_calls"] == [called]
    assert heard(world)[1][2]["content"] == "42"


async def test_a_kept_response_is_not_streamed(world: World, client: AsyncOpenAI) -> None:
    kept = await client.responses.create(model="small", input="one")
    with pytest.raises(BadRequestError) as refused:
        await client.responses.retrieve(kept.id, stream=True)
    assert refused.value.param == "stream"


async def test_tenants_who_are_closed_or_unknown_keep_nothing(world: World, client: AsyncOpenAI) -> None:
    await manage.add_tenant(world.app.ledger, "other", "pro")[1]
    kept = world.app._keeping._kept
    assert kept is not None
    mine = await client.responses.create(model="small", input="one")
    for tenant in ("other", "of a ledger before"):
        kept.keep(tenant, {}, [], {"id": f"resp_{len(tenant)}", "output": []})
    await manage.edit(world.app.ledger, "other", Edit(status="closed"))[1]
    await kept.sweep(world.app._closed)
    for tenant in ("other", "of a ledger before"):
        with pytest.raises(NotFound):
            await kept.find(tenant, f"resp_{len(tenant)}")
    assert (await client.responses.retrieve(mine.id)).id == mine.id


async def test_many_at_once_are_all_kept_under_ids_of_their_own(world: World, client: AsyncOpenAI) -> None:
    made = await asyncio.gather(*(client.responses.create(model="small", input=f"n{n}") for n in range(30)))
    assert len({one.id for one in made}) == 30
    for one in made:
        assert (await client.responses.retrieve(one.id)).output_text == one.output_text
