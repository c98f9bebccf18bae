"""Forms with a file: read part by part as they come. Large files wait on disk, so that many at once need little memory.

What is found is written anew for a backend: its fields are what was checked here, however differently the backend would
have read what the client sent.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import tempfile
import weakref
from collections.abc import AsyncIterator
from typing import Any, Final

import orjson

from gateway.call import Upload
from gateway.errors import InvalidValue, StoreUnavailable
from gateway.multipart import Head, Malformed, Parts, boundary_of
from gateway.request import HttpRequest, too_large
from gateway.sound import HEAD_BYTES

FILE: Final = "file"
MAX_FIELDS: Final = 64
MAX_FIELD_BYTES: Final = 1_000_000  # a sample of a speaker's voice comes as a field
IN_MEMORY_BYTES: Final = 1_000_000  # what is longer is on disk
PIECE_BYTES: Final = 256 * 1024
MAX_NAME_CHARS: Final = 255
NO_ROOM_RETRY_S: Final = 5.0
_NAME: Final = re.compile(r"[\w.\[\]-]{1,64}", re.ASCII)
_TYPE: Final = re.compile(r"[\w.+-]{1,64}/[\w.+-]{1,64}", re.ASCII)
_UNSAFE: Final = {ord(sign): f"%{ord(sign):02X}" for sign in '"\\'} | {code: "_" for code in (*range(32), 127)}
_AS_IT_IS: Final = frozenset({"", "binary", "8bit", "7bit"})


async def read_form(http: HttpRequest, limit: int) -> tuple[bytes, Upload]:
    """The fields as JSON, with a list for what comes more than once, and the file.

    Raises InvalidValue, RequestTooLarge, or StoreUnavailable where there is no room for the file.
    """
    boundary = boundary_of(http.headers.get("content-type", ""))
    if boundary is None:
        raise InvalidValue("This path takes a form: multipart/form-data with a model and a file.")
    http.expect(limit)
    parts, form, came = Parts(boundary), Filled(), 0
    while data := await http.content.some():
        came += len(data)
        if came > limit:
            raise too_large(limit)
        try:
            pieces = parts.feed(data)
        except Malformed as error:
            raise InvalidValue(f"The form cannot be read: {error}.") from None
        for piece in pieces:
            await form.take(piece)
    if not parts.done:
        raise InvalidValue("The form cannot be read: it breaks off.")
    return await form.end()


class Filled:
    """What came of a form. State: `_fields`, `_file`, the `_name` of the part that comes, and its `_text`."""

    def __init__(self) -> None:
        self._fields: dict[str, list[str]] = {}
        self._file: Spool | None = None
        self._name = ""
        self._text: bytearray | None = None

    async def take(self, piece: Head | bytes) -> None:
        """Raises InvalidValue."""
        if isinstance(piece, Head):
            self._keep()
            self._begin(piece)
        elif self._text is None:
            assert self._file is not None
            await self._file.write(piece)
        else:
            self._text += piece
            if len(self._text) > MAX_FIELD_BYTES:
                raise InvalidValue(f"A field of a form has at most {MAX_FIELD_BYTES} bytes.", param=self._name)

    async def end(self) -> tuple[bytes, Upload]:
        self._keep()
        if self._file is None:
            raise InvalidValue("The form has no file: put one into the field 'file'.", param=FILE)
        await self._file.finish()
        fields: dict[str, Any] = {name: values if values[1:] else values[0] for name, values in self._fields.items()}
        return orjson.dumps(fields), self._file

    def _begin(self, head: Head) -> None:
        name = self._name = head.name
        if not _NAME.fullmatch(name):
            raise InvalidValue("A field of the form has no name, or one that is not made of letters, digits and -_.[].")
        if head.coding not in _AS_IT_IS:
            raise InvalidValue("A part of a form is sent as it is, without an encoding for its transfer.", param=name)
        if head.filename is None:
            self._text = bytearray()
        elif name == FILE and self._file is None:
            self._text, self._file = None, _spool(head)
        else:
            raise InvalidValue("A form has one file, in the field 'file'.", param=name)

    def _keep(self) -> None:
        """The field that has ended."""
        if self._text is None:
            return
        try:
            self._fields.setdefault(self._name, []).append(self._text.decode())
        except UnicodeDecodeError:
            raise InvalidValue("A field of a form is text in UTF-8.", param=self._name) from None
        self._text = None
        if sum(map(len, self._fields.values())) > MAX_FIELDS:
            raise InvalidValue(f"A form has at most {MAX_FIELDS} fields.", param=self._name)


def _spool(head: Head) -> Spool:
    kind = head.content_type if _TYPE.fullmatch(head.content_type) else "application/octet-stream"
    name = (head.filename or FILE).translate(_UNSAFE)[:MAX_NAME_CHARS]
    lines = f'Content-Disposition: form-data; name="{FILE}"; filename="{name}"\r\nContent-Type: {kind}\r\n'
    return Spool(lines.encode("utf-8", "replace"), kind)


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
        try:
            await asyncio.to_thread(self._append, data)
        except OSError as error:  # the disk is full
            message = "The gateway has no room for the file at the moment."
            raise StoreUnavailable(message, retry_after_s=NO_ROOM_RETRY_S) from error

    def _append(self, data: bytearray) -> None:
        if self._fd is None:
            file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed by the finalizer
            weakref.finalize(self, file.close)
            self._fd = file.fileno()
        self._hash.update(data)
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]
