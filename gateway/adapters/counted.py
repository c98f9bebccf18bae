"""What calls beside chat have used, as their backends say it; a lie is cut to what is possible.

None where nothing is said: then it is counted here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from gateway.adapters.usage import INPUT_SLACK, clamped, is_number
from gateway.call import JSON, Call, Usage
from gateway.config.model import Model

Counted = Callable[[Call, Model, JSON], Usage | None]
_ZERO: Final = ("zero_usage",)
_BAD: Final = ("bad_usage",)


def rerank_usage(call: Call, model: Model, answer: JSON) -> Usage | None:
    """Jina and vLLM: `usage.total_tokens`, others `prompt_tokens`; each document has the context to itself."""
    usage = answer.get("usage")
    if not isinstance(usage, dict):
        return None
    said = usage.get("prompt_tokens")
    said = usage.get("total_tokens") if said is None else said
    if not is_number(said):
        return None
    return _usage([("input", said, int(model.context * call.choices * INPUT_SLACK))])


def _usage(parts: Sequence[tuple[str, Any, int]]) -> Usage:
    """Of buckets, what was said of each, and the most that it can be."""
    found, fine = {}, True
    for bucket, said, most in parts:
        found[bucket], good = clamped(said, most)
        fine = fine and good
    quantities = {bucket: n for bucket, n in found.items() if n}
    if not fine:
        return Usage({**quantities, "calls": 1}, "reported", _BAD)
    return Usage({**quantities, "calls": 1}) if quantities else Usage({}, "reported", _ZERO)
