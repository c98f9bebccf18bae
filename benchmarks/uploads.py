"""Large bodies, many at once: the gateway's resident memory while it takes them and passes them on.

`python -m benchmarks.uploads`; ends with 1 when what files take is beyond its bound.
"""

from __future__ import annotations

import asyncio
import base64
import io
import sys
import time
from dataclasses import dataclass
from typing import Final

import aiohttp
import orjson

from benchmarks import processes

UPLOADS: Final = 20
FILE_BYTES: Final = 10_000_000
LOOK_S: Final = 0.02
FILES_BOUND_MB: Final = 60.0  # more than before: all files together are 200 MB
WARM_S: Final = 3.0  # the vocabulary is loaded in a thread after ready
_JSON: Final = {"content-type": "application/json"}
FILES, BODIES = "files for transcription", "chats with an image"


@dataclass(frozen=True)
class Taken:
    """Resident MB before, at the most, and afterwards; how long all of it took, and the CPU time of the gateway."""

    before_mb: float
    most_mb: float
    after_mb: float
    took_s: float
    cpu_s: float


def measure(what: str) -> Taken:
    with processes.demo_backend() as backend, processes.gateway(backend.port) as gateway:
        time.sleep(WARM_S)
        return asyncio.run(_taken(gateway, what))


async def _taken(gateway: processes.Measured, what: str) -> Taken:
    url, headers = f"http://127.0.0.1:{gateway.port}/v1", {"authorization": f"Bearer {processes.KEY}"}
    before_mb, cpu_s, began = gateway.rss_mb(), gateway.cpu_s(), time.perf_counter()
    async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=0)) as http:
        looking = asyncio.create_task(_most(gateway))
        await asyncio.gather(*[_sent(http, url, what) for _ in range(UPLOADS)])
        took_s, cpu_s = time.perf_counter() - began, gateway.cpu_s() - cpu_s
        looking.cancel()
        (most_mb,) = await asyncio.gather(looking)
    return Taken(before_mb, most_mb, gateway.rss_mb(), took_s, cpu_s)


async def _most(gateway: processes.Measured) -> float:
    most_mb = 0.0
    try:
        while True:
            most_mb = max(most_mb, gateway.rss_mb())
            await asyncio.sleep(LOOK_S)
    except asyncio.CancelledError:
        return most_mb


async def _sent(http: aiohttp.ClientSession, url: str, what: str) -> None:
    if what == FILES:
        form = aiohttp.FormData({"model": "w", "response_format": "text"})
        form.add_field("file", io.BytesIO(_FILE), filename="talk.mp3", content_type="audio/mpeg")
        asked = http.post(f"{url}/audio/transcriptions", data=form)
    else:
        asked = http.post(
            f"{url}/chat/completions", data=io.BytesIO(_BODY), headers={"content-type": "application/json"}
        )
    async with asked as answer:
        text = await answer.text()
        assert answer.status == 200, text[:200]


def _chat() -> bytes:
    image = base64.b64encode(_FILE[: FILE_BYTES * 3 // 4]).decode()
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}},
    ]
    return orjson.dumps({"model": "m", "max_tokens": 8, "messages": [{"role": "user", "content": parts}]})


_FILE: Final = bytes(FILE_BYTES)
_BODY: Final = _chat()


def main() -> int:
    print(f"{UPLOADS} bodies of {FILE_BYTES / 1e6:.0f} MB at once\n")
    print("| what | before, MB | at the most, MB | afterwards, MB | took, s | CPU of the gateway, s |")
    print("|---|---|---|---|---|---|")
    more_mb = {}
    for what in (FILES, BODIES):
        found = measure(what)
        more_mb[what] = found.most_mb - found.before_mb
        figures = f"{found.before_mb:.0f} | {found.most_mb:.0f} | {found.after_mb:.0f}"
        print(f"| {what} | {figures} | {found.took_s:.1f} | {found.cpu_s:.2f} |")
    return int(more_mb[FILES] > FILES_BOUND_MB)


if __name__ == "__main__":
    sys.exit(main())
