"""Affinity: the next turn of a conversation goes where the last one did, because its prefix is warm there."""

from __future__ import annotations

from typing import Any, Final

import orjson

from gateway.call import Call

PLACES: Final = 20_000  # some 4 MB
TTL_S: Final = 600.0  # backends keep a prefix for five to ten minutes
PREFIX_CHARS: Final = 4096  # of a text: who shares so much shares a warm prefix, whatever follows


class Affinity:
    """Who served a conversation last. State: (backend, model) and when, by conversation, the oldest first."""

    def __init__(self, places: int = PLACES, ttl_s: float = TTL_S) -> None:
        self._size = places
        self._ttl_s = ttl_s
        self._places: dict[int, tuple[tuple[str, str], float]] = {}

    def __len__(self) -> int:
        return len(self._places)

    def find(self, conversation: int, now: float) -> tuple[str, str] | None:
        place = self._places.get(conversation)
        return place[0] if place is not None and now - place[1] < self._ttl_s else None

    def keep(self, conversation: int, key: tuple[str, str], now: float) -> None:
        places = self._places
        places.pop(conversation, None)
        if len(places) >= self._size:
            del places[next(iter(places))]
        places[conversation] = key, now


def conversation(call: Call, tenant: str, route: str, by: str) -> tuple[int, bool]:
    """(which one it is, or 0; whether it has gone on before). `by` is the route's affinity: session, prefix or none.

    A hash of 64 bits: two that meet by chance go to the same target, and share nothing else.
    """
    if by == "none":
        return 0, False
    session = call.session or call.body.get("user")
    if session and isinstance(session, str):
        return hash((tenant, route, session)), True
    if by == "session" or call.endpoint != "chat":
        return 0, False
    return _by_prefix(call, tenant, route)


def _by_prefix(call: Call, tenant: str, route: str) -> tuple[int, bool]:
    """By all up to the first message of the user. It has gone on before once the assistant has spoken."""
    body = call.body
    messages = body["messages"]
    head: list[Any] = [tenant, route]
    for message in messages:
        head += _said(message.get("content"))
        if message.get("role") == "user":
            break
    tools = body.get("tools")
    if tools:
        head.append(orjson.dumps(tools))
    went_on = len(messages) > 2 and any([message.get("role") == "assistant" for message in messages])
    return hash(tuple(head)), went_on


def _said(content: Any) -> list[Any]:
    """A text and a part of the same text are one: clients move the mark for a cache, which makes a part, to the last
    message of each turn."""
    if isinstance(content, str):
        return [content[:PREFIX_CHARS]]
    if not isinstance(content, list):
        return [orjson.dumps(content)]
    said: list[Any] = []
    for part in content:
        text = part.get("text") if isinstance(part, dict) else None
        said.append(text[:PREFIX_CHARS] if isinstance(text, str) else orjson.dumps(part))
    return said
