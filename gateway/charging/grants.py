"""Grants, their burn order and their recurrence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from gateway.charging.ending import Ending
from gateway.charging.offers import STANDARD, Scope
from gateway.config.model import Payg
from gateway.hours import minute_of_day, next_edge_ms

NEVER_MS: Final = 1 << 62
PLAN_PRIORITY: Final = 20
PACK_PRIORITY: Final = 30
PAYG_PRIORITY: Final = 1001  # after all that is prepaid, whose priority is at most 1000
PURSE: Final = "payg-"
DAY_MS: Final = 86_400_000


@dataclass(slots=True)
class Grant:
    """An allocation of credits to an account; granted = available + reserved + spent + expired + revoked.

    `period` is the renewal's key within the account, "" for grants that were added by hand; it begins with the place
    of the offer among those of the plan.
    """

    id: str
    account: str
    granted: int
    available: int
    starts_ms: int
    expires_ms: int | None
    priority: int
    card: str
    source_ref: str | None
    created_ms: int
    period: str = ""
    reserved: int = 0
    spent: int = 0
    expired: int = 0
    revoked: int = 0
    scope: Scope | None = None  # None: it pays for everything
    ending: Ending | None = None
    price: int | None = None  # what it was sold for, in micro-units of currency; None: it was not, or nobody knows

    @property
    def payg(self) -> Payg | None:
        """What is spent of it is billed by; None: it is prepaid."""
        return None if self.ending is None else self.ending.payg

    @property
    def special(self) -> bool:
        """It pays at other rates, or not for everything."""
        return self.scope is not None or self.card != STANDARD

    def live(self, now_ms: int) -> bool:
        """It has begun and has not ended. What had begun when it was granted has, wherever the clock was set since."""
        return self.starts_ms <= max(now_ms, self.created_ms) and not self.over(now_ms)

    def over(self, now_ms: int) -> bool:
        return self.expires_ms is not None and self.expires_ms <= now_ms

    @property
    def offer(self) -> str:
        return self.period.partition(":")[0]

    @property
    def lot(self) -> str:
        """What it has in common with what was granted for the same period of the same offer; "" if added by hand."""
        if self.offer in ("order", PURSE + "order"):
            return self.period
        return self.period.partition(":change:")[0].removesuffix(":rolled")

    @property
    def used_up(self) -> bool:
        return self.available == 0 and self.reserved == 0


def in_hours(grants: Iterable[Grant], asked_ms: int, zone: ZoneInfo) -> list[Grant]:
    """Those that pay at this time of the day, in their order."""
    minute = minute_of_day(asked_ms, zone)
    return [grant for grant in grants if grant.scope is None or grant.scope.open(minute)]


def hours_change_ms(hourly: Sequence[Grant], now_ms: int, zone: ZoneInfo) -> int:
    """When the hours of one of these, which have some, may begin or end next."""
    if not hourly:
        return NEVER_MS
    found = [span for grant in hourly if grant.scope is not None for span in grant.scope.spans]
    return next_edge_ms(found, now_ms, zone)


def hours_of(grants: Iterable[Grant]) -> list[str]:
    """All that one of them pays at."""
    return sorted({hours for grant in grants if grant.scope is not None for hours in grant.scope.hours})


def purse_period(period: str) -> str:
    """The key of the purse behind the grant with this one."""
    return PURSE + period


def burn_key(grant: Grant) -> tuple[int, int, int, str]:
    """What is drawn on first: priority, expiry (never last), creation, id."""
    expires_ms = NEVER_MS if grant.expires_ms is None else grant.expires_ms
    return (grant.priority, expires_ms, grant.created_ms, grant.id)


def period_start_ms(anchor_ms: int, every: str, number: int, zone: ZoneInfo) -> int:
    """Where period `number` (0 is the first) starts: the anchor's wall time, on a day that the month has."""
    anchor = datetime.fromtimestamp(anchor_ms / 1000, zone)
    if every == "month":
        start = _add_months(anchor, number)
    elif every in ("week", "day"):
        start = anchor + timedelta(days=number * (7 if every == "week" else 1))
    else:
        raise ValueError(f"no recurrence {every!r}")
    if number == 0:
        return anchor_ms
    return int(start.replace(microsecond=0, fold=0).timestamp()) * 1000


def period_number(anchor_ms: int, every: str, now_ms: int, zone: ZoneInfo) -> int:
    """The period `now_ms` lies in, never below 0."""
    anchor = datetime.fromtimestamp(anchor_ms / 1000, zone)
    now = datetime.fromtimestamp(now_ms / 1000, zone)
    if every == "month":
        number = (now.year - anchor.year) * 12 + now.month - anchor.month
    else:
        number = (now.date() - anchor.date()).days // (7 if every == "week" else 1)
    number += 1  # the guess is by calendar date: one too many at most after this
    while number > 0 and period_start_ms(anchor_ms, every, number, zone) > now_ms:
        number -= 1
    return max(number, 0)


def period_bounds(anchor_ms: int, every: str, number: int, zone: ZoneInfo) -> tuple[int, int]:
    """[start, end) of a period; the end is the next renewal."""
    return (
        period_start_ms(anchor_ms, every, number, zone),
        period_start_ms(anchor_ms, every, number + 1, zone),
    )


def prorated(uc: int, left_ms: int, whole_ms: int) -> int:
    """The part of a period's credits for the days of it that are left; days and credits rounded up."""
    left_days, whole_days = -(-left_ms // DAY_MS), -(-whole_ms // DAY_MS)
    return -(-uc * left_days // whole_days)


def _add_months(anchor: datetime, months: int) -> datetime:
    year, month = divmod(anchor.year * 12 + anchor.month - 1 + months, 12)
    following = datetime(year + (month == 11), (month + 1) % 12 + 1, 1)
    last_day = (following - timedelta(days=1)).day
    return anchor.replace(year=year, month=month + 1, day=min(anchor.day, last_day))
