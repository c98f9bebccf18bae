"""Calls that never stop, and what went wrong with any of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import aiohttp

from gateway.demo.scripted import Reply, Seen
from tests.conftest import KEY

WORDS = 10


class Traffic:
    """Over kept connections, as SDKs have them.

    State: how long streams take; what failed, with the time; how many calls and streams were complete, by the
    generation that served them; the longest time a call took.
    """

    def __init__(self, *, stream_s: float, rng: random.Random) -> None:
        self.failed: list[str] = []
        self.complete: Counter[str] = Counter()
        self.generations: set[str] = set()
        self.slowest_s = 0.0
        self.stream_s = stream_s
        self._rng = rng
        self._began = time.monotonic()
        self._calls: set[asyncio.Task[None]] = set()

    def reply(self, seen: Seen) -> Reply | None:
        """What the backend says: a word at a time over `stream_s`, or all at once."""
        usage = {"prompt_tokens": self._rng.randint(1, 30), "completion_tokens": WORDS}
        if not seen.body.get("stream"):
            message = {"role": "assistant", "content": "ok"}
            whole = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}
            return Reply(body={"id": "x", "object": "chat.completion", **whole}, before=(0.01,))
        word, pause = event(choices=[{"index": 0, "delta": {"content": "word "}}]), self.stream_s / WORDS
        last = event(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
        pieces: list[bytes | float] = [word, pause] * WORDS
        return Reply(stream=[*pieces, last, event(choices=[], usage=usage) + b"data: [DONE]\n\n"])

    @contextlib.asynccontextmanager
    async def client(self, *, kept: bool = True) -> Any:
        timeout = aiohttp.ClientTimeout(total=60)
        headers = {"authorization": f"Bearer {KEY}"}
        async with aiohttp.ClientSession(
            headers=headers, timeout=timeout, connector=aiohttp.TCPConnector(limit=0, force_close=not kept)
        ) as http:
            yield http

    async def streams(self, url: str, going: Callable[[], bool], *, kept: bool = True) -> None:
        """One after another, over one connection or each over its own."""
        async with self.client(kept=kept) as http:
            while going():
                await self._one(http, url, stream=True)

    async def calls(self, url: str, per_s: float, going: Callable[[], bool]) -> None:
        """In an open loop: none waits for the one before."""
        async with self.client() as http:
            due = time.monotonic()
            while going():
                task = asyncio.create_task(self._one(http, url, stream=False))
                self._calls.add(task)
                task.add_done_callback(self._calls.discard)
                due += 1.0 / per_s
                await asyncio.sleep(max(0.0, due - time.monotonic()))
            await asyncio.gather(*self._calls)

    async def _one(self, http: aiohttp.ClientSession, url: str, *, stream: bool) -> None:
        began = time.monotonic()
        asked = {"model": "small", "max_tokens": 20, "messages": [{"role": "user", "content": "hello"}]}
        if stream:
            asked |= {"stream": True}
        try:
            async with http.post(f"{url}/v1/chat/completions", json=asked) as answer:
                body = await answer.read()
                good = answer.status == 200 and (not stream or body.endswith(b"data: [DONE]\n\n"))
                self.generations.add(answer.headers.get("x-moma-config", "none"))
            if not good:
                self._fail(began, f"{answer.status} {body[-200:]!r}")
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self._fail(began, f"{type(error).__name__}: {error}")
            return
        self.complete["streams" if stream else "calls"] += good
        self.slowest_s = max(self.slowest_s, time.monotonic() - began)

    def _fail(self, began: float, why: str) -> None:
        self.failed.append(f"{began - self._began:.2f} s to {time.monotonic() - self._began:.2f} s: {why}")


def event(**value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"
