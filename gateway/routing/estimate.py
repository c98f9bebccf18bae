"""What a call is expected to take: tokens in and out, and what they cost us."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from gateway.call import LIMITED, Call
from gateway.config.model import Model

_NOTHING: Final[Mapping[str, int]] = {}


def estimated_input(call: Call) -> int:
    """All tokens of a call by the usual four bytes a token: for limits and policies, never for charges."""
    return call.input_bound // 4


def needed_context(call: Call) -> int:
    """The same of its longest prompt: each prompt of a batch, and each text to embed, has the context to itself."""
    if call.work is not None:
        return call.work.longest // 4
    prompts = call.body.get("input" if call.endpoint == "embeddings" else "prompt") if call.endpoint != "chat" else None
    if not isinstance(prompts, list):
        return estimated_input(call)
    if isinstance(prompts[0], int):
        return len(prompts)
    if isinstance(prompts[0], list):
        return max(map(len, prompts))
    return max(len(text.encode()) for text in prompts) // 4


def expected_output(call: Call, average: float) -> float:
    """Tokens of each choice: what answers of the route have on average, and never more than was asked for."""
    if call.endpoint not in LIMITED:
        return 0.0
    return average if call.max_tokens is None or average < call.max_tokens else call.max_tokens


def expected_counts(call: Call) -> Mapping[str, int]:
    """What it is expected to take that is no token."""
    return _NOTHING if call.work is None else {**call.work.counts, **call.work.taken}


def expected_cost(model: Model, read: int, written: float, choices: int, counts: Mapping[str, int] = _NOTHING) -> float:
    """In micro-units of currency, of `read` tokens and so many `written` for each choice.

    Images that are read are left out, as all targets read the same ones.
    """
    price, most = model.price, model.max_output
    output = (written if written < most else most) * choices
    counted = sum([n * price[bucket] for bucket, n in counts.items()]) if counts else 0
    return (read * price["input"] + output * price["output"] + price["calls"] + counted) / 1_000_000
