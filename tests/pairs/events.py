"""Server-sent events, read as a client does."""

from __future__ import annotations

from typing import Any

import orjson


def split(stream: bytes) -> list[tuple[str, Any]]:
    """(the event's name or "", its data: JSON, or the text where it is none)."""
    out: list[tuple[str, Any]] = []
    for block in stream.decode().replace("\r\n", "\n").split("\n\n"):
        name, data = "", []
        for line in block.split("\n"):
            if line.startswith("event:"):
                name = line[6:].strip()
            elif line.startswith("data:"):
                data.append(line[5:].strip())
        if data:
            text = "\n".join(data)
            out.append((name, orjson.loads(text) if text[:1] in "{[" and text != "[DONE]" else text))
    return out


def event(data: Any, name: str = "") -> bytes:
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + (data if isinstance(data, bytes) else orjson.dumps(data)) + b"\n\n"


def pieces(text: str) -> list[str]:
    """As a model writes it."""
    return [text[start : start + 4] for start in range(0, len(text), 4)]
