"""What an import could not carry over as it was: each with its place, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from gateway.importing.source import KeyPath, Tree

LOST: Final = "not carried over"
CHANGED: Final = "changed"
FILL: Final = "fill in"


@dataclass(frozen=True)
class Remark:
    """`kind` is one of LOST, CHANGED and FILL; `todo` may be empty where nothing has to be done."""

    kind: str
    file: str
    line: int
    key_path: str
    what: str
    todo: str = ""


class Report:
    """State: `remarks`, and the paths that were looked at: what is left over at the end nobody has known."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._seen: set[KeyPath] = set()
        self.remarks: list[Remark] = []

    def lost(self, path: KeyPath, what: str, todo: str = "") -> None:
        self._add(LOST, path, what, todo)

    def changed(self, path: KeyPath, what: str, todo: str = "") -> None:
        self._add(CHANGED, path, what, todo)

    def fill(self, path: KeyPath, what: str, todo: str = "") -> None:
        self._add(FILL, path, what, todo)

    def see(self, path: KeyPath) -> None:
        self._seen.add(path)

    def rest(self, path: KeyPath, keys: Iterable[str]) -> None:
        """Whatever of a mapping nobody has read."""
        for key in keys:
            if (*path, key) not in self._seen:
                self._add(LOST, (*path, key), "has no counterpart here", "")

    def _add(self, kind: str, path: KeyPath, what: str, todo: str) -> None:
        self._seen.add(path)
        file, line = self._tree.place(path)
        self.remarks.append(Remark(kind, file, line, ".".join(path), what, todo))
