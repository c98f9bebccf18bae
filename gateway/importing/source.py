"""A YAML file of another program: aliases, merges and all, as plain values with the place of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final

import yaml

MAX_BYTES: Final = 5_000_000
MAX_VALUES: Final = 200_000  # an alias counts each time that it stands for something
MAX_NESTING: Final = 64
MAX_FILES: Final = 100
_Loader: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MERGE: Final = "tag:yaml.org,2002:merge"
KeyPath = tuple[str, ...]
Place = tuple[str, int]  # file and line


class Unreadable(Exception):
    """The file is not one that can be imported; the text says why."""


@dataclass
class Tree:
    """Numbers with a point are Decimals, exact as they are written."""

    file: str
    value: dict[str, Any] = field(default_factory=dict)
    places: dict[KeyPath, Place] = field(default_factory=dict)

    def place(self, path: KeyPath) -> Place:
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, (self.file, 1))


def read_tree(path: Path) -> Tree:
    """The file with all that it includes, lists joined and mappings merged, as LiteLLM does. Raises Unreadable."""
    tree = Tree(str(path))
    waiting, seen = [path], {path.resolve()}
    while waiting:
        file = waiting.pop(0)
        part = _read(file)
        included = part.value.pop("include", None) or []
        _join(tree, part)
        for name in included if isinstance(included, list) else [included]:
            found = file.parent / str(name)
            if found.resolve() not in seen:
                seen.add(found.resolve())
                waiting.append(found)
        if len(seen) > MAX_FILES:
            raise Unreadable(f"{path} includes more than {MAX_FILES} files.")
    return tree


def _read(path: Path) -> Tree:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise Unreadable(f"{path} is larger than {MAX_BYTES} bytes.")
        node = yaml.compose(data.decode("utf-8"), Loader=_Loader)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise Unreadable(f"{path} cannot be read: {why}.") from error
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f":{mark.line + 1}" if mark is not None else ""
        raise Unreadable(
            f"{path}{where} is not YAML: {getattr(error, 'problem', None) or 'nested too deeply'}."
        ) from error
    reader = _Reader(str(path))
    value = {} if node is None else reader.read(node, ())
    if not isinstance(value, dict):
        raise Unreadable(f"{path} is not a mapping.")
    return Tree(str(path), value, reader.places)


class _Reader:
    """State: places, and how many values there may still be."""

    def __init__(self, file: str) -> None:
        self.places: dict[KeyPath, Place] = {}
        self._file = file
        self._left = MAX_VALUES

    def read(self, node: yaml.Node, path: KeyPath) -> Any:
        self._left -= 1
        if self._left < 0 or len(path) > MAX_NESTING:
            raise Unreadable(f"{self._file} has more than {MAX_VALUES:,} values, or is nested too deeply.")
        self.places.setdefault(path, (self._file, node.start_mark.line + 1))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.read(child, (*path, str(index))) for index, child in enumerate(node.value)]
        return _scalar(node)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        out: dict[str, Any] = {}
        merged: list[yaml.Node] = []
        for key, child in node.value:
            if key.tag == _MERGE:
                merged += child.value if isinstance(child, yaml.SequenceNode) else [child]
                continue
            name = str(key.value)
            self.places[(*path, name)] = (self._file, key.start_mark.line + 1)
            out[name] = self.read(child, (*path, name))
        for base in merged:
            values = self.read(base, path)
            out = {**values, **out} if isinstance(values, dict) else out
        return out


def _scalar(node: yaml.Node) -> Any:
    text = str(node.value)
    kind = node.tag.rpartition(":")[2]
    if kind in ("bool", "null", "int"):
        return yaml.SafeLoader("").construct_object(node)
    if kind == "float":
        try:
            return Decimal(text.replace("_", ""))
        except InvalidOperation:  # .inf, .nan
            return text
    return text


def _join(tree: Tree, part: Tree) -> None:
    for key, value in part.value.items():
        known = tree.value.get(key)
        start = len(known) if isinstance(known, list) and isinstance(value, list) else 0
        for path, place in part.places.items():
            if path[:1] == (key,):
                moved = (key, str(int(path[1]) + start), *path[2:]) if start and len(path) > 1 else path
                tree.places[moved] = place
        if isinstance(known, list) and isinstance(value, list):
            tree.value[key] = [*known, *value]
        elif isinstance(known, dict) and isinstance(value, dict):
            tree.value[key] = {**known, **value}
        else:
            tree.value[key] = value
