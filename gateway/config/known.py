"""Names that must exist, where a problem of another kind may hide that they do."""

from __future__ import annotations

from collections.abc import Mapping
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
