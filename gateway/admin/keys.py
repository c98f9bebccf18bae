"""Keys of the admin API, and the audit log of what is done with them: operations of the admin API."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any, Final

from gateway.admin import bounds, schemas, shown
from gateway.admin.desk import Desk, Wish, sight
from gateway.admin.fields import is_text, query_int
from gateway.admin.kinds import ADMIN_KEY, TENANT
from gateway.admin.operations import Answer, Operation
from gateway.admin.shown import shown_admin_key
from gateway.admin.tenants import time_to_come
from gateway.charging import directory
from gateway.charging.admins import ROLES, TENANT_ADMIN
from gateway.charging.audited import entries
from gateway.charging.image import Image
from gateway.errors import InvalidValue
from gateway.tenants import key_hash

MAX_NAME_CHARS: Final = 64
PREFIX: Final = "adm-"


async def list_admin_keys(desk: Desk, wish: Wish) -> Answer:
    return 200, desk.ledger.look(_listed, wish)


def _listed(image: Image, wish: Wish, now_ms: int) -> dict[str, Any]:
    return shown.admin_keys(image, wish.query, now_ms, sight(image, wish.by))


async def add_admin_key(desk: Desk, wish: Wish) -> Answer:
    asked = wish.body
    name, role, tenant = asked.get("name"), asked.get("role"), asked.get("tenant")
    if not isinstance(name, str) or not name.strip() or not is_text(name, MAX_NAME_CHARS):
        raise InvalidValue(f"name says whose key it is, in 1 to {MAX_NAME_CHARS} characters.", param="name")
    if role not in ROLES:
        raise InvalidValue(f"role is one of {', '.join(ROLES)}.", param="role")
    if tenant is not None and not isinstance(tenant, str):
        raise InvalidValue("tenant is the id of one.", param="tenant")
    expires_ms = bounds.check_admin_key(desk, wish, role, tenant, time_to_come(desk, asked, "expires_at"))
    key = PREFIX + secrets.token_urlsafe(32)
    terms = key_hash(key), name, role, tenant, expires_ms, wish.by
    entry = await desk.change(wish, directory.add_admin_key, *terms, makes=ADMIN_KEY)
    return 201, {**shown_admin_key(entry), "key": key}


async def revoke_admin_key(desk: Desk, wish: Wish) -> Answer:
    """It is refused from here on, not from the commit."""
    key_id = wish.path["admin_key"]
    await desk.change(wish, directory.revoke_admin_key, key_id, edits=(ADMIN_KEY, key_id))
    return 200, {"id": key_id, "deleted": True}


async def list_audit(desk: Desk, wish: Wish) -> Answer:
    """Of `tenant`, or of all that the key sees."""
    after, limit = query_int(wish.query, "after", 0, 2**53), query_int(wish.query, "limit", 100, 1000)
    tenant, tenants = wish.query.get("tenant"), None
    if tenant is not None:
        desk.expect(wish, TENANT, tenant)
        tenants = [tenant]
    elif wish.by.tenant is not None:
        tenants = [account.id for account in desk.seen(wish.by)]
    return 200, await asyncio.to_thread(entries, desk.ledger.path, after, max(1, limit), tenants)


_KEY_FIELDS: Final = {
    "name": schemas.text(MAX_NAME_CHARS, 1),
    "role": schemas.ROLE,
    "tenant": {**schemas.maybe(schemas.TEXT), "description": "it sees this one and those below; null: all"},
    "expires_at": schemas.TIME,
}
OPERATIONS: Final = (
    Operation("admin_key.list", "GET", "admin-keys", "keys of this API, the revoked and expired ones too",
              list_admin_keys, {200: schemas.page(schemas.ADMIN_KEY, schemas.TEXT)}, query=schemas.PAGES),
    Operation("admin_key.add", "POST", "admin-keys", "a key no stronger than one's own, shown once", add_admin_key,
              {201: schemas.NEW_ADMIN_KEY}, role=TENANT_ADMIN, body=_KEY_FIELDS, required=("name", "role"),
              errors=(404,)),
    Operation("admin_key.revoke", "DELETE", "admin-keys/{admin_key}", "a key of this API stops working at once",
              revoke_admin_key, {200: schemas.DELETED}, role=TENANT_ADMIN),
    Operation("audit.list", "GET", "audit", "who changed what: before and after", list_audit,
              {200: schemas.page(schemas.AUDIT_ENTRY, schemas.INTEGER)},
              query={"tenant": {**schemas.TEXT, "description": "only what concerns this tenant"},
                     **schemas.NUMBERED_PAGES}),
)  # fmt: skip
