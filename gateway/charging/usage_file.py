"""A provider's export of usage: which of its columns are which of our buckets, and what its lines say."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from gateway.call import BUCKETS

MOST_PROBLEMS: Final = 20  # that are told at once
DAY, MODEL = "day", "model"
Buckets = Mapping[str, tuple[str, ...]]  # by label: "input+input_cached" are two of ours and one column of theirs
Usages = Mapping[tuple[str, str], Counter[str]]  # by day and model, then label


class BadUsageFile(Exception):
    """The mapping or the file is wrong; the message says where."""


@dataclass(frozen=True)
class Columns:
    """Names in the file's heading."""

    day: str
    model: str
    quantities: Mapping[str, str]  # by label

    @property
    def buckets(self) -> Buckets:
        return {label: tuple(label.split("+")) for label in self.quantities}


def columns(text: str) -> Columns:
    """Of "day=date,model=model,input+input_cached=prompt_tokens". Raises BadUsageFile."""
    found: dict[str, str] = {}
    for pair in text.split(","):
        name, equals, column = (part.strip() for part in pair.partition("="))
        if not equals or not name or not column:
            raise BadUsageFile(f"--map is NAME=COLUMN,...: {pair!r} is not")
        if name in found:
            raise BadUsageFile(f"--map has {name} twice")
        found[name] = column
    missing = [name for name in (DAY, MODEL) if name not in found]
    if missing or len(found) < 3:
        raise BadUsageFile(f"--map needs day, model and at least one bucket of {', '.join(BUCKETS)}")
    quantities = {name: column for name, column in found.items() if name not in (DAY, MODEL)}
    buckets = [bucket for name in quantities for bucket in name.split("+")]
    for bucket in buckets:
        if bucket not in BUCKETS:
            raise BadUsageFile(f"--map: there is no bucket {bucket!r}; there are {', '.join(BUCKETS)}")
        if buckets.count(bucket) > 1:
            raise BadUsageFile(f"--map has bucket {bucket} twice")
    return Columns(found[DAY], found[MODEL], quantities)


def read(path: Path, of: Columns, zone: ZoneInfo) -> Usages:
    """Lines of a day and model are added up. Raises BadUsageFile with the first problems, by line, and OSError."""
    sums: dict[tuple[str, str], Counter[str]] = {}
    problems: list[str] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for number, row in _rows(csv.DictReader(file, strict=True), of):
                try:
                    key = _day(row, of.day, zone), _text(row, of.model)
                    counts = {label: _count(row, column) for label, column in of.quantities.items()}
                except BadUsageFile as problem:
                    problems.append(f"line {number}: {problem}")
                    if len(problems) == MOST_PROBLEMS:
                        break
                else:
                    sums.setdefault(key, Counter()).update(counts)
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadUsageFile(f"{path} is no CSV in UTF-8: {error}") from error
    if problems:
        raise BadUsageFile("\n".join(f"{path}: {problem}" for problem in problems))
    if not sums:
        raise BadUsageFile(f"{path} has no lines after its heading")
    return sums


def _rows(reader: csv.DictReader[str], of: Columns) -> Iterator[tuple[int, Mapping[str, str | None]]]:
    """With their line numbers."""
    heading = reader.fieldnames or []
    for column in (of.day, of.model, *of.quantities.values()):
        if column not in heading:
            raise BadUsageFile(f"line 1: there is no column {column!r}; there are {', '.join(heading) or 'none'}")
        if heading.count(column) > 1:
            raise BadUsageFile(f"line 1: there are several columns {column!r}")
    for row in reader:
        yield reader.line_num, row


def _text(row: Mapping[str, str | None], column: str) -> str:
    text = (row[column] or "").strip()
    if not text:
        raise BadUsageFile(f"{column} is empty")
    return text


def _count(row: Mapping[str, str | None], column: str) -> int:
    text = _text(row, column)
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise BadUsageFile(f"{column} is a whole number such as 1234, not {text[:40]!r}")
    return int(text)


def _day(row: Mapping[str, str | None], column: str, zone: ZoneInfo) -> str:
    """A date as it stands; a time is of the day that it has in `zone`."""
    text = _text(row, column)
    try:
        if len(text) <= len("2027-01-31"):
            day = date.fromisoformat(text)
        else:
            when = datetime.fromisoformat(text)
            day = (when if when.tzinfo is None else when.astimezone(zone)).date()
    except (ValueError, OverflowError):
        day = date.min
    if not 1970 <= day.year < date.max.year:
        raise BadUsageFile(f"{column} is a date or time such as 2027-01-31, not {text[:40]!r}")
    return day.isoformat()
