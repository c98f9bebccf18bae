"""What the demo backend paints, speaks and hears: small pictures, and tones that say how long they are."""

from __future__ import annotations

import base64
import io
import struct
import wave
import zlib
from dataclasses import dataclass
from typing import Final

from gateway.demo.answers import PIECE, Invalid, Json, count

SAMPLES_PER_S: Final = 24_000
MS_PER_CHAR: Final = 60
TOKENS_PER_IMAGE: Final = 100
TOKENS_PER_SECOND: Final = 10
CHUNK_BYTES: Final = 8_192
SOUND_TYPES: Final = {
    "mp3": "audio/mpeg", "opus": "audio/opus", "aac": "audio/aac", "flac": "audio/flac", "wav": "audio/wav",
    "pcm": "audio/pcm",
}  # fmt: skip


def picture(prompt: str, number: int) -> str:
    """A PNG of one pixel, whose colour comes from the prompt, in base64."""
    colour = zlib.crc32(f"{prompt}{number}".encode()).to_bytes(4, "big")[:3]
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"\0" + colour)),
        (b"IEND", b""),
    ]
    packed = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(packed)).decode()


def image_usage(prompt: str, n: int) -> Json:
    read, written = count(prompt), n * TOKENS_PER_IMAGE
    details = {"text_tokens": read, "image_tokens": 0}
    return {
        "input_tokens": read,
        "output_tokens": written,
        "total_tokens": read + written,
        "input_tokens_details": details,
    }


def images_asked(body: Json) -> tuple[str, int]:
    prompt, n = body["prompt"], body.get("n") or 1
    if not isinstance(prompt, str) or type(n) is not int or not 0 < n <= 10:
        raise Invalid("a prompt, and n from 1 to 10")
    return prompt, n


def spoken(body: Json) -> tuple[bytes, str]:
    """Silence of 60 ms for each character, and what kind of sound it is."""
    kind = body.get("response_format") or "mp3"
    if kind not in SOUND_TYPES or not body.get("voice"):
        raise Invalid("a voice, and a format that is known")
    samples = bytes(2 * SAMPLES_PER_S * MS_PER_CHAR * len(body["input"]) // 1000)
    if kind != "wav":
        return samples if kind == "pcm" else samples[::8], SOUND_TYPES[kind]
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLES_PER_S)
        file.writeframes(samples)
    return out.getvalue(), SOUND_TYPES[kind]


@dataclass(slots=True)
class Heard:
    """A form with a file, as it was sent."""

    fields: dict[str, str]
    file: bytes

    @property
    def seconds(self) -> float:
        """Of a WAV; all else is taken for 16 kB a second."""
        try:
            with wave.open(io.BytesIO(self.file)) as file:
                return float(file.getnframes() / file.getframerate())
        except (wave.Error, EOFError):
            return len(self.file) / 16_000

    @property
    def pieces(self) -> list[str]:
        return PIECE.findall(f"You played {self.seconds:.2f} seconds")

    @property
    def tokens(self) -> Json:
        heard, read = int(self.seconds * TOKENS_PER_SECOND), count(self.fields.get("prompt", ""))
        written = len(self.pieces)
        return {
            "type": "tokens", "input_tokens": heard + read, "output_tokens": written,
            "total_tokens": heard + read + written,
            "input_token_details": {"audio_tokens": heard, "text_tokens": read},
        }  # fmt: skip


def heard(raw: bytes) -> Heard:
    """Of a form, whose first line is its boundary."""
    boundary = raw.partition(b"\r\n")[0]
    fields: dict[str, str] = {}
    file: bytes | None = None
    for part in raw.split(b"\r\n" + boundary if raw.startswith(b"\r\n") else boundary)[1:-1]:
        head, _, data = part.partition(b"\r\n\r\n")
        name = head.partition(b'name="')[2].partition(b'"')[0].decode()
        if b"filename=" in head:
            file = data.removesuffix(b"\r\n")
        else:
            fields[name] = data.removesuffix(b"\r\n").decode()
    if file is None or "model" not in fields:
        raise Invalid("a form with a file and a model")
    return Heard(fields, file)


def transcript(form: Heard) -> Json | str:
    """In the form that was asked for: an object, or a text."""
    text, kind = "".join(form.pieces), form.fields.get("response_format", "json")
    seconds = form.seconds
    if kind in ("text", "srt", "vtt"):
        times = "00:00:00,000 --> 00:00:01,000"
        return {"text": f"{text}\n", "srt": f"1\n{times}\n{text}\n", "vtt": f"WEBVTT\n\n{times}\n{text}\n"}[kind]
    if kind == "verbose_json":
        usage = {"type": "duration", "seconds": round(seconds + 0.5)}
        return {"task": "transcribe", "language": "english", "duration": seconds, "text": text, "usage": usage}
    return {"text": text, "usage": form.tokens}
