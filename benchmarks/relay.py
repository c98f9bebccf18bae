"""The bare relay that the gateway is measured against: tuned aiohttp on both sides, and nothing else.

No key, limit, choice, usage, charge or metric: bytes in, bytes out. `python -m benchmarks.relay PORT UPSTREAM_URL`.
"""

from __future__ import annotations

import asyncio
import gc
import sys

import aiohttp
import orjson
import uvloop
from aiohttp import web


class Relay:
    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path != "/v1/chat/completions":
            return web.Response(text="ok")
        body = await request.read()
        stream = orjson.loads(body).get("stream", False)
        headers = {"content-type": "application/json", "authorization": "Bearer benchmark"}
        async with self._session.post(self._url + request.path, data=body, headers=headers) as upstream:
            if not stream:
                return web.Response(body=await upstream.read(), content_type="application/json")
            answer = web.StreamResponse(headers={"content-type": "text/event-stream"})
            await answer.prepare(request)
            while data := await upstream.content.readany():
                await answer.write(data)
            await answer.write_eof()
            return answer


async def serve(port: int, url: str) -> None:
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=None),
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("User-Agent",),
    )
    runner = web.ServerRunner(web.Server(Relay(session, url).handle, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    gc.collect()
    gc.freeze()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), sys.argv[2]))
