"""A form as a backend gets it: the fields that were checked, and the file as it came."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from typing import Any, Final

import orjson

from gateway.call import JSON, Upload

_BOUNDARY_BYTES: Final = 16


class Form:
    """In pieces, the file never all at once. The boundary is a digest of all that it separates: none holds its own."""

    def __init__(self, fields: JSON, upload: Upload) -> None:
        named = hashlib.blake2b(orjson.dumps(fields) + upload.digest.encode(), digest_size=_BOUNDARY_BYTES)
        boundary = f"moma-{named.hexdigest()}"
        parts = [_field(boundary, name, one) for name, value in fields.items() for one in _each(value)]
        self._head = "".join(parts).encode() + f"--{boundary}\r\n".encode() + upload.lines + b"\r\n"
        self._tail = f"\r\n--{boundary}--\r\n".encode()
        self._upload = upload
        self.content_type = f"multipart/form-data; boundary={boundary}"
        self.size = len(self._head) + upload.size + len(self._tail)

    async def pieces(self) -> AsyncIterator[bytes]:
        yield self._head
        async for piece in self._upload.pieces():
            yield piece
        yield self._tail


def _each(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _field(boundary: str, name: str, value: str) -> str:
    return f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
