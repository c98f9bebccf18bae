"""What is asked of a gateway that runs: reload, explain, one charge, caches. Operations of the admin API."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote

from gateway.admin import schemas
from gateway.admin.desk import Desk, Wish
from gateway.admin.operations import Answer, Operation
from gateway.admin.tenants import without_cost
from gateway.cache.caches import Caches
from gateway.charging.admins import OPERATOR
from gateway.charging.audited import note
from gateway.charging.image import Image
from gateway.charging.why import unknown
from gateway.errors import InvalidValue, NotFound
from gateway.explain.asked import ENDPOINTS

PURGED_BY: Final = ("cache", "tenant", "model")


async def reload(desk: Desk, wish: Wish) -> Answer:
    assert desk.reload is not None
    return 200, await desk.reload(wish.by, wish.request_id)


async def explain(desk: Desk, wish: Wish) -> Answer:
    assert desk.explain is not None
    return 200, await desk.explain(wish.body)


async def why(desk: Desk, wish: Wish) -> Answer:
    assert desk.why is not None
    charge_id = unquote(wish.path["charge"])
    found = await asyncio.to_thread(desk.why, charge_id)
    if wish.by.tenant is None:
        return 200, found
    record = found["record"]
    if not desk.sees(wish.by, record["tenant"]):
        raise unknown(charge_id)
    return 200, {**found, "record": without_cost(record)}


async def show_caches(desk: Desk, wish: Wish) -> Answer:
    assert desk.caches is not None
    return 200, {"data": desk.caches.look(), "next": None}


async def purge(desk: Desk, wish: Wish) -> Answer:
    """Lets go what `cache`, `tenant` and `model` name; all without them."""
    assert desk.caches is not None
    for field in wish.query:
        if field not in PURGED_BY:
            raise InvalidValue(f"There is no such filter. Known: {', '.join(PURGED_BY)}.", param=field[:64])
    cache, tenant, _ = by = tuple(map(wish.query.get, PURGED_BY))
    if cache is not None and cache not in desk.caches.names():
        raise NotFound(f"no cache {cache[:64]!r}")
    if tenant is not None:
        desk.ledger.tenant(tenant)
    purged, receipt = desk.ledger.change(_purge, desk.caches, wish, by)
    await receipt
    return 200, purged


def _purge(
    image: Image, caches: Caches, wish: Wish, by: tuple[str | None, str | None, str | None], now_ms: int
) -> dict[str, Any]:
    entries, size = caches.purge(*by)
    purged = {"purged": entries, "bytes": size}
    after = {**wish.query, **purged}
    note(image, wish.by, wish.operation, wish.request_id, "cache", by[0] or "", by[1], None, after, now_ms)
    return purged


_HEADERS: Final = {"type": "object", "additionalProperties": schemas.TEXT}
_CALL: Final = {"anyOf": [schemas.OBJECT, schemas.TEXT], "description": "what a client would send, or its bytes"}
_ASKED: Final[Mapping[str, schemas.Schema]] = {
    "body": _CALL,
    "tenant": schemas.maybe(schemas.TEXT),
    "endpoint": {"enum": list(ENDPOINTS)},
    "headers": _HEADERS,
}
OPERATIONS: Final = (
    Operation("configuration.reload", "POST", "reload", "routes.yaml is read again; what has changed", reload,
              {200: schemas.RELOADED}, role=OPERATOR, body={}, errors=(422,), needs="reload"),
    Operation("explain", "POST", "explain", "why a call would go where", explain, {200: schemas.EXPLAINED},
              body=_ASKED, required=("body",), errors=(404,), everything=True, needs="explain"),
    Operation("charge.why", "GET", "charges/{charge}", "one charge explained, by its id or that of its request", why,
              {200: schemas.WHY}, needs="why"),
    Operation("cache.show", "GET", "cache", "entries, bytes and lookups of each cache", show_caches,
              {200: schemas.CACHES}, everything=True, needs="caches"),
    Operation("cache.purge", "DELETE", "cache", "answers are let go", purge, {200: schemas.PURGED}, role=OPERATOR,
              query=dict.fromkeys(PURGED_BY, schemas.TEXT), errors=(404,), everything=True, needs="caches"),
)  # fmt: skip
