"""Server-sent events out of bytes, however they are cut (WHATWG HTML, section 9.2). Pure."""

from __future__ import annotations

import re

from gateway.errors import AttemptFailed

MAX_EVENT_BYTES = 2 * 1024 * 1024
_BOUNDARY = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_LINE = re.compile(rb"\r\n|\n|\r")


class EventSplitter:
    """State: the bytes of an event that is not complete yet."""

    __slots__ = ("rest",)

    def __init__(self) -> None:
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        """The complete events so far, as they came; raises AttemptFailed when one grows too long."""
        data = self.rest + data if self.rest else data
        end = max(data.rfind(b"\n\n") + 2, data.rfind(b"\r\n\r\n") + 4, data.rfind(b"\r\r") + 2)
        if end < 5:
            end = 0  # nothing found: rfind said -1
        self.rest = data[end:] if end else data
        if len(self.rest) > MAX_EVENT_BYTES:
            raise AttemptFailed("broken", f"an event is longer than {MAX_EVENT_BYTES} bytes")
        return data[:end]


def events(block: bytes) -> list[bytes]:
    """Complete events, each with its terminator."""
    out, start = [], 0
    for match in _BOUNDARY.finditer(block):
        out.append(block[start : match.end()])
        start = match.end()
    return out


def event_data(event: bytes) -> bytes | None:
    """The joined `data:` lines; None for comments and other fields alone."""
    lines = [line[5:].removeprefix(b" ") for line in _LINE.split(event) if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None
