"""Bodies of many megabytes pass untouched, and are charged by what they are."""

from __future__ import annotations

import asyncio
import base64
import io

import aiohttp
import orjson

from tests.conftest import World
from tests.endpoints.test_transcripts import wav
from tests.test_spine import settled

MB = 1_000_000


async def test_a_chat_with_an_image_of_ten_megabytes(world: World) -> None:
    image = f"data:image/png;base64,{base64.b64encode(bytes(10 * MB)).decode()}"
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": image}}]
    asked = {"model": "talker", "max_tokens": 8, "messages": [{"role": "user", "content": parts}]}
    body = io.BytesIO(orjson.dumps(asked))
    async with world.http.post(f"{world.url}/v1/chat/completions", data=body) as answer:
        usage = (await answer.json())["usage"]
    assert world.a.requests[0].body["messages"][0]["content"][1]["image_url"]["url"] == image
    [record] = await world.charges()
    assert record["usage"]["input"] == usage["prompt_tokens"] < 200
    assert float(record["reserved"]) < 5_000, "what an image is made of says nothing of tokens"


async def test_twenty_files_of_ten_megabytes_at_once(world: World) -> None:
    seconds = 300
    file = wav(seconds)

    async def sent() -> int:
        form = aiohttp.FormData({"model": "hear", "response_format": "verbose_json"})
        form.add_field("file", io.BytesIO(file), filename="talk.wav", content_type="audio/wav")
        async with world.http.post(f"{world.url}/v1/audio/transcriptions", data=form) as answer:
            assert (await answer.json())["duration"] == seconds
            return answer.status

    assert await asyncio.gather(*[sent() for _ in range(20)]) == [200] * 20
    await settled(world)
    records = await world.charges()
    assert [record["usage"] for record in records] == [{"audio_ms": seconds * 1000, "calls": 1}] * 20
