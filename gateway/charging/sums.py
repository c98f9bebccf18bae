"""Sums that SQLite makes: its integers have 64 bits, and a sum of many amounts may have more."""

from __future__ import annotations


def halves(column: str) -> str:
    """Two columns, which `whole` puts together."""
    return f"sum({column} >> 32), sum({column} & 4294967295)"


def whole(high: int, low: int) -> int:
    return (high << 32) + low
