"""Clients that send as slowly as they can: closed by a deadline for heads and a least rate for bodies."""

from __future__ import annotations

import asyncio

import pytest

from gateway import edge
from gateway.demo.scripted import Reply
from tests.conftest import KEY, World

HEAD = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as a test may take; the bounds of production are asserted below."""
    monkeypatch.setattr(edge, "HEADER_DEADLINE_S", 0.5)
    monkeypatch.setattr(edge, "BODY_GRACE_S", 0.5)
    monkeypatch.setattr(edge, "SWEEP_S", 0.1)


def test_the_bounds_of_production(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert edge.HEADER_DEADLINE_S + edge.SWEEP_S <= 30
    assert edge.BODY_GRACE_S + edge.SWEEP_S <= 30
    assert edge.MIN_BODY_BYTES_PER_S > 1


async def closed_within(world: World, start: str, drip: bytes, within_s: float) -> bool:
    """Sends `start`, then `drip` byte by byte, ten a second, for as long as the gateway lets it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", world.app.port)
    writer.write(start.encode())

    async def go_on() -> None:
        while drip:
            for byte in drip:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.1)

    dripping = asyncio.create_task(go_on())
    try:
        async with asyncio.timeout(within_s):
            while await reader.read(1000):
                pass
            return True
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    finally:
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)
        writer.close()


@pytest.mark.parametrize(
    "start",
    ["", "G", "GET /v1/models HTTP/1.1\r\n", HEAD, "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\nGET /v1"],
    ids=["nothing", "a byte", "a line", "all but the end", "the second request"],
)
async def test_a_slow_head_is_closed(world: World, start: str) -> None:
    assert await closed_within(world, start, b"x-a: b\r\n", 10)


async def test_a_connection_that_says_nothing_is_closed(world: World) -> None:
    assert await closed_within(world, "", b"", 10)


@pytest.mark.parametrize("framing", ["content-length: 1000", "transfer-encoding: chunked"])
async def test_a_slow_body_is_closed_and_costs_nothing(world: World, framing: str) -> None:
    assert await closed_within(world, f"{HEAD}{framing}\r\n\r\n", b"1\r\n{\r\n", 10)
    assert world.app.ledger.open_holds == 0
    assert world.app.ledger.usage("demo")["spent"] == "0"


async def test_a_client_that_leaves_before_its_body_costs_nothing(world: World) -> None:
    for _ in range(20):
        _, writer = await asyncio.open_connection("127.0.0.1", world.app.port)
        writer.write(f"{HEAD}content-length: 1000\r\n\r\n{{".encode())
        await writer.drain()
        writer.close()
    await asyncio.sleep(0.2)
    assert not world.a.requests
    assert world.app.ledger.open_holds == 0
    assert (await world.chat())[0] == 200


async def test_a_slow_reader_is_no_slow_sender(world: World) -> None:
    """A call that waits long for its backend has sent its body: no bound on bodies ends it."""
    release = asyncio.Event()
    world.a.script([Reply(before=(release,), body={"choices": [{"index": 0, "message": {"content": "x"}}]})])
    call = asyncio.create_task(world.chat())
    await asyncio.sleep(0.9)
    release.set()
    assert (await call)[0] == 200
