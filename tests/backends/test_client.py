"""The client against servers that are scripted byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import ssl
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import trustme

from gateway.backends.client import HttpClient
from gateway.backends.connection import MAX_HEAD_BYTES, PAUSE_BYTES
from gateway.clock import LoopClock
from gateway.deadline import Deadlines
from gateway.errors import AttemptFailed

Handler = Callable[[int, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Server:
    """Calls `handler` with the number of each connection. `requests` are whole, as they came."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self.connections = 0
        self.requests: list[bytes] = []
        self.writers: list[asyncio.StreamWriter] = []
        self.gone = 0

    async def __aenter__(self) -> Server:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1/chat/completions"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self.writers:
            writer.close()
        await self._server.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        try:
            await self._handler(self.connections, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.gone += 1

    async def request(self, reader: asyncio.StreamReader) -> bytes:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        whole = head + await reader.readexactly(length)
        self.requests.append(whole)
        return whole


def answering(*answers: bytes, close: bool = False) -> Server:
    """Each connection sends the answers in turn, one per request; the last one over and over."""

    async def handler(_: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        at = 0
        while True:
            await server.request(reader)
            writer.write(answers[min(at, len(answers) - 1)])
            await writer.drain()
            at += 1
            if close:
                writer.close()
                return

    server = Server(handler)
    return server


def http_client(connect_s: float) -> HttpClient:
    clock = LoopClock(asyncio.get_running_loop())
    return HttpClient(connect_s, clock, Deadlines(clock))


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    client = http_client(1.0)
    yield client
    await client.aclose()


def _nothing() -> None:
    """Nobody needs to know that a byte is about to go out."""


async def whole(client: HttpClient, url: str, body: bytes = b"{}", **headers: str) -> tuple[int, bytes]:
    exchange = await client.send(url, {"content-type": "application/json", **headers}, body, _nothing)
    return exchange.status, await exchange.read()


async def broken(client: HttpClient, url: str) -> AttemptFailed:
    with pytest.raises(AttemptFailed) as caught:
        await whole(client, url)
    return caught.value


async def test_a_request_on_the_wire(client: HttpClient) -> None:
    async with answering(OK) as server:
        assert await whole(client, server.url + "?api-version=1", b'{"a":1}', authorization="Bearer k") == (200, b"hi")
        head = (
            "POST /v1/chat/completions?api-version=1 HTTP/1.1\r\n"
            f"host: 127.0.0.1:{server.port}\r\naccept: */*\r\naccept-encoding: identity\r\n"
            "content-type: application/json\r\nauthorization: Bearer k\r\ncontent-length: 7\r\n\r\n"
        )
        assert server.requests == [head.encode() + b'{"a":1}']


async def test_a_connection_serves_one_call_after_another(client: HttpClient) -> None:
    async with answering(OK, CHUNKED + b"2\r\nhi\r\n0\r\n\r\n") as server:
        for _ in range(5):
            assert await whole(client, server.url) == (200, b"hi")
        assert (server.connections, len(server.requests)) == (1, 5)


async def test_calls_at_once_have_a_connection_each_and_leave_them_to_the_next(client: HttpClient) -> None:
    async with answering(OK) as server:
        for _ in range(3):
            await asyncio.gather(*[whole(client, server.url) for _ in range(20)])
        assert (server.connections, len(server.requests)) == (20, 60)


async def test_the_connection_used_last_is_used_next(client: HttpClient) -> None:
    async def handler(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await server.request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % number)

    async with Server(handler) as server:
        both = await asyncio.gather(whole(client, server.url), whole(client, server.url))
        assert sorted(body for _, body in both) == [b"1", b"2"]
        assert len({await whole(client, server.url) for _ in range(5)}) == 1


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi", b"HTTP/1.0 200 OK\r\n\r\nhi"],
    ids=["says close", "HTTP/1.0"],
)
async def test_a_connection_that_ends_is_not_kept(client: HttpClient, answer: bytes) -> None:
    async with answering(answer, close=True) as server:
        assert [await whole(client, server.url) for _ in range(3)] == [(200, b"hi")] * 3
        assert server.connections == 3


async def test_a_connection_given_up_by_the_backend_is_not_an_error(client: HttpClient) -> None:
    """Closed while idle, or just as it is used again: the call goes over a new one, once."""

    async def handler(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.request(reader)
        writer.write(OK)
        if number == 1:
            await server.request(reader)
            writer.close()

    async with Server(handler) as server:
        assert await whole(client, server.url) == (200, b"hi")
        assert await whole(client, server.url) == (200, b"hi")
        assert (server.connections, len(server.requests)) == (2, 3)


async def test_a_new_connection_that_says_nothing_is_an_error(client: HttpClient) -> None:
    async def handler(_: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.request(reader)
        writer.close()

    async with Server(handler) as server:
        error = await broken(client, server.url)
        assert (error.kind, server.connections, len(server.requests)) == ("broken", 1, 1)


ANSWERS = {
    "length": (OK, b"hi"),
    "chunked": (CHUNKED + b"1\r\nh\r\n1;x=y\r\ni\r\n0\r\nTrailer: 1\r\n\r\n", b"hi"),
    "after 100": (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + OK, b"hi"),
    "nothing": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
}


@pytest.mark.parametrize("step", [1, 3, 1000])
@pytest.mark.parametrize("name", ANSWERS)
async def test_an_answer_may_come_in_any_pieces(client: HttpClient, name: str, step: int) -> None:
    answer, expected = ANSWERS[name]

    async def handler(_: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await server.request(reader)
            for start in range(0, len(answer), step):
                writer.write(answer[start : start + step])
                await writer.drain()
                await asyncio.sleep(0)

    async with Server(handler) as server:
        for _ in range(2):
            assert await whole(client, server.url) == (200, expected)
        assert server.connections == 1


BAD = {
    "cut in its length": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi",
    "cut in a chunk": CHUNKED + b"9\r\nhi",
    "cut before the last chunk": CHUNKED + b"2\r\nhi\r\n",
    "cut in its head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "both lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi",
    "no number as length": b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nhi",
    "no number as chunk": CHUNKED + b"zz\r\nhi\r\n0\r\n\r\n",
    "a chunk as long as 2^64": CHUNKED + b"10000000000000000\r\nhi\r\n0\r\n\r\n",
    "not HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "another protocol": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nabc",
    "endless head": b"HTTP/1.1 200 OK\r\nX: " + b"y" * (2 * MAX_HEAD_BYTES),
    "not gzip": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nhi",
}


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_answer_is_broken_and_its_connection_closed(client: HttpClient, name: str) -> None:
    async with answering(BAD[name], close=True) as server:
        assert (await broken(client, server.url)).kind == "broken"
        while client._open:
            await asyncio.sleep(0.01)


async def test_what_nobody_asked_for_ends_the_connection(client: HttpClient) -> None:
    """A second answer must never be taken for that of the next call."""
    async with answering(OK + OK) as server:
        for _ in range(3):
            assert await whole(client, server.url) == (200, b"hi")
        assert server.connections == 3


@pytest.mark.parametrize("packed", [gzip.compress(b"hello"), zlib.compress(b"hello")], ids=["gzip", "deflate"])
async def test_a_compressed_answer_is_read(client: HttpClient, packed: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    async with answering(head + packed) as server:
        assert await whole(client, server.url) == (200, b"hello")


async def test_a_bomb_is_broken(client: HttpClient) -> None:
    packed = gzip.compress(bytes(200_000_000))
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    async with answering(head + packed) as server:
        assert (await broken(client, server.url)).kind == "broken"


async def test_an_answer_is_bounded(client: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.backends.connection.MAX_ANSWER_BYTES", 1_000_000)
    async with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n" + bytes(5_000_000)) as server:
        assert "longer than" in str(await broken(client, server.url))


async def test_a_slow_reader_holds_the_backend_back(client: HttpClient) -> None:
    sent = 0

    async def handler(_: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await server.request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n")
        for _ in range(500):
            writer.write(bytes(100_000))
            await writer.drain()
            sent += 100_000

    async with Server(handler) as server:
        exchange: Any = await client.send(server.url, {}, b"", _nothing)
        before = -1
        while sent != before:  # until the backend is stuck
            before = sent
            await asyncio.sleep(0.2)
        assert sent < 30_000_000  # what the two sockets hold
        assert exchange._size < PAUSE_BYTES + 1_000_000
        assert len(await exchange.read()) == 50_000_000


async def test_leaving_cuts_the_connection(client: HttpClient) -> None:
    left = asyncio.Event()

    async def handler(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.request(reader)
        if number == 2:
            writer.write(CHUNKED + b"2\r\nhi\r\n")
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        left.set()

    async with Server(handler) as server:
        waiting = asyncio.create_task(client.send(server.url, {}, b"", _nothing))
        while not server.requests:
            await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await asyncio.wait_for(left.wait(), 5)
        left.clear()
        exchange = await client.send(server.url, {}, b"", _nothing)
        assert await exchange.chunk() == b"hi"
        exchange.close()
        await asyncio.wait_for(left.wait(), 5)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/v1", "http://no-such-host.invalid/v1", "nonsense", "http://a:b/"])
async def test_what_cannot_be_reached_is_of_kind_connect(client: HttpClient, url: str) -> None:
    assert (await broken(client, url)).kind == "connect"


async def test_a_connection_that_is_never_accepted_is_given_up(client: HttpClient) -> None:
    started = time.monotonic()

    async def silent(_: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    quick = http_client(0.3)
    # A server that never says hello in TLS: the time to connect is over before a byte of the call has left.
    async with Server(silent) as server:
        error = await broken(quick, f"https://127.0.0.1:{server.port}/v1")
        assert (error.kind, time.monotonic() - started < 5) == ("connect", True)
        await quick.aclose()


@pytest.mark.parametrize("value", ["a\r\nx: 1", "a\nx", "a\0", "schlüssel\u4e00"])
async def test_a_header_cannot_bring_another(client: HttpClient, value: str) -> None:
    async with answering(OK) as server:
        with pytest.raises(AttemptFailed, match="of this backend"):
            await whole(client, server.url, authorization=value)
        assert not server.requests


async def test_tls_is_checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(OK)
            await reader.read()
        writer.close()

    server = await asyncio.start_server(handler, "127.0.0.1", 0, ssl=context)
    url = f"https://localhost:{server.sockets[0].getsockname()[1]}/v1"
    stranger = http_client(3.0)
    error = await broken(stranger, url)
    assert (error.kind, "SSLCertVerificationError" in str(error)) == ("connect", True)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    friend = http_client(3.0)
    assert await whole(friend, url) == (200, b"hi")
    for client in (stranger, friend):
        await client.aclose()
    server.close()


async def test_an_answer_that_is_left_is_cut_when_it_does_not_end(client: HttpClient) -> None:
    """After [DONE] nobody reads on; a backend that keeps the answer open must not keep the connection."""
    left = asyncio.Event()

    async def handler(_: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.request(reader)
        writer.write(CHUNKED + b"2\r\nhi\r\n")
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        left.set()

    async with Server(handler) as server:
        exchange = await client.send(server.url, {}, b"", _nothing)
        assert await exchange.chunk() == b"hi"
        exchange.leave()
        await asyncio.wait_for(left.wait(), 5)


async def test_an_answer_that_is_left_and_ends_keeps_its_connection(client: HttpClient) -> None:
    async def handler(_: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await server.request(reader)
            writer.write(CHUNKED + b"2\r\nhi\r\n")
            await asyncio.sleep(0.2)
            writer.write(b"0\r\n\r\n")

    async with Server(handler) as server:
        for _ in range(3):
            exchange = await client.send(server.url, {}, b"", _nothing)
            assert await exchange.chunk() == b"hi"
            exchange.leave()
            await asyncio.sleep(0.4)
        assert server.connections == 1
        await asyncio.sleep(1.2)
        assert not server.gone


async def test_a_connection_goes_when_the_call_was_lost_before_its_first_byte(client: HttpClient) -> None:
    def lost() -> None:
        raise AttemptFailed("broken", "the hold is gone")

    async with answering(OK) as server:
        with pytest.raises(AttemptFailed):
            await client.send(server.url, {}, b"", lost)
        assert await whole(client, server.url) == (200, b"hi")
        assert len(server.requests) == 1
