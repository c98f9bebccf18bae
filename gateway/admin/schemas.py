"""JSON Schemas of what the admin API takes and answers. Titled ones become components of the OpenAPI document."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

from gateway.admin.fields import MAX_WORD_CHARS, MAX_WORDS
from gateway.charging.admins import ROLES
from gateway.charging.directory import STATUSES
from gateway.charging.offers import CARDS, Scope
from gateway.config.kinds import number
from gateway.config.schema import CAP, CAPS, json_schema

Schema = Mapping[str, Any]


def record(title: str = "", *, optional: Mapping[str, Schema] | None = None, **fields: Schema) -> dict[str, Any]:
    """An object that has all these fields, and may have more: later versions add some."""
    value = {"type": "object", "properties": {**fields, **(optional or {})}, "required": list(fields)}
    return {"title": title, **value} if title else value


def array(of: Schema) -> dict[str, Any]:
    return {"type": "array", "items": of}


def maybe(schema: Schema) -> dict[str, Any]:
    """Or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def text(most: int, least: int = 0) -> dict[str, Any]:
    """Printable: without control characters, and more that no pattern says."""
    return {"type": "string", "minLength": least, "maxLength": most, "pattern": r"^[^\x00-\x1f\x7f-\xa0]*$"}


def whole(least: int, most: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": least, "maximum": most}


def page(of: Schema, cursor: Schema) -> dict[str, Any]:
    return record(data=array(of), next={**maybe(cursor), "description": "`after` of the next page; null: the last"})


TEXT: Final[Schema] = {"type": "string"}
INTEGER: Final[Schema] = {"type": "integer"}
BOOLEAN: Final[Schema] = {"type": "boolean"}
OBJECT: Final[Schema] = {"type": "object"}
AMOUNT: Final[Schema] = {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?$", "description": "a decimal, exact"}
SECONDS: Final[Schema] = {"type": "integer", "description": "Unix seconds"}
INSTANT: Final[Schema] = {"type": "string", "format": "date-time", "description": "RFC 3339, in UTC"}
VERSION: Final[Schema] = {
    "type": "string",
    "minLength": 1,
    "description": "another one when anything that can be edited has changed",
}

# -- what is asked ------------------------------------------------------------------------------------------------

ID: Final[Schema] = {"type": "string", "pattern": r"^[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}$"}
ORDER_ID: Final[Schema] = {"type": "string", "pattern": r"^[a-zA-Z0-9][a-zA-Z0-9._:-]{0,127}$"}
NAME: Final[Schema] = text(200, 1)
CREDITS: Final[Schema] = {
    "description": 'credits, with at most six decimals; as a string also such as "2.5k" or "1M"',
    "anyOf": [
        {"type": "integer", "minimum": 1, "maximum": 10**12},
        {"type": "number", "exclusiveMinimum": 0, "maximum": 10**12},
        {"type": "string", "pattern": r"^(?=.*[1-9])[0-9]{1,15}(\.[0-9]{1,6})?[kM]?$"},
    ],
}
TIME: Final[Schema] = {
    "description": "Unix seconds, or ISO 8601 with an offset; it must be still to come",
    "anyOf": [{"type": "integer", "exclusiveMinimum": 0}, {"type": "string", "format": "date-time"}, {"type": "null"}],
}
LIMITS: Final = maybe(
    {
        "type": "object",
        "properties": {kind: maybe(json_schema(number())) for kind in ("rpm", "tpm", "concurrency")},
        "additionalProperties": False,
    }
)
CAPS_ASKED: Final = {
    "type": "object",
    "description": "all of its own caps at once, beside those of its plan and packages",
    "properties": {window: {**json_schema(CAP), "type": "object", "minProperties": 1} for window in CAPS.keys},
    "additionalProperties": False,
}
_WORDS: Final = {"type": "array", "items": text(MAX_WORD_CHARS, 1), "minItems": 1, "maxItems": MAX_WORDS}
_SPAN: Final = {"type": "string", "pattern": r"^([01][0-9]|2[0-3]):[0-5][0-9]-([01][0-9]|2[0-3]):[0-5][0-9]$"}
_SPANS: Final = {**_WORDS, "items": {**_SPAN, "description": "of the day, from and to, which differ"}}
SCOPE_ASKED: Final = {
    "description": "what it pays for; null: everything",
    "anyOf": [
        {
            "type": "object",
            "properties": {
                field.name: _SPANS if field.name == "hours" else _WORDS
                for field in dataclasses.fields(Scope)
                if field.init
            },
            "additionalProperties": False,
        },
        {"type": "null"},
    ],
}
CARD: Final = {"type": "string", "description": f"{', '.join(CARDS)}, or one of rate_cards in routes.yaml"}
STATUS: Final = {"type": "string", "enum": list(STATUSES)}
ROLE: Final = {"type": "string", "enum": list(ROLES)}
LIMIT: Final = {**whole(0, 1000), "description": "objects a page, at least one"}
PAGES: Final[Mapping[str, Schema]] = {
    "after": {**text(256), "description": "`next` of the page before"},
    "limit": LIMIT,
}
NUMBERED_PAGES: Final[Mapping[str, Schema]] = {
    "after": {**whole(0, 2**53), "description": "`next` of the page before"},
    "limit": LIMIT,
}

# -- what is answered -----------------------------------------------------------------------------------------------

ERROR: Final = record(
    "Error",
    error=record(
        message=TEXT, type=TEXT, param=maybe(TEXT), code=TEXT,
        optional={
            "version": {"type": "string", "description": "with 412: the one that is in force"},
            "problems": {"type": "array", "description": "with 422: what is wrong with routes.yaml"},
        },
    ),
)  # fmt: skip
_TENANT: Final = {
    "id": TEXT, "plan": TEXT, "parent": maybe(TEXT), "tags": array(TEXT), "status": STATUS, "version": VERSION,
}  # fmt: skip
TENANT: Final = record("Tenant", **_TENANT)
CAP_SHOWN: Final = record(
    "Cap", account=TEXT, window=TEXT, unit=TEXT, limit=AMOUNT, used=AMOUNT, held=AMOUNT, left=AMOUNT,
    resets_at=maybe(INSTANT),
)  # fmt: skip
TENANT_WITH_CAPS: Final = record(
    "TenantWithCaps",
    **_TENANT,
    caps={**array(CAP_SHOWN), "description": "all that bind it, its ancestors' among them"},
)
LIMITS_SHOWN: Final = maybe({"type": "object", "additionalProperties": INTEGER})
KEY: Final = record(
    "Key", id=TEXT, name=TEXT, created_at=SECONDS, expires_at=maybe(SECONDS), revoked_at=maybe(SECONDS),
    limits=LIMITS_SHOWN,
)  # fmt: skip
NEW_KEY: Final = record(
    "NewKey", id=TEXT, key={"type": "string", "description": "shown this once"}, name=TEXT, tenant=TEXT,
    expires_at=maybe(SECONDS), limits=LIMITS_SHOWN,
)  # fmt: skip
DELETED: Final = record("Deleted", id=TEXT, deleted={"const": True})
SCOPE_SHOWN: Final = maybe({"type": "object", "additionalProperties": array(TEXT)})
GRANT: Final = record(
    "Grant", id=TEXT, tenant=TEXT, credits=AMOUNT, expires_at=maybe(SECONDS), priority=INTEGER, source_ref=maybe(TEXT),
    card=TEXT, scope=SCOPE_SHOWN,
)  # fmt: skip
_USED: Final = {
    "id": TEXT, "granted": AMOUNT, "available": AMOUNT, "reserved": AMOUNT, "spent": AMOUNT,
    "expires_at": maybe(INSTANT), "package": maybe(TEXT), "card": TEXT, "scope": SCOPE_SHOWN,
}  # fmt: skip
ALERT: Final = record(
    "Alert", id=TEXT, tenant=TEXT, package=TEXT, kind={"enum": ["prepaid", "payg"]}, level=TEXT, granted=AMOUNT,
    spent=AMOUNT, at=INSTANT,
)  # fmt: skip
USAGE: Final = record(
    "Usage", tenant=TEXT, available=AMOUNT, reserved=AMOUNT, spent=AMOUNT, grants=array(record("GrantUsed", **_USED)),
    ended=array(record("GrantEnded", **_USED, expired=AMOUNT, revoked=AMOUNT)), caps=array(CAP_SHOWN),
    payg=array(OBJECT), alerts=array(ALERT),
)  # fmt: skip
CHARGE: Final = record(
    "Charge", seq=INTEGER, charge_id=TEXT, request_id=TEXT, tenant=TEXT, account_path=array(TEXT), endpoint=TEXT,
    model_requested=TEXT, model_served=TEXT, backend=TEXT, rate_card=TEXT, card_version=INTEGER, price_version=INTEGER,
    status=TEXT, usage={"type": "object", "additionalProperties": INTEGER}, usage_source=TEXT, reserved=AMOUNT,
    charged=AMOUNT, overage=AMOUNT, debt=AMOUNT, loss=AMOUNT, parts=array(record(grant=TEXT, credits=AMOUNT)),
    flags=array(TEXT), opened_ms=INTEGER, closed_ms=INTEGER, split={"type": "array"}, hash=TEXT,
    optional={"cost": {**INTEGER, "description": "what it cost us; not shown to keys of one tenant"}},
)  # fmt: skip
WHY: Final = record(
    "Why", record=CHARGE, opened_at=INSTANT, price=maybe(OBJECT), grants=array(OBJECT), flags=array(OBJECT),
    other_charges=array(TEXT),
)  # fmt: skip
STATEMENT: Final = record(
    "Statement",
    **{"from": INSTANT, "to": INSTANT},
    tenant=TEXT, opening=AMOUNT, granted=AMOUNT, spent=AMOUNT, expired=AMOUNT, revoked=AMOUNT, closing=AMOUNT,
    reserved=AMOUNT, overage=AMOUNT, debt=AMOUNT, calls=INTEGER,
    by_model=array(record(model=TEXT, calls=INTEGER, credits=AMOUNT, usage=OBJECT)),
)  # fmt: skip
PACKAGE: Final = record(
    "Package", id=TEXT, credits=AMOUNT, every=maybe(TEXT), periods=maybe(INTEGER), valid_s=maybe({"type": "number"}),
    price=AMOUNT, rollover=AMOUNT, priority=INTEGER, once=BOOLEAN, caps=OBJECT, card=TEXT, scope=SCOPE_SHOWN,
    exhausted={"anyOf": [{"const": "block"}, OBJECT]}, alerts=array(TEXT),
)  # fmt: skip
_ORDER: Final = {
    "id": TEXT, "kind": TEXT, "tenant": TEXT, "package": maybe(TEXT), "quantity": INTEGER, "price": AMOUNT,
    "credits": AMOUNT, "of": maybe(TEXT), "subscription": maybe(TEXT), "created_at": SECONDS,
}  # fmt: skip
ORDER: Final = record("Order", **_ORDER)
ORDER_WITH_REST: Final = record("OrderWithRest", **_ORDER, left=AMOUNT, revoked=AMOUNT)
_SUBSCRIPTION: Final = {
    "id": TEXT, "tenant": TEXT, "package": TEXT, "quantity": INTEGER, "order": TEXT, "started_at": SECONDS,
    "ends_at": maybe(SECONDS), "status": {"enum": ["waiting", "active", "ended"]}, "version": VERSION,
}  # fmt: skip
SUBSCRIPTION: Final = record("Subscription", **_SUBSCRIPTION)
SUBSCRIPTION_CHANGED: Final = record("SubscriptionChanged", **_SUBSCRIPTION, change=maybe(ORDER))
BATCH: Final = record(
    "Batch", id=TEXT, package=TEXT, codes=INTEGER, redeemed=INTEGER, created_at=SECONDS, expires_at=maybe(SECONDS)
)
NEW_CODES: Final = record("NewCodes", id=TEXT, package=TEXT, expires_at=maybe(SECONDS), codes=array(TEXT))
RELOADED: Final = record(
    "Reloaded", result=TEXT, generation=INTEGER, changes=array(OBJECT), after_restart=array(TEXT), warnings=array(TEXT)
)
EXPLAINED: Final = record("Explained", candidates={"type": "array"}, order={"type": "array"})
CACHES: Final = record("Caches", data=array(OBJECT), next={"type": "null"})
PURGED: Final = record("Purged", purged=INTEGER, bytes=INTEGER)
ADMIN_KEY: Final = record(
    "AdminKey", id=TEXT, name=TEXT, role=ROLE, tenant=maybe(TEXT), made_by=TEXT, created_at=SECONDS,
    expires_at=maybe(SECONDS), revoked_at=maybe(SECONDS),
)  # fmt: skip
NEW_ADMIN_KEY: Final = {
    **ADMIN_KEY,
    "title": "NewAdminKey",
    "properties": {**ADMIN_KEY["properties"], "key": NEW_KEY["properties"]["key"]},
    "required": [*ADMIN_KEY["required"], "key"],
}
AUDIT_ENTRY: Final = record(
    "AuditEntry", number=INTEGER, at_ms=INTEGER, by=record(name=TEXT, role=TEXT, key=maybe(TEXT)), operation=TEXT,
    kind=TEXT, object=TEXT, tenant=maybe(TEXT), before=maybe(OBJECT), after=maybe(OBJECT), request_id=maybe(TEXT),
    hash=TEXT,
)  # fmt: skip
