"""A conversation as Anthropic takes it: without what answers of other providers have left in it.

A client sends back what it was given, and a route may have answered an earlier turn by a backend of another provider.
Anthropic refuses reasoning that it has not signed, and citations that it has not made.
"""

from __future__ import annotations

from typing import Any

from gateway.call import JSON


def own(original: JSON) -> JSON:
    """Of a request that `body` has taken. The same object where there is nothing to leave out."""
    messages: list[JSON] = original["messages"]
    kept = [_message(message) for message in messages]
    if all(new is old for new, old in zip(kept, messages, strict=True)):
        return original
    return {**original, "messages": [message for message in kept if message is not None]}


def is_signature(value: Any) -> bool:
    """Base64. Those of others have a name and a colon before it."""
    return isinstance(value, str) and value != "" and ":" not in value


def _message(message: JSON) -> JSON | None:
    """None where nothing is left of it: Anthropic takes no empty message."""
    blocks = message["content"]
    if message["role"] != "assistant" or isinstance(blocks, str):
        return message
    kept = [_block(block) for block in blocks]
    if all(new is old for new, old in zip(kept, blocks, strict=True)):
        return message
    left = [block for block in kept if block is not None]
    return {**message, "content": left} if left else None


def _block(block: JSON) -> JSON | None:
    kind = block["type"]
    if kind == "thinking":
        return block if is_signature(block.get("signature")) else None
    if kind == "redacted_thinking":
        return block if is_signature(block["data"]) else None
    if kind == "text" and block.get("citations"):
        return _cited(block)
    return block


def _cited(block: JSON) -> JSON:
    theirs = [citation for citation in block["citations"] if citation.get("encrypted_index") != ""]
    if len(theirs) == len(block["citations"]):
        return block
    plain = {name: value for name, value in block.items() if name != "citations"}
    return {**plain, "citations": theirs} if theirs else plain
