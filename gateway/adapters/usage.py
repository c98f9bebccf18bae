"""A backend's usage into disjoint buckets that sum to its totals. None is not zero."""

from __future__ import annotations

import math
from typing import Any

from gateway.call import Call, Usage
from gateway.config.model import Model

SLACK = 1.25  # tokenizers and windows are stated roughly; beyond this a figure is a lie


def normalise(reported: Any, call: Call, model: Model) -> Usage | None:
    """None when nothing was reported. `prompt_tokens` includes cached, `completion_tokens` includes reasoning."""
    if not isinstance(reported, dict) or reported.get("prompt_tokens") is None:
        return None
    bounds = _Bounds()
    most_in = int(model.context * SLACK) * (call.choices if call.endpoint != "chat" else 1)
    most_out = int(model.max_output * SLACK) * call.choices
    total_in = bounds.number(reported.get("prompt_tokens"), most_in)
    total_out = bounds.number(reported.get("completion_tokens", 0), most_out)
    inside = _details(reported, "prompt_tokens_details")
    out = _details(reported, "completion_tokens_details")
    cached = inside.get("cached_tokens", reported.get("prompt_cache_hit_tokens"))
    quantities = {
        **bounds.split(total_in, "input", {"input_cached": cached, "input_audio": inside.get("audio_tokens")}),
        **bounds.split(
            total_out,
            "output",
            {"output_reasoning": out.get("reasoning_tokens"), "output_audio": out.get("audio_tokens")},
        ),
    }
    flags = ("bad_usage",) if bounds.broken else () if total_in or total_out else ("zero_usage",)
    if flags != ("zero_usage",):
        quantities["calls"] = 1
    return Usage({bucket: n for bucket, n in quantities.items() if n}, "reported", flags)


def _details(reported: dict[str, Any], field: str) -> dict[str, Any]:
    details = reported.get(field)
    return details if isinstance(details, dict) else {}


class _Bounds:
    """State: whether any figure had to be clamped."""

    def __init__(self) -> None:
        self.broken = False

    def number(self, value: Any, most: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
            self.broken = True
            return min(max(int(value), 0), most) if isinstance(value, int | float) and math.isfinite(value) else 0
        return value

    def split(self, total: int, rest: str, parts: dict[str, Any]) -> dict[str, int]:
        """`parts` out of `total`; what is left of it goes to `rest`."""
        out = {}
        left = total
        for bucket, value in parts.items():
            if value is not None:
                out[bucket] = self.number(value, left)
                left -= out[bucket]
        return {rest: left, **out}
