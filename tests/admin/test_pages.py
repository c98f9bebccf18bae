"""Lists in pages: bounded, in one order whatever is added meanwhile, and wrong cursors are told."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.admin.operations import Operation
from gateway.admin.table import OPERATIONS
from tests.admin.desk import Office

PAGED = [one for one in OPERATIONS if "after" in one.query]
COMES_WHOLE = {"package.list", "cache.show"}  # of routes.yaml


def test_every_list_has_pages() -> None:
    lists = {one.name for one in OPERATIONS if "next" in one.answers.get(200, {}).get("properties", {})}
    assert lists - COMES_WHOLE == {one.name for one in PAGED}
    assert len(PAGED) >= 8


async def made(office: Office, operation: Operation, number: int) -> None:
    """One more of what is listed."""
    await office.ask("POST", "tenants", {"id": f"t{number}", "plan": "member", "parent": "ann"})
    await office.ask("POST", "tenants/acme/keys", {})
    await office.ask("POST", "orders", {"order_id": f"o{number}", "tenant": "ann", "package": "home"})
    await office.ask("POST", "codes", {"package": "pack"})
    await office.ask("POST", "admin-keys", {"name": "x", "role": "viewer"})
    await office.charge("acme", number)


@pytest.mark.parametrize("operation", PAGED, ids=lambda one: one.name)
async def test_what_is_added_meanwhile_neither_moves_nor_doubles_what_is_there(
    office: Office, operation: Operation
) -> None:
    path = operation.path.format(tenant="acme")
    for number in range(5):
        await made(office, operation, number)
    whole = [_name(one) for one in (await office.ask("GET", path, limit="1000"))[1]["data"]]
    seen: list[Any] = []
    page: dict[str, Any] = {"next": None}
    for number in range(5, 100):
        query: dict[str, Any] = {} if page["next"] is None else {"after": str(page["next"])}
        status, page = await office.ask("GET", path, limit="2", **query)
        assert (status, len(page["data"]) <= 2) == (200, True)
        seen += [_name(one) for one in page["data"]]
        if page["next"] is None:
            break
        if number < 8:
            await made(office, operation, number)
    assert len(seen) == len(set(seen))
    assert [name for name in seen if name in whole] == whole


def _name(one: dict[str, Any]) -> Any:
    return one.get("id") or one.get("number") or one["seq"]


@pytest.mark.parametrize("operation", PAGED, ids=lambda one: one.name)
@pytest.mark.parametrize(
    ("name", "value"), [("after", "a\nb"), ("after", "x" * 257), ("limit", "1001"), ("limit", "x")]
)
async def test_a_wrong_cursor_or_limit_is_told(office: Office, operation: Operation, name: str, value: str) -> None:
    query: dict[str, Any] = {name: value}
    status, error = await office.ask("GET", operation.path.format(tenant="acme"), **query)
    assert (status, error["param"]) == (400, name)
