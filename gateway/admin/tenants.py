"""Tenants, their keys and grants, and what they have used: operations of the admin API."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any, Final

from gateway.admin import bounds, schemas
from gateway.admin.desk import Desk, Wish
from gateway.admin.fields import card_of, credits_uc, edit, id_of, is_text, key_limits, query_int, scope_of, time_ms
from gateway.admin.kinds import GRANT, KEY, TENANT
from gateway.admin.operations import Answer, Operation
from gateway.admin.shown import (
    listed,
    page_asked,
    page_of_months,
    seconds,
    shown,
    shown_grant,
    shown_key,
    shown_limits,
)
from gateway.charging import directory, views
from gateway.charging.admins import OPERATOR, TENANT_ADMIN
from gateway.charging.audited import note
from gateway.charging.image import Image
from gateway.charging.offers import STANDARD
from gateway.errors import InvalidValue
from gateway.tenants import key_hash

MAX_TAGS: Final = 64
MAX_TAG_CHARS: Final = 64
MAX_PRIORITY: Final = 1000
MAX_NAME_CHARS: Final = 128
MAX_REF_CHARS: Final = 200


async def list_tenants(desk: Desk, wish: Wish) -> Answer:
    return 200, listed(desk.seen(wish.by), wish.query, shown)


async def show_tenant(desk: Desk, wish: Wish) -> Answer:
    return 200, tenant_with_caps(desk, wish.path["tenant"])


def tenant_with_caps(desk: Desk, tenant: str) -> dict[str, Any]:
    return {**shown(desk.ledger.tenant(tenant)), "caps": desk.ledger.usage(tenant)["caps"]}


async def add_tenant(desk: Desk, wish: Wish) -> Answer:
    asked = wish.body
    tenant, plan, parent, tags = id_of(asked, "id"), asked.get("plan"), asked.get("parent"), asked.get("tags", [])
    plans = desk.plans()
    if not isinstance(plan, str) or plan not in plans:
        raise InvalidValue(f"There is no such plan. Known: {', '.join(plans)}.", param="plan")
    if parent is not None and not isinstance(parent, str):
        raise InvalidValue("parent is the id of a tenant.", param="parent")
    if not isinstance(tags, list) or len(tags) > MAX_TAGS or not all(is_text(tag, MAX_TAG_CHARS) for tag in tags):
        raise InvalidValue(
            f"tags is a list of at most {MAX_TAGS} strings of at most {MAX_TAG_CHARS} characters.", param="tags"
        )
    bounds.check_new(desk, wish.by, plans[plan], parent)
    account = await desk.change(wish, directory.add_account, tenant, plan, parent, tuple(tags), makes=TENANT)
    return 201, shown(account)


async def edit_tenant(desk: Desk, wish: Wish) -> Answer:
    """All that is asked, or nothing of it where one of it cannot be."""
    tenant, asked = wish.path["tenant"], edit(wish.body)
    desk.ledger.tenant(tenant)
    bounds.check_edit(desk, wish.by, tenant, asked)
    await desk.change(wish, directory.edit, tenant, asked, edits=(TENANT, tenant))
    return 200, tenant_with_caps(desk, tenant)


async def list_keys(desk: Desk, wish: Wish) -> Answer:
    tenant = desk.ledger.tenant(wish.path["tenant"])
    return 200, listed(desk.ledger.keys(tenant.id), wish.query, shown_key)


async def add_key(desk: Desk, wish: Wish) -> Answer:
    tenant, asked = desk.ledger.tenant(wish.path["tenant"]).id, wish.body
    key, expires_ms = "sk-moma-" + secrets.token_urlsafe(32), time_to_come(desk, asked, "expires_at")
    name = asked.get("name", "")
    if not is_text(name, MAX_NAME_CHARS):
        raise InvalidValue(f"name is a string of at most {MAX_NAME_CHARS} characters.", param="name")
    limits = key_limits(asked.get("limits"))
    terms = tenant, key_hash(key), name, expires_ms, limits
    entry = await desk.change(wish, directory.add_key, *terms, makes=KEY)
    return 201, {
        "id": entry.id,
        "key": key,
        "name": name,
        "tenant": tenant,
        "expires_at": seconds(expires_ms),
        "limits": shown_limits(limits),
    }


async def revoke_key(desk: Desk, wish: Wish) -> Answer:
    """It is refused from here on, not from the commit."""
    tenant, key_id = desk.ledger.tenant(wish.path["tenant"]).id, wish.path["key"]
    await desk.change(wish, directory.revoke_key, tenant, key_id, edits=(KEY, key_id))
    return 200, {"id": key_id, "deleted": True}


async def add_grant(desk: Desk, wish: Wish) -> Answer:
    tenant, asked = desk.ledger.tenant(wish.path["tenant"]).id, wish.body
    card, scope = card_of(asked.get("card", STANDARD), desk.cards()), scope_of(asked.get("scope"))
    priority = asked.get("priority", 30)
    if isinstance(priority, bool) or not isinstance(priority, int) or not 0 <= priority <= MAX_PRIORITY:
        raise InvalidValue(f"priority is a whole number from 0 to {MAX_PRIORITY}.", param="priority")
    source_ref = asked.get("source_ref")
    if source_ref is not None and (not source_ref or not is_text(source_ref, MAX_REF_CHARS)):
        raise InvalidValue(f"source_ref is a string of at most {MAX_REF_CHARS} characters.", param="source_ref")
    known = source_ref is not None and desk.ledger.look(directory.grant_of, tenant, source_ref) is not None
    # Whoever asks again gets the first grant, also after it has ended.
    expires_ms = time_ms(asked, "expires_at") if known else time_to_come(desk, asked, "expires_at")
    terms = credits_uc(asked.get("credits")), expires_ms, priority, source_ref, None, card, scope
    grant = await desk.change(wish, directory.add_grant, tenant, *terms, makes=GRANT)
    return (200 if known else 201), shown_grant(grant)


def time_to_come(desk: Desk, asked: dict[str, Any], field: str) -> int | None:
    at_ms = time_ms(asked, field)
    if at_ms is not None and at_ms <= desk.clock.wall_ms():
        raise InvalidValue(f"{field} has passed already.", param=field)
    return at_ms


async def show_usage(desk: Desk, wish: Wish) -> Answer:
    return 200, desk.ledger.usage(wish.path["tenant"])


async def list_charges(desk: Desk, wish: Wish) -> Answer:
    tenant = desk.ledger.tenant(wish.path["tenant"]).id
    after, limit = query_int(wish.query, "after", 0, 2**53), query_int(wish.query, "limit", 100, 1000)
    page = await asyncio.to_thread(desk.ledger.charges, tenant, after, max(1, limit))
    if wish.by.tenant is not None:
        page["data"] = [without_cost(record) for record in page["data"]]
    return 200, page


def without_cost(record: dict[str, Any]) -> dict[str, Any]:
    """What a backend charges the operator is not for its customers."""
    return {name: value for name, value in record.items() if name != "cost"}


async def show_statement(desk: Desk, wish: Wish) -> Answer:
    tenant = wish.path["tenant"]
    await desk.ledger.change(views.usage, tenant)[1]  # what was due by the clock is booked now
    span = wish.query.get("from"), wish.query.get("to")
    return 200, await asyncio.to_thread(desk.ledger.statement, tenant, *span)


async def list_statements(desk: Desk, wish: Wish) -> Answer:
    assert desk.statements is not None
    limit, after = page_asked(wish.query)
    return 200, page_of_months(await desk.statements.listed(wish.path["tenant"], after, limit + 1), limit)


async def show_month(desk: Desk, wish: Wish) -> Answer:
    assert desk.statements is not None
    return 200, await desk.statements.of_month(wish.path["tenant"], wish.path["month"])


async def cut_month(desk: Desk, wish: Wish) -> Answer:
    """Cuts it for all tenants, where it is not cut yet."""
    assert desk.statements is not None
    month, tenant = wish.body.get("month"), wish.path["tenant"]
    if not isinstance(month, str):
        raise InvalidValue("month is a month such as 2026-11.", param="month")
    found, new = await desk.statements.cut(tenant, month)
    if new:
        after = {"month": month, "sha256": found["sha256"]}
        await desk.ledger.change(_noted, wish, month, after)[1]
    return 201 if new else 200, found


def _noted(image: Image, wish: Wish, month: str, after: dict[str, Any], now_ms: int) -> None:
    note(image, wish.by, wish.operation, wish.request_id, "month", month, None, None, after, now_ms)


_DAY: Final = {"type": "string", "description": "a date or time; without an offset in the timezone of routes.yaml"}
_MONTH: Final = {"type": "string", "pattern": r"^[0-9]{4}-(0[1-9]|1[0-2])$"}
_TENANT_FIELDS: Final = {
    "id": schemas.ID,
    "plan": schemas.TEXT,
    "parent": schemas.maybe(schemas.TEXT),
    "tags": {"type": "array", "items": schemas.text(MAX_TAG_CHARS), "maxItems": MAX_TAGS},
}
_EDIT_FIELDS: Final = {
    "plan": schemas.TEXT,
    "parent": schemas.maybe(schemas.TEXT),
    "status": schemas.STATUS,
    "caps": schemas.CAPS_ASKED,
}
_KEY_FIELDS: Final = {
    "name": schemas.text(MAX_NAME_CHARS),
    "expires_at": schemas.TIME,
    "limits": schemas.LIMITS,
}
_GRANT_FIELDS: Final = {
    "credits": schemas.CREDITS,
    "expires_at": schemas.TIME,
    "priority": schemas.whole(0, MAX_PRIORITY),
    "source_ref": schemas.maybe(schemas.text(MAX_REF_CHARS, 1)),
    "card": schemas.CARD,
    "scope": schemas.SCOPE_ASKED,
}

OPERATIONS: Final = (
    Operation("tenant.list", "GET", "tenants", "all tenants", list_tenants,
              {200: schemas.page(schemas.TENANT, schemas.TEXT)}, query=schemas.PAGES),
    Operation("tenant.add", "POST", "tenants", "a new tenant", add_tenant, {201: schemas.TENANT},
              role=TENANT_ADMIN, body=_TENANT_FIELDS, required=("id", "plan"), errors=(404, 409)),
    Operation("tenant.show", "GET", "tenants/{tenant}", "one tenant", show_tenant, {200: schemas.TENANT_WITH_CAPS}),
    Operation("tenant.edit", "PATCH", "tenants/{tenant}", "plan, place, status and caps: all of it, or nothing",
              edit_tenant, {200: schemas.TENANT_WITH_CAPS}, role=TENANT_ADMIN, body=_EDIT_FIELDS, errors=(409,),
              edits=True),
    Operation("key.list", "GET", "tenants/{tenant}/keys", "its keys, the revoked and expired ones too", list_keys,
              {200: schemas.page(schemas.KEY, schemas.TEXT)}, query=schemas.PAGES),
    Operation("key.add", "POST", "tenants/{tenant}/keys", "a new key, shown once", add_key, {201: schemas.NEW_KEY},
              role=TENANT_ADMIN, body=_KEY_FIELDS),
    Operation("key.revoke", "DELETE", "tenants/{tenant}/keys/{key}", "a key stops working at once", revoke_key,
              {200: schemas.DELETED}, role=TENANT_ADMIN),
    Operation("grant.add", "POST", "tenants/{tenant}/grants",
              "credits; the same source_ref again returns the first grant", add_grant,
              {201: schemas.GRANT, 200: schemas.GRANT}, role=OPERATOR, body=_GRANT_FIELDS, required=("credits",)),
    Operation("usage.show", "GET", "tenants/{tenant}/usage", "available, reserved and spent now, by grant", show_usage,
              {200: schemas.USAGE}),
    Operation("charge.list", "GET", "tenants/{tenant}/charges", "charge records in order", list_charges,
              {200: schemas.page(schemas.CHARGE, schemas.INTEGER)}, query=schemas.NUMBERED_PAGES),
    Operation("statement.list", "GET", "tenants/{tenant}/statements", "months that are cut", list_statements,
              {200: schemas.page(schemas.OBJECT, schemas.TEXT)}, query=schemas.PAGES, needs="statements"),
    Operation("statement.cut", "POST", "tenants/{tenant}/statements", "cuts a month that has ended, for all tenants",
              cut_month, {201: schemas.STATEMENT, 200: schemas.STATEMENT}, role=OPERATOR,
              body={"month": _MONTH}, required=("month",), errors=(409,), needs="statements"),
    Operation("statement.month", "GET", "tenants/{tenant}/statements/{month}", "of a month: cut, or preliminary",
              show_month, {200: schemas.STATEMENT}, errors=(400,), needs="statements"),
    Operation("statement.show", "GET", "tenants/{tenant}/statement", "what it had, spent and has left", show_statement,
              {200: schemas.STATEMENT}, query={"from": _DAY, "to": _DAY}),
)  # fmt: skip
