"""Transcriptions and translations end to end: a form in, what the backend says out, charged by the sound in it."""

from __future__ import annotations

import asyncio
import errno
import io
import wave
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import openai
import pytest

from gateway.demo.media import heard
from gateway.demo.scripted import HANG, Reply, refusal
from tests.conftest import World
from tests.test_spine import settled

Send = Callable[..., "aiohttp.client._RequestContextManager"]


def wav(seconds: float) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(bytes(int(seconds * 16_000) * 2))
    return out.getvalue()


@pytest.fixture
def send(world: World) -> Send:
    def sent(path: str = "transcriptions", file: bytes | None = None, **fields: str) -> Any:
        form = aiohttp.FormData()
        for name, value in {"model": "hear", **fields}.items():
            form.add_field(name, value)
        sound = io.BytesIO(wav(2.5) if file is None else file)
        form.add_field("file", sound, filename="talk.wav", content_type="audio/wav")
        return world.http.post(f"{world.url}/v1/audio/{path}", data=form)

    return sent


async def test_the_sdk_is_answered_and_charged_in_tokens(world: World, sdk: openai.AsyncOpenAI) -> None:
    said = await sdk.audio.transcriptions.create(
        model="hear", file=("talk.wav", wav(2.5)), prompt="the sea", language="en"
    )
    assert said.text == "You played 2.50 seconds"
    [seen] = world.a.requests
    assert seen.path == "/v1/audio/transcriptions"
    form = heard(seen.raw)
    assert form.fields == {"model": "whisper-1", "prompt": "the sea", "language": "en"}
    assert form.file == wav(2.5)
    [record] = await world.charges()
    assert record["usage"] == {"input": 2, "input_audio": 25, "output": 6, "calls": 1}
    assert record["charged"] == str(2 * 1 + 25 * 3 + 6 * 2)
    assert record["endpoint"] == "transcriptions"


async def test_a_verbose_answer_is_charged_by_its_seconds(world: World, sdk: openai.AsyncOpenAI) -> None:
    said = await sdk.audio.transcriptions.create(
        model="hear", file=("talk.wav", wav(2.5)), response_format="verbose_json", timestamp_granularities=["word"]
    )
    assert said.duration == 2.5
    assert heard(world.a.requests[0].raw).fields["timestamp_granularities[]"] == "word"
    [record] = await world.charges()
    assert record["usage"] == {"audio_ms": 3000, "calls": 1}
    assert record["charged"] == str(3000 * 2 // 100)


async def test_translations_have_a_path_of_their_own(world: World, sdk: openai.AsyncOpenAI) -> None:
    with pytest.deprecated_call():
        assert (await sdk.audio.translations.create(model="hear", file=("talk.wav", wav(1)))).text
    assert world.a.requests[0].path == "/v1/audio/translations"
    [record] = await world.charges()
    assert record["endpoint"] == "translations"


@pytest.mark.parametrize(("kind", "start"), [("text", "You played"), ("srt", "1\n00:00"), ("vtt", "WEBVTT")])
async def test_texts_pass_as_they_are_and_are_charged_by_the_length_of_the_file(
    world: World, send: Send, kind: str, start: str
) -> None:
    async with send(response_format=kind) as answer:
        assert answer.status == 200
        assert answer.headers["content-type"].startswith("text/plain")
        assert (await answer.text()).startswith(start)
    [record] = await world.charges()
    assert record["usage"]["audio_ms"] == 2500
    assert record["usage_source"] == "estimated"


async def test_a_file_that_does_not_say_how_long_it_is_counts_as_64_kbit_a_second(world: World, send: Send) -> None:
    async with send(file=b"\xff\xfb" + bytes(7998), response_format="text") as answer:
        assert answer.status == 200
    [record] = await world.charges()
    assert record["usage"]["audio_ms"] == 1000


async def test_older_servers_say_but_the_duration(world: World, send: Send) -> None:
    world.a.script([Reply(body={"text": "x", "duration": "2.25"})])
    async with send(response_format="verbose_json") as answer:
        assert answer.status == 200
    [record] = await world.charges()
    assert record["usage"] == {"audio_ms": 2250, "calls": 1}


async def test_a_lie_about_the_length_is_cut_to_what_was_held(world: World, send: Send) -> None:
    world.a.script([Reply(body={"text": "x", "usage": {"type": "duration", "seconds": 10**9}})])
    async with send() as answer:
        assert answer.status == 200
    [record] = await world.charges()
    assert record["usage"] == {"audio_ms": 4000, "calls": 1}
    assert "bad_usage" in record["flags"]
    assert float(record["reserved"]) >= float(record["charged"])


async def test_a_stream_comes_in_events(world: World, sdk: openai.AsyncOpenAI) -> None:
    stream = await sdk.audio.transcriptions.create(model="hear", file=("talk.wav", wav(2.5)), stream=True)
    parts = [part async for part in stream]
    assert "".join(part.delta for part in parts if part.type == "transcript.text.delta") == "You played 2.50 seconds"
    assert parts[-1].type == "transcript.text.done"
    [record] = await world.charges()
    assert record["usage"] == {"input_audio": 25, "output": 6, "calls": 1}


async def test_a_backend_that_does_not_stream_answers_whole(world: World, send: Send) -> None:
    world.a.script([Reply(body={"text": "whole", "usage": {"type": "duration", "seconds": 3}})])
    async with send(stream="true") as answer:
        assert (await answer.json())["text"] == "whole"
    [record] = await world.charges()
    assert record["usage"] == {"audio_ms": 3000, "calls": 1}


async def test_another_backend_gets_the_file_when_the_first_fails(world: World, send: Send) -> None:
    world.a.script(lambda _: refusal(503))
    file = wav(90)  # 2.88 MB: on disk
    async with send(file=file) as answer:
        assert answer.status == 200
        assert answer.headers["x-moma-backend"] == "b"
    form = heard(world.b.requests[0].raw)
    assert form.file == file
    assert form.fields["model"] == "whisper-b"


async def test_a_backend_that_refuses_before_it_has_read_is_heard(world: World, send: Send) -> None:
    world.a.script(lambda _: refusal(413, "too long"))
    world.b.script(lambda _: refusal(413, "too long"))
    async with send(file=wav(300)) as answer:
        assert answer.status == 413
    await settled(world)


async def test_a_client_that_leaves_pays_for_the_sound_that_was_sent(world: World, send: Send) -> None:
    world.a.script([HANG])
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5), send():
            pass
    await settled(world)
    [record] = await world.charges()
    assert record["usage"] == {"audio_ms": 2500, "calls": 1}
    assert "partial" in record["flags"]


async def test_an_idempotency_key_is_of_the_file_too(world: World) -> None:
    answers = []
    for file in (wav(1), wav(1), wav(2)):
        form = aiohttp.FormData({"model": "hear"})
        form.add_field("file", file, filename="a.wav")
        headers = {"Idempotency-Key": "k"}
        async with world.http.post(f"{world.url}/v1/audio/transcriptions", data=form, headers=headers) as answer:
            answers.append((answer.status, answer.headers.get("x-moma-replayed")))
    assert answers == [(200, None), (200, "true"), (422, None)]


async def test_a_file_cannot_smuggle_a_field(world: World, send: Send) -> None:
    evil = b'\n--x\r\nContent-Disposition: form-data; name="model"\r\n\r\ndearest\r\n--x--\r\n'
    async with send(file=evil) as answer:
        assert answer.status == 200
    form = heard(world.a.requests[0].raw)
    assert (form.fields, form.file) == ({"model": "whisper-1"}, evil)


@pytest.mark.parametrize(
    ("name", "status"), [(b'a\\" name=\\"model.wav', 200), (b'a\\"; name=\\"model.wav', 200), (b"a\rb", 400)]
)
async def test_the_name_of_a_file_cannot_smuggle_a_field(world: World, name: bytes, status: int) -> None:
    disposition = b'Content-Disposition: form-data; name="file"; filename="%b"\r\n\r\n' % name
    body = PART % (b"model", b"hear") + b"--b\r\n" + disposition + b"abc\r\n--b--\r\n"
    headers = {"content-type": "multipart/form-data; boundary=b"}
    async with world.http.post(f"{world.url}/v1/audio/transcriptions", data=body, headers=headers) as answer:
        assert answer.status == status
    if status == 200:
        form = heard(world.a.requests[0].raw)
        assert (form.fields, form.file) == ({"model": "whisper-1"}, b"abc")
        assert b'filename="%b"\r\n' % name.replace(b'\\"', b"%22") in world.a.requests[0].raw


PART = b'--b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n'
FILE = b'--b\r\nContent-Disposition: form-data; name="%b"; filename="a.wav"\r\n\r\n%b\r\n'
END = b"--b--\r\n"
BAD: list[tuple[bytes, str | None]] = [
    (PART % (b"model", b"hear") + END, "file"),
    (FILE % (b"file", b"abc") + END, "model"),
    (PART % (b"model", b"hear") * 2 + FILE % (b"file", b"abc") + END, "model"),
    (PART % (b"model", b"hear") + FILE % (b"file", b"") + END, "file"),
    (PART % (b"model", b"hear") + FILE % (b"file", b"abc") * 2 + END, "file"),
    (PART % (b"model", b"hear") + FILE % (b"other", b"abc") + END, "other"),
    (PART % (b"model", b"hear") + PART % (b"temperature", b"2") + FILE % (b"file", b"abc") + END, "temperature"),
    (PART % (b"model", b"hear") + PART % (b"stream", b"yes") + FILE % (b"file", b"abc") + END, "stream"),
    (PART % (b"model", b"hear") + PART % (b"response_format", b"x") + FILE % (b"file", b"a") + END, "response_format"),
    (PART % (b"model", b"\xff") + FILE % (b"file", b"abc") + END, "model"),
    (PART % (b"model", b"hear") + PART % (b"a b", b"x") + FILE % (b"file", b"abc") + END, None),
    (PART % (b"x", b"y") * 65 + END, "x"),
    (PART % (b"prompt", b"y" * 1_000_001) + END, "prompt"),
    (PART % (b"model", b"hear") + FILE % (b"file", b"abc"), None),
    (b"", None),
    (b"no form at all", None),
    (b"--b\r\n" + b"x" * 20_000, None),
]


@pytest.mark.parametrize(("body", "param"), BAD)
async def test_bad_forms_are_refused(world: World, body: bytes, param: str | None) -> None:
    headers = {"content-type": "multipart/form-data; boundary=b"}
    async with world.http.post(f"{world.url}/v1/audio/transcriptions", data=body, headers=headers) as answer:
        error = (await answer.json())["error"]
    assert (answer.status, error["code"], error["param"]) == (400, "invalid_value", param)
    assert not world.a.requests


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data", "multipart/mixed; boundary=b", ""])
async def test_what_is_no_form_is_refused(world: World, kind: str) -> None:
    headers = {"content-type": kind}
    async with world.http.post(f"{world.url}/v1/audio/transcriptions", data=b"--b--", headers=headers) as answer:
        assert answer.status == 400


async def test_a_file_beyond_the_limit_is_refused_as_it_comes(world: World, send: Send) -> None:
    async with send(file=bytes(20_000_001)) as answer:
        assert answer.status == 413


async def test_a_file_of_no_known_length_is_refused_at_the_limit(world: World) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield PART % (b"model", b"hear") + FILE[:-4] % b"file"
        for _ in range(30):
            yield bytes(1_000_000)

    headers = {"content-type": "multipart/form-data; boundary=b"}
    async with world.http.post(f"{world.url}/v1/audio/transcriptions", data=endless(), headers=headers) as answer:
        assert answer.status == 413


async def test_a_disk_without_room_is_no_failure_of_the_client(
    world: World, send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("gateway.form.os.write", full)
    async with send(file=wav(60)) as answer:
        assert answer.status == 503
        assert (await answer.json())["error"]["code"] == "store_unavailable"
    assert not world.a.requests


async def test_a_stranger_sends_no_file(world: World) -> None:
    async with world.http.post(
        f"{world.url}/v1/audio/transcriptions", data={"file": io.BytesIO(b"abc")}, headers={"authorization": "Bearer x"}
    ) as answer:
        assert answer.status == 401
