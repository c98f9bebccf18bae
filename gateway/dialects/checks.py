"""What fields of a client's dialect may hold, and which only it has. Raises InvalidValue, whose `param` names one."""

from __future__ import annotations

from collections.abc import Set
from typing import Any, Final

from gateway.call import JSON
from gateway.errors import InvalidValue

MAX_BEYOND: Final = 16  # the first one decides; the others help who reads the error
MAX_NAME_CHARS: Final = 64  # a name of the client's own choice goes into errors


def note(beyond: list[str], param: str) -> None:
    if len(beyond) < MAX_BEYOND:
        beyond.append(param)


def note_others(value: JSON, known: Set[str], param: str, beyond: list[str]) -> None:
    """Fields that nobody here knows would be lost."""
    if value.keys() <= known:
        return
    for name, inner in value.items():
        if name not in known and not neutral(inner):
            note(beyond, f"{param}.{name[:MAX_NAME_CHARS]}")


def neutral(value: Any) -> bool:
    """Says nothing: null, false, empty, or an object of such values."""
    if isinstance(value, dict):
        return all(neutral(inner) for inner in value.values())
    return value is None or value is False or value == "" or value == []


def an_object(value: Any, param: str) -> JSON:
    if not isinstance(value, dict):
        raise InvalidValue(f"'{param}' must be an object.", param=param)
    return value


def a_list(value: Any, param: str) -> list[Any]:
    if not isinstance(value, list):
        raise InvalidValue(f"'{param}' must be a list.", param=param)
    return value


def objects(value: Any, param: str) -> list[JSON]:
    if not isinstance(value, list):
        raise InvalidValue(f"'{param}' must be a list of objects.", param=param)
    for place, inner in enumerate(value):
        if not isinstance(inner, dict):
            an_object(inner, f"{param}[{place}]")
    return value


def a_text(holder: JSON, name: str, param: str) -> str:
    value = holder.get(name)
    if not isinstance(value, str):
        raise InvalidValue(f"'{param}.{name}' must be a text.", param=f"{param}.{name}")
    return value


def an_integer(value: Any, param: str, low: int, high: int) -> int:
    """True, 1.0 and "1" are none."""
    if type(value) is not int or not low <= value <= high:
        raise InvalidValue(f"'{param}' must be an integer from {low} to {high}.", param=param)
    return value
