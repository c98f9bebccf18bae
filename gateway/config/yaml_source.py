"""YAML text to plain values and the line of every key path: no tags, no aliases, no duplicate keys, bounded."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

MAX_BYTES = 1_000_000  # 300 models are 60 kB
MAX_NESTING = 32
Lines = dict[tuple[str, ...], int]


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
    """Every problem of a load in one report."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


@dataclass
class Source:
    """`value` is plain; `lines` has the line of every key path; `problems` grows as the text is checked."""

    file: str
    value: Any = None
    lines: Lines = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def problem(self, path: tuple[str, ...], message: str, suggestion: str = "") -> None:
        at = path
        while at and at not in self.lines:
            at = at[:-1]
        self.problems.append(Problem(self.file, self.lines.get(at, 1), ".".join(path), message, suggestion))


class _Refused(Exception):
    """YAML that is valid and not wanted here."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


def read(path: Path) -> Source:
    """Raises ConfigError when the text cannot be read at all."""
    source = Source(str(path))
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError([Problem(str(path), 1, "", f"the file is larger than {MAX_BYTES} bytes")])
        text = path.read_text(encoding="utf-8")
        _refuse_tricks(text)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([Problem(str(path), 1, "", f"cannot be read: {type(error).__name__}")]) from error
    except _Refused as error:
        raise ConfigError([Problem(str(path), error.line, "", str(error))]) from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError([Problem(str(path), line, "", error.problem or "is not YAML")]) from error
    except yaml.YAMLError as error:
        raise ConfigError([Problem(str(path), 1, "", "is not YAML")]) from error
    source.value = _plain(source, node, ()) if node is not None else {}
    return source


def _refuse_tricks(text: str) -> None:
    """Before anything is built: an alias may be a bomb, a tag may be code, depth may be a stack overflow."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise _Refused("anchors and aliases are not accepted", _line(event))
        if getattr(event, "tag", None):
            raise _Refused("tags are not accepted", _line(event))
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_NESTING:
            raise _Refused("nested too deeply", _line(event))


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _plain(source: Source, node: yaml.Node, path: tuple[str, ...]) -> Any:
    source.lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        return _mapping(source, node, path)
    if isinstance(node, yaml.SequenceNode):
        return [_plain(source, child, (*path, str(index))) for index, child in enumerate(node.value)]
    if node.tag in ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:null"):
        return yaml.SafeLoader("").construct_object(node)
    return str(node.value)  # numbers stay text: they are read exactly later


def _mapping(source: Source, node: yaml.MappingNode, path: tuple[str, ...]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, child in node.value:
        where = (*path, str(key.value))
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:bool":
            source.problems.append(Problem(source.file, line, ".".join(where), "is no key", "put it in quotes"))
        elif key.value in out:
            source.problems.append(Problem(source.file, line, ".".join(where), "stands here twice", "remove one"))
        else:
            source.lines[where] = line
            out[key.value] = _plain(source, child, where)
    return out
