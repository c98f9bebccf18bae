"""The table of clients in docs/clients.md: a row for each, made of what a run exercised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

PAGE = Path(__file__).parent.parent.parent / "docs/clients.md"
HEAD = "| client | version | exercised | not run |"


@dataclass(frozen=True)
class Report:
    """What one run of a client exercised, and what it did not, with the reasons."""

    client: str
    version: str
    passed: tuple[str, ...]
    skipped: Mapping[str, str] = field(default_factory=dict)

    @property
    def row(self) -> str:
        return f"| {self.client} | {self.version} | {', '.join(self.passed)} | {self.not_run} |"

    @property
    def not_run(self) -> str:
        """Each reason once, with what it kept from being run."""
        kept: dict[str, list[str]] = {}
        for name, reason in self.skipped.items():
            kept.setdefault(reason, []).append(name)
        return "; ".join(f"{', '.join(names)}: {reason}" for reason, names in kept.items())


def replaced(page: str, report: Report) -> str:
    """The page with this report's row: instead of the client's last one, or at the end of the table."""
    lines = page.splitlines()
    start = lines.index(HEAD)
    end = next((at for at in range(start, len(lines)) if not lines[at].startswith("|")), len(lines))
    mine = [at for at in range(start, end) if lines[at].startswith(f"| {report.client} |")]
    where = slice(mine[0], mine[0] + 1) if mine else slice(end, end)
    lines[where] = [report.row]
    return "\n".join(lines) + "\n"
