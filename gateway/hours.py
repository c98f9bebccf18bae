"""Hours of the day by the wall clock of a time zone, written 22:00-08:00: which it is, and when that may change.

Where clocks are set, the wall clock counts: an hour that comes twice counts twice, one that is left out not at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Final
from zoneinfo import ZoneInfo

DAY_MINUTES: Final = 1440
MINUTE_MS: Final = 60_000
Span = tuple[
    int, int
]  # minutes from midnight, the second not among them; from the later to the earlier: across midnight


def span(text: str) -> Span:
    """Raises ValueError."""
    start, _, end = text.partition("-")
    return _minutes(start), _minutes(end)


def spans(texts: Iterable[str]) -> tuple[Span, ...]:
    return tuple(span(text) for text in sorted(texts))


def empty(one: Span) -> bool:
    """Whether no minute is in it."""
    start, end = one
    return start == end or start >= DAY_MINUTES


def within(minute: int, found: Iterable[Span]) -> bool:
    return any(start <= minute < end if start < end else minute >= start or minute < end for start, end in found)


def overlapping(found: Sequence[Span]) -> tuple[int, int] | None:
    """The places of two that have a minute in common, the first before the second."""
    parts = [(start, end, at) for at, (start, end) in enumerate(found) if start < end]
    for at, (start, end) in enumerate(found):
        parts += [(start, DAY_MINUTES, at), (0, end, at)] if start > end else []  # up to midnight, and from there
    for (_, end, first), (start, _, second) in pairwise(sorted(part for part in parts if part[0] < part[1])):
        if start < end:
            return min(first, second), max(first, second)
    return None


def minute_of_day(now_ms: int, zone: ZoneInfo) -> int:
    now = datetime.fromtimestamp(now_ms // 1000, zone)
    return now.hour * 60 + now.minute


def next_edge_ms(found: Sequence[Span], now_ms: int, zone: ZoneInfo) -> int:
    """When one of them may begin or end next: not later than one does, and after `now_ms`.

    Where the zone sets its clocks before that, it is the next minute: so it is looked at again until they are set.
    """
    minute, begun_ms = minute_of_day(now_ms, zone), now_ms - now_ms % MINUTE_MS
    left = min((edge - minute - 1) % DAY_MINUTES + 1 for one in found for edge in one)
    edge_ms = begun_ms + left * MINUTE_MS
    return edge_ms if _offset(edge_ms, zone) == _offset(now_ms, zone) else begun_ms + MINUTE_MS


def _offset(now_ms: int, zone: ZoneInfo) -> object:
    return datetime.fromtimestamp(now_ms // 1000, zone).utcoffset()


def _minutes(text: str) -> int:
    hour, _, minute = text.partition(":")
    return int(hour) * 60 + int(minute)
