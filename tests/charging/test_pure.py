from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.charging.grants import Grant, burn_key, period_bounds, period_number
from gateway.charging.rating import cost_uc, credits_text
from tests.charging.fakes import quote

ZONE = ZoneInfo("Asia/Shanghai")


def ms(*parts: int) -> int:
    return int(datetime(*parts, tzinfo=ZONE).timestamp() * 1000)  # type: ignore[arg-type,misc]


def test_cost_is_the_sum_over_the_buckets() -> None:
    assert cost_uc({"input": 3, "output": 2}, {"input": 10, "output": 40}) == 110


@pytest.mark.parametrize(("uc", "text"), [(0, "0"), (1_500_000, "1.5"), (1, "0.000001"), (-2_000_000, "-2")])
def test_credits_are_exact_decimals(uc: int, text: str) -> None:
    assert credits_text(uc) == text


def test_a_quote_affords_what_is_left_after_the_input() -> None:
    assert quote(100, 500).affordable(99) == 0
    assert quote(100, 500).affordable(350) == 250
    assert quote(100, 500).affordable(10_000) == 500
    assert quote(100, 500).min_tokens == 256
    assert quote(100, None).ceiling(None) == 100


@pytest.mark.parametrize(
    ("anchor", "number", "start"),
    [
        ((2026, 1, 31), 1, (2026, 2, 28)), ((2026, 1, 31), 2, (2026, 3, 31)), ((2026, 1, 31), 3, (2026, 4, 30)),
        ((2024, 1, 30), 1, (2024, 2, 29)), ((2026, 12, 31), 2, (2027, 2, 28)), ((2026, 11, 30), 1, (2026, 12, 30)),
    ],
)  # fmt: skip
def test_a_month_without_the_anchor_day_uses_its_last(
    anchor: tuple[int, ...], number: int, start: tuple[int, ...]
) -> None:
    assert period_bounds(ms(*anchor), "month", number, ZONE)[0] == ms(*start)


@given(
    st.integers(0, 2_000_000_000_000), st.integers(0, 10**11), st.sampled_from(["month", "week", "day"]),
    st.sampled_from(["Asia/Shanghai", "America/New_York", "UTC"]),
)  # fmt: skip
def test_every_moment_lies_in_its_period(anchor: int, later: int, every: str, zone: str) -> None:
    number = period_number(anchor, every, anchor + later, ZoneInfo(zone))
    start, end = period_bounds(anchor, every, number, ZoneInfo(zone))
    assert start <= anchor + later < end


def test_burn_order_is_priority_then_expiry_with_never_last() -> None:
    def grant(name: str, priority: int, expires: int | None) -> Grant:
        return Grant(name, "t", 1, 1, 0, expires, priority, "standard", None, 0)

    grants = [grant("c", 20, None), grant("d", 30, 1), grant("b", 20, 9), grant("a", 10, None)]
    assert [g.id for g in sorted(grants, key=burn_key)] == ["a", "b", "c", "d"]
