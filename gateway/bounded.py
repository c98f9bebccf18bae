"""JSON that is neither deep nor wide beyond reason, also where it comes as a text within JSON."""

from __future__ import annotations

import re
from typing import Any, Final

import orjson

MAX_NESTING: Final = 64
MAX_CONTAINERS: Final = 100_000  # 20 MB of "[]," would be 400 MB of lists and seconds of everyone's time
MAX_NESTING_OF_BACKENDS: Final = 200  # orjson reads 1,024 levels and writes 254, of which translation needs a few

# Possessive, and closed by the end too: a text that is never closed must not be searched again from each quote.
_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)


class BeyondReason(ValueError):
    """Says what there is too much of, as the rest of a sentence on the value."""


def loads(data: bytes) -> Any:
    """What a client has sent. Raises JSONDecodeError or BeyondReason, both of which are ValueErrors."""
    containers = data.count(b"[") + data.count(b"{")
    if containers > MAX_CONTAINERS and _containers_outside_texts(data) > MAX_CONTAINERS:
        raise BeyondReason(f"has more than {MAX_CONTAINERS} lists and objects")
    value = orjson.loads(data)
    if containers > MAX_NESTING and _nesting_over(value, MAX_NESTING):
        raise BeyondReason(f"is nested deeper than {MAX_NESTING} levels")
    return value


def loads_of_backend(data: bytes) -> Any:
    """Such that it can be written again. Raises JSONDecodeError or BeyondReason."""
    value = orjson.loads(data)
    deep = MAX_NESTING_OF_BACKENDS
    if len(data) > 2 * deep and data.count(b"[") + data.count(b"{") > deep and _nesting_over(value, deep):
        raise BeyondReason(f"is nested deeper than {deep} levels")
    return value


def is_object(text: Any) -> bool:
    """Whether it is the text of an object, as arguments of tools are."""
    try:
        return isinstance(text, str) and isinstance(loads(text.encode()), dict)
    except ValueError:
        return False


def _containers_outside_texts(data: bytes) -> int:
    bare = _STRING.sub(b"", data)
    return bare.count(b"[") + bare.count(b"{")


def _nesting_over(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        inner: list[Any] = []
        for holder in level:
            inner += [
                v for v in (holder.values() if isinstance(holder, dict) else holder) if isinstance(v, dict | list)
            ]
        if not inner:
            return False
        level = inner
    return True
