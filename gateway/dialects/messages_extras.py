"""What Anthropic bills beside tokens: a call for it is for models that say `can: [extras]`, or say nothing of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gateway.call import JSON

# Tools known by their type that a client runs itself; all others of the kind are run by Anthropic.
_CLIENTS_OWN: Final = ("custom", "bash_", "text_editor_", "computer_", "memory_")
_USUAL: Final[Mapping[str, tuple[Any, ...]]] = {
    "speed": ("standard",), "service_tier": ("auto", "standard_only"), "inference_geo": (), "fallbacks": (),
    "mcp_servers": (), "container": (),
}  # fmt: skip


def extras(original: JSON) -> bool:
    """Whether it asks for tools that Anthropic runs, another speed, tier or place, servers or a container."""
    if any(original.get(name) and original[name] not in usual for name, usual in _USUAL.items()):
        return True
    tools = original.get("tools")
    return isinstance(tools, list) and any(_is_run_there(tool) for tool in tools)


def _is_run_there(tool: Any) -> bool:
    kind = tool.get("type") if isinstance(tool, dict) else None
    return isinstance(kind, str) and not kind.startswith(_CLIENTS_OWN)
