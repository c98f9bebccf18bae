"""Speech, of a text. How long it will be is not known before: it is held for one that is spoken slowly."""

from __future__ import annotations

import math
from typing import Any, Final

from gateway.call import JSON, Upload, Work
from gateway.endpoints.fields import choice, number, optional_text, text

MAX_INPUT_CHARS: Final = 100_000  # OpenAI takes 4,096; others take more
FORMATS: Final = ("mp3", "opus", "aac", "flac", "wav", "pcm")
MS_PER_CHAR: Final = 1_000  # a digit or a Chinese character takes half a second at most; letters are ten times as fast
LEAST_MS: Final = 5_000
SLOWEST, FASTEST = 0.25, 4.0


def work(body: JSON, upload: Upload | None) -> Work:
    spoken = text(body, "input", MAX_INPUT_CHARS)
    manner = optional_text(body, "instructions", MAX_INPUT_CHARS)
    choice(body, "response_format", FORMATS, "mp3")
    slow = number(body, "speed", SLOWEST, FASTEST, 1.0)
    sse = choice(body, "stream_format", ("audio", "sse"), "audio") == "sse"
    longest_ms = math.ceil((LEAST_MS + len(spoken) * MS_PER_CHAR) / slow)
    texts: tuple[Any, ...] = ((spoken, 1), (manner, 1)) if manner else ((spoken, 1),)
    read = len(spoken.encode()) + len(manner.encode())
    return Work(texts, read, counts={"audio_ms": longest_ms}, outputs=1 if sse else 0, stream=True)
