"""Attacks that no generator finds: much of what is little, twice what is once, and forms that do not end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from gateway.bounded import MAX_CONTAINERS
from tests.conftest import KEY, World
from tests.faults.wire import HOST, Got, request, send
from tests.fuzzed.conftest import KINDS
from tests.fuzzing import SHORT_AND_LONG

FORM = "/v1/audio/transcriptions"
MOST_S = 3.0  # on a machine with other work
MOST_CPU_S = 5.0
MEGABYTE = 1_000_000

JSON = dict[str, Any]


def chat(*messages: JSON, **more: Any) -> JSON:
    return {"messages": [{"role": "user", "content": "x"}, *messages], **more}


def of_user(*parts: JSON) -> list[JSON]:
    return [{"role": "user", "content": list(parts)}]


FUNCTION: JSON = {"type": "function", "function": {"name": "f", "arguments": "{}"}}
CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}
# The path, lists and objects in a part, and a body of so many parts.
MANY: dict[str, tuple[str, int, Callable[[int], JSON]]] = {
    "texts": ("chat/completions", 1, lambda n: {"messages": of_user(*[{"type": "text", "text": "x"}] * n)}),
    "images": ("chat/completions", 2, lambda n: {"messages": of_user(*[IMAGE] * n)}),
    "calls of tools": (
        "chat/completions", 2, lambda n: chat({"role": "assistant", "tool_calls": [{"id": "c", **FUNCTION}] * n}),
    ),
    "tools": ("chat/completions", 2, lambda n: chat(tools=[FUNCTION] * n)),
    "blocks": ("messages", 1, lambda n: {"max_tokens": 5, "messages": of_user(*[{"type": "text", "text": "x"}] * n)}),
    "results": (
        "messages", 1,
        lambda n: {"max_tokens": 5, "messages": of_user(*[{"type": "tool_result", "tool_use_id": "t"}] * n)},
    ),
    "parts of an input": ("responses", 1, lambda n: {"input": of_user(*[{"type": "input_text", "text": "x"}] * n)}),
    "items of an input": ("responses", 1, lambda n: {"input": [CALL] * n}),
    "documents": ("rerank", 1, lambda n: {"query": "x", "documents": [{"text": "x"}] * n}),
    "prompts": ("completions", 1, lambda n: {"prompt": [[1]] * n}),
}  # fmt: skip


async def post(world: World, path: str, body: bytes) -> tuple[int, bytes, float]:
    """The last is CPU time, of client, gateway and backend together."""
    started = time.process_time()
    told = {"content-type": "application/json"}
    async with world.http.post(f"{world.url}/v1/{path}", data=pieces(body), headers=told) as answer:
        data = await answer.read()
    return answer.status, data, time.process_time() - started


async def pieces(body: bytes) -> AsyncIterator[bytes]:
    for place in range(0, len(body), 65_536):
        yield body[place : place + 65_536]


@pytest.mark.parametrize("long", SHORT_AND_LONG)
@pytest.mark.parametrize("what", MANY)
async def test_many_parts_are_taken_or_refused_without_holding_up_others(world: World, what: str, long: bool) -> None:
    path, each, parts = MANY[what]
    for kind in KINDS if path in ("chat/completions", "messages", "responses") else KINDS[:1]:
        n = (MAX_CONTAINERS - 10) // each
        body = {"model": kind, **parts(n if long else n // 10)}
        status, data, took_s = await post(world, path, json.dumps(body).encode())
        assert status in (200, 400), data[:500]
        assert took_s < MOST_CPU_S
    status, data, _ = await post(world, path, json.dumps({"model": "plain", **parts(MAX_CONTAINERS)}).encode())
    assert (status, b"more than 100000 lists and objects" in data) == (400, True)
    assert world.app.ledger.open_holds == 0


async def test_of_two_keys_alike_backend_and_ledger_take_the_same(world: World) -> None:
    body = b'{"model": "x", "n": 1, "n": 2, "max_tokens": 900, "max_tokens": 3, "model": "plain", '
    status, _, _ = await post(
        world, "chat/completions", body + b'"messages": [{"role": "user", "content": "a b c d e f"}]}'
    )
    assert status == 200
    [seen] = world.a.requests
    assert (seen.raw.count(b'"n":'), seen.raw.count(b'"max_tokens":'), seen.raw.count(b'"model":')) == (1, 1, 1)
    assert (seen.body["n"], seen.body["max_tokens"], seen.body["model"]) == (2, 3, "plain")
    await world.written()
    [record] = await world.charges()
    assert record["usage"]["output"] == 2 * 3


async def test_a_stream_of_128_choices_is_charged_whole(world: World) -> None:
    body = {
        "model": "plain",
        "stream": True,
        "n": 128,
        "max_tokens": 4,
        "messages": [{"role": "user", "content": "a b c d e f"}],
    }
    status, data, _ = await post(world, "chat/completions", json.dumps(body).encode())
    assert status == 200
    assert data.endswith(b"data: [DONE]\n\n")
    assert data.count(b'"finish_reason": "length"') == 128
    await world.written()
    [record] = await world.charges()
    assert record["usage"]["output"] == 128 * 4
    assert world.app.ledger.open_holds == 0


# -- forms ---------------------------------------------------------------------------------------------------------

FILE = b'Content-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF'
FIELD = b'Content-Disposition: form-data; name="%b"\r\n\r\nplain'


def form(*parts: bytes) -> bytes:
    return b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + b"--b--\r\n"


def fields(n: int, name: bytes = b"f%d") -> bytes:
    names = [name % number if b"%" in name else name for number in range(n)]
    return form(FIELD % b"model", FILE, *[FIELD % one for one in names])


HEADS: dict[str, str] = {
    "a boundary of a megabyte": "multipart/form-data; boundary=" + "b" * MEGABYTE,
    "a boundary of 71": "multipart/form-data; boundary=" + "b" * 71,
    "no boundary": "multipart/form-data",
    "an empty boundary": 'multipart/form-data; boundary=""',
    "20,000 parameters": "multipart/form-data" + "; a=b" * 10_000,
    "boundaries that are none": "multipart/form-data" + "; boundary= " * 4000,
    "blanks": "multipart/form-data;" + " " * 50_000 + "boundary",
    "another kind": "multipart/mixed; boundary=b",
    "JSON": "application/json",
}
BODIES: dict[str, bytes] = {
    "10,000 fields": fields(10_000),
    "10,000 times one field": fields(10_000, b"prompt"),
    "a field of two megabytes": form(FIELD % b"model" + b"x" * 2 * MEGABYTE, FILE),
    "a head of a megabyte": form(b"X: " + b"x" * MEGABYTE + b"\r\n\r\n", FILE),
    "10,000 parameters": form(b'Content-Disposition: form-data; name="a"' + b"; a=b" * 1000 + b"\r\n\r\n"),
    "a quote that does not end": form(b'Content-Disposition: form-data; name="' + b'\\"' * 3000 + b"\r\n\r\n"),
    "10,000 empty heads": form(*[b"\r\n\r\n"] * 10_000),
    "two files": form(FIELD % b"model", FILE, FILE),
    "two models": form(FIELD % b"model", FIELD % b"model", FILE),
    "no file": form(FIELD % b"model"),
    "an empty name": form(FIELD % b"model", FIELD % b"", FILE),
    "a name of two lines": form(FIELD % b"model", FIELD % b'a\r\nX: "', FILE),
    "delimiters only": b"--b\r\n" * 100_000,
    "nearly delimiters": b"--b\r\n" + FILE + b"\r\n--" * 100_000,
    "nothing": b"",
    "a file without end": b"--b\r\n" + FILE + b"x" * MEGABYTE,
}


async def asked(world: World, body: bytes, kind: str = "multipart/form-data; boundary=b") -> Got:
    lines = f"Content-Type: {kind}\r\nConnection: close\r\n"
    got = await send(world.app.port, request(FORM, body=body, headers=lines), wait_s=MOST_S)
    assert got.seconds < MOST_S
    return got


@pytest.mark.parametrize("head", HEADS)
async def test_the_head_of_a_form_is_read_or_refused_at_once(world: World, head: str) -> None:
    got = await asked(world, fields(1), HEADS[head])
    assert got.status == 400, got.raw[:300]
    assert got.json()["error"].keys() == {"message", "type", "param", "code"}
    assert not world.a.requests


@pytest.mark.parametrize("body", BODIES)
async def test_a_hostile_form_is_refused_at_once(world: World, body: str) -> None:
    got = await asked(world, BODIES[body])
    assert got.status == 400, got.raw[:300]
    assert got.json()["error"].keys() == {"message", "type", "param", "code"}
    assert not world.a.requests
    assert world.app.ledger.open_holds == 0


async def test_a_form_without_end_is_refused_at_the_limit(world: World) -> None:
    reader, writer = await asyncio.open_connection(HOST, world.app.port)
    head = f"POST {FORM} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {KEY}\r\n"
    writer.write(f"{head}Content-Type: multipart/form-data; boundary=b\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    first = b"--b\r\n" + FILE
    writer.write(b"%x\r\n%b\r\n" % (len(first), first))
    chunk, sent = b"10000\r\n" + b" " * 65536 + b"\r\n", 0
    with contextlib.suppress(ConnectionError):
        while sent < 60 * MEGABYTE and not reader._buffer:  # type: ignore[attr-defined]
            writer.write(chunk)
            await writer.drain()
            sent += 65536
    assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), MOST_S)).startswith(b"HTTP/1.1 413 ")
    assert 20 * MEGABYTE < sent < 40 * MEGABYTE
    writer.close()
