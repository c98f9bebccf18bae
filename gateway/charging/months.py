"""Months of the calendar, as statements have them: "2026-11", in the configured timezone."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo

from gateway.errors import InvalidValue

_MONTH: Final = re.compile(r"(19[7-9][0-9]|[2-8][0-9]{3})-(0[1-9]|1[0-2])", re.ASCII)


def read(text: str) -> str:
    """Raises InvalidValue."""
    if not _MONTH.fullmatch(text):
        raise InvalidValue(f"A month is written as 2026-11, not {text[:40]!r}.", param="month")
    return text


def of(ms: int, zone: ZoneInfo) -> str:
    return datetime.fromtimestamp(ms / 1000, zone).strftime("%Y-%m")


def after(month: str) -> str:
    year, number = divmod(int(month[:4]) * 12 + int(month[5:]), 12)
    return f"{year:04d}-{number + 1:02d}"


def before(month: str) -> str:
    year, number = divmod(int(month[:4]) * 12 + int(month[5:]) - 2, 12)
    return f"{year:04d}-{number + 1:02d}"


def bounds(month: str, zone: ZoneInfo) -> tuple[int, int]:
    """[from, to) in milliseconds."""
    return _first_ms(month, zone), _first_ms(after(month), zone)


def _first_ms(month: str, zone: ZoneInfo) -> int:
    return int(datetime(int(month[:4]), int(month[5:]), 1, tzinfo=zone).timestamp() * 1000)
