"""Names that must exist, where a problem of another kind may hide that they do; and what names and patterns mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from gateway.config.structure import near
from gateway.config.yaml_source import ANY, Source

Path = tuple[str, ...]


def must_exist(source: Source, path: Path, name: str | None, there: Mapping[str, Any], *sections: str) -> None:
    """`sections` are those in which the name may stand, seen or not."""
    if name is not None and name not in there and not any(hidden(source, section, name) for section in sections):
        source.problem(path, f"there is no {name}", near(name, there, source))


def hidden(source: Source, section: str, name: str) -> bool:
    """Whether a problem may have hidden the name: its own, or one of all the section or of an include."""
    return not source.lost.isdisjoint(((), (section,), (section, name)))


def doubtful(source: Source, section: str, key: str) -> bool:
    """Whether a problem may have hidden what some name of the section has for the key."""
    return hidden(source, section, ANY) or source.doubts((section, ANY, key))


def named(values: Mapping[str, Any], name: str) -> Any:
    """What stands there under a name, else under the first pattern that fits it; None without either."""
    if name in values:
        return values[name]
    return next((value for pattern, value in values.items() if fnmatchcase(name, pattern)), None)


def fitting(names: Iterable[str], wanted: str) -> list[str]:
    """Those that a name or pattern means."""
    return [name for name in names if name == wanted or fnmatchcase(name, wanted)]
