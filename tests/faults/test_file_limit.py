"""More connections than the process may have files: those in hand are served, and it is well again afterwards."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import aiohttp

from gateway.demo.scripted import Reply, ScriptedBackend
from tests.chaos.gateway_process import GatewayProcess
from tests.conftest import KEY

FILES = 128
CONNECTIONS = 500
ASKED = {"model": "small", "messages": [{"role": "user", "content": "hello there"}]}


async def _chat(http: aiohttp.ClientSession, url: str) -> int:
    """The status; 0 when there was no answer."""
    with contextlib.suppress(aiohttp.ClientError, ConnectionError, TimeoutError):
        async with http.post(f"{url}/v1/chat/completions", json=ASKED) as answer:
            await answer.read()
            return answer.status
    return 0


async def test_five_hundred_connections_on_128_files(tmp_path: Path) -> None:
    message = {"role": "assistant", "content": "hello"}
    usage = {"prompt_tokens": 2, "completion_tokens": 1, "total_tokens": 3}
    answer = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}
    async with ScriptedBackend() as a, ScriptedBackend() as b:
        a.script(lambda _: Reply(body=answer, before=(0.05,)))
        gateway = GatewayProcess(tmp_path, a.base_url, b.base_url, files=FILES)
        await gateway.start()
        try:
            idle = []
            for _ in range(CONNECTIONS):
                with contextlib.suppress(ConnectionError, TimeoutError):
                    async with asyncio.timeout(1):
                        idle.append(await asyncio.open_connection("127.0.0.1", gateway.port))
            for _, writer in idle:
                writer.close()
            timeout = aiohttp.ClientTimeout(total=20)
            headers = {"authorization": f"Bearer {KEY}"}
            async with aiohttp.ClientSession(
                headers=headers, connector=aiohttp.TCPConnector(limit=0), timeout=timeout
            ) as http:
                statuses = await asyncio.gather(*(_chat(http, gateway.url) for _ in range(CONNECTIONS)))
                assert set(statuses) <= {0, 200, 503}, set(statuses)
                assert statuses.count(200) >= 40, statuses.count(200)  # as many as there are connections for
                async with http.get(f"{gateway.url}/healthz") as health:
                    assert health.status == 200
            async with aiohttp.ClientSession(headers=headers, timeout=timeout) as http:
                for _ in range(20):  # the rush is over: every call is served
                    assert await _chat(http, gateway.url) == 200
            usage = await gateway.usage()
            assert usage["reserved"] in ("0", 0), usage
        finally:
            gateway.kill()
