"""A call end to end over real sockets: answered, charged exactly, whatever goes wrong."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import aiohttp
import openai
import pytest

from gateway.demo.scripted import CLOSED, HANG, RESET, Fault, Reply, refusal
from tests.conftest import ADMIN_KEY, KEY, World

CHUNK = b'data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"word "}}]}\n\n'


async def settled(world: World) -> None:
    """Until no hold is open and what is queued is in the file."""
    for _ in range(200):
        if not world.app.ledger.open_holds:
            break
        await asyncio.sleep(0.01)
    await world.written()
    assert world.app.ledger.open_holds == 0
    world.app.ledger.check_invariants()


async def test_answer_is_charged_what_the_backend_reported(world: World) -> None:
    status, body, headers = await world.chat()
    assert status == 200
    usage = body["usage"]
    [record] = await world.charges()
    assert record["usage"] == {"input": usage["prompt_tokens"], "output": usage["completion_tokens"], "calls": 1}
    assert record["status"] == "settled"
    assert record["request_id"] == headers["x-request-id"]
    assert headers["x-moma-model"] == "small"
    assert headers["x-moma-cache"] == "bypass"
    assert float(headers["x-moma-credits"]) == usage["prompt_tokens"] + 2 * usage["completion_tokens"]


async def test_sdk_streams_and_is_charged(world: World) -> None:
    async with openai.AsyncOpenAI(base_url=f"{world.url}/v1", api_key=KEY, max_retries=0) as client:
        stream = await client.chat.completions.create(
            model="small",
            messages=[{"role": "user", "content": "hi"}],
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
        assert chunks[-1].usage is not None
        plain = await client.chat.completions.create(model="small", messages=[{"role": "user", "content": "hi"}])
        assert plain.choices[0].message.content
        assert [model.id async for model in client.models.list()] == ["small", "large", "auto", "long"]
        vectors = await client.embeddings.create(model="small", input=["a", "b"])
        assert len(vectors.data) == 2
    first, *_ = await world.charges()
    assert first["usage"]["output"] == chunks[-1].usage.completion_tokens


async def test_usage_chunk_only_if_asked(world: World) -> None:
    asked = {"model": "small", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    async with world.http.post(f"{world.url}/v1/chat/completions", json=asked) as answer:
        text = await answer.text()
    assert '"choices":[]' not in text.replace(" ", "")
    assert text.endswith("data: [DONE]\n\n")
    assert world.a.requests[0].body["stream_options"] == {"include_usage": True}


async def test_sdk_errors_have_their_classes(world: World) -> None:
    async with openai.AsyncOpenAI(base_url=f"{world.url}/v1", api_key="sk-moma-wrong", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError):
            await client.models.list()
    async with openai.AsyncOpenAI(base_url=f"{world.url}/v1", api_key=KEY, max_retries=0) as client:
        with pytest.raises(openai.NotFoundError):
            await client.chat.completions.create(model="nope", messages=[{"role": "user", "content": "x"}])
        with pytest.raises(openai.BadRequestError):
            await client.chat.completions.create(model="small", messages=[])
        world.a.script(lambda _: refusal(503))
        with pytest.raises(openai.InternalServerError):
            await client.chat.completions.create(model="small", messages=[{"role": "user", "content": "x"}])


async def test_a_raw_pack_for_one_model_pays_its_tokens_first(world: World) -> None:
    """Sold through the admin API, used by real calls, shown on usage, records and the statement."""
    pack = {"credits": 1000, "card": "raw", "scope": {"models": ["large"]}, "priority": 10, "source_ref": "pack-1"}
    admin = {"authorization": f"Bearer {ADMIN_KEY}"}
    async with world.http.post(f"{world.url}/admin/v1/tenants/demo/grants", json=pack, headers=admin) as answer:
        made = await answer.json()
    assert (answer.status, made["card"], made["scope"]) == (201, "raw", {"models": ["large"]})
    _, body, headers = await world.chat(model="large", max_tokens=50)
    usage = body["usage"]
    assert headers["x-moma-credits"] == str(usage["total_tokens"])
    assert (await world.chat(model="small"))[0] == 200
    first, second = await world.charges()
    units = {"input": usage["prompt_tokens"], "output": usage["completion_tokens"], "calls": 1}
    assert first["split"] == [{"grant": made["id"], "card": "raw", "units": units}]
    assert (second["split"], [part["grant"] == made["id"] for part in second["parts"]]) == (
        [{"grant": second["parts"][0]["grant"], "card": "standard", "units": second["usage"]}], [False],
    )  # fmt: skip
    async with world.http.get(f"{world.url}/v1/usage") as answer:
        (shown,) = [grant for grant in (await answer.json())["grants"] if grant["package"] == "pack-1"]
    assert (shown["spent"], shown["card"], shown["scope"]) == (
        str(usage["total_tokens"]), "raw", {"models": ["large"]},
    )  # fmt: skip


async def test_a_suspended_tenant_is_told_so_by_the_next_call(world: World) -> None:
    """Over HTTP, with caps of its own: 429 with the cap in the error, 403 when suspended, and on as before."""
    url, admin = f"{world.url}/admin/v1/tenants/demo", {"authorization": f"Bearer {ADMIN_KEY}"}

    async def edit(**asked: object) -> None:
        async with world.http.patch(url, json=asked, headers=admin) as answer:
            assert answer.status == 200

    await edit(caps={"day": {"calls": 1}})
    assert (await world.chat())[0] == 200
    status, body, headers = await world.chat()
    assert (status, body["error"]["code"], body["error"]["scope"]) == (429, "insufficient_quota", "demo")
    assert (body["error"]["limit"], body["error"]["used"], headers["x-should-retry"]) == ("1", "1", "false")
    await edit(caps={}, status="suspended")
    status, body, _ = await world.chat()
    assert (status, body["error"]["code"]) == (403, "account_not_active")
    assert "demo is suspended" in body["error"]["message"]
    await edit(status="active")
    assert (await world.chat())[0] == 200


@pytest.mark.parametrize(
    "fault",
    [RESET, CLOSED, pytest.param(HANG, marks=pytest.mark.hasty),
     refusal(503), refusal(500), refusal(401), refusal(404), refusal(429),
     Reply(body=b""), Reply(body=b"<html>"), Reply(body=b'"text"'), Reply(body=b'{"a": "\xff"}')],
    ids=lambda r: f"{r.status}-{r.before or r.body}"[:24],
)  # fmt: skip
async def test_fault_before_the_answer_goes_to_the_next_target(world: World, fault: Reply) -> None:
    world.a.script(lambda _: fault)
    status, _, headers = await world.chat(model="auto")
    assert (status, headers["x-moma-backend"]) == (200, "b")
    await settled(world)
    assert len(await world.charges()) == 1


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (RESET, 502, "backend_error"),
        (Reply(body=b"<html>"), 502, "backend_error"),
        (refusal(401), 502, "backend_error"),
        (refusal(429), 429, "backend_overloaded"),
        pytest.param(HANG, 504, "deadline_exceeded", marks=pytest.mark.hasty),
        (refusal(400, "no", "bad"), 400, "bad"),
        (refusal(422, "no", "bad"), 422, "bad"),
    ],
)
async def test_targets_exhausted_says_why_and_costs_nothing(world: World, fault: Reply, status: int, code: str) -> None:
    world.a.script(lambda _: fault)
    got, body, _ = await world.chat()
    assert (got, body["error"]["code"]) == (status, code)
    assert set(body["error"]) == {"message", "type", "param", "code"}
    await settled(world)
    assert all(float(record["charged"]) == 0 for record in await world.charges())


@pytest.mark.parametrize("end", [Fault.RESET, Fault.EOF, pytest.param(Fault.HANG, marks=pytest.mark.hasty)])
async def test_broken_stream_never_looks_complete_and_is_charged_in_part(world: World, end: Fault) -> None:
    world.a.script([Reply(headers={"content-type": "text/event-stream"}, stream=[CHUNK, CHUNK, end])])
    asked = {"model": "auto", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    async with world.http.post(f"{world.url}/v1/chat/completions", json=asked) as answer:
        text = await answer.text()
    assert text.count("word") == 2
    assert '{"error":' in text
    assert "[DONE]" not in text
    assert len(world.b.requests) == 0
    await settled(world)
    [record] = await world.charges()
    assert "partial" in record["flags"]
    assert float(record["charged"]) > 0


async def test_client_gone_cancels_upstream_and_settles(world: World) -> None:
    stream = [CHUNK] * 5 + [Fault.HANG]
    world.a.script([Reply(headers={"content-type": "text/event-stream"}, stream=stream)])
    asked = {"model": "small", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    answer = await world.http.post(f"{world.url}/v1/chat/completions", json=asked)
    assert await answer.content.readany()
    answer.close()
    await asyncio.wait_for(world.a.requests[0].ended.wait(), 1)
    assert world.a.requests[0].disconnected
    await settled(world)
    [record] = await world.charges()
    assert float(record["charged"]) > 0
    assert set(record["flags"]) >= {"estimated", "partial"}


async def test_cancelled_calls_leak_no_hold(world: World) -> None:
    rng = random.Random(7)
    world.a.script(lambda _: Reply(headers={"content-type": "text/event-stream"}, stream=[CHUNK, 0.02, CHUNK, 0.02]))
    asked = {"model": "small", "stream": True, "messages": [{"role": "user", "content": "hi"}]}

    async def one() -> None:
        async with world.http.post(f"{world.url}/v1/chat/completions", json=asked) as answer:
            await answer.read()

    for _ in range(10):
        tasks = [asyncio.create_task(one()) for _ in range(15)]
        for task in tasks:
            asyncio.get_running_loop().call_later(rng.uniform(0, 0.08), task.cancel)
        await asyncio.gather(*tasks, return_exceptions=True)
    await settled(world)


async def admin(world: World, method: str, path: str, body: object = None) -> tuple[int, dict[str, object]]:
    headers = {"authorization": f"Bearer {ADMIN_KEY}"}
    async with world.http.request(method, f"{world.url}/admin/v1/{path}", json=body, headers=headers) as answer:
        return answer.status, await answer.json()


async def new_key(world: World, tenant: str, plan: str) -> str:
    assert (await admin(world, "POST", "tenants", {"id": tenant, "plan": plan}))[0] == 201
    status, key = await admin(world, "POST", f"tenants/{tenant}/keys", {})
    assert status == 201
    return str(key["key"])


WHOLE = {
    "id": "x",
    "object": "chat.completion",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6},
}


async def test_a_thousand_at_once_on_a_package_for_five(world: World) -> None:
    asked = {"model": "small", "max_tokens": 10, "messages": [{"role": "user", "content": "hello"}]}
    decided = asyncio.Event()
    world.a.script(lambda _: Reply(body=WHOLE, before=(decided,)))

    async def one(key: str) -> tuple[int, str]:
        headers = {"authorization": f"Bearer {key}"}
        async with world.http.post(f"{world.url}/v1/chat/completions", json=asked, headers=headers) as answer:
            body = await answer.json()
            return answer.status, body["error"]["code"] if "error" in body else ""

    probe = asyncio.create_task(one(KEY))
    while not float(hold := world.app.ledger.usage("demo")["reserved"]):
        await asyncio.sleep(0.01)
    key = await new_key(world, "poor", "empty")
    await admin(world, "POST", "tenants/poor/grants", {"credits": f"{float(hold) * 5:.6f}"})
    tasks = [asyncio.create_task(one(key)) for _ in range(1000)]
    while sum(task.done() for task in tasks) < 995:
        await asyncio.sleep(0.02)
    decided.set()
    assert Counter(await asyncio.gather(*tasks)) == {(200, ""): 5, (429, "insufficient_quota"): 995}
    assert await probe == (200, "")
    await settled(world)


async def test_limits_refuse_with_advice(world: World) -> None:
    key = await new_key(world, "slow", "tight")
    await admin(world, "POST", "tenants/slow/grants", {"credits": "1M"})
    statuses = []
    for _ in range(3):
        headers = {"authorization": f"Bearer {key}"}
        asked = {"model": "small", "messages": [{"role": "user", "content": "x"}]}
        async with world.http.post(f"{world.url}/v1/chat/completions", json=asked, headers=headers) as answer:
            statuses.append(answer.status)
            last = answer.headers
    assert statuses == [200, 200, 429]
    assert int(last["retry-after"]) >= 1


async def test_context_falls_back_before_any_backend_is_asked(world: World) -> None:
    long = [{"role": "user", "content": "word " * 8000}]
    status, _, headers = await world.chat(model="long", messages=long)
    assert (status, headers["x-moma-model"]) == (200, "large")
    status, body, _ = await world.chat(model="small", messages=long)
    assert (status, body["error"]["code"]) == (400, "context_length_exceeded")


async def test_backend_key_is_sent_and_never_shown(world: World) -> None:
    world.a.script([refusal(400, "the key backend-secret at http://10.0.0.1/x is bad")])
    status, body, _ = await world.chat()
    assert status == 400
    assert "10.0.0.1" not in body["error"]["message"]
    assert world.a.requests[0].headers["authorization"] == "Bearer backend-secret"


@pytest.mark.parametrize(
    "headers",
    [{}, {"authorization": ""}, {"authorization": "Basic abc"}, {"authorization": "Bearer ' OR 1=1 --"},
     {"authorization": "Bearer " + "k" * 7000}, {"x-api-key": KEY[:-1]}, {"authorization": f"Bearer {KEY[:-1]}"}],
)  # fmt: skip
async def test_wrong_credentials_have_one_answer(world: World, headers: dict[str, str]) -> None:
    async with aiohttp.ClientSession() as http, http.get(f"{world.url}/v1/models", headers=headers) as answer:
        assert answer.status == 401
        assert (await answer.json())["error"]["code"] == "invalid_api_key"


async def test_every_path_answers_in_json(world: World) -> None:
    for method, path, status in (
        ("GET", "/healthz", 200), ("GET", "/readyz", 200), ("GET", "/v1/nope", 404), ("GET", "/", 401),
        ("GET", "/v1/chat/completions", 405), ("DELETE", "/v1/models", 405), ("GET", "/v1/models/small", 200),
        ("GET", "/v1/usage", 200), ("GET", "/admin/v1/tenants", 401),
    ):  # fmt: skip
        async with world.http.request(method, world.url + path) as answer:
            assert answer.status == status, path
            assert isinstance(await answer.json(), dict)
    async with world.http.get(world.url + "/metrics") as answer:
        assert "moma_requests_total" in await answer.text()
