"""How long a piece of uncompressed sound is: of WAV by its header, of bare PCM as speech comes in it."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

HEAD_BYTES: Final = 4096  # a WAV says within these how it is made
PCM_BYTES_PER_S: Final = 48_000  # 24 kHz, 16 bits, one channel: what OpenAI's `pcm` is, and those that do as it does
_UNCOMPRESSED: Final = frozenset({1, 3})  # integers and floats
_EXTENSIBLE: Final = 0xFFFE  # the real format is in the first two bytes of a GUID
_OPEN_ENDED: Final = frozenset({0, 0xFFFFFFFF})  # written by who did not know the length yet


@dataclass(frozen=True, slots=True)
class Wav:
    """Where its samples begin, what a second of them takes, and how many bytes it says they are (0: to the end)."""

    start: int
    bytes_per_s: int
    length: int


def wav_of(head: bytes) -> Wav | None:
    """None for what is no WAV of plain samples."""
    if head[:4] not in (b"RIFF", b"RF64") or head[8:12] != b"WAVE":
        return None
    place, rate = 12, 0
    while place + 8 <= len(head):
        name, size = head[place : place + 4], int.from_bytes(head[place + 4 : place + 8], "little")
        place += 8
        if name == b"fmt ":
            rate = _bytes_per_s(head[place : place + size])
        elif name == b"data":
            return Wav(place, rate, 0 if size in _OPEN_ENDED else size) if rate else None
        place += size + size % 2
    return None


def duration_ms(head: bytes, size: int) -> int | None:
    """Of a whole file, rounded up; None where it cannot be told. What the header promises and is not there is none."""
    wav = wav_of(head)
    if wav is None:
        return None
    there = max(0, size - wav.start)
    return milliseconds(min(there, wav.length) if wav.length else there, wav.bytes_per_s)


def milliseconds(size: int, bytes_per_s: int) -> int:
    return -(-size * 1000 // bytes_per_s)


def _bytes_per_s(fmt: bytes) -> int:
    """0 for what is compressed. The header's own field for it is not believed: nobody who decodes it looks there."""
    if len(fmt) < 16:
        return 0
    kind, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", fmt)
    if kind == _EXTENSIBLE and len(fmt) >= 26:
        kind = int.from_bytes(fmt[24:26], "little")
    return int(channels * rate * (bits // 8)) if kind in _UNCOMPRESSED else 0
