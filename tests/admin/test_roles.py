"""Every operation of the table, asked by every role of its own tenant and of others; and what nobody gives away."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.admin.bounds import stronger
from gateway.admin.operations import Operation
from gateway.admin.table import OPERATIONS
from gateway.charging.admins import CLI, OPERATOR, ROOT, TENANT_ADMIN, VIEWER, By
from gateway.charging.ledger import open_ledger
from gateway.config.model import Limits, Plan, PlanGrant
from gateway.errors import InvalidKey, RateLimited, StoreUnavailable
from tests.admin.desk import PLANS, Office
from tests.test_admin import stored

WHO = ("root", "operator", "viewer", "viewer of acme", "admin of acme", "admin of team", "tenant")
OF_ONE = {"viewer of acme": "acme", "admin of acme": "acme", "admin of team": "team"}
ROLE = {"root": OPERATOR, "operator": OPERATOR, "viewer": VIEWER, "viewer of acme": VIEWER,
        "admin of acme": TENANT_ADMIN, "admin of team": TENANT_ADMIN, "tenant": "tenant"}  # fmt: skip
PAIRS = [(name, owner) for name in WHO for owner in (("acme", "ann", "other") if name in OF_ONE else ("ann",))]
MONTH = "2023-11"  # in which the clock begins, and which has ended when things are there
MAY = {VIEWER: {OPERATOR, TENANT_ADMIN, VIEWER}, TENANT_ADMIN: {OPERATOR, TENANT_ADMIN}, OPERATOR: {OPERATOR}}


class Things:
    """One of each kind that `owner` has, and a body for each operation."""

    def __init__(self, owner: str, names: dict[str, str], code: str) -> None:
        self.owner = owner
        self.names = names
        self.bodies: dict[str, Any] = {
            "tenant.add": {"id": "new", "plan": "member", "parent": owner},
            "tenant.edit": {"status": "suspended"},
            "grant.add": {"credits": 1},
            "order.place": {"order_id": "A-9", "tenant": owner, "package": "pack"},
            "order.compensate": {"order_id": "C-9", "credits": 1},
            "code.redeem": {"code": code},
            "code.make": {"package": "pack"},
            "statement.cut": {"month": MONTH},
            "admin_key.add": {"name": "n", "role": "viewer", "tenant": owner},
            "explain": {"body": {}},
        }

    def path(self, operation: Operation) -> str:
        return operation.path.format(**self.names)


async def things(office: Office, owner: str) -> Things:
    _, key = await office.ask("POST", f"tenants/{owner}/keys", {})
    _, order = await office.ask("POST", "orders", {"order_id": f"o-{owner}", "tenant": owner, "package": "home"})
    _, batch = await office.ask("POST", "codes", {"package": "pack"})
    _, admin_key = await office.ask("POST", "admin-keys", {"name": "k", "role": "viewer", "tenant": owner})
    await office.ask("POST", "orders", {"order_id": f"t-{owner}", "tenant": owner, "package": "tiny"})
    await office.charge(owner, len(owner))  # all of what is tiny, which is an alert
    office.clock.advance(18 * 86_400)
    names = {
        "tenant": owner, "key": key["id"], "order": order["id"], "subscription": order["subscription"],
        "admin_key": admin_key["id"], "charge": f"c{len(owner)}", "month": MONTH,
    }  # fmt: skip
    return Things(owner, names, batch["codes"][0])


async def who(office: Office, name: str) -> By:
    if name == "root":
        return ROOT
    if name == "tenant":
        return By("acme", "tenant", "acme")
    return await office.key(ROLE[name], OF_ONE.get(name))


def seen(name: str, owner: str) -> bool:
    """Whether what `owner` has is in the part of the tree of this key."""
    return name not in OF_ONE or owner in {"acme": ("acme", "team", "ann"), "team": ("team", "ann")}[OF_ONE[name]]


def expected(operation: Operation, name: str, owner: str) -> set[int]:
    if ROLE[name] not in MAY[operation.role] or (operation.everything and (name in OF_ONE or name == "tenant")):
        return {403}
    given = "{" in operation.path or operation.name in ("tenant.add", "admin_key.add")
    if given and not seen(name, owner):
        return {404}
    if operation.name == "tenant.edit" and OF_ONE.get(name) == owner:
        return {403}  # not of its own node
    return {200, 201}


@pytest.mark.parametrize(("name", "owner"), PAIRS, ids=lambda one: one)
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: one.name)
async def test_every_operation_by_every_role(office: Office, operation: Operation, name: str, owner: str) -> None:
    its, by = await things(office, owner), await who(office, name)
    before = len(await office.audit(limit="1000"))
    body = its.bodies.get(operation.name, {}) if operation.body is not None else None
    status, value = await office.ask(operation.method, its.path(operation), body, by)
    assert status in expected(operation, name, owner), value
    entries = await office.audit(after=str(before))
    changes = operation.method != "GET" and operation.name not in ("explain", "configuration.reload") and status < 300
    if changes and operation.name != "subscription.change":  # which was asked for nothing else
        assert [(entry["operation"], entry["by"]["role"]) for entry in entries] == [(operation.name, ROLE[name])]
        assert entries[0]["request_id"] == "req-1"
    else:
        assert entries == []


def test_the_walk_knows_every_role_of_the_table() -> None:
    assert {operation.role for operation in OPERATIONS} <= MAY.keys()


LISTS = [one for one in OPERATIONS if one.method == "GET" and "{" not in one.path and "after" in one.query]


@pytest.mark.parametrize("operation", [one for one in LISTS if not one.everything], ids=lambda one: one.name)
async def test_a_list_has_what_the_key_sees(office: Office, operation: Operation) -> None:
    for owner in ("acme", "ann", "other"):
        await things(office, owner)
    by = await office.key(VIEWER, "team")
    _, page = await office.ask("GET", operation.path, None, by)
    owners = {one["id"] if operation.name == "tenant.list" else one["tenant"] for one in page["data"]}
    assert owners <= {"team", "ann"}
    assert "ann" in owners
    if "tenant" in operation.query:
        assert (await office.ask("GET", operation.path, None, by, tenant="other"))[0] == 404
        assert (await office.ask("GET", operation.path, None, by, tenant="ghost"))[0] == 404


async def test_what_is_hidden_and_what_is_not_there_are_told_in_the_same_words(office: Office) -> None:
    await things(office, "other")
    by = await office.key(TENANT_ADMIN, "acme")
    for path, there, none in (
        ("tenants/{}", "other", "ghost"),
        ("orders/{}", "o-other", "o-ghost"),
        ("subscriptions/{}", "s00000001", "s00000009"),
        ("charges/{}", "c5", "c9"),
    ):
        hidden, gone = [await office.ask("GET", path.format(name), None, by) for name in (there, none)]
        assert (hidden[0], hidden[1]["message"].replace(there, none)) == (404, gone[1]["message"])


async def test_what_a_call_cost_the_operator_is_not_for_its_customers(office: Office) -> None:
    await office.charge("ann", 1)
    by = await office.key(VIEWER, "acme")
    for who_asks, shown in ((CLI, True), (by, False)):
        [record] = (await office.ask("GET", "tenants/ann/charges", None, who_asks))[1]["data"]
        explained = (await office.ask("GET", "charges/c1", None, who_asks))[1]["record"]
        assert ("cost" in record, "cost" in explained) == (shown, shown)


async def test_the_tree_as_it_is_now_says_who_sees_what(office: Office) -> None:
    by = await office.key(VIEWER, "acme")
    assert (await office.ask("GET", "tenants/ann", None, by))[0] == 200
    await office.ask("PATCH", "tenants/team", {"parent": "other"})
    assert (await office.ask("GET", "tenants/ann", None, by))[0] == 404


# -- keys -----------------------------------------------------------------------------------------------------------


async def test_a_key_ends_when_it_is_revoked_or_expires(office: Office) -> None:
    _, made = await office.ask("POST", "admin-keys", {"name": "bo", "role": "viewer"})
    assert office.holder(made["key"]) == By("bo", VIEWER, None, made["id"])
    await office.ask("DELETE", f"admin-keys/{made['id']}")
    with pytest.raises(InvalidKey):
        office.holder(made["key"])
    end = office.clock.wall_ms() // 1000 + 60
    _, made = await office.ask("POST", "admin-keys", {"name": "bo", "role": "viewer", "expires_at": end})
    office.clock.advance(59)
    assert office.holder(made["key"]).role == VIEWER
    office.clock.advance(1)
    with pytest.raises(InvalidKey):
        office.holder(made["key"])


async def test_wrong_keys_are_slowed_and_right_ones_are_heard(office: Office) -> None:
    _, made = await office.ask("POST", "admin-keys", {"name": "bo", "role": "viewer"})
    for number in range(10):
        with pytest.raises(InvalidKey):
            office.holder(f"adm-{number}")
    with pytest.raises(RateLimited):
        office.holder("adm-10")
    assert office.holder(made["key"]).name == "bo"


async def test_while_the_ledger_is_away_only_the_root_is_known_and_guesses_are_slowed(
    office: Office,
) -> None:
    _, made = await office.ask("POST", "admin-keys", {"name": "bo", "role": "viewer"})
    office.ledger._broken = True
    assert office.admin.verify("r00t", "x", "r00t") == ROOT
    for _ in range(10):
        with pytest.raises(StoreUnavailable):
            office.holder(made["key"])
    with pytest.raises(RateLimited):
        office.holder("adm-guess")
    office.ledger._broken = False
    assert office.holder(made["key"]).name == "bo"


async def test_a_key_is_kept_as_its_hash_and_survives_a_restart(office: Office) -> None:
    _, made = await office.ask("POST", "admin-keys", {"name": "bo", "role": "tenant-admin", "tenant": "acme"})
    kept = stored(Path(office.path).parent)
    assert made["id"].encode() in kept
    assert made["key"].encode() not in kept
    listed = (await office.ask("GET", "admin-keys"))[1]
    assert made["key"] not in str(listed)
    await office.ledger.aclose()
    from_file = await reopened(office)
    assert from_file.holder(made["key"]).tenant == "acme"
    assert (await from_file.ask("GET", "admin-keys"))[1] == listed
    office.ledger = from_file.ledger


async def reopened(office: Office) -> Office:
    return Office(await open_ledger(office.path, office.clock, "Asia/Shanghai", PLANS), office.clock, office.path)


BAD_KEYS: list[tuple[dict[str, Any], str]] = [
    ({"role": "viewer"}, "name"),
    ({"name": "", "role": "viewer"}, "name"),
    ({"name": " ", "role": "viewer"}, "name"),
    ({"name": "x" * 65, "role": "viewer"}, "name"),
    ({"name": "x"}, "role"),
    ({"name": "x", "role": "root"}, "role"),
    ({"name": "x", "role": "operator", "tenant": "acme"}, "tenant"),
    ({"name": "x", "role": "tenant-admin"}, "tenant"),
    ({"name": "x", "role": "viewer", "tenant": 5}, "tenant"),
    ({"name": "x", "role": "viewer", "expires_at": 5}, "expires_at"),
]


@pytest.mark.parametrize(("asked", "param"), BAD_KEYS, ids=str)
async def test_a_bad_key_is_not_made(office: Office, asked: dict[str, Any], param: str) -> None:
    status, error = await office.ask("POST", "admin-keys", asked)
    assert (status, error["param"]) == (400, param)
    assert (await office.ask("GET", "admin-keys"))[1]["data"] == []


async def test_no_key_makes_a_stronger_one(office: Office) -> None:
    admin = await office.key(TENANT_ADMIN, "team", expires_at=office.clock.wall_ms() // 1000 + 60)
    for asked, status in (
        ({"role": "operator"}, 403),
        ({"role": "viewer"}, 403),
        ({"role": "viewer", "tenant": "acme"}, 404),
        ({"role": "tenant-admin", "tenant": "other"}, 404),
        ({"role": "viewer", "tenant": "ann", "expires_at": office.clock.wall_ms() // 1000 + 61}, 403),
        ({"role": "viewer", "tenant": "ann", "expires_at": office.clock.wall_ms() // 1000 + 30}, 201),
    ):
        assert (await office.ask("POST", "admin-keys", {"name": "x", **asked}, admin))[0] == status
    below = await office.key(TENANT_ADMIN, "ann", by=admin)
    assert below.expires_ms == admin.expires_ms
    for made in (await office.ask("GET", "admin-keys", None, admin))[1]["data"]:
        assert made["expires_at"] * 1000 <= (admin.expires_ms or 0)
    assert (await office.ask("DELETE", f"admin-keys/{admin.key_id}", None, below))[0] == 404


# -- what a tenant admin may give -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plan", "parent", "status"),
    [("member", "team", 201), ("member", "acme", 201), ("member", None, 403), ("member", "other", 404),
     ("member", "ghost", 404), ("company", "acme", 403), ("wide", "acme", 403), ("none", "acme", 400)],
)  # fmt: skip
async def test_a_tenant_admin_adds_members_with_no_more_than_it_has(
    office: Office, plan: str, parent: str | None, status: int
) -> None:
    by = await office.key(TENANT_ADMIN, "acme")
    asked = {"id": "new", "plan": plan, "parent": parent}
    assert (await office.ask("POST", "tenants", asked, by))[0] == status
    assert (await office.ask("GET", "tenants/new"))[0] == (200 if status == 201 else 404)


@pytest.mark.parametrize(
    ("tenant", "asked", "status"),
    [
        ("ann", {"status": "suspended"}, 200),
        ("ann", {"parent": "acme"}, 200),
        ("ann", {"parent": None}, 403),
        ("ann", {"parent": "other"}, 404),
        ("ann", {"plan": "company"}, 403),
        ("ann", {"plan": "member"}, 200),
        ("ann", {"plan": "none"}, 400),
        ("ann", {"caps": {"day": {"calls": 4}}}, 200),
        ("ann", {"caps": {"day": {"calls": 6}}}, 403),
        ("ann", {"caps": {"month": {"calls": 600}, "day": {"credits": "5M"}}}, 200),
        ("ann", {"caps": {}}, 200),
        ("acme", {"caps": {}}, 403),
        ("acme", {"status": "active"}, 403),
        ("other", {"status": "active"}, 404),
    ],
    ids=str,
)
async def test_a_tenant_admin_edits_members_within_what_it_has(
    office: Office, tenant: str, asked: dict[str, Any], status: int
) -> None:
    by, before = await office.key(TENANT_ADMIN, "acme"), (await office.ask("GET", f"tenants/{tenant}"))[1]
    assert (await office.ask("PATCH", f"tenants/{tenant}", asked, by))[0] == status
    if status != 200:
        assert (await office.ask("GET", f"tenants/{tenant}"))[1] == before


async def test_caps_of_what_was_sold_are_not_lifted(office: Office) -> None:
    await office.ask("POST", "orders", {"order_id": "o", "tenant": "ann", "package": "home"})
    by = await office.key(TENANT_ADMIN, "acme")
    assert (await office.ask("PATCH", "tenants/ann", {"caps": {"5h": {"calls": 101}}}, by))[0] == 403
    assert (await office.ask("PATCH", "tenants/ann", {"caps": {"5h": {"calls": 100}}}, by))[0] == 200
    assert (await office.ask("PATCH", "tenants/ann", {"caps": {"5h": {"calls": 101}}}, CLI))[0] == 200


OWN = Plan("own", limits=Limits(rpm=60), allow=frozenset({"small"}), max_output=100, priority=50, weight=2)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({}, ""),
        ({"limits": Limits(rpm=59, tpm=5)}, ""),
        ({"limits": Limits()}, "has wider limits"),
        ({"limits": Limits(rpm=61)}, "has wider limits"),
        ({"allow": None}, "allows more models"),
        ({"allow": frozenset({"small", "large"})}, "allows more models"),
        ({"allow": frozenset()}, ""),
        ({"max_output": None}, "has longer answers"),
        ({"priority": 49}, "comes first"),
        ({"weight": 3}, "comes first"),
        ({"exhausted": "payg"}, "goes on when it is exhausted"),
        ({"grants": (PlanGrant(1, "day"),)}, "has grants"),
    ],
    ids=str,
)
def test_what_makes_a_plan_stronger(change: dict[str, Any], what: str) -> None:
    assert stronger(replace(OWN, **change), OWN) == what
    assert stronger(replace(OWN, allow=frozenset({"any"})), replace(OWN, allow=None)) == ""
