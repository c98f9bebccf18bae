"""Speech end to end: bytes as they come, charged by what went in and how long it is."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import openai
import pytest

from gateway.demo.scripted import Fault, Reply, refusal
from tests.conftest import KEY, World
from tests.endpoints.conftest import Post
from tests.test_spine import settled

SAID = {"model": "speaker", "input": "hello there", "voice": "alloy"}
MP3 = {"content-type": "audio/mpeg"}


async def test_the_sdk_streams_sound_of_the_backends_kind(world: World, sdk: openai.AsyncOpenAI) -> None:
    async with sdk.audio.speech.with_streaming_response.create(
        model="speaker", voice="alloy", input="hello there", response_format="wav"
    ) as answer:
        data = b"".join([piece async for piece in answer.iter_bytes()])
    assert answer.headers["content-type"] == "audio/wav"
    assert answer.headers["x-moma-backend"] == "a"
    assert data.startswith(b"RIFF")
    assert world.a.requests[0].body == {
        "model": "tts-1", "voice": "alloy", "input": "hello there", "response_format": "wav"
    }  # fmt: skip
    [record] = await world.charges()
    assert record["usage"] == {"input": 2, "audio_ms": 11 * 60, "calls": 1}
    assert record["charged"] == "10.6"
    assert record["usage_source"] == "estimated"
    assert record["endpoint"] == "speech"


@pytest.mark.parametrize(("kind", "length"), [("pcm", {"audio_ms": 660}), ("mp3", {}), ("opus", {})])
async def test_the_length_is_charged_where_it_can_be_told(
    world: World, post: Post, kind: str, length: dict[str, int]
) -> None:
    async with post("audio/speech", **SAID, response_format=kind) as answer:
        assert await answer.read()
    [record] = await world.charges()
    assert record["usage"] == {"input": 2, "calls": 1, **length}


async def test_chunks_pass_before_the_sound_has_ended(world: World, post: Post) -> None:
    go_on = asyncio.Event()
    world.a.script([Reply(headers=MP3, stream=[b"first", go_on, b"second"])])
    async with post("audio/speech", **SAID) as answer:
        assert answer.headers["content-type"] == "audio/mpeg"
        assert await answer.content.readany() == b"first"
        go_on.set()
        assert await answer.content.read() == b"second"
    await settled(world)


async def test_events_are_charged_what_they_report(world: World, post: Post) -> None:
    async with post("audio/speech", **SAID, stream_format="sse") as answer:
        text = await answer.text()
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert text.count("speech.audio.delta") >= 1
    assert text.count("speech.audio.done") == 1
    [record] = await world.charges()
    assert record["usage"] == {"input": 2, "output_audio": text.count("speech.audio.delta"), "calls": 1}
    assert record["usage_source"] == "reported"


async def test_a_client_that_leaves_ends_it_and_pays_for_what_came(world: World, post: Post) -> None:
    world.a.script([Reply(headers={"content-type": "audio/pcm"}, stream=[bytes(48_000), Fault.HANG])])
    async with post("audio/speech", **SAID, response_format="pcm") as answer:
        await answer.content.readexactly(48_000)
    await settled(world)
    [seen] = world.a.requests
    await asyncio.wait_for(seen.ended.wait(), 2)
    assert seen.disconnected
    [record] = await world.charges()
    assert record["usage"] == {"input": 2, "audio_ms": 1000, "calls": 1}
    assert "partial" in record["flags"]


async def test_a_backend_that_drains_is_heard_to_the_end(world: World, post: Post) -> None:
    go_on = asyncio.Event()
    world.b.script([Reply(headers={"content-type": "audio/pcm"}, stream=[bytes(48_000), go_on, bytes(48_000)])])
    async with post("audio/speech", **{**SAID, "model": "patient"}, response_format="pcm") as answer:
        assert answer.headers["content-type"] == "audio/pcm"
        await answer.content.readexactly(48_000)
    go_on.set()
    await settled(world)
    [record] = await world.charges()
    assert record["usage"] == {"input": 2, "audio_ms": 2000, "calls": 1}


async def test_sound_without_a_kind_is_bytes(world: World, post: Post) -> None:
    world.a.script([Reply(headers={"content-type": ""}, stream=[b"first", 0.05, Fault.RESET])])
    async with post("audio/speech", **SAID) as answer:
        assert answer.headers["content-type"] == "application/octet-stream"
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()


async def test_sound_that_breaks_off_is_seen_to_be_cut_and_is_not_asked_for_again(world: World, post: Post) -> None:
    world.a.script([Reply(headers=MP3, stream=[b"first", 0.05, Fault.RESET]), Reply(body=b"again")])
    async with post("audio/speech", **SAID) as answer:
        assert answer.status == 200
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()
    await settled(world)
    assert len(world.a.requests) == 1
    [record] = await world.charges()
    assert record["usage"] == {"input": 2, "calls": 1}


async def test_before_the_first_byte_it_is_tried_again(world: World, post: Post) -> None:
    world.a.script([refusal(503)])
    async with post("audio/speech", **SAID) as answer:
        assert answer.status == 200
        assert await answer.read()
    assert len(world.a.requests) == 2


async def test_the_error_of_a_backend_is_json(world: World, post: Post) -> None:
    world.a.script([refusal(400, "no such voice")])
    async with post("audio/speech", **SAID) as answer:
        assert answer.status == 400
        assert (await answer.json())["error"]["message"] == "no such voice"


async def test_an_idempotency_key_gives_the_same_sound_again(world: World, post: Post) -> None:
    heard = []
    for _ in range(2):
        async with post("audio/speech", headers={"Idempotency-Key": "k"}, **SAID) as answer:
            heard.append((await answer.read(), answer.headers["content-type"]))
    assert heard[0] == heard[1]
    assert len(await world.charges()) == 1


async def test_what_is_held_covers_the_slowest_speech(world: World, post: Post) -> None:
    world.a.script([Reply(headers={"content-type": "audio/pcm"}, stream=[bytes(1 << 20)] * 8)])
    async with post("audio/speech", model="speaker", voice="v", input="hi", response_format="pcm") as answer:
        await answer.read()
    [record] = await world.charges()
    assert record["usage"]["audio_ms"] == 7000  # of 175 s that came
    assert float(record["reserved"]) >= float(record["charged"])


async def test_http_1_0_gets_sound_that_ends_with_the_connection(world: World) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", world.app.port)
    body = b'{"model":"speaker","input":"hi","voice":"a","response_format":"pcm"}'
    head = f"POST /v1/audio/speech HTTP/1.0\r\nauthorization: Bearer {KEY}\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    head_, _, sound = answer.partition(b"\r\n\r\n")
    assert b"content-type: audio/pcm" in head_
    assert len(sound) == 2 * 60 * 48


BAD: list[tuple[dict[str, Any], str]] = [
    ({"input": ""}, "input"),
    ({"input": "a" * 100_001}, "input"),
    ({"response_format": "midi"}, "response_format"),
    ({"response_format": ["mp3"]}, "response_format"),
    ({"speed": 0.1}, "speed"),
    ({"speed": True}, "speed"),
    ({"stream_format": "ndjson"}, "stream_format"),
]


@pytest.mark.parametrize(("fields", "param"), BAD)
async def test_bad_fields_are_named(post: Post, fields: dict[str, Any], param: str) -> None:
    async with post("audio/speech", **{**SAID, **fields}) as answer:
        error = (await answer.json())["error"]
    assert (answer.status, error["code"], error["param"]) == (400, "invalid_value", param)
