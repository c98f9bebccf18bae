"""Majors 1, 2 and 3 of the OpenAI SDK against the gateway over real sockets, each in a venv of its own."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from gateway.demo.scripted import HANG, Fault, Reply, Seen, refusal
from tests.clients.table import Group, in_the_table
from tests.conftest import ADMIN_KEY, World

HERE = Path(__file__).parent
CHOICE = b'{"index":0,"delta":{"content":"word "}}'
CHUNK = b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[%b]}\n\n' % CHOICE
CHECKS = 23


def in_trouble(seen: Seen) -> Reply | None:
    """What the prompt asks for; anything else is answered."""
    content = seen.body["messages"][-1]["content"] if "messages" in seen.body else ""
    return {
        "fail": refusal(500),
        "busy": refusal(429, retry_after="60"),
        "slow": HANG,
        "break": Reply(stream=(CHUNK, Fault.EOF)),
    }.get(content)


def rows(client: str, version: str, done: list[str]) -> list[Group]:
    """What was done over /v1/responses, and all else, for docs/clients.md."""
    over_responses = tuple(name for name in done if name.startswith("responses"))
    others = tuple(name for name in done if name not in over_responses)
    return [Group(client, version, "chat", others, {}), Group(client, version, "responses", over_responses, {})]


async def empty_key(world: World) -> str:
    admin = {"authorization": f"Bearer {ADMIN_KEY}"}
    url = f"{world.url}/admin/v1/tenants"
    async with world.http.post(url, json={"id": "empty", "plan": "empty"}, headers=admin) as answer:
        assert answer.status == 201
    async with world.http.post(f"{url}/empty/keys", json={}, headers=admin) as answer:
        key: str = (await answer.json())["key"]
        return key


@pytest.mark.parametrize("major", [1, 2, 3])
async def test_a_major_of_the_sdk(world: World, major: int) -> None:
    python = HERE.parent.parent / f".venv/openai{major}/bin/python"
    if not python.exists():
        pytest.skip(f"make .venv/openai{major}/.done installs it")
    world.b.script(in_trouble)
    arguments = (str(HERE / "contract.py"), f"{world.url}/v1", "sk-moma-test-key-of-the-suite", await empty_key(world))
    process = await asyncio.create_subprocess_exec(
        str(python), "-W", "error", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await asyncio.wait_for(process.communicate(), 120)
    version, *done = output.decode().split("\n")[:-1]
    assert process.returncode == 0, output.decode()
    assert re.match(rf"openai {major}\.", version)
    assert len(done) == CHECKS
    in_the_table(
        rows(f"OpenAI Python {major}", version.removeprefix("openai "), [name.replace("_", " ") for name in done])
    )
    refused = world.app.metrics.registry.get_sample_value("moma_limit_refusals_total", {"kind": "quota"})
    assert refused == 1  # x-should-retry: false keeps the SDK from trying again
    while world.app.ledger.open_holds:
        await asyncio.sleep(0.01)
    world.app.ledger.check_invariants()
