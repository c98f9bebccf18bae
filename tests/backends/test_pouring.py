"""A body that goes to a backend in pieces."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.backends.client import HttpClient
from gateway.errors import AttemptFailed
from tests.backends.test_client import OK, Server, _nothing, answering, client

__all__ = ["client"]  # the fixture

PIECE = b"x" * 65_536


class Pieces:
    """So many pieces, each asked for when there is room; `taken` counts them."""

    content_type = "application/octet-stream"

    def __init__(self, count: int, piece: bytes = PIECE) -> None:
        self.size = count * len(piece)
        self.taken = 0
        self._count, self._piece = count, piece

    async def pieces(self) -> AsyncIterator[bytes]:
        for _ in range(self._count):
            self.taken += 1
            yield self._piece


async def poured(client: HttpClient, url: str, body: Pieces) -> int:
    exchange = await client.send(url, {}, body, _nothing)
    await exchange.read()
    return exchange.status


async def test_all_of_it_arrives_and_the_connection_serves_the_next(client: HttpClient) -> None:
    async with answering(OK) as server:
        for _ in range(2):
            assert await poured(client, server.url, Pieces(40)) == 200
        assert [request.partition(b"\r\n\r\n")[2] for request in server.requests] == [PIECE * 40] * 2
        assert server.connections == 1


async def test_a_backend_that_reads_slowly_holds_it_up(client: HttpClient) -> None:
    go_on = asyncio.Event()

    async def handler(_: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        await server.request(reader)
        writer.write(OK)
        await writer.drain()

    body = Pieces(1000)
    async with Server(handler) as server:
        sending = asyncio.create_task(poured(client, server.url, body))
        await asyncio.sleep(0.3)
        assert body.taken < 500, "65 MB wait in memory"
        go_on.set()
        assert await sending == 200
    assert body.taken == 1000


async def test_an_answer_before_its_end_is_heard_and_the_connection_is_given_up(client: HttpClient) -> None:
    async def handler(_: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
        await writer.drain()
        await reader.read()

    async with Server(handler) as server:
        body = Pieces(2000)
        assert await poured(client, server.url, body) == 413
        assert body.taken < 2000
        assert await poured(client, server.url, Pieces(2000)) == 413
        assert server.connections == 2


async def test_a_backend_that_goes_away_meanwhile_is_broken(client: HttpClient) -> None:
    async def handler(_: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()

    async with Server(handler) as server:
        with pytest.raises(AttemptFailed, match="broke off"):
            await poured(client, server.url, Pieces(2000))


async def test_a_kept_connection_that_was_closed_is_replaced_and_all_is_sent_again(client: HttpClient) -> None:
    async with answering(OK, close=True) as server:
        assert await poured(client, server.url, Pieces(1, b"{}")) == 200
        assert await poured(client, server.url, Pieces(40)) == 200
        assert server.requests[-1].endswith(PIECE * 40)
