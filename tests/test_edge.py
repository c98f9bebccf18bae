"""A connection between requests, in one and behind one, byte by byte over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from urllib.parse import unquote

import pytest

from gateway.call import Answer
from gateway.connection import STEP_BYTES
from gateway.demo.scripted import Reply
from gateway.edge import Edge
from gateway.failing import error_answer
from gateway.request import READ_AHEAD_BYTES, HttpRequest
from gateway.server import HttpSink
from tests.conftest import KEY, ROUTES, World
from tests.faults.wire import ASKED, CHAT, HOST, request, send

GET = b"GET /x HTTP/1.1\r\nHost: g\r\n"
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Bench:
    """An edge with room for two connections, whose calls wait for `go`."""

    edge: Edge

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.entered = 0
        self.cancelled = 0
        self.port = 0
        self.writers: list[asyncio.StreamWriter] = []

    async def handle(self, http: HttpRequest) -> None:
        self.entered += 1
        try:
            if http.path == "/wait":
                await self.go.wait()
            body = await http.body(1000) if http.method == "POST" else b"ok"
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if http.path == "/fail":
            raise ZeroDivisionError
        await HttpSink(http, 1).send(Answer(200, {"x-path": http.path, "x-query": str(http.query)}, body))

    async def connect(self) -> Connection:
        reader, writer = await asyncio.open_connection(HOST, self.port)
        self.writers.append(writer)
        return reader, writer


async def ask(connection: Connection, data: bytes) -> bytes:
    reader, writer = connection
    writer.write(data)
    return await answer(reader)


async def answer(reader: asyncio.StreamReader) -> bytes:
    """One with a length; b"" when the connection is closed."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        async with asyncio.timeout(5):
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]
            return head + await reader.readexactly(int(length))
    return b""


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    edge = bench.edge = Edge(bench.handle, lambda error: error_answer(error, "req-1"), 2)
    bench.port = await edge.listen(HOST, 0)
    yield bench
    bench.go.set()
    for writer in bench.writers:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    await edge.aclose(1)


async def test_one_that_is_being_answered_makes_no_room(bench: Bench) -> None:
    busy, other = await bench.connect(), await bench.connect()
    asked = asyncio.create_task(ask(busy, GET.replace(b"/x", b"/wait") + b"\r\n"))
    while not bench.entered:
        await asyncio.sleep(0.001)
    assert (await ask(other, GET + b"\r\n")).startswith(b"HTTP/1.1 200")
    third = await bench.connect()  # `other` is between two requests and makes room
    assert (await ask(third, GET + b"Connection: keep-alive\r\n\r\n")).startswith(b"HTTP/1.1 200")
    assert await other[0].read() == b""
    also = asyncio.create_task(ask(third, GET.replace(b"/x", b"/wait") + b"\r\n"))
    while bench.entered < 4:
        await asyncio.sleep(0.001)
    refused = await answer((await bench.connect())[0])
    assert refused.startswith(b"HTTP/1.1 503"), refused
    assert b"retry-after" in refused.lower()
    assert b"x-request-id: req-1\r\n" in refused
    bench.go.set()
    assert [(await task).split(b" ")[1] for task in (asked, also)] == [b"200", b"200"]


async def test_who_leaves_cancels_its_call(bench: Bench) -> None:
    _, writer = await bench.connect()
    writer.write(GET.replace(b"/x", b"/wait") + b"\r\n")
    while not bench.entered:
        await asyncio.sleep(0.001)
    writer.close()
    async with asyncio.timeout(0.1):
        while not bench.cancelled:
            await asyncio.sleep(0.001)


async def test_path_and_query_are_decoded(bench: Bench) -> None:
    got = await ask(await bench.connect(), b"GET /a%20b?c=d%26 HTTP/1.1\r\nHost: g\r\n\r\n")
    assert b"x-path: /a b\r\n" in got
    assert b"x-query: {'c': 'd&'}\r\n" in got


@pytest.mark.parametrize("protocol", ["h2c", "websocket"])
@pytest.mark.parametrize(
    ("framing", "sent"),
    [
        (b"Content-Length: 2", b"{}"),
        (b"Transfer-Encoding: chunked", b"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n"),
        (b"Content-Length: 29", b"GET /smuggled HTTP/1.1\r\na: b\r\n\r\n"[:29]),
    ],
)
@pytest.mark.parametrize("pause", [False, True])
async def test_an_upgrade_is_not_taken_up(
    bench: Bench, protocol: str, framing: bytes, sent: bytes, pause: bool
) -> None:
    connection = await bench.connect()
    writer = connection[1]
    writer.write(b"POST /x HTTP/1.1\r\nHost: g\r\nConnection: Upgrade\r\nUpgrade: " + protocol.encode() + b"\r\n")
    writer.write(framing + b"\r\n\r\n")
    if pause:
        await asyncio.sleep(0.01)
    got = await ask(connection, sent)
    assert got.startswith(b"HTTP/1.1 200")
    assert got.endswith(sent if len(sent) in (2, 29) else b"{}")
    assert (await ask(connection, GET + b"\r\n")).startswith(b"HTTP/1.1 200")
    assert bench.entered == 2


async def test_an_upgrade_of_a_broken_body_is_refused(bench: Bench) -> None:
    head = b"POST /x HTTP/1.1\r\nHost: g\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: gzip\r\n\r\n"
    reader, _ = connection = await bench.connect()
    assert await ask(connection, head + b"2\r\n{}\r\n0\r\n\r\n") == b""  # this bench has no answer for what it raises
    assert await reader.read() == b""


async def test_what_follows_a_connect_is_no_request(bench: Bench) -> None:
    reader, _ = connection = await bench.connect()
    got = await ask(connection, b"CONNECT g:1 HTTP/1.1\r\nHost: g\r\n\r\n" + GET + b"\r\n")
    assert b"connection: close" in got
    assert await reader.read() == b""
    assert bench.entered == 1


async def test_a_thousand_requests_at_once_are_answered_in_order(bench: Bench) -> None:
    reader, writer = await bench.connect()
    writer.write(b"".join(b"GET /%d HTTP/1.1\r\n\r\n" % n for n in range(1000)))
    await asyncio.sleep(0.01)
    [connection] = server_side = list(bench.edge.connections)
    assert server_side
    most = 0
    for n in range(1000):
        got = await answer(reader)
        most = max(most, len(connection._requests))
        assert b"x-path: /%d\r\n" % n in got
    assert most < 2 * STEP_BYTES // len(b"GET / HTTP/1.1\r\n\r\n")


@pytest.mark.parametrize("size", [1, 3, 4096, 5000, 300_000])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_comes_whole_however_it_is_cut(bench: Bench, size: int, chunked: bool) -> None:
    body = bytes(range(256)) * (2 if size < 5 else 3)
    connection = await bench.connect()
    framed = b"".join(b"%x\r\n%b\r\n" % (len(c), c) for c in (body[:7], body[7:300], body[300:])) + b"0\r\n\r\n"
    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(body)
    data = b"POST /x HTTP/1.1\r\nHost: g\r\n" + framing + b"\r\n\r\n" + (framed if chunked else body)
    for start in range(0, len(data), size):
        connection[1].write(data[start : start + size])
        await asyncio.sleep(0)
    assert (await answer(connection[0])).endswith(b"\r\n\r\n" + body)
    assert (await ask(connection, GET + b"\r\n")).endswith(b"ok")


async def test_a_body_that_nobody_asks_for_is_not_taken_in(bench: Bench) -> None:
    _, writer = await bench.connect()
    writer.write(b"POST /wait HTTP/1.1\r\nHost: g\r\nContent-Length: 50000000\r\n\r\n")
    writer.write(b"a" * 20_000_000)
    await asyncio.sleep(0.3)
    [connection] = bench.edge.connections
    assert connection._request is not None
    assert READ_AHEAD_BYTES < connection._request.content._size < READ_AHEAD_BYTES + 1_000_000


@pytest.mark.parametrize(
    "endless", [b"x-a: b\r\n", b"a", b"\r\n2;" + b"e" * 1000, b"\r\n0\r\nTrailer: a" + b"b" * 1000]
)
async def test_framing_without_end_is_refused(bench: Bench, endless: bytes) -> None:
    reader, writer = await bench.connect()
    head = b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n"
    writer.write(head + endless)
    sent = 0
    while not (reader._buffer or reader.at_eof() or reader.exception()) and sent < 1_000_000:  # type: ignore[attr-defined]
        part = (endless if endless.startswith(b"x") else b"c" * 100) * 100
        writer.write(part)
        sent += len(part)
        await asyncio.sleep(0.001)
    assert sent < 500_000
    assert bench.entered <= 1


async def test_a_connection_that_is_kept_open_for_nothing_is_closed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, _ = connection = await bench.connect()
    assert (await ask(connection, GET + b"\r\n")).endswith(b"ok")
    bench.edge.sweep()
    assert (await ask(connection, GET + b"\r\n")).endswith(b"ok")
    monkeypatch.setattr("gateway.connection.KEEPALIVE_S", -1)
    bench.edge.sweep()
    assert await reader.read() == b""
    assert not bench.edge.connections


async def test_a_body_that_nobody_read_is_read_off(bench: Bench) -> None:
    connection = await bench.connect()
    put = b"PUT /x HTTP/1.1\r\nHost: g\r\nContent-Length: 300000\r\n\r\n"
    assert (await ask(connection, put + b"a" * 300_000)).endswith(b"ok")
    assert (await ask(connection, GET + b"\r\n")).endswith(b"ok")


async def test_who_never_ends_its_body_loses_the_connection_after_its_answer(bench: Bench) -> None:
    reader, _ = connection = await bench.connect()
    put = b"PUT /x HTTP/1.1\r\nHost: g\r\nContent-Length: 300000\r\n\r\n"
    assert (await ask(connection, put + b"a")).endswith(b"ok")
    async with asyncio.timeout(3):
        assert await reader.read() == b""


async def test_a_body_that_breaks_its_framing_is_refused(world: World) -> None:
    reader, writer = await asyncio.open_connection(HOST, world.app.port)
    head = f"POST {CHAT} HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {KEY}\r\nTransfer-Encoding: chunked\r\n\r\n"
    writer.write(head.encode() + b"2\r\n{}\r\n")
    await asyncio.sleep(0.05)
    got = await ask((reader, writer), b"zz\r\n")
    assert got.startswith(b"HTTP/1.1 400"), got
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()


async def test_a_head_request_gets_the_head_alone(world: World) -> None:
    got = await send(world.app.port, request("/healthz", method="GET", headers="").replace(b"GET", b"HEAD", 1))
    assert got.status == 200
    assert b"content-length: 15" in got.head
    assert got.body == b""


async def test_http_1_0_keeps_the_connection_only_when_asked(world: World) -> None:
    for headers, kept in (("", False), ("Connection: keep-alive\r\n", True)):
        data = request("/v1/models", method="GET", headers=headers).replace(b"HTTP/1.1", b"HTTP/1.0")
        got = await send(world.app.port, data, wait_s=0.2)
        assert (got.status, got.closed) == (200, not kept)


async def test_what_nobody_foresaw_is_a_500_without_its_text(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr("gateway.pipeline.Router.names", fails)
    with caplog.at_level(logging.ERROR):
        got = await send(world.app.port, request("/v1/models", method="GET"))
    assert (got.status, got.closed, got.code) == (500, True, "internal_error")
    assert b"secret detail" not in got.raw
    assert "secret detail" in caplog.text
    assert b"x-request-id" in got.head.lower()


@pytest.fixture
def chinese(monkeypatch: pytest.MonkeyPatch) -> None:
    named = ROUTES.replace("small", "通义 100%").replace("  a:", "  呼和浩特:").replace("via: [a]", "via: [呼和浩特]")
    monkeypatch.setattr("tests.conftest.ROUTES", named)


@pytest.mark.parametrize("stream", [False, True])
async def test_names_outside_ascii_are_percent_encoded(chinese: None, world: World, stream: bool) -> None:
    got = await send(world.app.port, request(body={**ASKED, "model": "通义 100%", "stream": stream}), wait_s=0.3)
    assert got.status == 200
    fields = dict(line.split(": ", 1) for line in got.head.decode("ascii").split("\r\n")[1:])
    assert fields["x-moma-model"] == "%E9%80%9A%E4%B9%89 100%25"
    assert [unquote(fields[f"x-moma-{name}"]) for name in ("model", "route", "backend")] == [
        "通义 100%", "通义 100%", "呼和浩特",
    ]  # fmt: skip
    assert fields["x-moma-reason"] == "weighted"
    [charge] = await world.charges()
    assert charge["model_served"] == "通义 100%"


async def test_a_head_that_cannot_be_made_is_a_500(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.routing.router.Decision.reason", "two\r\nlines")
    got = await send(world.app.port, request())
    assert (got.status, got.closed, got.code) == (500, True, "internal_error")


async def test_what_nobody_foresaw_in_a_stream_ends_it_with_an_error(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError("secret detail")

    event = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"word "},"finish_reason":null}]}\n\n'
    world.a.script([Reply(stream=[event, 0.1, b"data: [DONE]\n\n"])])
    monkeypatch.setattr("gateway.adapters.openai.StreamReader.flush", fails)
    got = await send(world.app.port, request(body={**ASKED, "stream": True}))
    assert got.closed
    assert event in got.body
    assert b'data: {"error":{"message":"The gateway failed.' in got.body
    assert got.body.endswith(b"\r\n0\r\n\r\n")
    assert b"[DONE]" not in got.body
    assert b"secret detail" not in got.raw
    while not (series := world.app.metrics.requests._series):  # it is recorded with the commit of its charge
        await asyncio.sleep(0.01)
    assert [labels[3:] for labels in series] == [("failed", 500)]
    assert world.app.ledger.open_holds == 0


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (request(key=None), 401),
        (request(key="sk-moma-wrong"), 401),
        (request(headers="Content-Encoding: gzip\r\n"), 400),
        (f"POST {CHAT} HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {KEY}\r\n".encode(), 413),
        (b"not http at all\r\n\r\n", 400),
    ],
    ids=["no key", "wrong key", "compressed", "too large", "no HTTP"],
)
async def test_what_is_refused_before_it_is_a_call_is_counted_and_has_an_id(
    world: World, data: bytes, status: int
) -> None:
    if status == 413:
        data += b"Content-Length: 99999999\r\n\r\n"
    got = await send(world.app.port, data, wait_s=0.3)
    assert got.status == status
    assert b"x-request-id: req-" in got.head
    series = {labels: count.value for labels, count in world.app.metrics.requests._series.items()}
    assert series == {("", "", "", "refused", status): 1}


async def test_what_finds_no_room_is_counted(world: World) -> None:
    world.app._edge._most = 0
    got = await send(world.app.port, request())
    assert (got.status, got.closed) == (503, True)
    assert b"x-request-id: req-" in got.head
    assert list(world.app.metrics.requests._series) == [("", "", "", "refused", 503)]


async def test_a_request_that_is_no_call_is_none(world: World) -> None:
    for path, status in (("/v1/nothing", 404), ("/v1/models", 401), ("/admin/v1/tenants", 401)):
        assert (await send(world.app.port, request(path, method="GET", key="wrong"), wait_s=0.1)).status == status
    assert not world.app.metrics.requests._series
