"""Gemini's usageMetadata as usage of the chat form."""

from __future__ import annotations

from typing import Any

from gateway.call import JSON


def usage(metadata: Any) -> JSON | None:
    """None when nothing is said. https://ai.google.dev/api/generate-content#UsageMetadata

    Thoughts are counted beside the candidates, what is cached is among the prompt, results of tools of Google's own
    beside it. A number that is 0 is left out by the API, as JSON of protocol buffers has it.
    """
    if not isinstance(metadata, dict) or metadata.get("promptTokenCount") is None:
        return None
    prompt = _sum(metadata, "promptTokenCount", "toolUsePromptTokenCount")
    output = _sum(metadata, "candidatesTokenCount", "thoughtsTokenCount")
    cached = metadata.get("cacheTokensDetails")
    asked, written = metadata.get("promptTokensDetails"), metadata.get("candidatesTokensDetails")
    prompt_details = {
        "cached_tokens": metadata.get("cachedContentTokenCount"),
        "audio_tokens": _uncached(asked, cached, "AUDIO"),
        "image_tokens": _uncached(asked, cached, "IMAGE"),
    }
    output_details = {
        "reasoning_tokens": metadata.get("thoughtsTokenCount"),
        "audio_tokens": _of_kind(written, "AUDIO"),
    }
    return {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": None if prompt is None or output is None else prompt + output,
        "prompt_tokens_details": _said(prompt_details),
        "completion_tokens_details": _said(output_details),
    }


def _sum(metadata: JSON, *names: str) -> int | None:
    """None where one of them is no number: who reads it shall not take it for one."""
    numbers = [metadata.get(name, 0) for name in names]
    return sum(numbers) if all(type(number) is int for number in numbers) else None


def _said(details: JSON) -> JSON:
    return {name: value for name, value in details.items() if value is not None}


def _uncached(asked: Any, cached: Any, kind: str) -> int | None:
    """What is cached costs the cached rate, whatever it is: it is no audio besides."""
    total = _of_kind(asked, kind)
    return None if total is None else max(0, total - (_of_kind(cached, kind) or 0))


def _of_kind(details: Any, kind: str) -> int | None:
    for one in details if isinstance(details, list) else ():
        if isinstance(one, dict) and one.get("modality") == kind and type(one.get("tokenCount")) is int:
            return int(one["tokenCount"])
    return None
