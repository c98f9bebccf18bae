"""Requests that mean to cost more than they should: refused in JSON, within a second, before any backend is asked."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import time
from typing import Any

import pytest

from tests.conftest import KEY, World
from tests.faults.wire import ASKED, CHAT, HOST, Got, request, send

NESTED = b"[" * 200_000
HEAD = f"POST {CHAT} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {KEY}\r\n".encode()


def asked(**fields: Any) -> bytes:
    return json.dumps({**ASKED, **fields}).encode()


def with_raw(field: bytes) -> bytes:
    return b'{"model": "small", "messages": [{"role": "user", "content": "x"}], ' + field + b"}"


BAD_INTEGERS: list[Any] = [2**63, 2**64, -1, 0, "9", True, 1.5, [], {}]
BODIES: dict[str, bytes] = {
    "empty": b"",
    "not JSON": b"model=small",
    "list": b"[]",
    "string": b'"small"',
    "number": b"1",
    "null": b"null",
    "cut off": asked()[:-1],
    "two values": asked() + asked(),
    "bad UTF-8": with_raw(b'"x": "\xff\xfe"'),
    "UTF-16": json.dumps(ASKED).encode("utf-16"),
    "lone surrogate in the text": b'{"model": "small", "messages": [{"role": "user", "content": "\\ud800"}]}',
    "lone surrogate in the model": b'{"model": "\\udc00", "messages": [{"role": "user", "content": "x"}]}',
    "surrogate bytes": with_raw(b'"x": "\xed\xa0\x80"'),
    "NaN": with_raw(b'"temperature": NaN'),
    "Infinity": with_raw(b'"temperature": -Infinity'),
    "200k lists": NESTED,
    "200k lists in a field": with_raw(b'"x": ' + NESTED + b"]" * 200_000),
    "200k objects": with_raw(b'"x": ' + b'{"a":' * 200_000 + b"1" + b"}" * 200_000),
    "100 lists in a message": asked(messages=[{"role": "user", "content": json.loads("[" * 100 + "]" * 100)}]),
    "integer of 5,000 digits": with_raw(b'"max_tokens": ' + b"9" * 5000),
    "integer of 5,000 digits, unknown field": with_raw(b'"seed": ' + b"9" * 5000),
    "number beyond a double": with_raw(b'"temperature": 1e999'),
    "n of a billion": asked(n=10**9),
    "n of 2^63": asked(n=2**63),
    "n is zero": asked(n=0),
    "n is true": asked(n=True),
    "n is text": asked(n="2"),
    "n is a fraction": asked(n=1.5),
    "no messages": asked(messages=[]),
    "messages is an object": asked(messages={"role": "user"}),
    "messages of numbers": asked(messages=[1, 2]),
    "a million messages": b'{"model": "small", "messages": [' + b"{}," * 999_999 + b"{}]}",
    "stream is text": asked(stream="true"),
    "stream_options is a list": asked(stream=True, stream_options=[]),
    "include_usage is a number": asked(stream=True, stream_options={"include_usage": 1}),
    "model is a list": asked(model=["small"]),
    "model is an object": asked(model={"a": 1}),
    "model is null": asked(model=None),
    "model is empty": asked(model=""),
    "model of a megabyte": asked(model="m" * 1_000_000),
    "model with CRLF": asked(model="small\r\nx-injected: 1"),
    "model with NUL": asked(model="small\0"),
    **{f"max_tokens {value!r}": asked(max_tokens=value) for value in BAD_INTEGERS},
    "max_completion_tokens 2^63": asked(max_completion_tokens=2**63),
    "best_of of a billion": asked(best_of=10**9),
}


async def at_once(port: int, data: bytes) -> Got:
    return await send(port, data, wait_s=1.0)


@pytest.mark.parametrize("case", BODIES)
async def test_hostile_body_is_refused(world: World, case: str) -> None:
    started = time.perf_counter()
    got = await at_once(world.app.port, request(body=BODIES[case], headers="Connection: close\r\n"))
    assert time.perf_counter() - started < 1.0
    assert 400 <= got.status < 500, got.raw[:300]
    error = got.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert len(got.body) < 2000
    assert not world.a.requests
    assert world.app.ledger.open_holds == 0


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/embeddings"])
@pytest.mark.parametrize(
    "value", [None, 1, True, {}, [], [[]], [""] * 3000, ["a", 1], [-1], [2**40], [1.5], [[1], "a"], [[[1]]]], ids=repr
)
async def test_hostile_prompts_are_refused(world: World, path: str, value: Any) -> None:
    field = "prompt" if path.endswith("completions") else "input"
    body = {"model": "small", field: value}
    got = await at_once(world.app.port, request(path, body=body, headers="Connection: close\r\n"))
    assert got.status == 400, got.raw[:300]
    assert not world.a.requests


@pytest.mark.parametrize(
    "head",
    [
        HEAD + b"".join(b"x-%d: a\r\n" % n for n in range(20_000)) + b"\r\n",
        HEAD + b"x-long: " + b"a" * 200_000 + b"\r\n\r\n",
        HEAD + b"x" * 200_000 + b": a\r\n\r\n",
        b"GET /v1/models?" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: gateway\r\n\r\n",
        HEAD + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n2;" + b"e" * 200_000 + b"\r\n{}\r\n0\r\n\r\n",
    ],
    ids=["20k headers", "200 kB value", "200 kB name", "200 kB target", "200 kB chunk extension"],
)
async def test_too_much_head_is_refused(world: World, head: bytes) -> None:
    got = await at_once(world.app.port, head)
    assert got.seconds < 1.0
    assert 400 <= got.status < 500, got.raw[:300]
    assert got.json()["error"].keys() == {"message", "type", "param", "code"}
    assert not world.a.requests


async def test_body_beyond_the_limit_is_refused_by_its_length_alone(world: World) -> None:
    got = await at_once(world.app.port, HEAD + b"Content-Length: 999999999999\r\n\r\n{")
    assert (got.status, got.code) == (413, "request_too_large")


async def test_endless_chunked_body_is_refused_at_the_limit(world: World) -> None:
    reader, writer = await asyncio.open_connection(HOST, world.app.port)
    writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    sent = 0
    with contextlib.suppress(ConnectionError):
        while not writer.transport.is_closing() and sent < 60_000_000 and not reader._buffer:  # type: ignore[attr-defined]
            writer.write(chunk)
            await writer.drain()
            sent += 65536
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 1)
    assert head.startswith(b"HTTP/1.1 413 ")
    assert 20_000_000 < sent < 40_000_000
    writer.close()


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "deflate", "br", "zstd", "gzip, gzip", "identity, gzip"])
async def test_compressed_body_is_refused_unopened(world: World, encoding: str) -> None:
    bomb = gzip.compress(bytes(10_000_000))
    headers = f"Content-Encoding: {encoding}\r\nConnection: close\r\n"
    got = await at_once(world.app.port, request(body=bomb, headers=headers))
    assert got.status == 400, got.raw[:300]
    assert not world.a.requests


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nope", 404, "not_found"),
        ("POST", "/v1/chat/completions/", 404, "not_found"),
        ("GET", CHAT, 405, "method_not_allowed"),
        ("PATCH", CHAT, 405, "method_not_allowed"),
        ("OPTIONS", CHAT, 405, "method_not_allowed"),
        ("TRACE", "/v1/models", 405, "method_not_allowed"),
        ("TRACE", "/v1/responses/resp_1?stream=true", 405, "method_not_allowed"),
        ("POST", "/metrics", 405, "method_not_allowed"),
        ("POST", "/healthz", 405, "method_not_allowed"),
        ("CONNECT", "evil.example:443", 404, "not_found"),
    ],
)
async def test_unknown_path_and_method_answer_in_json(
    world: World, method: str, path: str, status: int, code: str
) -> None:
    got = await at_once(world.app.port, request(path, method=method, headers="Connection: close\r\n"))
    assert (got.status, got.code) == (status, code)


async def test_expectation_is_answered_before_the_body(world: World) -> None:
    """curl waits a second for this line when a body is large."""
    reader, writer = await asyncio.open_connection(HOST, world.app.port)
    body = asked()
    writer.write(HEAD + b"Expect: 100-continue\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body))
    assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 1) == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(body)
    assert (await asyncio.wait_for(reader.read(), 2)).startswith(b"HTTP/1.1 200 ")
    writer.close()


async def test_stranger_is_refused_before_the_body(world: World) -> None:
    head = f"POST {CHAT} HTTP/1.1\r\nHost: gateway\r\nExpect: 100-continue\r\nContent-Length: 20000000\r\n\r\n"
    got = await at_once(world.app.port, head.encode())
    assert got.status == 401
    assert b"100 Continue" not in got.raw
