"""multipart/form-data as it comes (RFC 7578): cut into parts, strictly. Pure.

Ours because it is small: aiohttp's comes with a whole client and server, which every start would pay for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

MAX_HEAD_BYTES: Final = 8 * 1024  # of the headers of a part
_BOUNDARY: Final = re.compile(
    r'multipart/form-data\s*;(?:.*;)?\s*boundary=(?:"([^"\\]{1,70})"|([^\s;"]{1,70}))\s*(?:;.*)?', re.I | re.S
)
_PARAMETER: Final = re.compile(r';\s*([\w*-]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))\s*')
_EXTENDED: Final = re.compile(r"utf-8'[\w-]*'(.*)", re.I)
_DISPOSITION: Final = "form-data"


class Malformed(ValueError):
    """This is no form."""


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of a part; `filename` None: it is no file."""

    name: str
    filename: str | None
    content_type: str
    coding: str  # of its transfer, "" for as it is


def boundary_of(content_type: str) -> bytes | None:
    """None for what is no form."""
    found = _BOUNDARY.fullmatch(content_type)
    text = "" if found is None else found[1] or found[2]
    return text.encode() if text and text.isascii() else None


class Parts:
    """Cuts a form that is fed to it.

    State: `_buffer`, whether a head comes next, whether `_inside` a part, how much of the empty line behind its head
    `_lead`s what is in the buffer, and `done`.
    """

    def __init__(self, boundary: bytes) -> None:
        self._delimiter = b"\r\n--" + boundary
        self._buffer = bytearray(b"\r\n")  # in front of the first delimiter there need not be one
        self._at_head = self._inside = False
        self._lead = 0
        self.done = False

    def feed(self, data: bytes) -> list[Head | bytes]:
        """What is complete now: the head of a part, then its bytes, in pieces. Raises Malformed."""
        out: list[Head | bytes] = []
        if self.done:  # what follows a form is of no interest
            return out
        self._buffer += data
        while not self.done and (self._head(out) if self._at_head else self._content(out)):
            pass
        return out

    def _content(self, out: list[Head | bytes]) -> bool:
        """Up to the next delimiter; whether that was found."""
        buffer, size = self._buffer, len(self._delimiter)
        end = buffer.find(self._delimiter)
        if end < 0 or len(buffer) < end + size + 2:
            self._pass_on(out, max(0, len(buffer) - size - 1) if end < 0 else end)
            return False
        self._pass_on(out, end)
        behind = bytes(buffer[size : size + 2])
        if behind not in (b"--", b"\r\n"):
            raise Malformed("a delimiter goes on")
        del buffer[: size + 2]
        self.done = behind == b"--"
        self._at_head = self._inside = not self.done
        return True

    def _pass_on(self, out: list[Head | bytes], size: int) -> None:
        if self._inside and size > self._lead:
            out.append(bytes(self._buffer[self._lead : size]))
        self._lead = max(0, self._lead - size)
        del self._buffer[:size]

    def _head(self, out: list[Head | bytes]) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if (len(self._buffer) if end < 0 else end) > MAX_HEAD_BYTES:
            raise Malformed("a part has too long a head")
        if end < 0:
            return False
        out.append(_head_of(bytes(self._buffer[:end])))
        del self._buffer[: end + 2]  # the empty line stays: it may be that of a delimiter, where there is no content
        self._at_head, self._lead = False, 2
        return True


def _head_of(data: bytes) -> Head:
    try:
        lines = data.decode().split("\r\n")
    except UnicodeDecodeError:
        raise Malformed("a head is not UTF-8") from None
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not line.isprintable() or name.strip() != name or name.lower() in headers:
            raise Malformed("a head has a line that is no header, or one twice")
        headers[name.lower()] = value.strip()
    said = _parameters(headers.get("content-disposition", ""))
    extended = _EXTENDED.fullmatch(said.get("filename*", ""))
    filename = said.get("filename") if extended is None else unquote(extended[1])
    coding = headers.get("content-transfer-encoding", "").lower()
    return Head(said.get("name", ""), filename, headers.get("content-type", ""), coding)


def _parameters(disposition: str) -> dict[str, str]:
    """Each once: a part that has two names is nobody's."""
    kind, semicolon, _ = disposition.partition(";")
    found: dict[str, str] = {}
    if kind.strip().lower() != _DISPOSITION or not semicolon:
        raise Malformed("a part is no field of a form")
    place = len(kind)
    while place < len(disposition):
        match = _PARAMETER.match(disposition, place)
        if match is None or match[1].lower() in found:
            raise Malformed("a part says what it is in a way that cannot be read")
        found[match[1].lower()] = re.sub(r"\\(.)", r"\1", match[2]) if match[2] is not None else match[3]
        place = match.end()
    return found
