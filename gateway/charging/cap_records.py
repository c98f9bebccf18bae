"""What the records say of caps: for one that is younger than they are, and for the audit."""

from __future__ import annotations

import sqlite3
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import orjson

from gateway.charging.caps import SINCE, TILL, Meter, amount, bounds
from gateway.charging.grants import NEVER_MS
from gateway.charging.tables import has_table

_RECORDS: Final = (
    "SELECT seq, opened_ms, account_path, charged, flags FROM records"
    " WHERE seq < ? AND status = 'settled' AND opened_ms >= ?"
)
Used = list[tuple[Meter, int, int]]  # meter, start of the slot, and what was used in it


def used_before(connection: sqlite3.Connection, uncounted: Sequence[Meter]) -> Used:
    """What the records with a number below each one's `counted_to` say of it, the oldest first.

    All that is beyond its horizon is said of that.
    """
    by_id = {id(meter): meter for meter in uncounted}
    if not by_id:
        return []
    of_account: dict[str, list[Meter]] = {}
    for meter in uncounted:
        of_account.setdefault(meter.account, []).append(meter)
    used: Counter[tuple[int, int]] = Counter()
    asked = max(meter.counted_to for meter in uncounted), min(meter.since_ms for meter in uncounted)
    for seq, opened_ms, path, charged_uc, flags in connection.execute(_RECORDS, asked):
        for name in orjson.loads(path):
            for meter in of_account.get(name, ()):
                if seq < meter.counted_to and opened_ms >= meter.since_ms:
                    start_ms, _ = bounds(meter.window, opened_ms, meter.zone)
                    n = amount(meter.unit, charged_uc, "settled", orjson.loads(flags))
                    used[id(meter), min(start_ms, meter.horizon_ms)] += n
    return [(by_id[which], start_ms, n) for (which, start_ms), n in sorted(used.items(), key=lambda item: item[0][1])]


@dataclass
class _Cap:
    """As the file has it: what was used by the start of each slot, and in which span of time that is all."""

    used: dict[int, int] = field(default_factory=dict)
    starts: list[int] = field(default_factory=list)
    since_ms: int | None = None
    till_ms: int = NEVER_MS

    def start_of(self, opened_ms: int) -> int:
        """Of the slot in which a call counts; -1 where there is none."""
        place = bisect_right(self.starts, opened_ms)
        return self.starts[place - 1] if place else -1


def caps_contradicted(connection: sqlite3.Connection) -> Iterator[tuple[str, str, str]]:
    """Of I7: account, window and what is wrong of caps whose slots are not what the records of their span say."""
    caps = _caps(connection)
    if not caps:
        return
    of_account: dict[str, list[tuple[str, str, str]]] = {}
    for key in caps:
        of_account.setdefault(key[0], []).append(key)
    counted: dict[tuple[str, str, str], Counter[int]] = {key: Counter() for key in caps}
    first_ms = min(cap.since_ms or 0 for cap in caps.values())
    for _, opened_ms, path, charged_uc, flags in connection.execute(_RECORDS, (NEVER_MS, first_ms)):
        for key in (key for name in orjson.loads(path) for key in of_account.get(name, ())):
            cap = caps[key]
            if (cap.since_ms or 0) <= opened_ms < cap.till_ms:
                counted[key][cap.start_of(opened_ms)] += amount(key[2], charged_uc, "settled", orjson.loads(flags))
    for (account, window, unit), cap in caps.items():
        yield from _differences(account, window, unit, cap.used, counted[account, window, unit])


def _caps(connection: sqlite3.Connection) -> dict[tuple[str, str, str], _Cap]:
    """Those that are counted. One that an older gateway has written knows of all since its first slot."""
    if not has_table(connection, "cap_use"):
        return {}
    caps: dict[tuple[str, str, str], _Cap] = {}
    for account, window, unit, slot_ms, used in connection.execute(
        "SELECT account, span, unit, slot_ms, used FROM cap_use ORDER BY slot_ms"
    ):
        cap = caps.setdefault((account, window, unit), _Cap())
        if slot_ms == SINCE:
            cap.since_ms = used if used or window == "total" else None
        elif slot_ms == TILL:
            cap.till_ms = used
        else:
            cap.used[slot_ms] = used
            cap.starts.append(slot_ms)
            cap.since_ms = slot_ms if cap.since_ms is None else cap.since_ms
    return {key: cap for key, cap in caps.items() if cap.since_ms is not None}


def _differences(
    account: str, window: str, unit: str, used: Mapping[int, int], counted: Mapping[int, int]
) -> Iterator[tuple[str, str, str]]:  # fmt: skip
    for start_ms in sorted({*used, *counted}):
        has, wanted = used.get(start_ms, 0), counted.get(start_ms, 0)
        if has != wanted:
            yield account, window, f"has used {has} {unit}, not {wanted}"
