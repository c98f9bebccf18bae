"""What commands print for people: at most 80 columns where the values allow it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table


def one(value: Mapping[str, Any]) -> None:
    """One object, a line per field."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, field in value.items():
        table.add_row(name, _field(name, field))
    _print(table)


def many(value: Mapping[str, Any], *of: str) -> None:
    """A list, a line per object; what none of them has takes no column. `of` are the only columns, in their order."""
    rows: Sequence[Mapping[str, Any]] = [{name: row[name] for name in of or row} for row in value["data"]]
    if not rows:
        _print("none")
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    columns = [column for column in rows[0] if column == "id" or any(row[column] for row in rows)]
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in ("id", "credits") or column.endswith("_at"))
    for row in rows:
        table.add_row(*(_field(column, row[column], "%Y-%m-%d %H:%MZ") for column in columns))
    _print(table)


def packages(value: Mapping[str, Any]) -> None:
    many(value, "id", "credits", "every", "periods", "valid_s", "rollover", "price", "once", "card")


def orders(value: Mapping[str, Any]) -> None:
    many(value, "id", "kind", "tenant", "package", "credits", "created_at")


def caches(value: Mapping[str, Any]) -> None:
    """A line for each cache, then one for each tenant that has most of it."""
    figures = ("entries", "bytes", "max_bytes", "hits", "misses", "coalesced", "bypassed", "evicted")
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("cache", overflow="fold", min_width=8)
    for name in figures:
        table.add_column(name, justify="right")
    for cache in value["data"]:
        table.add_row(cache["cache"], *(f"{cache[name]:,}" for name in figures))
        for share in cache["tenants"]:
            table.add_row(f"  {share['tenant']}", f"{share['entries']:,}", f"{share['bytes']:,}", style="dim")
    _print(table if value["data"] else "routes.yaml has no cache")


def new_key(value: Mapping[str, Any]) -> None:
    one(value)
    _print("Keep the key now: only its hash is stored, and it is not shown again.")


def _print(what: Any) -> None:
    Console(highlight=False, markup=False).print(what)


def _field(name: str, value: Any, form: str = "%Y-%m-%d %H:%M:%S UTC") -> str:
    """Times are Unix seconds; to be told apart from numbers they have a name that ends in _at."""
    if name.endswith("_at") and isinstance(value, int):
        return datetime.fromtimestamp(value, UTC).strftime(form)
    if name == "valid_s" and value is not None:
        return f"{value / 86_400:g} days"
    return _text(value)


def _text(value: Any) -> str:
    if value is None or value in ("", []):
        return "-"
    if isinstance(value, dict):
        return ", ".join(f"{name} {item}" for name, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
