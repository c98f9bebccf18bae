"""How long sound is, by its header."""

from __future__ import annotations

import struct

import pytest

from gateway.sound import HEAD_BYTES, duration_ms

SECOND = 2 * 16_000


def wav(kind: int = 1, *, data: int | None = SECOND, extra: bytes = b"", bits: int = 16, tail: bytes = b"") -> bytes:
    fmt = struct.pack("<HHIIHH", kind, 1, 16_000, 7, 2, bits) + extra  # the field for bytes a second lies
    body = b"WAVE" + b"fmt " + struct.pack("<I", len(fmt)) + fmt + tail
    if data is not None:
        body += b"data" + struct.pack("<I", data)
    return b"RIFF" + struct.pack("<I", len(body)) + body


EXTENSIBLE = struct.pack("<HHIH", 22, 16, 4, 1) + bytes(14)
COMPRESSED = struct.pack("<HHIH", 22, 16, 4, 85) + bytes(14)

FILES: list[tuple[str, bytes, int, int | None]] = [
    ("a second", wav(), SECOND, 1000),
    ("a part of a millisecond counts", wav(data=SECOND + 1), SECOND + 1, 1001),
    ("floats", wav(3, bits=32), SECOND, 500),
    ("extensible", wav(0xFFFE, extra=EXTENSIBLE), SECOND, 1000),
    ("a chunk in front of the samples", wav(tail=b"LIST" + struct.pack("<I", 3) + b"abc\0"), SECOND, 1000),
    ("a length that was not known", wav(data=0xFFFFFFFF), SECOND, 1000),
    ("no length", wav(data=0), SECOND, 1000),
    ("more is promised than there is", wav(data=10 * SECOND), SECOND, 1000),
    ("less is promised than there is", wav(data=SECOND), 3 * SECOND, 1000),
    ("nothing but a header", wav(), 0, 0),
    ("compressed", wav(85), SECOND, None),
    ("compressed and extensible", wav(0xFFFE, extra=COMPRESSED), SECOND, None),
    ("no channel", wav().replace(struct.pack("<HHI", 1, 1, 16_000), struct.pack("<HHI", 1, 0, 16_000)), SECOND, None),
    ("no samples", wav(data=None), 0, None),
    ("cut in its header", wav()[:30], 0, None),
    ("something else", b"ID3\x04" + bytes(40), SECOND, None),
    ("empty", b"", 0, None),
]


@pytest.mark.parametrize(("name", "head", "rest", "ms"), FILES)
def test_duration(name: str, head: bytes, rest: int, ms: int | None) -> None:
    size = len(head) + rest
    assert duration_ms((head + bytes(min(rest, HEAD_BYTES)))[:HEAD_BYTES], size) == ms
