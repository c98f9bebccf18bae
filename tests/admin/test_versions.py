"""Versions: who edits what another has changed meanwhile is told so, and nothing is lost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.admin.desk import Office
from tests.conftest import ADMIN_KEY, World

TENANT, SUBSCRIPTION = "tenants/ann", "subscriptions/s00000001"


async def test_an_edit_of_an_old_version_is_refused_with_the_one_in_force(office: Office) -> None:
    _, seen = await office.ask("GET", TENANT)
    _, other = await office.ask("PATCH", TENANT, {"caps": {"day": {"calls": 3}}, "version": seen["version"]})
    assert other["version"] != seen["version"]
    status, error = await office.ask("PATCH", TENANT, {"caps": {}, "version": seen["version"]})
    assert (status, error["code"], error["version"]) == (412, "version_mismatch", other["version"])
    assert (await office.ask("GET", TENANT))[1] == other
    assert (await office.ask("PATCH", TENANT, {"caps": {}, "version": other["version"]}))[0] == 200
    assert (await office.ask("PATCH", TENANT, {"status": "suspended"}))[0] == 200  # without one it works as ever


async def test_of_edits_at_once_one_wins(office: Office) -> None:
    _, seen = await office.ask("GET", TENANT)
    said = await asyncio.gather(
        *(office.ask("PATCH", TENANT, {"caps": {"day": {"calls": n}}, "version": seen["version"]}) for n in range(1, 6))
    )
    assert sorted(status for status, _ in said) == [200, 412, 412, 412, 412]
    assert len(await office.audit()) == 1


async def test_a_version_is_the_same_wherever_it_is_shown(office: Office) -> None:
    _, made = await office.ask("POST", "tenants", {"id": "new", "plan": "member", "tags": ["a"]})
    listed = {one["id"]: one["version"] for one in (await office.ask("GET", "tenants"))[1]["data"]}
    assert listed["new"] == made["version"] == (await office.ask("GET", "tenants/new"))[1]["version"]
    assert len(set(listed.values())) == len(listed)


async def test_a_subscription_has_one_too(office: Office) -> None:
    await office.ask("POST", "orders", {"order_id": "A-1", "tenant": "ann", "package": "home"})
    _, seen = await office.ask("GET", SUBSCRIPTION)
    asked = {"quantity": 2, "version": seen["version"]}
    status, changed = await office.ask("POST", f"{SUBSCRIPTION}/change", asked)
    assert (status, changed["quantity"]) == (200, 2)
    for verb in ("change", "cancel"):
        status, error = await office.ask("POST", f"{SUBSCRIPTION}/{verb}", {"version": seen["version"]})
        assert (status, error["version"]) == (412, changed["version"])


async def test_a_change_of_routes_yaml_is_another_version(office: Office) -> None:
    _, seen = await office.ask("GET", TENANT)
    office.ledger.follow({**office.ledger._plans}, {"ann": "wide"})
    assert (await office.ask("PATCH", TENANT, {"caps": {}, "version": seen["version"]}))[0] == 412


@pytest.mark.parametrize(
    ("if_match", "version", "status"),
    [
        ('"{}"', None, 200), ('"old", "{}"', None, 200), ("*", None, 200), ('"old"', None, 412), ('W/"{}"', None, 400),
        ("{}", None, 400), ("", None, 400), ('"{}"', "{}", 200), ('"{}"', "old", 400), (None, 5, 400), (None, "", 400),
    ],
)  # fmt: skip
async def test_if_match(office: Office, if_match: str | None, version: Any, status: int) -> None:
    current = (await office.ask("GET", TENANT))[1]["version"]
    body = {"status": "suspended"}
    if version is not None:
        body["version"] = version.format(current) if isinstance(version, str) else version
    header = None if if_match is None else if_match.format(current)
    assert (await office.ask("PATCH", TENANT, body, if_match=header))[0] == status
    assert (await office.ask("GET", TENANT))[1]["status"] == ("suspended" if status == 200 else "active")


async def test_what_is_not_edited_takes_no_version(office: Office) -> None:
    status, error = await office.ask("POST", "tenants/ann/keys", {"version": "x"})
    assert (status, error["param"]) == (400, "version")
    assert (await office.ask("POST", "tenants/ann/keys", {}, if_match='"x"'))[0] == 201


async def test_the_etag_of_an_answer_is_its_version(world: World) -> None:
    headers, url = {"authorization": f"Bearer {ADMIN_KEY}"}, f"{world.url}/admin/v1/tenants/demo"
    async with world.http.get(url, headers=headers) as answer:
        etag = answer.headers["etag"]
        assert etag == f'"{(await answer.json())["version"]}"'
    async with world.http.patch(url, headers=headers | {"if-match": '"old"'}, json={"caps": {}}) as answer:
        assert (answer.status, (await answer.json())["error"]["version"]) == (412, etag.strip('"'))
    async with world.http.patch(url, headers=headers | {"if-match": etag}, json={"caps": {}}) as answer:
        assert answer.status == 200
