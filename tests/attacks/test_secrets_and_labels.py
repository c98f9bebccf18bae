"""What must not get out, what must not be reached, and what must not grow."""

from __future__ import annotations

import asyncio
import logging
import uuid
from typing import Any

import pytest

from gateway.demo.scripted import CLOSED, Reply, refusal
from tests.conftest import ADMIN_KEY, KEY, World

BACKEND_KEY = "backend-secret"


async def test_planted_secrets_show_nowhere(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """The tenant's key, the backend's key, the admin key and the ledger's path, through good calls and bad ones."""
    caplog.set_level(logging.DEBUG)
    said = []
    for reply in (None, refusal(401, f"wrong key {BACKEND_KEY}"), refusal(400, "bad http://10.0.0.1/v1"), CLOSED):
        world.b.script(lambda _, reply=reply: reply)  # type: ignore[misc]
        said.append(str(await world.chat(model="large")))
    async with world.http.get(f"{world.url}/metrics") as answer:
        said.append(await answer.text())
    async with world.http.get(f"{world.url}/admin/v1/tenants") as answer:
        said.append(await answer.text())
    said += [caplog.text, repr(world.app), repr(vars(world.app))]
    for secret in (KEY, BACKEND_KEY, ADMIN_KEY, "10.0.0.1"):
        assert all(secret not in text for text in said), secret


async def test_nothing_in_a_body_makes_the_gateway_call_out(world: World) -> None:
    """A canary listens; URLs point to it from every place that a client fills in."""
    visits = 0

    async def visited(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal visits
        visits += 1
        writer.close()

    canary = await asyncio.start_server(visited, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{canary.sockets[0].getsockname()[1]}/"
    image = {"type": "image_url", "image_url": {"url": url}}
    bodies: list[dict[str, Any]] = [
        {"messages": [{"role": "user", "content": [{"type": "text", "text": url}, image]}]},
        {"base_url": url, "api_base": url, "url": url, "webhook": url, "metadata": {"callback": url}},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"$ref": url}}}]},
        {"model": url},
        {"user": url, "extra_body": {"api_base": url}},
    ]
    headers = {"x-forwarded-host": url, "host": url[7:-1], "referer": url, "x-api-base": url, "x-moma-backend": url}
    for body in bodies:
        asked = {"model": "large", "messages": [{"role": "user", "content": "x"}], **body}
        async with world.http.post(f"{world.url}/v1/chat/completions", json=asked, headers=headers) as answer:
            await answer.read()
    world.b.script(lambda _: Reply(status=302, headers={"location": url}, body=b""))
    status, _, _ = await world.chat(model="large")
    assert status == 502  # a redirect is never followed
    assert visits == 0
    canary.close()


async def test_labels_do_not_grow_with_what_clients_send(world: World) -> None:
    """600 calls with distinct model, path, method, key and ids."""

    async def series() -> int:
        async with world.http.get(f"{world.url}/metrics") as answer:
            lines = (await answer.text()).splitlines()
            return sum(not line.startswith("#") and "_created" not in line for line in lines)

    await world.chat(model="small")
    before = await series()
    for number in range(150):
        name = f"{number}-{uuid.uuid4().hex}"
        await world.chat(model=name, user=name)
        async with world.http.get(f"{world.url}/v1/{name}") as answer:
            assert answer.status == 404
        async with world.http.request("M" + "AB"[number % 2] * (number % 60 + 1), f"{world.url}/v1/models") as answer:
            assert answer.status in (400, 405)  # HTTP itself knows some methods only
        async with world.http.get(f"{world.url}/v1/models", headers={"authorization": f"Bearer {name}"}) as answer:
            assert answer.status == 401
    assert await series() - before <= 150


@pytest.mark.parametrize("value", ["a\r\nx-evil: 1", "a\nb", "\r\n\r\nHTTP/1.1 200 OK", "\u560d\u560ax: 1"])
async def test_no_field_splits_a_header(world: World, value: str) -> None:
    for field in ("model", "user", "id"):
        _, _, headers = await world.chat(**{field: value})
        assert "x-evil" not in headers
        assert "x" not in headers
