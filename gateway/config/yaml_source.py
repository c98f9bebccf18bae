"""YAML files to plain values and the place of every key path: no tags, no aliases, no duplicate keys, bounded."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from gateway.config.sources import Sources, matches, stamp

MAX_BYTES: Final = 1_000_000  # 300 models are 60 kB; of all files together
MAX_VALUES: Final = 100_000  # keys count as well, and 300 models have 8,000; each takes memory and time, empty or not
MAX_FILES: Final = 100
MAX_NESTING: Final = 32
_JSON_SCALAR: Final = re.compile(r"null|true|false|-?(0|[1-9]\d{0,18})(\.\d{1,30})?([eE][+-]?\d{1,3})?")
ANY: Final = "*"  # in place of a name, in a path that is asked for
Place = tuple[str, int]  # file and line
KeyPath = tuple[str, ...]
Heads = dict[KeyPath, dict[KeyPath, Place]]
# libyaml's is twenty times as fast; both give the same events.
_Loader: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, where, and what to do."""

    file: str
    line: int
    key_path: str
    message: str
    suggestion: str = ""

    def __str__(self) -> str:
        more = f" ({self.suggestion})" if self.suggestion else ""
        return f"{self.file}:{self.line} {self.key_path or '.'}: {self.message}{more}"


class ConfigError(Exception):
    """Every problem of a load in one report; `sources` is what was read, where that is known."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(problems)
        self.problems = problems
        self.sources: Sources | None = None

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


@dataclass
class Source:
    """All files as one: `places` has the file and line of every key path; `problems` grows as it is checked.

    `lost` are the paths of which a problem hides all or a part: what is missing there may stand there, unread.
    Scalars are texts, to be read exactly later; those below paths like `typed` have the types of JSON.
    """

    file: str
    typed: KeyPath = ()
    value: dict[str, Any] = field(default_factory=dict)
    places: dict[KeyPath, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    lost: set[tuple[str, ...]] = field(default_factory=set)
    _around_lost: set[tuple[str, ...]] = field(default_factory=set)

    def place(self, path: KeyPath) -> Place:
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, (self.file, 1))

    def problem(self, path: KeyPath, message: str, suggestion: str = "") -> None:
        file, line = self.place(path)
        self.problems.append(Problem(file, line, ".".join(path), message, suggestion))

    def lose(self, path: tuple[str, ...]) -> None:
        for one in (path, (path[0], ANY, *path[2:])) if len(path) > 1 else (path,):
            self.lost.add(one)
            while one and (one := one[:-1]) not in self._around_lost:  # what is around it has all around that
                self._around_lost.add(one)

    def doubts(self, path: tuple[str, ...]) -> bool:
        """Whether nothing can be said of what is missing at `path`, or in it: the problem is another, and reported."""
        return path in self.lost or path[:-1] in self.lost or path in self._around_lost


@dataclass
class _Room:
    """What is left of the bounds for all files together."""

    size: int = MAX_BYTES
    values: int = MAX_VALUES


class _Refused(Exception):
    """YAML that is valid and not wanted here."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


def read(path: Path, sources: Sources, typed: KeyPath = ()) -> Source:
    """A file with all that it includes. Raises ConfigError when one cannot be read at all."""
    source = Source(str(path), typed)
    room = _Room()
    waiting, seen = [(path, (str(path), 1))], {path.resolve()}
    while waiting:
        file, wanted_at = waiting.pop(0)
        part = Source(str(file), typed)
        _read_file(part, file, room, wanted_at, sources)
        included = part.value.pop("include", None)
        source.problems += part.problems
        for lost in part.lost:
            source.lose(lost)
        _merge(source, part, source.value, part.value, (), _by_head(part.places))
        for found, at in _included(source, part, file, included, sources):
            if found.resolve() not in seen:  # also what ends a circle
                seen.add(found.resolve())
                waiting.append((found, at))
        if len(seen) > MAX_FILES:
            raise ConfigError([Problem(*wanted_at, "include", f"more than {MAX_FILES} files")])
    return source


def _included(source: Source, part: Source, file: Path, value: Any, sources: Sources) -> list[tuple[Path, Place]]:
    """Files by name or pattern, from the folder of the file that names them."""
    names = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        source.problems.append(Problem(*part.place(("include",)), "include", "is a list of files"))
        source.lose(())
        return []
    out = []
    for index, name in enumerate(names):
        at = part.place(("include", str(index)))
        pattern = Path(name)
        base, relative = (
            (Path(pattern.anchor), pattern.relative_to(pattern.anchor))
            if pattern.is_absolute()
            else (file.parent, pattern)
        )
        sources.patterns[str(base), str(relative)] = None
        found = matches(base, str(relative))
        if not found:
            source.problems.append(Problem(*at, "include", f"matches no file: {name}", f"looked in {base}"))
            source.lose(())
        out += [(one, at) for one in found]
    return out


def _by_head(places: dict[KeyPath, Place]) -> Heads:
    """Places below each section and below each name of a section."""
    heads: Heads = {}
    for path, place in places.items():
        for head in {path[:1], path[:2]}:
            heads.setdefault(head, {})[path] = place
    return heads


def _merge(
    source: Source, part: Source, into: dict[str, Any], value: dict[str, Any], path: KeyPath, heads: Heads
) -> None:
    """Sections and names of several files side by side; the same thing twice is a problem that names both places."""
    for key, item in value.items():
        where = (*path, key)
        known = into.get(key)
        if key not in into:
            into[key] = item
            source.places.update(heads[where])
        elif isinstance(known, dict) and isinstance(item, dict) and not path:
            _merge(source, part, known, item, where, heads)
        elif where != ("version",) or known != item:
            file, line = source.place(where)
            source.problems.append(
                Problem(*part.place(where), ".".join(where), f"stands in {file}:{line} already", "remove one")
            )


def _read_file(source: Source, path: Path, room: _Room, wanted_at: Place, sources: Sources) -> None:
    place = (str(path), 1)
    sources.stamps[str(path)] = None
    try:
        with path.open("rb") as file:
            sources.stamps[str(path)] = stamp(os.fstat(file.fileno()))
            data = file.read(room.size + 1)  # not by the size that is said: that of a pipe or a device is 0
        room.size -= len(data)
        if room.size < 0:
            raise ConfigError([Problem(*wanted_at, "", f"the file is larger than {MAX_BYTES} bytes")])
        text = data.decode("utf-8")
        _refuse_tricks(text, room)
        node = yaml.compose(text, Loader=_Loader)
    except OSError as error:
        problem = Problem(*place, "", f"cannot be read: {error.strerror}", f"looked for {path.absolute()}")
        raise ConfigError([problem]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([Problem(*place, "", "cannot be read: it is not UTF-8")]) from error
    except _Refused as error:
        raise ConfigError([Problem(str(path), error.line, "", str(error))]) from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError([Problem(str(path), line, "", error.problem or "is not YAML")]) from error
    except yaml.YAMLError as error:
        raise ConfigError([Problem(*place, "", "is not YAML")]) from error
    value = _plain(source, node, ()) if node is not None else {}
    if not isinstance(value, dict):
        raise ConfigError([Problem(*place, "", "is a mapping")])
    source.value = value


def _refuse_tricks(text: str, room: _Room) -> None:
    """Before anything is built: an alias may be a bomb, a tag may be code, depth may be a stack overflow."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise _Refused("anchors and aliases are not accepted", _line(event))
        if getattr(event, "tag", None):
            raise _Refused("tags are not accepted", _line(event))
        room.values -= isinstance(event, yaml.NodeEvent)
        if room.values < 0:
            raise _Refused(f"more than {MAX_VALUES:,} values", _line(event))
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_NESTING:
            raise _Refused("nested too deeply", _line(event))


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _plain(source: Source, node: yaml.Node, path: KeyPath) -> Any:
    source.places.setdefault(path, (source.file, node.start_mark.line + 1))
    if isinstance(node, yaml.MappingNode):
        return _mapping(source, node, path)
    if isinstance(node, yaml.SequenceNode):
        return [_plain(source, child, (*path, str(index))) for index, child in enumerate(node.value)]
    if source.typed and _like(path, source.typed):
        return _json_value(node)
    if node.tag in ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:null"):
        return yaml.SafeLoader("").construct_object(node)
    return str(node.value)  # numbers stay text: they are read exactly later


def _like(path: KeyPath, pattern: KeyPath) -> bool:
    return len(path) >= len(pattern) and all(want in (ANY, got) for want, got in zip(pattern, path, strict=False))


def _json_value(node: yaml.Node) -> Any:
    """As JSON reads it: what stands in quotes is a text, and so is yes or 2027-01-31, which YAML 1.1 would change."""
    text = str(node.value)
    if getattr(node, "style", None) or not _JSON_SCALAR.fullmatch(text):
        return text
    return json.loads(text)


def _mapping(source: Source, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, child in node.value:
        where = (*path, str(key.value))
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:bool":
            source.problems.append(Problem(source.file, line, ".".join(where), "is no key", "put it in quotes"))
            source.lose(where)
        elif key.value in out:
            first = source.places[where][1]
            message = f"stands here twice, first in line {first}"
            source.problems.append(Problem(source.file, line, ".".join(where), message, "remove one"))
            source.lose(where)
        else:
            source.places[where] = (source.file, line)
            out[key.value] = _plain(source, child, where)
    return out
