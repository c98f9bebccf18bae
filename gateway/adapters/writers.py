"""What a client gets of a stream: each event in its own dialect, or as it came."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from gateway.adapters.one_call import FirstCallOnly
from gateway.call import JSON
from gateway.dialects.dialect import Closing, Encoder


class Writer(Protocol):
    """Made for one stream."""

    def write(self, event: bytes, chunks: Sequence[JSON]) -> bytes:
        """What goes out for an event of the backend, which says these chunks of the middle form."""

    def cut(self, chunk: JSON) -> bytes:
        """The end that a chunk of ours gives to what goes on."""

    def end(self, usage: JSON | None) -> bytes:
        """What ends the stream well."""


class Translating:
    """`ours` comes in the place of what a backend said of its stream; `only` is what of its calls is wanted, or all."""

    def __init__(self, encoder: Encoder, ours: JSON, only: FirstCallOnly | None) -> None:
        self._encoder = encoder
        self._ours = ours
        self._only = only

    def write(self, event: bytes, chunks: Sequence[JSON]) -> bytes:
        if self._only is not None:
            chunks = [self._only.of(chunk) for chunk in chunks]
        return b"".join([self._encoder.feed({**chunk, **self._ours}) for chunk in chunks])

    def cut(self, chunk: JSON) -> bytes:
        return self._encoder.feed({**chunk, **self._ours})

    def end(self, usage: JSON | None) -> bytes:
        return self._encoder.end(usage)


class Untouched:
    """Events pass as they came; the last of them is the stream's own. State: whether the end is ours to write."""

    def __init__(self, closing: Closing) -> None:
        self._closing = closing
        self._is_cut = False

    def write(self, event: bytes, chunks: Sequence[JSON]) -> bytes:
        self._closing.note(event)
        return event

    def cut(self, chunk: JSON) -> bytes:
        self._is_cut = True
        return b""

    def end(self, usage: JSON | None) -> bytes:
        return self._closing.end(usage) if self._is_cut else b""
