"""The list of models as clients of Anthropic's read it; theirs is the header that says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gateway.call import JSON

VERSION_HEADER: Final = "anthropic-version"
_UNKNOWN: Final = "1970-01-01T00:00:00Z"  # as the API says of a date that it does not know


def one(name: str) -> JSON:
    return {"type": "model", "id": name, "display_name": name, "created_at": _UNKNOWN}


def page(names: Sequence[str]) -> JSON:
    """All of them."""
    ends = {"first_id": names[0], "last_id": names[-1]} if names else {"first_id": None, "last_id": None}
    return {"data": [one(name) for name in names], "has_more": False, **ends}
