"""Forms with a file: read part by part as they come. Large files wait on disk, so that many at once need little memory.

The parser is aiohttp's. What it finds is written anew for a backend: the fields are what was checked here, however
differently a backend would have read what the client sent.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import tempfile
import warnings
import weakref
from collections.abc import AsyncIterator
from typing import Any, Final, cast

import aiohttp
import orjson
from aiohttp.multipart import (
    BadContentDispositionHeader,
    BadContentDispositionParam,
    BodyPartReader,
    MultipartReader,
)

from gateway.call import Upload
from gateway.errors import InvalidValue
from gateway.request import HttpRequest, too_large
from gateway.sound import HEAD_BYTES

FILE: Final = "file"
MAX_FIELDS: Final = 64
MAX_FIELD_BYTES: Final = 1_000_000  # a sample of a speaker's voice comes as a field
IN_MEMORY_BYTES: Final = 1_000_000  # what is longer is on disk
PIECE_BYTES: Final = 256 * 1024
READ_BYTES: Final = 64 * 1024
MAX_LINE_BYTES: Final = 8 * 1024
_NAME: Final = re.compile(r"[\w.\[\]-]{1,64}", re.ASCII)
_TYPE: Final = re.compile(r"[\w.+-]{1,64}/[\w.+-]{1,64}", re.ASCII)
_UNSAFE: Final = {ord(sign): f"%{ord(sign):02X}" for sign in '"\\'} | {code: "_" for code in (*range(32), 127)}
_AS_IT_IS: Final = frozenset({"binary", "8bit", "7bit"})
_BROKEN: Final = (
    ValueError, LookupError, AssertionError, RuntimeWarning, aiohttp.ClientError, aiohttp.http.HttpProcessingError,
)  # fmt: skip

# The parser warns of a header that it cannot read, with the header: what a client sent has no place in a log.
for _kind in (BadContentDispositionHeader, BadContentDispositionParam):
    warnings.simplefilter("error", _kind)


async def read_form(http: HttpRequest, limit: int) -> tuple[bytes, Upload]:
    """The fields as JSON, with a list for what comes more than once, and the file.

    Raises InvalidValue or RequestTooLarge.
    """
    kind = http.headers.get("content-type", "")
    if not kind.lower().startswith("multipart/form-data"):
        raise InvalidValue("This path takes a form: multipart/form-data with a model and a file.")
    http.expect(limit)
    fields: dict[str, Any] = {}
    file: Spool | None = None
    try:
        reader = MultipartReader({"Content-Type": kind}, cast(aiohttp.StreamReader, _Source(http, limit)))
        while (part := await reader.next()) is not None:
            if not isinstance(part, BodyPartReader):
                raise InvalidValue("A form within a form is not read.")
            name = _name_of(part)
            if part.filename is None:
                _add(fields, name, await _text(part, name))
            elif name == FILE and file is None:
                file = await _spooled(part)
            else:
                raise InvalidValue("A form has one file, in the field 'file'.", param=name)
    except _BROKEN as error:
        raise InvalidValue("The form cannot be read: it is not multipart/form-data, or breaks off.") from error
    if file is None:
        raise InvalidValue("The form has no file: put one into the field 'file'.", param=FILE)
    return orjson.dumps(fields), file


def _name_of(part: BodyPartReader) -> str:
    name, coding = part.name or "", part.headers.get("Content-Transfer-Encoding", "binary").lower()
    if not _NAME.fullmatch(name):
        raise InvalidValue("A field of the form has no name, or one that is not made of letters, digits and -_.[].")
    if coding not in _AS_IT_IS:
        raise InvalidValue("A part of a form is sent as it is, without an encoding for its transfer.", param=name)
    return name


async def _text(part: BodyPartReader, name: str) -> str:
    data = bytearray()
    while piece := await part.read_chunk(READ_BYTES):
        data += piece
        if len(data) > MAX_FIELD_BYTES:
            raise InvalidValue(f"A field of a form has at most {MAX_FIELD_BYTES} bytes.", param=name)
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise InvalidValue("A field of a form is text in UTF-8.", param=name) from None


def _add(fields: dict[str, Any], name: str, value: str) -> None:
    known = fields.get(name)
    fields[name] = value if known is None else [*(known if isinstance(known, list) else [known]), value]
    if sum(len(one) if isinstance(one, list) else 1 for one in fields.values()) > MAX_FIELDS:
        raise InvalidValue(f"A form has at most {MAX_FIELDS} fields.", param=name)


async def _spooled(part: BodyPartReader) -> Spool:
    kind = part.headers.get("Content-Type", "")
    kind = kind if _TYPE.fullmatch(kind) else "application/octet-stream"
    name = (part.filename or FILE).translate(_UNSAFE)[:255]
    head = f'Content-Disposition: form-data; name="{FILE}"; filename="{name}"\r\nContent-Type: {kind}\r\n'
    spool = Spool(head.encode("utf-8", "surrogateescape"), kind)
    while piece := await part.read_chunk(READ_BYTES):
        await spool.write(piece)
    await spool.finish()
    return spool


class Spool:
    """A file that was sent: in memory as long as it is small, else in a file without a name.

    State: `size`, `head` and `digest` of what came, `_held` (not in the file yet), and the file. It is closed with the
    last reference, because a call may outlive its client.
    """

    def __init__(self, lines: bytes, content_type: str) -> None:
        self.lines = lines
        self.content_type = content_type
        self.size = 0
        self.head = b""
        self.digest = ""
        self._held = bytearray()
        self._hash = hashlib.sha256()
        self._fd: int | None = None

    async def write(self, data: bytes) -> None:
        self.size += len(data)
        if len(self.head) < HEAD_BYTES:
            self.head += data[: HEAD_BYTES - len(self.head)]
        self._held += data
        if len(self._held) >= (IN_MEMORY_BYTES if self._fd is None else PIECE_BYTES):
            await self._put_down()

    async def finish(self) -> None:
        if self._fd is not None:
            await self._put_down()
        else:
            self._hash.update(self._held)
        self.digest = self._hash.hexdigest()

    async def pieces(self) -> AsyncIterator[bytes]:
        if self._fd is None:
            yield bytes(self._held)
            return
        place = 0
        while place < self.size:
            piece = await asyncio.to_thread(os.pread, self._fd, PIECE_BYTES, place)
            if not piece:
                raise OSError("a file that was sent is shorter than it was")
            place += len(piece)
            yield piece

    async def _put_down(self) -> None:
        data, self._held = self._held, bytearray()
        await asyncio.to_thread(self._append, data)

    def _append(self, data: bytearray) -> None:
        if self._fd is None:
            file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed by the finalizer
            weakref.finalize(self, file.close)
            self._fd = file.fileno()
        self._hash.update(data)
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]


class _Source:
    """What aiohttp's parser reads of a stream: as much as it asks for, at most `limit` in all.

    State: `_buffer`, and how much has come.
    """

    def __init__(self, http: HttpRequest, limit: int) -> None:
        self._content = http.content
        self._limit = limit
        self._came = 0
        self._buffer = bytearray()

    async def read(self, size: int) -> bytes:
        if not self._buffer:
            await self._more()
        return self._taken(size)

    async def readline(self, *, max_line_length: int = MAX_LINE_BYTES) -> bytes:
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            if searched > max_line_length:
                raise ValueError("a line of the form is too long")
            if not await self._more():
                return self._taken(searched)
        return self._taken(end + 1)

    def at_eof(self) -> bool:
        return self._content.over and not self._buffer

    def unread_data(self, data: bytes) -> None:
        self._buffer[:0] = data

    async def _more(self) -> bool:
        data = await self._content.some()
        self._came += len(data)
        if self._came > self._limit:
            raise too_large(self._limit)
        self._buffer += data
        return bool(data)

    def _taken(self, size: int) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken
