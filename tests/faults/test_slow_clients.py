"""Clients that send or read as slowly as they can: closed by deadlines for heads and readers, and a rate of bodies."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable, Iterator

import pytest

from gateway import connection, edge
from gateway.demo.scripted import Reply
from tests.conftest import KEY, World
from tests.faults.wire import CHAT, request

HEAD = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as a test may take; the bounds of production are asserted below."""
    monkeypatch.setattr(connection, "HEADER_DEADLINE_S", 0.5)
    monkeypatch.setattr(connection, "BODY_GRACE_S", 0.5)
    monkeypatch.setattr(connection, "READ_IDLE_S", 0.5)
    monkeypatch.setattr("gateway.app.SWEEP_S", 0.1)


def test_the_bounds_of_production(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert connection.HEADER_DEADLINE_S + edge.SWEEP_S <= 30
    assert connection.BODY_GRACE_S + edge.SWEEP_S <= 30
    assert connection.MIN_BODY_BYTES_PER_S > 1
    assert 30 <= connection.READ_IDLE_S <= 60


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


LONG = {
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "x" * 12_000_000}}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 9},  # or its tokens were counted
}
EVENT = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"%b"},"finish_reason":null}]}\n\n' % (b"x" * 60_000)
ENDLESS = Reply(stream=[EVENT] * 400)


@contextlib.contextmanager
def asking(port: int, data: bytes) -> Iterator[socket.socket]:
    """A client with little room for what it is sent, which reads only when the test does."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", port))
        client.setblocking(False)
        client.sendall(data)
        yield client


def busy(world: World) -> int:
    return sum(connection.writing_paused for connection in world.app._edge.connections)


def outcomes(world: World) -> dict[str | int, float]:
    return {labels[3]: count.value for labels, count in world.app.metrics.requests._series.items()}


async def until(true: Callable[[], object], within_s: float = 3) -> None:
    async with asyncio.timeout(within_s):
        while not true():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_who_never_reads_its_answer_loses_its_place_and_its_memory(world: World, stream: bool) -> None:
    world.a.script([ENDLESS if stream else Reply(body=LONG)])
    body = {"model": "small", "stream": stream, "messages": [{"role": "user", "content": "x"}]}
    with asking(world.app.port, request(CHAT, body=body)):
        await until(lambda: busy(world))
        await until(lambda: not world.app._edge.connections)
    await until(lambda: outcomes(world) == {"aborted": 1})
    assert world.app.ledger.open_holds == 0


async def test_who_never_reads_an_error_loses_its_connection_too(world: World) -> None:
    """Requests that are answered at once, one behind another, until nothing more fits between us."""
    async with asyncio.timeout(10):
        with asking(world.app.port, b"") as client:
            loop = asyncio.get_running_loop()
            with contextlib.suppress(ConnectionError):
                while True:
                    await loop.sock_sendall(client, request("/nothing", method="GET") * 500)
    await until(lambda: not world.app._edge.connections)


async def test_a_stream_that_nobody_reads_ends_at_the_deadline_of_its_call(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "READ_IDLE_S", 30)
    world.a.script([ENDLESS])
    body = {"model": "small", "stream": True, "messages": [{"role": "user", "content": "x"}]}
    with asking(world.app.port, request(CHAT, body=body, headers="x-stainless-read-timeout: 1\r\n")) as client:
        await until(lambda: busy(world))
        await until(lambda: outcomes(world) == {"aborted": 1})  # it had its time, by its own wish
        assert world.app.ledger.open_holds == 0
        got = await received(client)
        assert b'"deadline_exceeded"' in got[-300:]
        assert b"[DONE]" not in got
        client.send(request("/healthz", method="GET"))  # it is a connection like any other
        assert (await received(client)).startswith(b"HTTP/1.1 200")


async def test_who_reads_slowly_gets_all_of_it(world: World) -> None:
    world.a.script([Reply(body=LONG)])
    with asking(world.app.port, request(CHAT)) as client:
        await until(lambda: busy(world))
        loop, got = asyncio.get_running_loop(), b""
        for _ in range(40):  # 2 s, in which nothing leaves the gateway's own buffer
            got += await loop.sock_recv(client, 2000)
            await asyncio.sleep(0.05)
        assert busy(world)
        got += await received(client)
    assert json.loads(got.partition(b"\r\n\r\n")[2]) == LONG


async def received(client: socket.socket) -> bytes:
    """What comes until nothing has come for a moment."""
    parts: list[bytes] = []
    client.setblocking(False)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_000_000)
    with contextlib.suppress(TimeoutError):
        while part := await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 1_000_000), 0.3):
            parts.append(part)
    return b"".join(parts)
