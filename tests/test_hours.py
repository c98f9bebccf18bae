"""Hours of the day: which it is, what two have in common, and when that changes, also where clocks are set."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.hours import (
    DAY_MINUTES,
    MINUTE_MS,
    Span,
    empty,
    minute_of_day,
    next_edge_ms,
    overlapping,
    span,
    spans,
    within,
)

SHANGHAI = ZoneInfo("Asia/Shanghai")
# Where clocks are set by an hour, by half an hour, at midnight; and where they never are.
ZONES = [ZoneInfo(name) for name in ("Europe/Berlin", "Australia/Lord_Howe", "America/Havana", "UTC")] + [SHANGHAI]
CHANGES = [  # of the clocks, in the zones above
    datetime(2027, 3, 28, 1, tzinfo=UTC), datetime(2027, 10, 31, 1, tzinfo=UTC), datetime(2027, 4, 3, 15, tzinfo=UTC),
    datetime(2027, 10, 2, 15, 30, tzinfo=UTC), datetime(2027, 3, 14, 5, tzinfo=UTC),
]  # fmt: skip
SPANS = st.tuples(st.integers(0, DAY_MINUTES - 1), st.integers(0, DAY_MINUTES)).filter(lambda one: not empty(one))


def ms(text: str, zone: ZoneInfo = SHANGHAI) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=zone).timestamp() * 1000)


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("00:00-08:00", ["00:00", "07:59"], ["08:00", "23:59"]),
        ("22:00-08:00", ["22:00", "23:59", "00:00", "07:59"], ["08:00", "21:59"]),
        ("22:00-24:00", ["22:00", "23:59"], ["00:00", "21:59"]),
        ("00:00-24:00", ["00:00", "12:00", "23:59"], []),
        ("12:30-12:31", ["12:30"], ["12:29", "12:31"]),
    ],
)
def test_which_minutes_are_in_hours(text: str, inside: list[str], outside: list[str]) -> None:
    found = spans([text])
    for words, expected in ((inside, True), (outside, False)):
        for clock in words:
            assert within(minute_of_day(ms(f"2027-01-01T{clock}"), SHANGHAI), found) is expected, clock


@pytest.mark.parametrize(("text", "expected"), [("08:00-08:00", True), ("24:00-08:00", True), ("23:59-24:00", False)])
def test_hours_without_a_minute_are_known(text: str, expected: bool) -> None:
    assert empty(span(text)) is expected


@given(st.lists(SPANS, max_size=3))
def test_two_overlap_when_a_minute_is_in_both(found: list[Span]) -> None:
    shared = any(sum(within(minute, [one]) for one in found) > 1 for minute in range(DAY_MINUTES))
    assert (overlapping(found) is not None) is shared


@given(
    st.lists(SPANS, min_size=1, max_size=3), st.sampled_from(ZONES), st.sampled_from(CHANGES), st.integers(-3000, 3000)
)
def test_nothing_changes_before_the_next_edge(
    found: list[Span], zone: ZoneInfo, change: datetime, minutes: int
) -> None:
    """Minute by minute, around the moments at which some zone sets its clocks."""
    now_ms = int((change + timedelta(minutes=minutes)).timestamp() * 1000) + 777
    edge_ms = next_edge_ms(found, now_ms, zone)
    assert edge_ms > now_ms
    assert edge_ms % MINUTE_MS == 0
    inside = within(minute_of_day(now_ms, zone), found)
    for at_ms in range(now_ms, edge_ms, MINUTE_MS):
        assert within(minute_of_day(at_ms, zone), found) is inside


def test_an_edge_is_known_hours_before_it() -> None:
    assert next_edge_ms(spans(["22:00-08:00"]), ms("2027-01-01T12:00"), SHANGHAI) == ms("2027-01-01T22:00")
    assert next_edge_ms(spans(["22:00-08:00"]), ms("2027-01-01T22:00"), SHANGHAI) == ms("2027-01-02T08:00")
