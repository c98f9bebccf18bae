"""Fields of a body, checked. All raise InvalidValue; null is as good as absent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gateway.call import JSON
from gateway.errors import InvalidValue


def text(body: JSON, name: str, most: int) -> str:
    """One that must be there."""
    value = optional_text(body, name, most)
    if not value:
        raise InvalidValue(f"'{name}' must be a text that is not empty.", param=name)
    return value


def optional_text(body: JSON, name: str, most: int) -> str:
    value = body.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > most:
        raise InvalidValue(f"'{name}' must be a text of at most {most} characters.", param=name)
    return value


def boolean(body: JSON, name: str) -> bool:
    value = body.get(name)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise InvalidValue(f"'{name}' must be true or false.", param=name)


def integer(body: JSON, name: str, low: int, high: int, default: int) -> int:
    value = body.get(name)
    if value is None:
        return default
    if type(value) is not int or not low <= value <= high:
        raise InvalidValue(f"'{name}' must be an integer from {low} to {high}.", param=name)
    return value


def number(body: JSON, name: str, low: float, high: float, default: float) -> float:
    value: Any = body.get(name)
    if value is None:
        return default
    if type(value) not in (int, float) or not low <= value <= high:
        raise InvalidValue(f"'{name}' must be a number from {low} to {high}.", param=name)
    return float(value)


def choice(body: JSON, name: str, known: Sequence[str], default: str) -> str:
    value = body.get(name)
    if value is None:
        return default
    if value not in known:
        raise InvalidValue(f"'{name}' must be one of {', '.join(known)}.", param=name)
    return str(value)
