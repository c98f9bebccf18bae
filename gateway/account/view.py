"""What the page at `/account` shows: of the tenant's own, with bounded reads beside the calls."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from gateway.charging import cuts
from gateway.charging.daily import Daily, Day, days_of, keys_used, members_used
from gateway.charging.last_calls import LastCall, last_calls
from gateway.charging.ledger import Ledger
from gateway.charging.records import Key
from gateway.charging.statements import members_of, reading
from gateway.clock import Clock

DAYS: Final = 30
KEYS_DAYS: Final = 90
MOST_KEYS: Final = 50
MOST_MEMBERS: Final = 50


@dataclass(frozen=True)
class View:
    """`usage` as GET /v1/usage; `days` are the last 30, `used` what the tenant and all below it used on them, `members`
    (tenant, calls, input, output) who of them used most; `last_used` by id of key."""

    tenant: str
    now_ms: int
    zone: ZoneInfo
    usage: Mapping[str, Any]
    days: Sequence[str]
    used: Sequence[Day]
    members: Sequence[tuple[str, int, int, int]]
    calls: Sequence[LastCall]
    keys: Sequence[Key]
    last_used: Mapping[str, int]
    statements: Sequence[Mapping[str, Any]]

    def at(self, ms: int) -> str:
        return datetime.fromtimestamp(ms / 1000, self.zone).strftime("%Y-%m-%d %H:%M")


class Account:
    """Collaborators only."""

    def __init__(self, ledger: Ledger, path: str, timezone: str, daily: Daily, clock: Clock) -> None:
        self._ledger = ledger
        self._path = path
        self._zone = ZoneInfo(timezone)
        self._daily = daily
        self.clock = clock

    @property
    def now_ms(self) -> int:
        return self.clock.wall_ms()

    async def cut_statement(self, tenant: str, month: str) -> dict[str, Any]:
        """Raises NotFound where it is not cut."""
        return await asyncio.to_thread(cuts.kept_of, self._path, tenant, month)

    async def view(self, tenant: str) -> View:
        """Raises NotFound, StoreUnavailable."""
        await self._daily.look()  # so that the calls of this minute are there
        usage, now_ms = self._ledger.usage(tenant), self.now_ms
        today = datetime.fromtimestamp(now_ms / 1000, self._zone).date()
        days = [(today - timedelta(days=back)).isoformat() for back in range(DAYS - 1, -1, -1)]
        since = (today - timedelta(days=KEYS_DAYS)).isoformat()
        read = await asyncio.to_thread(_read, self._path, tenant, days[0], since)
        statements = await asyncio.to_thread(cuts.listed, self._path, tenant)
        keys = sorted(self._ledger.keys(tenant), key=lambda key: (not key.valid(now_ms), -key.created_ms, key.id))
        return View(
            tenant, now_ms, self._zone, usage, days, keys=keys[:MOST_KEYS], statements=statements, **read
        )  # fmt: skip


def _read(path: str, tenant: str, first: str, since: str) -> dict[str, Any]:
    with reading(path) as connection:
        members = members_of(connection, tenant)
        everybody = [tenant, *members]
        return {
            "used": days_of(connection, everybody, first),
            "members": members_used(connection, everybody, first, MOST_MEMBERS) if members else [],
            "last_used": keys_used(connection, tenant, since),
            "calls": last_calls(connection, tenant),
        }
