"""Reasoning items, and what they are in the middle form: `reasoning_content` and `thinking_blocks`.

Blocks that a provider has signed must come back to it as they were. Clients that keep their conversation themselves
send reasoning items back with `encrypted_content`, so the blocks are packed into that: opaque, not secret.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any, Final

import orjson

from gateway.bounded import loads
from gateway.call import JSON
from gateway.errors import InvalidValue

_OURS: Final = "moma1."  # what others have packed is for them alone
_FIELDS: Final = {"thinking": ("thinking", "signature"), "redacted_thinking": ("data",)}


def reasoning_item(item_id: str, texts: Sequence[str], blocks: Sequence[JSON], status: str) -> JSON:
    return {
        "id": item_id,
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": text} for text in texts],
        "encrypted_content": _packed(blocks) if blocks else None,
        "status": status,
    }


def reasoning_message(item: JSON, where: str) -> JSON:
    """The fields of an assistant message. Raises InvalidValue."""
    found: JSON = {}
    text = "\n".join(_texts(item, "content", where) or _texts(item, "summary", where))
    if text:
        found["reasoning_content"] = text
    packed = item.get("encrypted_content")
    if isinstance(packed, str) and packed.startswith(_OURS):
        found["thinking_blocks"] = _unpacked(packed, f"{where}.encrypted_content")
    return found


def blocks_of(item: JSON) -> list[JSON] | None:
    """The blocks of an item of our own making; None where they cannot be told."""
    packed = item.get("encrypted_content")
    if packed is None:
        return []
    try:
        return _unpacked(packed, "") if isinstance(packed, str) and packed.startswith(_OURS) else None
    except InvalidValue:
        return None


def _texts(item: JSON, name: str, where: str) -> list[str]:
    parts = item.get(name) or []
    if not isinstance(parts, list) or not all(
        isinstance(part, dict) and isinstance(part.get("text"), str) for part in parts
    ):
        raise InvalidValue(f"'{name}' of reasoning must be a list of parts with a text.", param=f"{where}.{name}")
    return [part["text"] for part in parts]


def _packed(blocks: Sequence[JSON]) -> str:
    return _OURS + base64.urlsafe_b64encode(orjson.dumps(blocks)).decode()


def _unpacked(packed: str, where: str) -> list[JSON]:
    try:
        blocks = loads(base64.b64decode(packed.removeprefix(_OURS), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError):
        blocks = None
    if not isinstance(blocks, list) or not all(_is_block(block) for block in blocks):
        raise InvalidValue(
            "This 'encrypted_content' is damaged: send it back as it came, or leave the item out.", param=where
        )
    return [{name: value for name, value in block.items() if not isinstance(value, (dict, list))} for block in blocks]


def _is_block(block: Any) -> bool:
    if not isinstance(block, dict) or not isinstance(kind := block.get("type"), str):
        return False
    fields = _FIELDS.get(kind)
    return fields is not None and all(isinstance(block.get(field), str) for field in fields)
