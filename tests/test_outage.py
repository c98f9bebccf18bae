"""A gateway whose ledger's file takes no commits for a while, over real sockets."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest

from gateway.app import App
from gateway.charging.audit import audit
from gateway.config.load import ConfigError, load
from gateway.demo.scripted import Reply
from tests.charging.fakes import Down, fail_next, recovered
from tests.conftest import ADMIN_KEY, KEY, World
from tests.test_once import CHUNK, LAST, SSE


async def ready(world: World) -> tuple[int, str]:
    async with world.http.get(f"{world.url}/readyz") as answer:
        return answer.status, await answer.text()


async def gauge(world: World, name: str) -> float:
    async with world.http.get(f"{world.url}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(f"{name} ")))


async def stream(world: World) -> str:
    async with openai.AsyncOpenAI(api_key=KEY, base_url=f"{world.url}/v1", max_retries=0) as client:
        chunks = await client.chat.completions.create(
            model="small", stream=True, messages=[{"role": "user", "content": "hi"}]
        )
        return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks if chunk.choices])


async def test_a_stream_in_flight_gets_its_end_and_new_calls_a_503(world: World) -> None:
    go_on = asyncio.Event()
    world.a.script([Reply(headers=SSE, stream=[CHUNK, go_on, CHUNK, LAST])])
    running = asyncio.create_task(stream(world))
    while not world.app.ledger.open_holds:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)  # its hold is written
    fail_next(world.app.ledger, "commit")
    with Down(world.app.ledger):
        go_on.set()
        assert await running == "word word "
        status, text = await ready(world)
        assert (status, "the ledger store is not available" in text) == (503, True)
        assert await gauge(world, "moma_ledger_available") == 0
        assert await gauge(world, "moma_ledger_spool_bytes") > 0
        status, answer, _ = await world.chat()
        assert (status, answer["error"]["code"]) == (503, "store_unavailable")
        assert await world.charges() == []
    await recovered(world.app.ledger)
    assert (await ready(world))[0] == 200
    assert await gauge(world, "moma_ledger_spool_bytes") == 0
    [record] = await world.charges()
    assert (record["status"], record["usage"], record["flags"]) == (
        "settled", {"input": 5, "output": 2, "calls": 1}, [],
    )  # fmt: skip
    assert (await world.chat())[0] == 200


async def served(world: World, **storage: str) -> App:
    """The same gateway again, with more under `storage`."""
    await world.app.aclose()
    routes = world.path / "routes.yaml"
    words = "".join(f", {key}: {value}" for key, value in storage.items())
    routes.write_text(routes.read_text().replace('moma.db"}', f'moma.db"{words}}}'))
    world.app = App(load(routes))
    await world.app.start("127.0.0.1", 0)
    return world.app


async def test_calls_go_on_where_that_is_wanted(world: World) -> None:
    app = await served(world, when_down="serve", exposure="5k")
    status, _, _ = await world.chat(max_tokens=100)
    await world.written()
    fail_next(app.ledger, "begin")
    with Down(app.ledger):
        asked = [world.chat(max_tokens=100) for _ in range(50)]
        found = [status for status, *_ in await asyncio.gather(*asked)]
        assert set(found) <= {200, 503}
        assert found.count(200) >= 10  # each may take some 300
        assert (await ready(world))[0] == 200
        assert await gauge(world, "moma_ledger_available") == 0
        status, answer, _ = await world.chat(max_tokens=1000)
        taken = sum(1 for one in found if one == 200)
        while status == 200:
            taken += 1
            status, answer, _ = await world.chat(max_tokens=1000)
        assert (status, answer["error"]["code"]) == (503, "store_unavailable")
    await recovered(app.ledger)
    records: list[dict[str, Any]] = await world.charges()
    assert len(records) == taken + 1
    assert sum(float(record["charged"]) for record in records[1:]) <= 5_000
    assert audit(str(world.path / "moma.db")) == []
    assert (await world.chat(max_tokens=1000))[0] == 200


async def test_a_call_that_is_answered_whole_is_answered_in_the_outage(world: World) -> None:
    go_on = asyncio.Event()
    body = {"choices": [{"index": 0, "message": {"content": "x"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 4}}  # fmt: skip
    world.a.script([Reply(before=(go_on,), body=body)])
    running = asyncio.create_task(world.chat())
    while not world.app.ledger.open_holds:
        await asyncio.sleep(0.01)
    fail_next(world.app.ledger, "begin")
    with Down(world.app.ledger):
        go_on.set()
        status, _, headers = await running
    assert (status, headers["x-moma-credits"]) == (200, "11")
    await recovered(world.app.ledger)


@pytest.mark.parametrize("wrong", ["when_down: wait", "exposure: 0", "exposure: some"])
async def test_a_mode_that_is_none_is_refused(world: World, wrong: str) -> None:
    routes = world.path / "routes.yaml"
    routes.write_text(routes.read_text().replace('moma.db"}', f'moma.db", {wrong}}}'))
    with pytest.raises(ConfigError, match=r"storage\."):
        load(routes)


async def test_who_asks_hears_that_it_takes_a_restart(world: World) -> None:
    routes = world.path / "routes.yaml"
    routes.write_text(routes.read_text().replace('moma.db"}', 'moma.db", when_down: serve, exposure: 5M}'))
    headers = {"authorization": f"Bearer {ADMIN_KEY}"}
    async with world.http.post(f"{world.url}/admin/v1/reload", headers=headers) as answer:
        found = await answer.json()
    texts = " ".join(found["after_restart"])
    assert "storage.when_down" in texts
    assert "storage.exposure" in texts
