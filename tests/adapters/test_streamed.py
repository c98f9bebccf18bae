"""Streams that are no chat: a table of streams, each fed whole, byte by byte, and with bytes behind its end."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

import pytest

from gateway.adapters import works
from gateway.adapters.streamed import EventStream, Passing
from gateway.call import Call, Request
from gateway.demo.backend import event
from gateway.errors import AttemptFailed
from gateway.parse import parse_call
from tests.virtual import model

MODEL = model("m", "a")
DONE = b"data: [DONE]\n\n"
FMT = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 8_000, 16_000, 2, 16)
WAV = b"RIFF\xff\xff\xff\xffWAVE" + FMT + b"data" + bytes(4)  # of a length that was not known
TOKENS = {"input_tokens": 9, "output_tokens": 4, "input_token_details": {"audio_tokens": 7}}


def call(endpoint: str, body: bytes) -> Call:
    parsed = parse_call(Request("r", endpoint, {}, body))
    assert parsed.stream
    return parsed


def images(n: int) -> Call:
    return call("images", b'{"model":"m","prompt":"p","stream":true,"n":%d}' % n)


SPEECH = call("speech", b'{"model":"m","input":"hi","voice":"v","stream_format":"sse"}')
TRANSCRIPT = call("transcriptions", b'{"model":"m","stream":"true"}')
PARTLY = event({"type": "image_generation.partial_image", "b64_json": "AA"})
READ = {"input_tokens": 2, "output_tokens": 5}
IMAGE = event({"type": "image_generation.completed", "b64_json": "AA", "usage": READ})
SAID = event({"type": "speech.audio.delta", "audio": "AA"})
SPOKEN = event({"type": "speech.audio.done", "usage": READ})
HEARD = event({"type": "transcript.text.delta", "delta": "one "}) + event(
    {"type": "transcript.text.delta", "delta": "two"}
)
WRITTEN = event({"type": "transcript.text.done", "text": "one two", "usage": TOKENS})
VLLM = (
    event({"object": "transcription.chunk", "choices": [{"delta": {"content": "one "}, "finish_reason": None}]})
    + event({"object": "transcription.chunk", "choices": [{"delta": {"content": "two"}, "finish_reason": "stop"}]})
    + event({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4}})
)

STREAMS: list[tuple[str, Call, bytes, dict[str, int] | None, str]] = [
    ("an image", images(1), PARTLY + IMAGE, {"input": 2, "output": 5, "images": 1, "calls": 1}, ""),
    ("two images", images(2), PARTLY + IMAGE + IMAGE, {"input": 4, "output": 10, "images": 2, "calls": 1}, ""),
    ("an image and [DONE]", images(1), IMAGE + DONE, {"input": 2, "output": 5, "images": 1, "calls": 1}, ""),
    ("speech", SPEECH, SAID + SPOKEN, {"input": 2, "output_audio": 5, "calls": 1}, ""),
    ("speech that says nothing of tokens", SPEECH, SAID + event({"type": "speech.audio.done"}), None, ""),
    ("a transcript", TRANSCRIPT, HEARD + WRITTEN, {"input": 2, "input_audio": 7, "output": 4, "calls": 1}, "one two"),
    ("a transcript in chunks", TRANSCRIPT, VLLM + DONE, {"input": 9, "output": 4, "calls": 1}, "one two"),
    ("comments between", SPEECH, b": hold on\n\n" + SAID + SPOKEN, {"input": 2, "output_audio": 5, "calls": 1}, ""),
    ("lines of CR LF", SPEECH, SPOKEN.replace(b"\n", b"\r\n"), {"input": 2, "output_audio": 5, "calls": 1}, ""),
]


def read(asked: Call, pieces: Iterable[bytes]) -> tuple[Any, bytes]:
    reader = works.stream(asked, MODEL)
    out = b"".join([reader.feed(piece) for piece in pieces])
    assert reader.complete_at_eof()
    return reader, out + reader.flush() + reader.tail()


@pytest.mark.parametrize(("name", "asked", "stream", "usage", "text"), STREAMS)
@pytest.mark.parametrize("cut", ["whole", "bytes", "trailing"])
def test_events_pass_as_they_came(
    name: str, asked: Call, stream: bytes, usage: dict[str, int] | None, text: str, cut: str
) -> None:
    pieces = [bytes([byte]) for byte in stream] if cut == "bytes" else [stream]
    pieces += [b": behind"] if cut == "trailing" else []
    reader, out = read(asked, pieces)
    assert out == (stream.removesuffix(DONE) if cut == "bytes" and "[DONE]" in name else stream)
    assert (None if reader.usage is None else reader.usage.quantities) == usage
    assert reader.passed_text() == text
    assert reader.done


@pytest.mark.parametrize(
    "bad", [b"data: {\n\n", b'data: {"error": {"message": "x"}}\n\n', b'data: {"type": "error"}\n\n', b"data: []\n\n"]
)
@pytest.mark.parametrize("asked", [images(1), SPEECH, TRANSCRIPT])
def test_errors_and_nonsense_break_a_stream(asked: Call, bad: bytes) -> None:
    with pytest.raises(AttemptFailed):
        works.stream(asked, MODEL).feed(bad)


@pytest.mark.parametrize(
    ("stream", "whole"), [(b"", False), (PARTLY, False), (PARTLY + IMAGE, True), (IMAGE + PARTLY[:9], False)]
)
def test_a_stream_that_ends_early_is_not_whole(stream: bytes, whole: bool) -> None:
    reader = works.stream(images(2), MODEL)
    reader.feed(stream)
    assert reader.complete_at_eof() is whole


def test_an_event_beyond_the_bound_breaks_it() -> None:
    reader = works.stream(images(1), MODEL)
    for _ in range(15):
        reader.feed(bytes(1 << 20))
    with pytest.raises(AttemptFailed):
        reader.feed(bytes(1 << 21))


def test_images_that_were_seen_in_part_count() -> None:
    reader = works.stream(images(3), MODEL)
    assert isinstance(reader, EventStream)
    seen = []
    for piece in (PARTLY, PARTLY, IMAGE, PARTLY, IMAGE, IMAGE):
        reader.feed(piece)
        seen.append(reader.counts.get("images", 0))
    assert seen == [1, 1, 1, 2, 2, 3]


@pytest.mark.parametrize(
    ("kind", "pieces", "ms"),
    [
        ("pcm", [bytes(24_000), bytes(24_001)], 1001),
        ("wav", [WAV[:3], WAV[3:], bytes(16_000)], 1000),
        ("wav", [b"no wav at all"], None),
        ("mp3", [bytes(10_000)], None),
        ("pcm", [bytes(1 << 20)] * 9, 7_000),
    ],
)
def test_the_length_of_sound(kind: str, pieces: list[bytes], ms: int | None) -> None:
    asked = call("speech", b'{"model":"m","input":"hi","voice":"v","response_format":"%b"}' % kind.encode())
    reader = works.stream(asked, MODEL)
    assert isinstance(reader, Passing)
    assert b"".join([reader.feed(piece) for piece in pieces]) == b"".join(pieces)
    assert reader.counts.get("audio_ms") == ms
    assert reader.complete_at_eof()


def test_no_sound_at_all_is_not_whole() -> None:
    asked = call("speech", b'{"model":"m","input":"hi","voice":"v"}')
    assert not works.stream(asked, MODEL).complete_at_eof()
