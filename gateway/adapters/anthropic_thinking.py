"""How much a model shall think: `thinking` as Anthropic says it, or an effort as OpenAI does; and what it thought."""

from __future__ import annotations

from typing import Any, Final

from gateway.adapters.anthropic_models import thinks_by_budget
from gateway.adapters.anthropic_neutral import is_neutral
from gateway.call import JSON
from gateway.dialects.messages_own import MIN_BUDGET, is_signature, within
from gateway.parse import OUTPUT_LIMITS

LEAST_TOP_P: Final = 0.95  # beside thinking, as the API has it
_TYPES: Final = ("enabled", "disabled", "adaptive", "between_tools")
# The API's own level, and the share of the output limit that a model gets which knows only budgets.
_EFFORTS: Final = {
    "minimal": ("low", 0.1), "low": ("low", 0.2), "medium": ("medium", 0.5), "high": ("high", 0.8),
    "xhigh": ("xhigh", 0.9), "max": ("max", 0.9),
}  # fmt: skip
_NO_EFFORT: Final = "none"


def thinking_fields(body: JSON, as_name: str, max_tokens: int) -> tuple[JSON | None, str | None]:
    """(`thinking`, `output_config.effort`). What the client says of thinking itself goes before an effort."""
    wanted, effort = body.get("thinking"), body.get("reasoning_effort")
    level, share = _EFFORTS.get(effort, (None, 0.0)) if isinstance(effort, str) else (None, 0.0)
    by_budget = thinks_by_budget(as_name)
    if wanted:
        budget = wanted.get("budget_tokens", 0)
        thinking = within(wanted, budget, max_tokens) if wanted["type"] == "enabled" else wanted
    elif effort == _NO_EFFORT:
        thinking = {"type": "disabled"}
    elif level and by_budget and not _lost(body["messages"]):
        thinking = within({"type": "enabled"}, max(MIN_BUDGET, int(max_tokens * share)), max_tokens)
    else:
        thinking = {"type": "adaptive"} if level and not by_budget else None
    return thinking, None if by_budget else level


def _lost(messages: list[JSON]) -> bool:
    """A turn of calls of tools goes on, and the client did not keep what was thought at its beginning.

    The API refuses to think on then, so an effort, which is a wish, gives way.
    """
    if messages[-1]["role"] != "tool":
        return False
    asked = next((message for message in reversed(messages) if message["role"] == "assistant"), {})
    return not thoughts(asked)


def thoughts(message: JSON) -> list[JSON]:
    """Those that Anthropic signed, as the API takes no others: what a model of another provider thought is left out.

    A stream says the text of a block beside it: where there is one block, that text is known.
    """
    blocks = message.get("thinking_blocks") or []
    text = message.get("reasoning_content") if len(blocks) == 1 else None
    found = [_thought({"thinking": text, **block}) for block in blocks if isinstance(block, dict)]
    return [thought for thought in found if thought]


def _thought(block: JSON) -> JSON | None:
    kind = block.get("type")
    if kind == "thinking" and isinstance(block["thinking"], str) and is_signature(block.get("signature")):
        return {"type": "thinking", "thinking": block["thinking"], "signature": block["signature"]}
    if kind == "redacted_thinking" and is_signature(block.get("data")):
        return {"type": "redacted_thinking", "data": block["data"]}
    return None


def beyond_thinking(body: JSON) -> str | None:
    """The first param that does not go with thinking, or says it in a way that the API does not have."""
    wanted, effort = body.get("thinking"), body.get("reasoning_effort")
    if not wanted and not effort:
        return None
    if wanted:
        if not isinstance(wanted, dict) or wanted.get("type") not in _TYPES:
            return "thinking"
        if wanted["type"] == "enabled" and not _is_budget(wanted.get("budget_tokens"), body):
            return "thinking.budget_tokens"
    if effort and (not isinstance(effort, str) or (effort not in _EFFORTS and effort != _NO_EFFORT)):
        return "reasoning_effort"
    thinks = wanted["type"] != "disabled" if wanted else effort != _NO_EFFORT
    return _beside_thinking(body) if thinks else None


def _is_budget(budget: Any, body: JSON) -> bool:
    limits = [body[name] for name in OUTPUT_LIMITS if type(body.get(name)) is int]
    return type(budget) is int and MIN_BUDGET <= budget < min(limits, default=budget + 1)


def _beside_thinking(body: JSON) -> str | None:
    """What it excludes: https://platform.claude.com/docs/en/build-with-claude/extended-thinking,
    https://platform.claude.com/docs/en/build-with-claude/thinking-tool-workflows.
    """
    for name in ("temperature", "top_k"):
        if not is_neutral(name, body.get(name)):
            return name
    if not is_neutral("top_p", body.get("top_p")) and body["top_p"] < LEAST_TOP_P:
        return "top_p"
    by_budget = (body.get("thinking") or {}).get("type") == "enabled"
    return "tool_choice" if by_budget and is_forced(body.get("tool_choice")) else None


def is_forced(choice: Any) -> bool:
    """A tool must be called."""
    if not isinstance(choice, dict):
        return bool(choice == "required")
    allowed = choice.get("allowed_tools")
    return not isinstance(allowed, dict) or allowed.get("mode") == "required"
