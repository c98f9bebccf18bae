"""Requests that two HTTP parsers could read differently: refused with 400, the connection closed."""

from __future__ import annotations

import pytest

from tests.conftest import KEY, World
from tests.faults.wire import request, send

AUTH = f"Host: gateway\r\nAuthorization: Bearer {KEY}\r\n".encode()
POST = b"POST /v1/chat/completions HTTP/1.1\r\n" + AUTH
SMUGGLED = b"GET /v1/usage HTTP/1.1\r\n" + AUTH + b"\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"

CASES = {
    "content-length and chunked": POST + b"Content-Length: 4\r\n" + CHUNKED + b"\r\n0\r\n\r\n" + SMUGGLED,
    "chunked and content-length": POST + CHUNKED + b"Content-Length: 4\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "two content-lengths": POST + b"Content-Length: 2\r\nContent-Length: 40\r\n\r\n{}" + SMUGGLED,
    "two equal content-lengths": POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}" + SMUGGLED,
    "content-length list": POST + b"Content-Length: 2, 2\r\n\r\n{}" + SMUGGLED,
    "content-length with plus": POST + b"Content-Length: +2\r\n\r\n{}" + SMUGGLED,
    "content-length negative": POST + b"Content-Length: -2\r\n\r\n{}" + SMUGGLED,
    "content-length hex": POST + b"Content-Length: 0x2\r\n\r\n{}" + SMUGGLED,
    "content-length of 2^64": POST + b"Content-Length: 18446744073709551618\r\n\r\n{}" + SMUGGLED,
    "content-length underscore": POST + b"Content-Length: 1_0\r\n\r\n{}" + SMUGGLED,
    "chunked twice": POST + CHUNKED + CHUNKED + b"\r\n0\r\n\r\n" + SMUGGLED,
    "chunked is not last": POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "chunked misspelt": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "chunked after a tab and a byte": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "space before the colon": POST + b"Content-Length : 2\r\n\r\n{}" + SMUGGLED,
    "folded header": POST + b"X-Folded: a\r\n b\r\nContent-Length: 2\r\n\r\n{}" + SMUGGLED,
    "folded transfer-encoding": POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "header line begins with a space": POST + b" Content-Length: 2\r\n\r\n{}" + SMUGGLED,
    "bare CR in a value": POST + b"X-Bare: a\rContent-Length: 40\r\nContent-Length: 2\r\n\r\n{}" + SMUGGLED,
    "bare CR ends a line": POST + b"X-Bare: a\rX: b\r\n\r\n",
    "NUL in a value": POST + b"X-Nul: a\x00b\r\nContent-Length: 2\r\n\r\n{}" + SMUGGLED,
    "NUL in a name": POST + b"X-N\x00ul: a\r\nContent-Length: 2\r\n\r\n{}" + SMUGGLED,
    "NUL in the path": b"GET /v1/mo\x00dels HTTP/1.1\r\n" + AUTH + b"\r\n",
    "no colon": POST + b"Nonsense\r\n\r\n",
    "empty name": POST + b": value\r\n\r\n",
    "chunk size overflow": POST + CHUNKED + b"\r\n10000000000000002\r\n{}\r\n0\r\n\r\n" + SMUGGLED,
    "chunk size negative": POST + CHUNKED + b"\r\n-2\r\n{}\r\n0\r\n\r\n" + SMUGGLED,
    "chunk size with 0x": POST + CHUNKED + b"\r\n0x2\r\n{}\r\n0\r\n\r\n" + SMUGGLED,
    "chunk size missing": POST + CHUNKED + b"\r\n\r\n{}\r\n0\r\n\r\n" + SMUGGLED,
    "chunk without its CRLF": POST + CHUNKED + b"\r\n2\r\n{}XX0\r\n\r\n" + SMUGGLED,
    "chunk ends with a bare LF": POST + CHUNKED + b"\r\n2\n{}\n0\n\n" + SMUGGLED,
    "chunk extension with a bare LF": POST + CHUNKED + b"\r\n2;a\n{}\r\n0\r\n\r\n" + SMUGGLED,
    "HTTP/0.9": b"GET /v1/models\r\n\r\n",
    "version unknown": b"GET /v1/models HTTP/9.9\r\n" + AUTH + b"\r\n",
    "method with a control byte": b"G\x01T /v1/models HTTP/1.1\r\n" + AUTH + b"\r\n",
    "TLS hello": bytes.fromhex("16030100c8010000c40303") + bytes(64),
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@pytest.mark.parametrize("case", CASES)
async def test_ambiguous_request_is_refused_and_the_connection_closed(world: World, case: str) -> None:
    got = await send(world.app.port, CASES[case])
    assert (got.status, got.closed) == (400, True), got.raw[:600]
    assert got.answers == 1
    assert got.json()["error"].keys() == {"message", "type", "param", "code"}
    assert not world.a.requests


async def test_pipelined_requests_are_answered_in_order(world: World) -> None:
    two = request("/v1/models", method="GET") + request("/v1/nope", method="GET", headers="Connection: close\r\n")
    got = await send(world.app.port, two)
    assert (got.answers, got.closed) == (2, True)
    assert got.raw.index(b"HTTP/1.1 200") < got.raw.index(b"HTTP/1.1 404")


@pytest.mark.parametrize(
    "target", ["/%", "/%zz", "//", "//evil/v1/models", "/v1/models/%00", "/v1/models/..%2f..%2fetc", "/\xff\xfe",
               "/v1/models/" + "a" * 7000, "http://evil.example/v1/nope", "*", "/[", "http://[", "/v1/models/%ff",
               "http://[::1", "/?" + "&" * 5000, "http://a:99999999/"],
)  # fmt: skip
async def test_strange_targets_get_json(world: World, target: str) -> None:
    got = await send(world.app.port, request(target, method="GET", headers="Connection: close\r\n"))
    assert got.status in (400, 401, 404), got.raw[:300]  # 401 is the status page
    assert got.json()["error"].keys() == {"message", "type", "param", "code"}
