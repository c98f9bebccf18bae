"""The table of clients in docs/clients.md: rows for each, made of what a run exercised."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parent.parent.parent / "docs/clients.md"
HEAD = "| client | version | dialect | exercised | not run |"
DIALECTS = {
    "chat": "chat",
    "messages": "messages",
    "responses": "responses",
    "real": "chat, a real model",
    "real_messages": "messages, a real model",
    "real_responses": "responses, a real model",
}


@dataclass(frozen=True)
class Group:
    """What one run of a client exercised of a group of checks, and what it left out, with the reasons."""

    client: str
    version: str
    group: str
    passed: tuple[str, ...]
    left_out: Mapping[str, str]

    @property
    def not_run(self) -> str:
        """Each reason once, with what it kept from being run."""
        kept: dict[str, list[str]] = {}
        for name, reason in self.left_out.items():
            kept.setdefault(reason, []).append(name)
        return "; ".join(f"{', '.join(names)}: {reason}" for reason, names in kept.items())

    @property
    def row(self) -> str:
        cells = (self.client, self.version, DIALECTS[self.group], ", ".join(self.passed), self.not_run)
        return f"| {' | '.join(cell(text) for text in cells)} |"


def cell(text: str) -> str:
    return text.replace("|", "/")


def replaced(page: str, groups: Sequence[Group]) -> str:
    """The page with the rows of one client: where its last ones were, or at the end of the table."""
    lines = page.splitlines()
    start = lines.index(HEAD)
    end = next((at for at in range(start, len(lines)) if not lines[at].startswith("|")), len(lines))
    mine = [at for at in range(start, end) if lines[at].startswith(f"| {groups[0].client} |")]
    where = slice(mine[0], mine[-1] + 1) if mine else slice(end, end)
    lines[where] = [group.row for group in groups]
    return "\n".join(lines) + "\n"


def in_the_table(groups: Sequence[Group]) -> None:
    """The rows in the docs are these; with MOMA_WRITE_TABLE=1 they become these."""
    page = PAGE.read_text(encoding="utf-8")
    new = replaced(page, groups)
    if os.environ.get("MOMA_WRITE_TABLE") == "1":
        PAGE.write_text(new, encoding="utf-8")
    assert new == PAGE.read_text(encoding="utf-8"), "MOMA_WRITE_TABLE=1 make test-clients writes the rows"
