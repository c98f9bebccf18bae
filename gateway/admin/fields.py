"""What the admin API is asked, read strictly: each reader raises InvalidValue with what to send instead."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import orjson

from gateway.charging.directory import STATUSES, Edit
from gateway.charging.offers import CARDS, Scope
from gateway.charging.views import LAST_MS
from gateway.config.kinds import CLOCK, Kind, number
from gateway.config.model import Caps, Limits
from gateway.config.schema import CAP, CAPS
from gateway.errors import InvalidValue
from gateway.hours import empty, span

_ID: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}")
_NUMBER: Final = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)([kM]?)")
_UNITS: Final = {"": 1, "k": 1_000, "M": 1_000_000}
_LIMIT: Final = number()
MAX_WORDS: Final = 100
MAX_WORD_CHARS: Final = 256


def credits_uc(value: object) -> int:
    """Credits as a number or "1M", with at most six decimals, to micro-credits. Raises InvalidValue."""
    wrong = InvalidValue(
        'credits is a positive number with at most six decimals, or a string such as "1M" or "2.5".', param="credits"
    )
    if isinstance(value, str):
        match = _NUMBER.fullmatch(value)
        if match is None:
            raise wrong
        micro = Decimal(match[1]) * _UNITS[match[2]] * 1_000_000
    elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        micro = Decimal(repr(value)) * 1_000_000  # repr: 0.1 is one tenth, as the client wrote it
    else:
        raise wrong
    if not 0 < micro < 2**62:
        raise InvalidValue("credits is out of range: positive, and at most 10^12.", param="credits")
    if micro != int(micro):
        raise wrong
    return int(micro)


def key_limits(value: object) -> Limits | None:
    """An object of rpm, tpm and concurrency, as routes.yaml writes them. Raises InvalidValue."""
    if value is None or value == {}:
        return None
    kinds = ("rpm", "tpm", "concurrency")
    if not isinstance(value, dict) or not value.keys() <= set(kinds):
        raise InvalidValue(f"limits is an object with some of {', '.join(kinds)}.", param="limits")
    try:
        return Limits(**{kind: _LIMIT.read(limit) for kind, limit in value.items() if limit is not None})
    except ValueError as error:
        raise InvalidValue(f"Each of the limits {error}.", param="limits") from error


def edit(asked: dict[str, Any]) -> Edit:
    """Fields that are absent stay as they are. Raises InvalidValue."""
    edit = Edit(**asked)
    if "status" in asked and asked["status"] not in STATUSES:
        raise InvalidValue(f"status is one of {', '.join(STATUSES)}.", param="status")
    if "plan" in asked and not isinstance(asked["plan"], str):
        raise InvalidValue("plan is the name of a plan.", param="plan")
    if asked.get("parent") is not None and not isinstance(asked["parent"], str):
        raise InvalidValue("parent is the id of a tenant, or null for none.", param="parent")
    if "caps" in asked:
        edit.caps = caps_of(asked["caps"])
    return edit


def card_of(value: object, known: Iterable[str]) -> str:
    """Of routes.yaml, or one that is always there."""
    names = list(dict.fromkeys((*CARDS, *known)))
    if value not in names:
        raise InvalidValue(f"card is one of {', '.join(names)}.", param="card")
    return str(value)


def scope_of(value: object) -> Scope | None:
    """An object with lists of models, tags, regions, hours; null or an empty one: everything. Raises InvalidValue."""
    if not value:
        return None
    fields = [field.name for field in dataclasses.fields(Scope) if field.init]
    wrong = InvalidValue(
        f'scope is an object of lists such as {{"models": ["qwen3-32b"]}}. Known: {", ".join(fields)}.', param="scope"
    )
    if not isinstance(value, dict) or not value.keys() <= set(fields):
        raise wrong
    for words in value.values():
        if not isinstance(words, list) or not words or len(words) > MAX_WORDS:
            raise wrong
        if not all(is_text(word, MAX_WORD_CHARS) and word for word in words):
            raise wrong
    if not all(map(_is_span, value.get("hours", ()))):
        raise InvalidValue('hours are of the day, such as ["22:00-08:00"].', param="scope")
    return Scope(**{name: frozenset(words) for name, words in value.items()})


def _is_span(text: str) -> bool:
    try:
        return not empty(span("-".join(map(CLOCK.read, text.split("-", 1))))) and "-" in text
    except ValueError:
        return False


def caps_of(value: object) -> Caps:
    """Windows and units, as routes.yaml writes them."""
    wrong = InvalidValue(
        f'caps is an object such as {{"month": {{"credits": "5M"}}, "5h": {{"calls": 100}}}}.'
        f" Windows: {', '.join(CAPS.keys)}.",
        param="caps",
    )
    if not isinstance(value, dict) or not value.keys() <= CAPS.keys.keys():
        raise wrong
    found: dict[str, dict[str, int]] = {}
    for window, limits in value.items():
        if not isinstance(limits, dict) or not limits or not limits.keys() <= CAP.keys.keys():
            raise wrong
        for unit, limit in limits.items():
            reader = CAP.keys[unit]
            assert isinstance(reader, Kind)
            try:
                found.setdefault(window, {})[unit] = reader.read(limit)
            except ValueError as error:
                raise InvalidValue(f"{unit} of the cap {window} {error}.", param="caps") from error
    return found


def object_of(body: bytes, *known: str) -> dict[str, Any]:
    """A JSON object with no other fields than these: a field that is misspelt must not be left out in silence."""
    try:
        value = orjson.loads(body or b"{}")
    except orjson.JSONDecodeError as error:
        raise InvalidValue("The body is not valid JSON.") from error
    if not isinstance(value, dict):
        raise InvalidValue("The body is not a JSON object.")
    for field in value:
        if field not in known:
            raise InvalidValue(f"There is no such field. Known: {', '.join(known) or 'none'}.", param=field[:64])
    return value


def is_text(value: object, most: int) -> bool:
    """A printable string that UTF-8 can carry."""
    return isinstance(value, str) and len(value) <= most and (value.isprintable() or not value)


def id_of(asked: dict[str, Any], field: str) -> str:
    value = asked.get(field)
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise InvalidValue(f"{field} is 1 to 64 letters, digits, dots, dashes or underscores.", param=field)
    return value


def time_ms(asked: dict[str, Any], field: str) -> int | None:
    """ISO 8601 with an offset, or Unix seconds."""
    value = asked.get(field)
    if value is None:
        return None
    wrong = InvalidValue(f"{field} is a time such as 2027-01-31T00:00:00+08:00, or Unix seconds.", param=field)
    if isinstance(value, int) and not isinstance(value, bool):
        millis = value * 1000
    else:
        try:
            when = datetime.fromisoformat(value) if isinstance(value, str) else None
        except ValueError:
            raise wrong from None
        if when is None or when.tzinfo is None:
            raise wrong
        millis = int(when.timestamp() * 1000)
    if not 0 < millis < LAST_MS:
        raise InvalidValue(f"{field} lies outside the years 1970 to 9999.", param=field)
    return millis


def query_int(query: Mapping[str, str], field: str, default: int, most: int) -> int:
    text = query.get(field)
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]{1,16}", text) or int(text) > most:
        raise InvalidValue(f"{field} is a whole number from 0 to {most}.", param=field)
    return int(text)
