"""A request as Anthropic takes it: without what answers of other providers have left in it, and within our limit.

A client sends back what it was given, and a route may have answered an earlier turn by a backend of another provider.
Anthropic refuses reasoning that it has not signed, and citations that it has not made; and a budget for thinking that
is not below the output limit, which may be lower than the client's.
"""

from __future__ import annotations

from typing import Any, Final

from gateway.call import JSON

MIN_BUDGET: Final = 1024  # the API's own, in tokens
CLEARS_THINKING: Final = "clear_thinking_"  # how the edits of a context begin that need thinking


def own(original: JSON, max_tokens: int) -> JSON:
    """Of a request that `body` has taken, with this output limit."""
    messages: list[JSON] = original["messages"]
    kept = [_message(message) for message in messages]
    sent = {**original, "messages": [message for message in kept if message is not None], "max_tokens": max_tokens}
    if max_tokens < original["max_tokens"]:
        _fit_thinking(sent, max_tokens)
    return sent


def within(thinking: JSON, budget: int, max_tokens: int) -> JSON | None:
    """The budget is less than the output limit, which may be lower than the client's; with no room, no thinking."""
    room = min(budget, max_tokens - 1)
    return {**thinking, "budget_tokens": room} if room >= MIN_BUDGET else None


def _fit_thinking(sent: JSON, max_tokens: int) -> None:
    """Without thinking there is none to clear: the API refuses to."""
    wanted = sent.get("thinking")
    if not wanted or wanted.get("type") != "enabled":
        return
    thinking = within(wanted, wanted["budget_tokens"], max_tokens)
    if thinking is not None:
        sent["thinking"] = thinking
        return
    del sent["thinking"]
    editing = sent.get("context_management")
    if editing and editing.get("edits"):
        edits = [edit for edit in editing["edits"] if not str(edit.get("type")).startswith(CLEARS_THINKING)]
        del sent["context_management"]
        if edits:
            sent["context_management"] = {**editing, "edits": edits}


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
