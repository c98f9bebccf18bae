"""Sources that Gemini names for what it recites, as annotations of the chat form.

https://ai.google.dev/api/generate-content#citationmetadata: places are counted in bytes there, in characters here.
"""

from __future__ import annotations

from typing import Any

from gateway.call import JSON


def cited(metadata: Any, text: str) -> list[JSON]:
    """Of the sources that have an address; `text` is all that was said."""
    sources = metadata.get("citationSources") if isinstance(metadata, dict) else None
    found = [one for one in sources if isinstance(one, dict)] if isinstance(sources, list) else []
    encoded = text.encode("utf-8", "surrogatepass")
    return [_annotation(one, encoded) for one in found if isinstance(one.get("uri"), str)]


def _annotation(source: JSON, encoded: bytes) -> JSON:
    place = {
        "start_index": _place(source.get("startIndex", 0), encoded),
        "end_index": _place(source.get("endIndex", len(encoded)), encoded),
        "url": source["uri"],
        "title": "",
    }
    return {"type": "url_citation", "url_citation": place}


def _place(index: Any, encoded: bytes) -> int:
    return len(encoded[: index if type(index) is int else 0].decode("utf-8", "ignore"))
