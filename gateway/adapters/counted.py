"""What calls beside chat have used, as their backends say it; a lie is cut to what is possible.

None where nothing is said: then it is counted here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from gateway.adapters.usage import INPUT_SLACK, clamped, is_number
from gateway.call import JSON, Call, Usage
from gateway.config.model import Model

_ZERO: Final = ("zero_usage",)
_BAD: Final = ("bad_usage",)
Part = tuple[str, Any, int]  # a bucket, what was said of it, and the most that it can be


def rerank_usage(call: Call, model: Model, usage: Any) -> Usage | None:
    """`total_tokens`, as some say 0 for the prompt beside it; each document has the context to itself."""
    if not isinstance(usage, dict):
        return None
    said = usage.get("total_tokens")
    said = usage.get("prompt_tokens") if said is None else said
    return _usage([("input", said, _most_read(model, call.choices))]) if is_number(said) else None


def image_usage(call: Call, model: Model, usages: Sequence[JSON], images: int) -> Usage:
    """Images as many as came, and tokens where the backend says some: of each image, or of all."""
    most = _counted(call, "images")
    read, written = _most_read(model, most), model.max_output * most
    parts: list[Part] = [("images", images, most)]
    for usage in usages:
        seen = _details(usage, "input_tokens_details").get("image_tokens") or 0
        all_read = usage.get("input_tokens") or 0
        text = all_read - seen if is_number(all_read) and is_number(seen) else None
        parts += [
            ("input", text, read),
            ("input_image", seen, read),
            ("output", usage.get("output_tokens") or 0, written),
        ]
    return _usage(parts)


def speech_usage(call: Call, model: Model, usages: Sequence[JSON], answers: int) -> Usage | None:
    """Of events, as bytes say nothing of it: what was written is sound."""
    if not usages or not is_number(usages[-1].get("input_tokens")):
        return None
    read, made = usages[-1]["input_tokens"], usages[-1].get("output_tokens") or 0
    return _usage([("input", read, _most_read(model, 1)), ("output_audio", made, model.max_output)])


def transcript_usage(call: Call, model: Model, answer: JSON) -> Usage | None:
    """In seconds of sound, or in tokens. Whisper's older servers say but the `duration`, in the verbose form."""
    usage = answer.get("usage")
    if not isinstance(usage, dict):
        usage = {"seconds": answer.get("duration")}
    seconds = _seconds(usage.get("seconds"))
    if seconds is not None:
        return _usage([("audio_ms", math.ceil(seconds * 1000), _counted(call, "audio_ms"))])
    read: Any = usage.get("input_tokens", usage.get("prompt_tokens"))  # vLLM's chunks have the names of chat
    written = usage.get("output_tokens", usage.get("completion_tokens"))
    if not (is_number(read) and is_number(written)):
        return None
    heard = _details(usage, "input_token_details").get("audio_tokens") or 0
    most = _most_read(model, 1)
    text = read - heard if is_number(heard) else None
    return _usage([("input", text, most), ("input_audio", heard, most), ("output", written, model.max_output)])


def _most_read(model: Model, prompts: int) -> int:
    return int(model.context * prompts * INPUT_SLACK)


def _counted(call: Call, bucket: str) -> int:
    """As many as were held."""
    assert call.work is not None, "of a call of another endpoint"
    return call.work.counts[bucket]


def _details(usage: JSON, name: str) -> JSON:
    value = usage.get(name)
    return value if isinstance(value, dict) else {}


def _seconds(said: Any) -> float | None:
    """A number, or one in quotes."""
    try:
        seconds = float(said) if isinstance(said, str | int | float) else math.nan
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) else None


def _usage(parts: Sequence[Part]) -> Usage:
    """A bucket that comes more than once is summed up."""
    quantities: dict[str, int] = {}
    fine = True
    for bucket, said, most in parts:
        n, good = clamped(said, most - quantities.get(bucket, 0))
        fine = fine and good
        if n:
            quantities[bucket] = quantities.get(bucket, 0) + n
    if not fine:
        return Usage({**quantities, "calls": 1}, "reported", _BAD)
    return Usage({**quantities, "calls": 1}) if quantities else Usage({}, "reported", _ZERO)
