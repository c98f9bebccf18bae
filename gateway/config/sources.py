"""The files that a load has read, as they were: how anybody can tell later whether one has changed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISREG
from typing import TypeAlias

Stamp: TypeAlias = tuple[int, int, int] | None  # changed at (ns), size, inode; None: no such file


@dataclass
class Sources:
    """Filled while files are read, and then left alone.

    `stamps` are those of the moment of reading, also of files with secrets; `patterns` are what `include` looked for,
    behind the folder it looked in; `secrets` are where in the files each reference to a secret stands.
    """

    path: Path
    stamps: dict[str, Stamp] = field(default_factory=dict)
    patterns: dict[tuple[str, str], None] = field(default_factory=dict)
    secrets: dict[str, tuple[str, int]] = field(default_factory=dict)

    def now(self) -> Mapping[str, Stamp]:
        """What `stamps` would be if all was read again. Blocks on the file system: call it in a thread."""
        paths = dict.fromkeys(self.stamps)
        for folder, pattern in self.patterns:
            paths |= dict.fromkeys(map(str, matches(Path(folder), pattern)))
        return {path: stamp_of(path) for path in paths}

    def changed(self) -> bool:
        return self.now() != self.stamps


def matches(folder: Path, pattern: str) -> list[Path]:
    return sorted(found for found in folder.glob(pattern) if os.path.isfile(found))


def stamp(status: os.stat_result) -> Stamp:
    """A pipe or a device has none: it cannot be read again."""
    if not S_ISREG(status.st_mode):
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def stamp_of(path: str) -> Stamp:
    try:
        return stamp(os.stat(path))
    except OSError:
        return None
