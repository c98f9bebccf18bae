"""Every key of routes.yaml version 1 and the kind of its value; `*` stands for names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from gateway.call import BUCKETS
from gateway.config.kinds import (
    anything,
    credits_uc,
    duration,
    duration_range,
    flag,
    key_hash,
    listed,
    micro,
    number,
    one_of,
    secret,
    share,
    size,
    text,
    texts,
    url,
)

Kind: TypeAlias = "Callable[[Any], Any] | Mapping[str, Kind]"


def _via(value: Any) -> tuple[dict[str, Any], ...]:
    """Names, or {backend, as, weight}."""
    if not isinstance(value, list) or not value:
        raise ValueError("is a list of backends")
    out = []
    for item in value:
        entry = {"backend": item} if isinstance(item, str) else item
        if not isinstance(entry, dict) or not {"backend"} <= set(entry) <= {"backend", "as", "weight"}:
            raise ValueError("has backends as names or {backend, as, weight}")
        weight = number(entry.get("weight", 1))
        if weight < 1:
            raise ValueError("has a weight below 1")
        out.append({**entry, "weight": weight})
    return tuple(out)


def _pick(value: Any) -> Any:
    """A selector {tags: [...]}, or models."""
    if isinstance(value, dict) and set(value) == {"tags"}:
        return {"tags": texts(value["tags"])}
    picked = texts(value)
    if not picked:
        raise ValueError("names no model")
    return picked


def _grants(value: Any) -> tuple[dict[str, Any], ...]:
    if not isinstance(value, list):
        raise ValueError("is a list of {credits, every}")
    out = []
    for item in value:
        if not isinstance(item, dict) or not {"credits"} <= set(item) <= {"credits", "every"}:
            raise ValueError("has grants as {credits, every}")
        every = one_of("month", "week", "day")(item["every"]) if "every" in item else None
        out.append({"credits": credits_uc(item["credits"]), "every": every})
    return tuple(out)


def _top(value: Any) -> int:
    prefix, _, count = str(value).partition("_")
    if prefix != "top" or not count.isdigit():
        raise ValueError("is top_N, such as top_50")
    return int(count)


_LIMITS: Mapping[str, Kind] = {"rpm": number, "tpm": number, "concurrency": number}
_BUCKET_VALUES: Mapping[str, Kind] = dict.fromkeys(BUCKETS, micro)
_ENDPOINTS = one_of("chat", "completions", "embeddings")

SCHEMA: Mapping[str, Kind] = {
    "version": number,
    "currency": text,
    "timezone": text,
    "server": {
        "host": text,
        "port": number,
        "max_body": size,
        "admin_key": secret,
        "metrics_key": secret,
        "admin_listen": text,
        "drain": duration,
    },
    "storage": {"ledger": text},
    "defaults": {
        "timeout": {"connect": duration, "first_token": duration, "idle": duration, "total": duration},
        "retry": {"attempts": number, "backoff": duration_range},
        "breaker": {"window": duration, "errors": share, "min_requests": number, "cooldown": duration},
    },
    "backends": {
        "*": {
            "kind": one_of("openai", "anthropic", "gemini", "azure"),
            "base_url": url,
            "keys": listed(secret),
            "region": text,
            "chip": text,
            "limits": _LIMITS,
            "on_disconnect": one_of("estimate", "drain", "free"),
            "tags": texts,
            "headers": {"*": text},
            "quirks": {"include_usage": flag, "max_tokens_field": text},
            "hours": anything,
        }
    },
    "models": {
        "*": {
            "via": _via,
            "context": number,
            "max_output": number,
            "price": _BUCKET_VALUES,
            "rates": _BUCKET_VALUES,
            "quality": share,
            "can": texts,
            "tags": texts,
            "endpoints": listed(_ENDPOINTS),
            "max_image_tokens": number,
            "tokenizer": text,
        }
    },
    "aliases": {"*": text},
    "routes": {
        "*": {
            "pick": _pick,
            "policy": one_of("balanced", "cheapest", "fastest", "best", "weighted", "ordered", "least_busy"),
            "weigh": {"cost": share, "latency": share, "quality": share},
            "require": {"region": texts, "chip": texts, "tags": texts},
            "fallback": {"error": texts, "context": texts},
            "cache": text,
            "affinity": one_of("session", "prefix", "none"),
            "when": anything,
        }
    },
    "cache": {
        "*": {
            "mode": one_of("exact", "semantic"),
            "ttl": duration,
            "scope": text,
            "charge": share,
            "sampled": flag,
            "max_bytes": size,
            "max_entry": size,
        }
    },
    "plans": {
        "*": {
            "grants": _grants,
            **_LIMITS,
            "exhausted": one_of("block", "payg", "downgrade", "throttle"),
            "allow": texts,
            "max_output": number,
            "priority": number,
            "weight": number,
        }
    },
    "tenants": {"*": {"plan": text, "keys": listed(key_hash)}},
    "observability": {"tenant_label": _top},
}
