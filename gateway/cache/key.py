"""Which calls have an answer that may be given again, and what makes two of them the same call. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import orjson

from gateway.call import LIMITED, READING, Call
from gateway.config.model import Config, Fallback, Model, Route

# How an answer is handed over and for whom: a model reads none of it. All else is in the key, whatever it is.
LEFT_OUT: Final = frozenset(
    {"model", "stream", "stream_options", "user", "metadata", "safety_identifier", "prompt_cache_key"}
)
_KEY_BYTES: Final = 32


def repeatable(call: Call, *, sampled: bool) -> bool:
    """Whether the same call means the same answer: no randomness, or a seed for it. `sampled` takes any answer."""
    if call.endpoint not in LIMITED:
        return call.endpoint in READING
    if sampled:
        return True
    temperature, seed = call.body.get("temperature"), call.body.get("seed")
    cold = type(temperature) in (int, float) and temperature == 0
    return cold or type(seed) is int


def key_of(call: Call, *, scope: str, version: bytes, max_output: int | None) -> bytes:
    """The digest of all that can change the answer.

    `scope` is whose answers they are, `version` what the route stands for, `max_output` the plan's limit, which is put
    in where the call has none. The body is what backends get: a field twice, an escaped letter, an integer beyond 64
    bits are there what the parser made of them.

    Fields are sorted in the body and in each message. Inside tools, schemas and fields that are unknown they are not:
    templates print those as they are, and structured output is written in the order of its schema.
    """
    digest = hashlib.blake2b(digest_size=_KEY_BYTES)
    about = (scope, version.hex(), call.dialect or call.endpoint, call.prefer, max_output)
    digest.update(orjson.dumps(about))
    body: Mapping[str, Any] = call.original if call.dialect else call.body
    digest.update(orjson.dumps({name: _ordered(name, body[name]) for name in sorted(body) if name not in LEFT_OUT}))
    return digest.digest()


def _ordered(name: str, value: Any) -> Any:
    if name != "messages" or not isinstance(value, list):
        return value
    return [dict(sorted(message.items())) if isinstance(message, dict) else message for message in value]


def route_version(config: Config, route: Route) -> bytes:
    """The digest of what a route stands for: who may answer its calls, in which order, and how they are asked.

    Prices, weights, limits, keys and timeouts do not change answers, so that their edits keep them.
    """
    fallbacks = (*route.fallback_error, *route.fallback_context)
    about = [
        route.policy,
        sorted(route.weigh.items()),
        _required(Fallback("", route.require)),
        [_asked(config, config.models[name]) for name in route.pick],
        [[_required(fallback), _asked(config, config.models[fallback.model])] for fallback in fallbacks],
        len(route.fallback_error),
    ]
    return hashlib.blake2b(orjson.dumps(about), digest_size=_KEY_BYTES).digest()


def _required(fallback: Fallback) -> list[list[str]]:
    require = fallback.require
    return [sorted(words) for words in (require.region, require.chip, require.tags)]


def _asked(config: Config, model: Model) -> list[Any]:
    """How a model is asked. Region, chip and tags are there because a route may require them."""
    backends = [(config.backends[via.backend], via.as_name) for via in model.via]
    return [
        model.name,
        model.context,
        model.max_output,
        [
            [
                backend.kind, backend.base_url, backend.api_version, as_name, sorted(backend.headers.items()),
                backend.quirks.like, backend.quirks.include_usage, backend.quirks.max_tokens_field, backend.region,
                backend.chip, sorted(backend.tags),
            ]
            for backend, as_name in backends
        ],
    ]  # fmt: skip
