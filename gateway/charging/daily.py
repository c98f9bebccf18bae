"""Usage by day, tenant, model and key. It is added up from the records beside the traffic, in the order of their
numbers: so a look at a month costs the same, however many calls there were.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import orjson

from gateway.call import TOKEN_BUCKETS
from gateway.charging.figures import key_column
from gateway.charging.image import Image
from gateway.charging.ledger import Ledger
from gateway.charging.records import Row
from gateway.charging.statements import reading
from gateway.charging.tables import has_table
from gateway.errors import StoreUnavailable

AT_ONCE: Final = 50_000  # records in one commit
_DAY_MS: Final = 86_400_000
_log = logging.getLogger("gateway.charging")


@dataclass(frozen=True)
class Day:
    """What one model was used on one day."""

    day: str
    model: str
    calls: int
    input: int
    output: int

    @property
    def tokens(self) -> int:
        return self.input + self.output


class Daily:
    """Of one ledger and its file. State: a lock, as each addition goes on where the last one has ended."""

    def __init__(self, ledger: Ledger, path: str, timezone: str) -> None:
        self._ledger = ledger
        self._path = path
        self._zone = ZoneInfo(timezone)
        self._adding = asyncio.Lock()

    async def add(self) -> bool:
        """The next records, at most AT_ONCE; whether there may be more. Raises StoreUnavailable."""
        async with self._adding:
            rows, last = await asyncio.to_thread(_added, self._path, self._zone)
            if last:
                await self._ledger.change(_keep, rows, last)[1]
        return last > 0

    async def look(self) -> None:
        """The last records, for who is about to read; nothing while somebody adds."""
        if not self._adding.locked():
            await self.add()

    async def catch_up(self) -> None:
        """For a chore: what fails is tried again."""
        try:
            while self._ledger.healthy and await self.add():
                pass
        except StoreUnavailable as error:  # calls that need the store turn readiness red, this does not
            _log.warning("usage was not added up: %s", error)


def _keep(image: Image, rows: Sequence[Row], last: int, now_ms: int) -> None:
    """In one commit: what is added is never added again."""
    image.changes.kept.setdefault("usage_days", []).extend(rows)
    image.changes.kept["usage_days_head"] = [(last,)]


def _added(db_path: str, zone: ZoneInfo) -> tuple[list[Row], int]:
    """Rows to be added to those that are there, and the number up to which; 0 when there is nothing new."""
    with reading(db_path) as connection:
        ((head, last),) = connection.execute(
            "SELECT coalesce((SELECT seq FROM usage_days_head), 0), coalesce((SELECT max(seq) FROM records), 0)"
        )
        last = min(last, head + AT_ONCE)
        if last <= head:
            return [], 0
        span = {"head": head, "last": last}
        sql = f"SELECT DISTINCT closed_ms / {_DAY_MS} FROM records WHERE seq > :head AND seq <= :last"  # noqa: S608
        found = [day for (day,) in connection.execute(sql, span)]
        days = orjson.dumps(_local_days(found, zone)).decode()
        return connection.execute(_sums_sql(connection), {**span, "days": days}).fetchall(), last


def _sums_sql(connection: sqlite3.Connection) -> str:
    number = "coalesce(json_extract(usage, '$.{}'), 0)"
    read, written = (
        " + ".join(number.format(bucket) for bucket in TOKEN_BUCKETS if bucket.startswith(kind))
        for kind in ("input", "output")
    )
    return (
        "WITH days AS (SELECT json_extract(value, '$[0]') AS day, json_extract(value, '$[1]') AS from_ms,"  # noqa: S608
        " json_extract(value, '$[2]') AS to_ms FROM json_each(:days))"
        f" SELECT tenant, day, model_served, coalesce({key_column(connection)}, ''), count(*), sum({read}),"
        f" sum({written}), max(closed_ms) FROM records JOIN days ON closed_ms >= from_ms AND closed_ms < to_ms"
        " WHERE seq > :head AND seq <= :last AND status = 'settled' GROUP BY 1, 2, 3, 4"
    )


def _local_days(utc_days: Sequence[int], zone: ZoneInfo) -> list[tuple[str, int, int]]:
    """(day, from, to) of all days of `zone` that have a part of one of these days of UTC."""
    times = (number * _DAY_MS + part for number in utc_days for part in (0, _DAY_MS // 2, _DAY_MS - 1))
    days = sorted({datetime.fromtimestamp(ms / 1000, zone).date() for ms in times})
    return [(day.isoformat(), _start_ms(day, zone), _start_ms(day + timedelta(days=1), zone)) for day in days]


def _start_ms(day: date, zone: ZoneInfo) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp() * 1000)


def days_of(connection: sqlite3.Connection, tenants: Sequence[str], first: str) -> list[Day]:
    """Of all of them together, from the day `first` on."""
    if not has_table(connection, "usage_days"):
        return []
    sql = (
        "SELECT day, model, sum(calls), sum(input), sum(output) FROM usage_days"
        " WHERE tenant IN (SELECT value FROM json_each(?)) AND day >= ? GROUP BY day, model ORDER BY day, model"
    )
    return [Day(*row) for row in connection.execute(sql, (orjson.dumps(tenants).decode(), first))]


def members_used(
    connection: sqlite3.Connection, tenants: Sequence[str], first: str, most: int
) -> list[tuple[str, int, int, int]]:
    """Calls, input and output tokens of each that was used since the day `first`; those that were used most."""
    if not has_table(connection, "usage_days"):
        return []
    sql = (
        "SELECT tenant, sum(calls), sum(input), sum(output) FROM usage_days"
        " WHERE tenant IN (SELECT value FROM json_each(?)) AND day >= ?"
        " GROUP BY tenant ORDER BY sum(input) + sum(output) DESC, tenant LIMIT ?"
    )
    return connection.execute(sql, (orjson.dumps(tenants).decode(), first, most)).fetchall()


def keys_used(connection: sqlite3.Connection, tenant: str, first: str) -> dict[str, int]:
    """When each key was used last, since the day `first`."""
    if not has_table(connection, "usage_days"):
        return {}
    sql = "SELECT key_id, max(last_ms) FROM usage_days WHERE tenant = ? AND day >= ? GROUP BY key_id"
    return dict(connection.execute(sql, (tenant, first)).fetchall())
