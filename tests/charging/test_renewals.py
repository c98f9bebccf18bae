"""What a tenant is granted when its plan's offers, or its plan, are edited: over restarts, each time once."""

from __future__ import annotations

import random
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from gateway.charging.audit import audit
from gateway.charging.grants import Grant, prorated
from gateway.charging.ledger import Ledger, open_ledger
from gateway.config.model import Plan, PlanGrant
from gateway.errors import QuotaExhausted
from tests.charging.fakes import FakeClock, quote

DAY_MS = 86_400_000
UTC = ZoneInfo("UTC")
START = datetime(2026, 1, 1, 12, tzinfo=UTC)
Offers = list[tuple[int, str | None]]


class Books:
    """A ledger that learns of each edit by restarts, two because one by itself changes nothing, or by reloads."""

    def __init__(self, path: Path, by: str = "restart") -> None:
        self._path = f"{path}/l.db"
        self._by = by
        self.clock = FakeClock(int(START.timestamp() * 1000))
        self._ledger: Ledger | None = None

    async def edit(self, *offers: tuple[int, str | None], plan: str = "p", card: str = "standard") -> None:
        config = Plan(plan, tuple(PlanGrant(uc, every, card) for uc, every in offers))
        for _ in range(2):
            if self._by == "reload" and self._ledger is not None:
                self._ledger.follow({plan: config}, {"t": plan})
                continue
            await self.close()
            self._ledger = await open_ledger(self._path, self.clock, "UTC", {plan: config})
            self._ledger.apply_plan("t", config)

    def at(self, *date: int) -> list[tuple[int, str]]:
        """What is live at noon of a day in 2026, and until when."""
        self.clock.ms = int(datetime(2026, *date, 12, tzinfo=UTC).timestamp() * 1000)  # type: ignore[misc,arg-type]
        return [(grant.granted, ends(grant)) for grant in self.live()]

    def live(self) -> list[Grant]:
        self.ledger.usage("t")
        self.ledger.check_invariants()
        return [grant for grant in self.ledger.tenant("t").owned if grant.live(self.clock.ms)]

    @property
    def ledger(self) -> Ledger:
        assert self._ledger is not None
        return self._ledger

    async def resets_at(self) -> str | None:
        with pytest.raises(QuotaExhausted) as caught:
            await self.ledger.reserve("c", quote(10**12, None), clamp=False)
        at: str | None = caught.value.extra["resets_at"]
        return at and at[:10]

    async def close(self) -> None:
        if self._ledger is not None:
            await self._ledger.aclose()
            assert audit(self._path) == []


def ends(grant: Grant) -> str:
    return "never" if grant.expires_ms is None else f"{datetime.fromtimestamp(grant.expires_ms / 1000, UTC):%m-%d}"


@pytest.fixture(params=["restart", "reload"])
async def books(tmp_path: Path, request: pytest.FixtureRequest) -> Books:
    return Books(tmp_path, request.param)


async def test_another_recurrence_begins_when_the_running_period_has_ended(books: Books) -> None:
    await books.edit((1000, "month"))
    assert books.at(1, 10) == [(1000, "02-01")]
    await books.edit((50, "day"))
    for day in (10, 20, 31):
        assert books.at(1, day) == [(1000, "02-01")]
    assert await books.resets_at() == "2026-02-01"
    assert books.at(2, 1) == [(50, "02-02")]
    assert books.at(2, 2) == [(50, "02-03")]
    assert await books.resets_at() == "2026-02-03"
    await books.close()


async def test_a_period_that_is_joined_late_is_granted_by_its_days(books: Books) -> None:
    await books.edit((50, "day"))
    assert books.at(1, 29) == [(50, "01-30")]
    await books.edit((3100, "month"))
    assert books.at(1, 29) == [(50, "01-30")]
    assert books.at(1, 30) == [(200, "02-01")]  # two days of 31
    assert books.at(2, 3) == [(3100, "03-01")]
    await books.edit((700, "week"))
    assert books.at(3, 2) == [(400, "03-05")]  # the weeks begin on a Thursday, as the tenant did: four days of seven
    assert books.at(3, 6) == [(700, "03-12")]
    await books.close()


async def test_a_period_that_nobody_asked_for_until_late_is_whole(books: Books) -> None:
    await books.edit((50, "day"))
    await books.edit((3100, "month"))
    assert books.at(3, 20) == [(3100, "04-01")]
    await books.close()


async def test_what_was_granted_for_good_is_followed_by_the_next_period(books: Books) -> None:
    await books.edit((1000, None))
    assert books.at(1, 10) == [(1000, "never")]
    await books.edit((300, "month"))
    assert books.at(1, 10) == [(1000, "never")]
    assert await books.resets_at() == "2026-02-01"
    assert books.at(2, 1) == [(1000, "never"), (300, "03-01")]
    assert books.at(3, 5) == [(1000, "never"), (300, "04-01")]
    await books.edit((1000, None))
    assert books.at(4, 5) == [(1000, "never")]
    assert await books.resets_at() is None
    await books.close()


async def test_what_is_granted_for_good_waits_for_the_running_period(books: Books) -> None:
    await books.edit((300, "month"))
    await books.edit((1000, None))
    assert books.at(1, 31) == [(300, "02-01")]
    assert books.at(2, 1) == books.at(5, 1) == [(1000, "never")]
    await books.close()


async def test_other_credits_are_for_the_next_period(books: Books) -> None:
    await books.edit((1000, "month"))
    await books.edit((2000, "month"))
    assert books.at(1, 20) == [(1000, "02-01")]
    await books.edit((500, "month"))
    assert books.at(1, 25) == [(1000, "02-01")]
    assert books.at(2, 1) == [(500, "03-01")]
    await books.close()


async def test_an_offer_that_is_added_is_granted_at_once_and_one_that_is_removed_runs_out(books: Books) -> None:
    await books.edit((1000, "month"))
    books.at(1, 10)
    await books.edit((1000, "month"), (70, "week"), (5, None))
    assert books.at(1, 10) == [(1000, "02-01"), (70, "01-15"), (5, "never")]
    await books.edit((1000, "month"))
    assert books.at(1, 14) == [(1000, "02-01"), (70, "01-15"), (5, "never")]
    assert books.at(1, 16) == [(1000, "02-01"), (5, "never")]
    await books.edit((1000, "month"), (70, "week"), (9, None))
    assert books.at(1, 16) == [(1000, "02-01"), (5, "never"), (70, "01-22")]
    await books.edit()
    assert books.at(2, 2) == [(5, "never")]
    await books.close()


async def test_a_better_plan_is_granted_by_the_days_that_are_left(books: Books) -> None:
    await books.edit((3100, "month"), plan="small")
    books.at(1, 22)
    await books.edit((31000, "month"), plan="large")
    assert books.at(1, 22) == [(3100, "02-01"), (9000, "02-01")]  # ten days of 31
    for plan, credits_uc in (("small", 3100), ("large", 31000), ("small", 3100)):
        await books.edit((credits_uc, "month"), plan=plan)
    granted = sum(uc for uc, _ in books.at(1, 22))
    assert 12100 < granted < 31000
    for _ in range(30):
        await books.edit((3100, "month"), plan="small")
        await books.edit((31000, "month"), plan="large")
    assert sum(uc for uc, _ in books.at(1, 22)) <= 31000
    assert books.at(2, 1) == [(31000, "03-01")]
    await books.close()


async def test_a_lesser_plan_and_one_of_another_recurrence_wait_for_the_end(books: Books) -> None:
    await books.edit((3100, "month"), plan="p")
    books.at(1, 10)
    await books.edit((310, "month"), plan="lesser")
    assert books.at(1, 10) == [(3100, "02-01")]
    await books.edit((9000, "week"), plan="weekly")
    assert books.at(1, 10) == [(3100, "02-01")]
    assert books.at(2, 1)[0][1] == "02-05"
    await books.close()


async def test_from_a_plan_that_grants_once(books: Books) -> None:
    await books.edit((100, None), plan="trial")
    await books.edit((250, None), plan="starter")
    assert books.at(1, 3) == [(100, "never"), (150, "never")]
    await books.edit((100, None), plan="trial")
    await books.edit((250, None), plan="starter")
    assert books.at(1, 22) == [(100, "never"), (150, "never")]
    await books.edit((3100, "month"), plan="pro")
    assert books.at(1, 22)[2:] == [(1000, "02-01")]
    assert books.at(2, 1)[2:] == [(3100, "03-01")]
    assert books.at(3, 1)[2:] == [(3100, "04-01")]
    await books.close()


async def test_another_card_waits_for_the_end_of_what_runs(books: Books) -> None:
    """An edit of the plan, and a plan that has more: credits of two cards are not more or less than each other."""
    await books.edit((3100, "month"), plan="p")
    await books.edit((31000, "month"), plan="p", card="raw")
    await books.edit((62000, "month"), plan="q", card="raw")
    assert (books.at(1, 10), books.live()[0].card) == ([(3100, "02-01")], "standard")
    assert (books.at(2, 1), books.live()[0].card) == ([(62000, "03-01")], "raw")
    await books.close()


async def test_another_card_beside_what_was_granted_for_good_is_granted_once(books: Books) -> None:
    for _ in range(3):
        await books.edit((100, None), plan="trial")
        await books.edit((250, None), plan="raw", card="raw")
    assert books.at(1, 3) == [(100, "never"), (250, "never")]
    assert [grant.card for grant in books.live()] == ["standard", "raw"]
    await books.close()


@pytest.mark.parametrize("by", ["restart", "reload"])
@pytest.mark.parametrize("seed", range(12))
async def test_whatever_is_edited_an_offer_has_one_grant_at_a_time_and_no_gap(
    tmp_path: Path, seed: int, by: str
) -> None:
    rng, books = random.Random(seed), Books(tmp_path, by)
    for _ in range(12):
        offers = [(rng.randint(1, 10**6), rng.choice(("month", "week", "day"))) for _ in range(rng.randint(1, 3))]
        await books.edit(*offers)
        for _ in range(rng.randint(1, 6)):
            live = [grant.offer for grant in books.live()]
            assert len(live) == len(set(live))
            assert set(live) >= {str(index) for index in range(len(offers))}
            books.clock.ms += rng.choice((1, DAY_MS // 3, DAY_MS, 9 * DAY_MS, 40 * DAY_MS))
    await books.close()


@pytest.mark.parametrize(
    ("uc", "left", "whole", "expected"),
    [(3100, 31, 31, 3100), (3100, 1, 31, 100), (10, 1, 3, 4), (100, 0.1, 31, 4), (1, 0.5, 31, 1), (7, 1, 1.04, 4)],
)
def test_a_part_of_a_period_is_in_whole_days_and_rounded_up(uc: int, left: float, whole: float, expected: int) -> None:
    assert prorated(uc, int(left * DAY_MS), int(whole * DAY_MS)) == expected
