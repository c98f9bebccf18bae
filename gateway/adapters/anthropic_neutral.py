"""What says nothing: a field with such a value may go, as the answer is the same without it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

# By name; null, false and what is empty say nothing under any name.
_NEUTRAL: Final[dict[str, Sequence[Any]]] = {
    "n": (1,), "temperature": (1,), "top_p": (1,), "top_k": (0, -1), "frequency_penalty": (0,),
    "presence_penalty": (0,), "top_logprobs": (0,), "verbosity": ("medium",), "modalities": (["text"],),
    "response_format": ({"type": "text"},),
}  # fmt: skip


def is_neutral(name: str, value: Any) -> bool:
    if value is None or value is False or value == "" or value == [] or value == {}:
        return True
    return name in _NEUTRAL and value in _NEUTRAL[name]
