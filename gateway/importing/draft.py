"""A routes.yaml in the making, and its text: an entry a line, as people write it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from gateway.changes.flat import compact

_PLAIN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_./@-]*(:[A-Za-z0-9_./@-]+)*")
_WORDS: Final = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})


@dataclass
class Draft:
    """Sections of routes.yaml as plain values; `fill` says what is missing, by (section, name)."""

    source: str
    server: dict[str, Any] = field(default_factory=dict)
    defaults: dict[str, Any] = field(default_factory=dict)
    backends: dict[str, dict[str, Any]] = field(default_factory=dict)
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    routes: dict[str, dict[str, Any]] = field(default_factory=dict)
    cache: dict[str, dict[str, Any]] = field(default_factory=dict)
    fill: dict[tuple[str, str], str] = field(default_factory=dict)

    def text(self) -> str:
        lines = [
            f"# Made by `moma import litellm` from {self.source}. `moma check` says what is still to be filled in.",
            "version: 1",
            "currency: USD",
            f"server: {flow(self.server)}",
        ]
        for section in ("defaults", "backends", "models", "aliases", "routes", "cache"):
            lines += self._section(section)
        lines += [
            "",
            "# A token is charged as one credit until `rates` are written at the models: {input: 1, output: 4}.",
            "# What a tenant gets; `moma tenant add ID --plan NAME`, then `moma key add ID`. For example:",
            "# plans: {team: {grants: [{credits: 100M, every: month}], rpm: 600}}",
            "plans: {}",
        ]
        return "\n".join(lines) + "\n"

    def _section(self, section: str) -> list[str]:
        entries: Mapping[str, Any] = getattr(self, section)
        if not entries:
            return []
        lines = ["", f"{section}:"]
        for name, value in entries.items():
            if missing := self.fill.get((section, name)):
                lines.append(f"  # fill in: {missing}")
            lines.append(f"  {scalar(name)}: {flow(value)}")
        return lines


def size(number: int) -> int | str:
    """As routes.yaml writes it, where that is exact."""
    text = compact(number)
    return int(text) if text.isdigit() else text


def flow(value: Any) -> str:
    """In flow style, on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{scalar(key)}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(flow, value)) + "]"
    return scalar(value)


def scalar(value: Any) -> str:
    """Quoted where YAML could take it for something else."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Decimal):
        return f"{value.normalize():f}"
    text = str(value)
    if (_PLAIN.fullmatch(text) and text.lower() not in _WORDS) or re.fullmatch(r"\d+(ms|s|k|M)", text):
        return text
    return json.dumps(text, ensure_ascii=False)
