"""Transcriptions and translations of a file of sound, whose length decides what they cost."""

from __future__ import annotations

from typing import Final

from gateway.call import JSON, Upload, Work
from gateway.endpoints.fields import choice, optional_text
from gateway.errors import InvalidValue
from gateway.sound import duration_ms

FORMATS: Final = ("json", "text", "srt", "verbose_json", "vtt", "diarized_json")
MAX_PROMPT_CHARS: Final = 10_000
MAX_LANGUAGE_CHARS: Final = 64
# Of a file that does not say how long it is: speech below 8 kbit/s is not sent in practice, and 64 are usual.
MOST_MS_PER_BYTE: Final = 1
USUAL_BYTES_PER_MS: Final = 8
MS_PER_TOKEN: Final = 20  # Whisper makes 50 a second of sound, others fewer
ROUNDING_MS: Final = 1_000  # backends that count in seconds round up


def work(body: JSON, upload: Upload | None) -> Work:
    """The fields of a form are texts. Without a file, as `moma explain` has none, sound is left out."""
    prompt = optional_text(body, "prompt", MAX_PROMPT_CHARS)
    optional_text(body, "language", MAX_LANGUAGE_CHARS)
    choice(body, "response_format", FORMATS, "json")
    _temperature(body)
    most_ms, usual_ms = (0, 0) if upload is None else _length(upload)
    return Work(
        ((prompt, 1),),
        len(prompt.encode()),
        sound=most_ms // MS_PER_TOKEN,
        counts={"audio_ms": most_ms},
        taken={"audio_ms": usual_ms},
        outputs=1,
        stream=_flag(body, "stream"),
        slow=True,
        upload=upload,
    )


def _flag(body: JSON, name: str) -> bool:
    value = body.get(name)
    if value is None or isinstance(value, bool):
        return bool(value)
    if value not in ("true", "false"):
        raise InvalidValue(f"'{name}' must be true or false.", param=name)
    return bool(value == "true")


def _temperature(body: JSON) -> None:
    try:
        fine = 0.0 <= float(body.get("temperature") or 0.0) <= 1.0
    except (TypeError, ValueError):
        fine = False
    if not fine:
        raise InvalidValue("'temperature' must be a number from 0 to 1.", param="temperature")


def _length(upload: Upload) -> tuple[int, int]:
    """The most that it may be counted as, and what it is likely to be, in milliseconds."""
    if not upload.size:
        raise InvalidValue("The file is empty.", param="file")
    known_ms = duration_ms(upload.head, upload.size)
    if known_ms is not None:
        return (known_ms // ROUNDING_MS + 2) * ROUNDING_MS, known_ms
    return upload.size * MOST_MS_PER_BYTE + ROUNDING_MS, -(-upload.size // USUAL_BYTES_PER_MS)
