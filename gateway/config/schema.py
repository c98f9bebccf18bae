"""Every key of routes.yaml version 1, once: what reads it, and the JSON Schema for editors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from gateway.call import BUCKETS, ENDPOINTS
from gateway.config import kinds
from gateway.config.kinds import Kind, number, one_of
from gateway.config.model import PROVIDERS


@dataclass(frozen=True)
class Keys:
    """A mapping with known keys. Keys in `later` are accepted and warned about: this version does not apply them."""

    keys: Mapping[str, Node]
    required: tuple[str, ...] = ()
    later: tuple[str, ...] = ()


@dataclass(frozen=True)
class Names:
    """A mapping from names of one's own to what they stand for; `noun` is what one of them is called.

    `names` reads them, where not every text is one.
    """

    of: Node
    noun: str
    names: Kind | None = None


@dataclass(frozen=True)
class Many:
    """A list."""

    of: Node
    least: int = 0


@dataclass(frozen=True)
class Either:
    """A mapping, or a shorter form of it."""

    mapping: Node
    short: Node


Node: TypeAlias = Kind | Keys | Names | Many | Either

TEXTS: Final = Many(kinds.TEXT)
_LIMITS: Final[Mapping[str, Node]] = {"rpm": number(), "tpm": number(), "concurrency": number()}
_BUCKET_VALUES: Final = Keys(dict.fromkeys(BUCKETS, kinds.MICRO))
_WEIGHT: Final = number(1, 1_000_000)

_SERVER: Final = Keys(
    {
        "host": kinds.TEXT,
        "port": number(0, 65535),
        "max_body": kinds.SIZE,
        "admin_key": kinds.SECRET,
        "metrics_key": kinds.SECRET,
        "admin_listen": kinds.TEXT,
        "drain": kinds.DURATION,
    },
    later=("admin_listen",),
)
_STORAGE: Final = Keys(
    {
        "ledger": kinds.LEDGER,
        "when_down": one_of("refuse", "serve"),
        "exposure": kinds.CREDITS,
        "responses": Either(Keys({"keep": kinds.DURATION, "max_bytes": kinds.SIZE}), kinds.KEPT),
    }
)
_DEFAULTS: Final = Keys(
    {
        "timeout": Keys(dict.fromkeys(("connect", "first_token", "idle", "total"), kinds.DURATION)),
        "retry": Keys({"attempts": number(1, 100), "backoff": kinds.DURATION_RANGE}),
        "breaker": Keys(
            {
                "window": kinds.DURATION,
                "errors": kinds.SHARE,
                "min_requests": number(),
                "cooldown": kinds.DURATION,
            }
        ),
        "queue": Keys({"length": number(0, 1000), "wait": kinds.DURATION}),
    },
)
_BACKEND: Final = Keys(
    {
        "kind": one_of("openai", "anthropic", "gemini", "azure"),
        "base_url": kinds.URL,
        "keys": Many(kinds.SECRET),
        "region": kinds.TEXT,
        "chip": kinds.TEXT,
        "limits": Keys(_LIMITS),
        "on_disconnect": one_of("estimate", "drain", "free"),
        "tags": TEXTS,
        "headers": Names(kinds.HEADER, "header", kinds.HEADER_NAME),
        "quirks": Either(
            Keys({"like": one_of(*PROVIDERS), "include_usage": kinds.FLAG, "max_tokens_field": kinds.TEXT}),
            one_of(*PROVIDERS),
        ),
        "api_version": kinds.API_VERSION,
        "hours": Many(
            Keys({"from": kinds.CLOCK, "to": kinds.CLOCK, "price_factor": kinds.MICRO}, required=("from", "to"))
        ),
        "check": Keys({"path": kinds.PATH, "every": kinds.DURATION, "timeout": kinds.DURATION}, required=("path",)),
    },
    required=("kind", "base_url"),
    later=("hours",),
)
_CAN: Final = Many(one_of("tools", "json", "vision", "audio", "reasoning", "extras"))
_ENDPOINTS: Final = Many(one_of(*ENDPOINTS), least=1)
_VIA: Final = Keys({"backend": kinds.TEXT, "as": kinds.TEXT, "weight": _WEIGHT}, required=("backend",))
_MODEL: Final = Keys(
    {
        "via": Many(Either(_VIA, kinds.TEXT), least=1),
        "context": number(),
        "max_output": number(),
        "price": _BUCKET_VALUES,
        "rates": _BUCKET_VALUES,
        "quality": kinds.SHARE,
        "can": _CAN,
        "tags": TEXTS,
        "endpoints": _ENDPOINTS,
        "max_image_tokens": number(0),
        "tokenizer": kinds.TEXT,
    },
    required=("via", "context", "max_output", "price"),
    later=("tokenizer",),
)
_CATALOGUE: Final = Keys(
    {
        "of": kinds.TEXT,
        "backend": kinds.TEXT,
        "models": Many(kinds.TEXT, least=1),
        "except": TEXTS,
        "prefix": kinds.TEXT,
        "price": Names(_BUCKET_VALUES, "model"),
        "price_factor": kinds.FACTOR,
        "rates": _BUCKET_VALUES,
        "rates_factor": kinds.FACTOR,
        "quality": kinds.SHARE,
        "tags": TEXTS,
    },
    required=("backend", "models"),
)
FAMILY: Final = Keys(  # a file of gateway/models
    {
        "date": kinds.DATE,
        "currency": kinds.TEXT,
        "source": Many(kinds.URL, least=1),
        "models": Names(
            Keys(
                {
                    "context": number(),
                    "max_output": number(),
                    "price": _BUCKET_VALUES,
                    "price_up_to": number(),
                    "can": _CAN,
                    "endpoints": _ENDPOINTS,
                },
                required=("context", "max_output", "can", "endpoints"),
            ),
            "model",
        ),
    },
    required=("date", "currency", "source", "models"),
)
_ROUTE: Final = Keys(
    {
        "pick": Either(Keys({"tags": Many(kinds.TEXT, least=1)}, required=("tags",)), Many(kinds.TEXT, least=1)),
        "policy": one_of("balanced", "cheapest", "fastest", "best", "weighted", "ordered", "least_busy"),
        "weigh": Keys(dict.fromkeys(("cost", "latency", "quality"), kinds.SHARE)),
        "require": Keys(dict.fromkeys(("region", "chip", "tags"), Many(kinds.TEXT, least=1))),
        "fallback": Keys({"error": TEXTS, "context": TEXTS}),
        "cache": kinds.TEXT,
        "affinity": one_of("session", "prefix", "none"),
        "when": kinds.ANYTHING,
    },
    required=("pick",),
    later=("when",),
)
_CACHE: Final = Keys(
    {
        "mode": one_of("exact", "semantic"),
        "ttl": kinds.DURATION,
        "scope": one_of("tenant", "account"),
        "charge": kinds.EXACT_SHARE,
        "sampled": kinds.FLAG,
        "max_bytes": kinds.SIZE,
        "max_entry": kinds.SIZE,
    }
)
_EXHAUSTED: Final = Either(
    Keys(
        {
            "payg": Keys({"price": kinds.MICRO, "cap": kinds.MICRO}, required=("price", "cap")),
            "downgrade": kinds.TEXT,
            "throttle": Keys(_LIMITS),
        }
    ),
    kinds.BLOCK,
)
_ALERTS: Final = Many(kinds.EXACT_SHARE, least=1)
CAP: Final = Keys({"credits": kinds.CREDITS, "calls": number()})
CAPS: Final = Keys(dict.fromkeys(("total", "month", "week", "day", "5h"), CAP))
_SPAN: Final[Mapping[str, Node]] = {"from": kinds.CLOCK, "to": kinds.CLOCK}
_CARD: Final = Keys(
    {
        "effective": kinds.DATE,
        "base": kinds.TEXT,
        "factor": kinds.FACTOR,
        "rates": Names(_BUCKET_VALUES, "model"),
        "hours": Many(Keys({**_SPAN, "factor": kinds.FACTOR}, required=(*_SPAN, "factor"))),
    }
)
_PLAN: Final = Keys(
    {
        "grants": Many(
            Keys(
                {"credits": kinds.CREDITS, "every": one_of("month", "week", "day"), "card": kinds.TEXT},
                required=("credits",),
            )
        ),
        "caps": CAPS,
        **_LIMITS,
        "exhausted": _EXHAUSTED,
        "alerts": _ALERTS,
        "allow": TEXTS,
        "max_output": number(),
        "priority": number(0),
        "weight": _WEIGHT,
    },
)
_SCOPE: Final = Keys(
    {
        **dict.fromkeys(("models", "tags", "regions"), Many(kinds.TEXT, least=1)),
        "hours": Many(Keys(_SPAN, required=tuple(_SPAN)), least=1),
        "agents": Many(kinds.TEXT, least=1),
    },
    later=("agents",),
)
_PACKAGE: Final = Keys(
    {
        "credits": kinds.CREDITS,
        "every": one_of("month", "week", "day"),
        "periods": number(1, 1000),
        "valid": kinds.DURATION,
        "price": kinds.MICRO,
        "rollover": kinds.CREDITS,
        "priority": number(0, 1000),
        "once": kinds.FLAG,
        "caps": CAPS,
        "scope": _SCOPE,
        "card": kinds.TEXT,
        "exhausted": _EXHAUSTED,
        "alerts": _ALERTS,
    },
    required=("credits",),
)

SCHEMA: Final = Keys(
    {
        "version": number(1, 1),
        "include": Many(kinds.TEXT),
        "currency": kinds.TEXT,
        "timezone": kinds.TIMEZONE,
        "server": _SERVER,
        "storage": _STORAGE,
        "defaults": _DEFAULTS,
        "backends": Names(_BACKEND, "backend"),
        "models": Names(_MODEL, "model"),
        "catalogues": Names(_CATALOGUE, "catalogue"),
        "aliases": Names(kinds.TEXT, "alias"),
        "routes": Names(_ROUTE, "route"),
        "cache": Names(_CACHE, "cache"),
        "plans": Names(_PLAN, "plan"),
        "rate_cards": Names(Either(_CARD, Many(_CARD, least=1)), "rate card"),
        "packages": Names(_PACKAGE, "package"),
        "tenants": Names(Keys({"plan": kinds.TEXT, "keys": Many(kinds.KEY_HASH)}, required=("plan",)), "tenant"),
        "observability": Keys({"tenant_label": kinds.TOP}),
    },
    required=("version",),
)


def json_schema(node: Node = SCHEMA) -> dict[str, Any]:
    """JSON Schema 2020-12 of a node."""
    if isinstance(node, Kind):
        return dict(node.json)
    if isinstance(node, Many):
        return {"type": "array", "items": json_schema(node.of), "minItems": node.least}
    if isinstance(node, Either):
        return {"anyOf": [json_schema(node.mapping), json_schema(node.short)]}
    if isinstance(node, Names):
        out = {"type": ["object", "null"], "additionalProperties": json_schema(node.of)}
        return {**out, "propertyNames": dict(node.names.json)} if node.names else out
    properties = {name: json_schema(child) for name, child in node.keys.items()}
    for name in node.later:
        properties[name] = {**properties[name], "description": "Accepted; not applied in this version."}
    keys = {"type": ["object", "null"], "properties": properties, "additionalProperties": False}
    return {**keys, "type": "object", "required": list(node.required)} if node.required else keys
