"""Too many calls, a storm of 503, backends that hang: the gateway and the backends are processes of their own.

The full numbers of the issue need a machine that has nothing else to do: `make test-long`, or
`python -m benchmarks.overload`.
"""

from __future__ import annotations

import os

import pytest

from benchmarks.open_loop import percentile
from benchmarks.overload import Bottleneck, fairness, hang, overload, scene, storm

ONLY_LONG = pytest.mark.skipif(not os.environ.get("MOMA_LONG"), reason="only in `make test-long`")
LIGHT = Bottleneck(slots=5, takes_s=0.1)
SLACK = 5  # limits in milliseconds are exact in the benchmark alone


async def test_calls_too_many_are_refused_at_once_and_the_others_served_at_full_pace() -> None:
    async with scene(bottleneck=LIGHT) as at:
        row = await overload(at, 5, 3.0)
        assert at.says(0)["most"] == LIGHT.slots
    assert row.goodput >= 0.5 * LIGHT.peak  # other tests may run on this machine
    assert row.rejected > 100
    assert row.reject_p50 < 20 * SLACK
    assert (row.other, row.unadvised) == (0, 0)


async def test_a_tenant_with_ten_times_its_share_does_not_hurt_the_others() -> None:
    async with scene(bottleneck=LIGHT) as at:
        fair = await fairness(at, 3.0)
    assert fair.success == 1.0
    assert percentile(fair.beside, 0.5) < 2.5 * LIGHT.takes_s * 1000
    assert fair.hog_served > 1.5 * LIGHT.peak / 10  # what the others leave is not wasted


async def test_a_storm_of_503_is_not_multiplied() -> None:
    async with scene(2, LIGHT, limited=False) as at:
        asked, sent = await storm(at, 4.0)
    assert asked > 100
    assert asked <= sent <= 1.1 * asked + 10


async def test_half_of_the_backends_hang_and_are_left_alone_within_seconds() -> None:
    async with scene(4, LIGHT, limited=False) as at:
        opened = await hang(at, 10.0)
    assert opened.keys() == {"b0", "b1"}
    assert max(opened.values()) < 5.0


@pytest.mark.long
@ONLY_LONG
@pytest.mark.parametrize("times", [2, 5, 10])
async def test_goodput_under_overload_in_full(times: float) -> None:
    async with scene() as at:
        peak = (await overload(at, 1.5, 5.0)).goodput
        row = await overload(at, times, 10.0)
    assert row.goodput >= 0.9 * peak
    assert row.reject_p99 < 20 * SLACK
    assert (row.other, row.unadvised) == (0, 0)


@pytest.mark.long
@ONLY_LONG
async def test_fairness_in_full() -> None:
    async with scene() as at:
        fair = await fairness(at, 10.0)
    assert fair.success >= 0.999
    assert percentile(fair.beside, 0.99) < 1.5 * percentile(fair.alone, 0.99)


@pytest.mark.long
@ONLY_LONG
async def test_a_storm_of_half_a_minute_in_full() -> None:
    async with scene(2, limited=False) as at:
        asked, sent = await storm(at, 30.0)
    assert sent <= 1.1 * asked
