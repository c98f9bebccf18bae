"""Server-sent events as bytes: where one ends, and what its data is. Nothing is decoded or changed."""

from __future__ import annotations

import re
from typing import Final

from gateway.errors import AttemptFailed

MAX_EVENT_BYTES: Final = 2 * 1024 * 1024
# Two line ends of any kind. A last "\n\r" waits for the next byte, which may be its "\n"; "\r\r" does not,
# as streams of bare CR would lag by an event: a "\n" behind it is an empty line in front of the next event.
_END: Final = re.compile(rb"\n\n|\n\r\n|\r\r|\n\r(?=[^\n])")
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
_LF_LF: Final = 2
_END_BYTES: Final = 3
_BOM: Final = b"\xef\xbb\xbf"


class EventSplitter:
    """Cuts a stream after whole events. State: `_rest` (an unfinished event), bounded by `max_event`."""

    def __init__(self, max_event: int = MAX_EVENT_BYTES) -> None:
        self._max_event = max_event
        self._rest = bytearray()

    @property
    def rest(self) -> bytes:
        return bytes(self._rest)

    def feed(self, data: bytes) -> list[bytes]:
        """The events that are complete now, each with its terminator."""
        return split_events(self.block(data))

    def block(self, data: bytes) -> bytes:
        """The same as one piece: enough where nobody needs to look inside. Raises AttemptFailed("broken")."""
        if self._rest:
            complete = self._joined(data)
        else:
            complete, rest = split_complete(data)
            self._rest += rest
        if len(self._rest) > self._max_event or (
            len(complete) > self._max_event and any(len(event) > self._max_event for event in split_events(complete))
        ):
            raise AttemptFailed("broken", "the backend sent an event that is too large")
        return complete

    def _joined(self, data: bytes) -> bytes:
        # What was searched before is not searched again: a drip of single bytes stays linear.
        start = max(0, len(self._rest) - _END_BYTES)
        self._rest += data
        cut = 0
        for found in _END.finditer(self._rest, start):
            cut = found.end()
        complete = bytes(self._rest[:cut])
        del self._rest[:cut]
        return complete


def split_complete(buffer: bytes) -> tuple[bytes, bytes]:
    """(whole events, the unfinished rest)."""
    cut = 0
    if b"\r" not in buffer:
        cut = buffer.rfind(b"\n\n") + 2 if b"\n\n" in buffer else 0
    else:
        for found in _END.finditer(buffer):
            cut = found.end()
    return (buffer, b"") if cut == len(buffer) else (buffer[:cut], buffer[cut:])


def event_end(block: bytes, start: int) -> int:
    """Where the event that begins at `start` ends."""
    found = _END.search(block, start)
    return found.end() if found else len(block)


def last_event_before(block: bytes, start: int, mark: int) -> int:
    """Where the event that holds `mark` begins; `start` is the beginning of an event before it, or of itself."""
    if b"\r" not in block:
        found = block.rfind(b"\n\n", start, mark)
        return start if found < 0 else found + 2
    for match in _END.finditer(block, start, mark):
        start = match.end()
    return start


def split_events(block: bytes) -> list[bytes]:
    """A block of whole events, one by one."""
    events, start = [], 0
    for found in _END.finditer(block):
        events.append(block[start : found.end()])
        start = found.end()
    if start < len(block):
        events.append(block[start:])
    return events


def event_data(raw_event: bytes) -> bytes | None:
    """The data lines, joined by a line feed; None when there are none (comments, other fields)."""
    # Nearly all events have one data line, and it is their last: a pattern would cost ten times as much.
    start = 0 if raw_event.startswith(b"data:") else raw_event.find(b"\ndata:") + 1
    one = raw_event.find(b"\n", start) == len(raw_event) - _LF_LF and b"\r" not in raw_event
    if one and raw_event.startswith(b"data:", start):
        value = raw_event[start + len(b"data:") : -_LF_LF]
        return value[1:] if value[:1] == b" " else value
    lines = []
    for line in _LINE_END.split(raw_event.removeprefix(_BOM)):
        if line == b"data":
            lines.append(b"")
        elif line.startswith(b"data:"):
            value = line[5:]
            lines.append(value[1:] if value[:1] == b" " else value)
    return b"\n".join(lines) if lines else None
