"""Plain values against the schema: exact values, a problem for each that is none, and what is not applied yet."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import Any, Final

from gateway.config.kinds import Kind
from gateway.config.schema import Either, Keys, Many, Names, Node
from gateway.config.yaml_source import Source

Path = tuple[str, ...]
MAX_COMPARED: Final = 500  # names; comparing takes some 50 us each
MAX_ADVISED: Final = 50  # problems with a guess at what was meant; whoever has more mends those first


class Structure:
    """State: `later`, the paths of keys that are accepted and not applied, by the path with names left out."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.later: dict[tuple[str, str], list[str]] = {}  # (key, noun of its owner) -> names of owners

    def read(self, value: Any, node: Node, path: Path = (), noun: str = "", name: str = "") -> Any:
        """The exact value; what is wrong with it is among the problems of the source, and left out."""
        if isinstance(node, Either):
            return self.read(value, node.mapping if isinstance(value, dict) else node.short, path, noun, name)
        if isinstance(node, Kind):
            return self._leaf(value, node, path)
        if isinstance(node, Many):
            return self._list(value, node, path)
        if value is None:
            value = {}
        if not isinstance(value, dict):
            self._wrong(path, "is a mapping")
            return {}
        if isinstance(node, Names):
            return self._names(value, node, path)
        return self._keys(value, node, path, noun, name)

    def _keys(self, value: dict[str, Any], node: Keys, path: Path, noun: str, name: str) -> dict[str, Any]:
        out, misspelt = {}, set()
        absent = [key for key in node.keys if key not in value]
        for key, item in value.items():
            if key not in node.keys:
                self._source.problem((*path, key), "is not a known key", near(key, node.keys, self._source))
                meant = closest(key, node.keys, self._source)
                misspelt.add(meant)
                for lost in (meant,) if meant else absent:
                    self._source.lose((*path, lost))
                continue
            if key in node.later:
                self.later.setdefault((key, noun), []).append(name)
            problems = len(self._source.problems)
            read = self.read(item, node.keys[key], (*path, key), noun, name)
            if read is not None or len(self._source.problems) == problems:
                out[key] = read
        for key in node.required:
            if key not in value and key not in misspelt:
                self._source.problem(path, f"has no {key}", f"write {key}: 1 at the top" if key == "version" else "")
                self._source.lose((*path, key))
        return out

    def _names(self, value: dict[str, Any], node: Names, path: Path) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for key, item in value.items():
            name = key if node.names is None else self._leaf(key, node.names, (*path, key))
            if name in out:
                self._wrong((*path, key), f"stands here twice, as {node.noun} names ignore case", "remove one")
            elif name is not None:
                out[name] = self.read(item, node.of, (*path, key), node.noun, key)
        return out

    def _list(self, value: Any, node: Many, path: Path) -> tuple[Any, ...]:
        if not isinstance(value, list):
            self._wrong(path, "is a list")
            return ()
        if len(value) < node.least:
            self._wrong(path, f"has at least {node.least}")
        return tuple(self.read(item, node.of, (*path, str(index))) for index, item in enumerate(value))

    def _leaf(self, value: Any, kind: Kind, path: Path) -> Any:
        try:
            return kind.read(value)
        except ValueError as error:
            self._wrong(path, *error.args)
            return None

    def _wrong(self, path: Path, message: str, suggestion: str = "") -> None:
        self._source.problem(path, message, suggestion)
        self._source.lose(path)


def near(name: str, known: Collection[str], source: Source) -> str:
    """What may have been meant."""
    if len(source.problems) >= MAX_ADVISED:
        return ""
    meant = closest(name, known, source)
    if meant is not None:
        return f"did you mean {meant}?"
    return "known: " + ", ".join(sorted(known)[:12]) if known else "there are none"


def closest(name: str, known: Collection[str], source: Source) -> str | None:
    if len(source.problems) > MAX_ADVISED or len(known) > MAX_COMPARED:
        return None
    return next(iter(difflib.get_close_matches(name, sorted(known), n=1)), None)
