"""The hop to a backend: one POST, its status, headers and chunks. Foreign exceptions end here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import aiohttp

from gateway.errors import AttemptFailed

MAX_ANSWER_BYTES = 64 * 1024 * 1024
_READ_BYTES = 64 * 1024  # ClientSession pauses the backend at twice this: what bounds a slow reader's memory


class Exchange(Protocol):
    """An answer that has begun. `close` is synchronous and cuts the connection unless all was read."""

    status: int
    headers: Mapping[str, str]

    async def read(self) -> bytes: ...

    async def chunk(self) -> bytes:
        """The next bytes; b"" at the end."""

    def close(self) -> None: ...


class Client(Protocol):
    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Exchange:
        """Raises AttemptFailed of kind connect or broken; deadlines are the caller's."""

    async def aclose(self) -> None: ...


class AiohttpExchange:
    __slots__ = ("_response", "headers", "status")

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers

    async def read(self) -> bytes:
        parts: list[bytes] = []
        size = 0
        while part := await self.chunk():
            size += len(part)
            if size > MAX_ANSWER_BYTES:
                self.close()
                raise AttemptFailed("broken", f"the answer is longer than {MAX_ANSWER_BYTES} bytes")
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def chunk(self) -> bytes:
        try:
            return await self._response.content.readany()
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise AttemptFailed("broken", f"the answer broke off ({type(error).__name__})") from error

    def close(self) -> None:
        self._response.close()


class AiohttpClient:
    """aiohttp's ClientSession: no redirects, no cookies, no proxy from the environment."""

    def __init__(self, connect_s: float) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=30),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=_READ_BYTES,
            auto_decompress=True,
            skip_auto_headers=("User-Agent",),
        )

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Exchange:
        try:
            response = await self._session.post(url, data=body, headers=headers, allow_redirects=False)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise AttemptFailed("connect", f"could not connect ({type(error).__name__})") from error
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            raise AttemptFailed("broken", f"no answer ({type(error).__name__})") from error
        return AiohttpExchange(response)

    async def aclose(self) -> None:
        await self._session.close()
