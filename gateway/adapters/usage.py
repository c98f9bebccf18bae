"""What a backend says that a call used, as disjoint buckets; a lie is cut to what is possible."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from gateway.call import JSON, Call, Usage
from gateway.config.model import Model

INPUT_SLACK: Final = 1.25  # tokenizers and templates differ; a lie is larger
_BESIDE: Final = frozenset({"prompt_cache_hit_tokens", "cached_tokens"})  # told beside OpenAI's details
_PLACES: Final = {
    "input_cached": "cached_tokens", "input_cache_write": "cache_write_tokens",
    "input_cache_write_1h": "cache_write_1h_tokens", "input_audio": "audio_tokens", "input_image": "image_tokens",
    "output_reasoning": "reasoning_tokens", "output_audio": "audio_tokens",
}  # fmt: skip


def usage_of(call: Call, model: Model, usage: Any) -> Usage | None:
    return normalise(
        usage, context=model.context, max_output=model.max_output, choices=call.choices, endpoint=call.endpoint
    )


def normalise(usage: Any, *, context: int, max_output: int, choices: int, endpoint: str) -> Usage | None:
    """The provider's usage as disjoint buckets that sum to prompt_tokens + completion_tokens; None when missing.

    `prompt_tokens` includes cached, cache-written and audio tokens, `completion_tokens` reasoning and audio.
    A lie is cut to [0, limit] and flagged bad_usage.
    """
    if not isinstance(usage, dict) or usage.get("prompt_tokens") is None:
        return None
    given_out = 0 if endpoint == "embeddings" else usage.get("completion_tokens")
    if not (is_number(usage["prompt_tokens"]) and is_number(given_out)):
        return None  # said, but not in numbers: counting is fairer than taking it for nothing
    prompts = 1 if endpoint == "chat" else choices  # each prompt, or embedded text, has the context to itself
    prompt, fine = clamped(usage["prompt_tokens"], int(context * prompts * INPUT_SLACK))
    output, output_fine = clamped(given_out, max_output * choices)
    prompt_parts, parts_fine = _split(prompt, "input", _prompt_details(usage))
    output_parts, output_parts_fine = _split(output, "output", _output_details(usage))
    flags: tuple[str, ...] = ()
    if not (fine and output_fine and parts_fine and output_parts_fine):
        flags = ("bad_usage",)
    elif not prompt and not output:
        return Usage({}, "reported", ("zero_usage",))
    return Usage({**prompt_parts, **output_parts, "calls": 1}, "reported", flags)


def _prompt_details(usage: JSON) -> Sequence[tuple[str, Any]]:
    """What the prompt holds. Providers say it in other places than OpenAI does, each with the page that shows it."""
    details = _object(usage.get("prompt_tokens_details"))
    if not details and usage.keys().isdisjoint(_BESIDE):
        return ()
    cached, written = details.get("cached_tokens"), details.get("cache_write_tokens")
    if cached is None:  # https://api-docs.deepseek.com/guides/kv_cache
        cached = usage.get("prompt_cache_hit_tokens")
    if cached is None:  # https://platform.moonshot.ai/docs/api/chat
        cached = usage.get("cached_tokens")
    if written is None:  # https://www.alibabacloud.com/help/en/model-studio/user-guide/context-cache
        written = details.get("cache_creation_input_tokens")
    return [
        ("input_cached", cached),
        ("input_cache_write", written),
        ("input_cache_write_1h", details.get("cache_write_1h_tokens")),
        ("input_audio", details.get("audio_tokens")),
        ("input_image", details.get("image_tokens")),
    ]


def _output_details(usage: JSON) -> Sequence[tuple[str, Any]]:
    details = _object(usage.get("completion_tokens_details"))
    reasoning = details.get("reasoning_tokens")
    if reasoning is None:  # https://docs.sglang.io/advanced_features/separate_reasoning.html
        reasoning = usage.get("reasoning_tokens")
    if not details and reasoning is None:
        return ()
    return [("output_reasoning", reasoning), ("output_audio", details.get("audio_tokens"))]


def in_openai_places(usage: Any) -> JSON | None:
    """A provider's usage where the middle form has it; what is not said stays unsaid."""
    if not isinstance(usage, dict):
        return None
    out = {name: value for name, value in usage.items() if name not in _BESIDE and name != "reasoning_tokens"}
    for details, parts in (("prompt", _prompt_details(usage)), ("completion", _output_details(usage))):
        said = {_PLACES[bucket]: value for bucket, value in parts if value is not None}
        if said:
            out[f"{details}_tokens_details"] = {**_object(usage.get(f"{details}_tokens_details")), **said}
    return out


def said(usage: Usage) -> JSON:
    """Usage that was counted here, as a backend says it."""
    read, written = usage.input_tokens, usage.output_tokens
    out: JSON = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
    for details, side in (("prompt_tokens_details", "input"), ("completion_tokens_details", "output")):
        parts = {_PLACES[b]: n for b, n in usage.quantities.items() if b in _PLACES and b.startswith(side)}
        if parts:
            out[details] = parts
    return out


def _object(value: Any) -> JSON:
    return value if isinstance(value, dict) else {}


def _split(total: int, bucket: str, parts: Sequence[tuple[str, Any]]) -> tuple[dict[str, int], bool]:
    """Takes the parts out of the total, as far as it goes; what is left stays in `bucket`."""
    if not parts:
        return ({bucket: total} if total else {}), True
    left, fine, found = total, True, {}
    for name, given in parts:
        found[name], good = (0, True) if given is None else clamped(given, left)
        left -= found[name]
        fine = fine and good
    return {name: n for name, n in {bucket: left, **found}.items() if n}, fine


def is_number(value: Any) -> bool:
    return type(value) is int or type(value) is float


def clamped(value: Any, limit: int) -> tuple[int, bool]:
    """(a number in [0, limit], whether the value was one)."""
    if type(value) is int and 0 <= value <= limit:
        return value, True
    if not is_number(value):
        return 0, False
    n = int(min(max(value, 0), limit))
    return n, isinstance(value, int) and n == value
