"""All operations of the admin API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gateway.admin import keys, openapi, running, sales, tenants
from gateway.admin.desk import Desk, Wish
from gateway.admin.operations import Answer, Operation


async def _document(desk: Desk, wish: Wish) -> Answer:
    return 200, openapi.document(offered(desk))


OPERATIONS: Final = (
    *tenants.OPERATIONS,
    *sales.OPERATIONS,
    *keys.OPERATIONS,
    *running.OPERATIONS,
    Operation("openapi", "GET", "openapi.json", "this API as an OpenAPI 3.1 document", _document,
              {200: {"type": "object"}}),
)  # fmt: skip


def offered(desk: Desk) -> Sequence[Operation]:
    return [one for one in OPERATIONS if not one.needs or getattr(desk, one.needs) is not None]
