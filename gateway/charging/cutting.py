"""Cutting months of a ledger that runs: statements are made beside the calls, and written like everything else."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import Any, Final
from zoneinfo import ZoneInfo

from gateway.charging import cuts, months
from gateway.charging.cuts import Cut
from gateway.charging.image import Image
from gateway.charging.ledger import Ledger
from gateway.charging.records import Row
from gateway.clock import Clock
from gateway.errors import Conflict, StoreUnavailable

LOOKED_AT_ONCE: Final = 1_000  # accounts, in one step of the loop
_log = logging.getLogger("gateway.charging")


class Statements:
    """Of one ledger and its file. State: a lock, as one cut follows another."""

    def __init__(self, ledger: Ledger, path: str, timezone: str, currency: str, clock: Clock) -> None:
        self.currency = currency
        self._ledger = ledger
        self._path = path
        self._zone = ZoneInfo(timezone)
        self._clock = clock
        self._cutting = asyncio.Lock()

    async def of_month(self, tenant: str, month: str) -> dict[str, Any]:
        """As `cuts.of_month`, after what is due by the clock was booked."""
        await self._ledger.change(_due, self._ledger.tenant(tenant).path)[1]
        asked = self._path, tenant, month, self._zone, self.currency, self._clock.wall_ms()
        return await asyncio.to_thread(cuts.of_month, *asked)

    async def listed(self, tenant: str, after: str = "", limit: int = cuts.MOST_LISTED) -> list[dict[str, Any]]:
        """As `cuts.listed`."""
        return await asyncio.to_thread(cuts.listed, self._path, tenant, after, limit)

    async def cut(self, tenant: str, month: str) -> tuple[dict[str, Any], bool]:
        """The tenant's statement of a month, which is cut for all tenants if it was not; and whether it was cut now.

        Months between the last one that was cut and this one are cut before it. Raises NotFound, InvalidValue, Conflict
        for a month that has not ended.
        """
        self._ledger.tenant(tenant)
        new = await self.cut_up_to(month)
        found = await self.of_month(tenant, month)
        if found["preliminary"]:
            raise Conflict(f"{tenant} was not there yet when {month} was cut.")
        return found, month in new

    async def cut_up_to(self, month: str) -> list[str]:
        """The months that were cut now."""
        done = await self._end_begun()
        async with self._cutting:
            while (name := await self._next_month(month)) is not None:
                await self._write(await self._begin(name))
                done.append(name)
        return done

    async def _end_begun(self) -> list[str]:
        """One that has broken off goes on as it was begun, whatever the clock says now."""
        async with self._cutting:
            cut = await asyncio.to_thread(cuts.begun, self._path)
            return [cut.month] if cut is not None and await self._write(cut) else []

    async def cut_ended(self) -> None:
        """The months that have ended, for a chore: what fails is tried again. Nothing for who began in this month."""
        runs = months.of(self._clock.wall_ms(), self._zone)
        began_ms = min((account.activated_ms for account in self._ledger.tenants()), default=None)
        if began_ms is None or not self._ledger.healthy:
            return
        first = months.of(began_ms, self._zone) >= runs
        try:
            for month in await (self._end_begun() if first else self.cut_up_to(months.before(runs))):
                _log.info("%s is cut: its statements will not change any more", month)
        except Conflict:  # the clock went back behind the first month that is cut
            return
        except StoreUnavailable as error:  # calls that need the store turn readiness red, this does not
            _log.warning("%s was not cut: %s", months.before(runs), error)

    async def _next_month(self, month: str) -> str | None:
        return await asyncio.to_thread(cuts.next_month, self._path, month, self._zone, self._clock.wall_ms())

    async def _begin(self, month: str) -> Cut:
        """What fell due unseen is booked before: it may belong to the month."""
        names = [account.id for account in self._ledger.tenants()]
        for start in range(0, len(names), LOOKED_AT_ONCE):
            self._ledger.look(_due, names[start : start + LOOKED_AT_ONCE])
            await asyncio.sleep(0)
        await self._ledger.change(_due, ())[1]
        cut = await asyncio.to_thread(cuts.drawn, self._path, month, self._zone, self._clock.wall_ms())
        await self._ledger.change(keep, "cuts", [cut.row])[1]
        return cut

    async def _write(self, cut: Cut) -> bool:
        """The statements that are not there yet; whether there were any."""
        slices, any_new = cuts.statements_of(self._path, cut, self._zone, self.currency), False
        try:
            while (rows := await asyncio.to_thread(next, slices, None)) is not None:
                await self._ledger.change(keep, "statements", rows)[1]
                any_new = any_new or bool(rows)
        finally:
            with contextlib.suppress(ValueError):  # who is cancelled leaves a thread that reads on for a moment
                slices.close()
        await self._ledger.change(keep, "cuts_ended", [(cut.month,)])[1]
        return any_new


def keep(image: Image, table: str, rows: Sequence[Row], now_ms: int) -> None:
    """Rows that the image does not hold, for the next commit."""
    image.changes.kept.setdefault(table, []).extend(rows)


def _due(image: Image, names: Sequence[str], now_ms: int) -> None:
    for name in names:
        account = image.accounts[name]
        if now_ms >= account.next_event_ms:
            image.refresh(account, now_ms)
