"""The audit log: an entry for each change, in its commit; none for what was refused or had been done before."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from typing import Any

import pytest

from gateway.charging import audited
from gateway.charging.admins import TENANT_ADMIN, VIEWER, By
from gateway.charging.audit import audit
from gateway.errors import StoreUnavailable
from tests.admin.desk import Office
from tests.admin.test_roles import reopened
from tests.charging.older import as_version


async def test_an_entry_says_who_did_what_to_what(office: Office) -> None:
    by = await office.key(TENANT_ADMIN, "acme")
    await office.ask("PATCH", "tenants/ann", {"status": "suspended", "caps": {"day": {"calls": 3}}}, by)
    made, edited = await office.audit()
    assert (made["operation"], made["kind"], made["object"], made["before"]) == (
        "admin_key.add",
        "admin key",
        by.key_id,
        None,
    )
    assert made["by"] == {"name": "cli", "role": "operator", "key": None}
    shown = {"id": "ann", "plan": "member", "parent": "team", "tags": [], "status": "active", "caps": {}}
    assert edited == {
        "number": 2, "at_ms": office.clock.wall_ms(), "operation": "tenant.edit", "kind": "tenant", "object": "ann",
        "by": {"name": "tenant-admin of acme", "role": TENANT_ADMIN, "key": by.key_id}, "tenant": "ann",
        "before": shown, "after": {**shown, "status": "suspended", "caps": {"day": {"calls": "3"}}},
        "request_id": "req-1", "hash": edited["hash"],
    }  # fmt: skip


async def test_what_was_refused_or_changes_nothing_leaves_no_entry(office: Office) -> None:
    sold = {"order_id": "A-1", "tenant": "ann", "package": "home"}
    _, key = await office.ask("POST", "tenants/ann/keys", {})
    _, batch = await office.ask("POST", "codes", {"package": "pack"})
    done: list[tuple[str, str, Any]] = [
        ("POST", "orders", sold),
        ("POST", "orders/A-1/refund", {"credits": 5}),
        ("POST", "tenants/ann/compensations", {"order_id": "C-1", "credits": 1}),
        ("POST", "tenants/ann/grants", {"credits": 1, "source_ref": "r"}),
        ("POST", "tenants/ann/redeem", {"code": batch["codes"][0]}),
        ("POST", "subscriptions/s00000001/change", {"quantity": 2, "order_id": "U-1"}),
        ("POST", "subscriptions/s00000001/cancel", {}),
        ("DELETE", f"tenants/ann/keys/{key['id']}", None),
        ("PATCH", "tenants/ann", {"status": "suspended"}),
    ]
    for method, path, body in done:
        before = len(await office.audit())
        assert (await office.ask(method, path, body))[0] in (200, 201)
        assert len(await office.audit()) == before + 1, path
    before = len(await office.audit())
    for method, path, body in done:
        assert (await office.ask(method, path, body))[0] == 200
    refused: list[tuple[str, str, Any, int]] = [
        ("POST", "orders", {**sold, "quantity": 2}, 409),
        ("POST", "tenants", {"id": "ann", "plan": "member"}, 409),
        ("PATCH", "tenants/ann", {"parent": "ann"}, 409),
        ("PATCH", "tenants/ann", {"status": "gone"}, 400),
        ("POST", "tenants/ann/redeem", {"code": "none"}, 404),
        ("POST", "admin-keys", {"name": "x", "role": "boss"}, 400),
        ("DELETE", "admin-keys/adm_000009", None, 404),
    ]
    for method, path, body, status in refused:
        assert (await office.ask(method, path, body))[0] == status
    assert len(await office.audit()) == before


async def test_a_change_of_a_subscription_says_what_it_was_and_what_it_came_to(office: Office) -> None:
    await office.ask("POST", "orders", {"order_id": "A-1", "tenant": "ann", "package": "home"})
    before = (await office.ask("GET", "subscriptions/s00000001"))[1]
    asked = {"quantity": 2, "order_id": "U-1"}
    changed = (await office.ask("POST", "subscriptions/s00000001/change", asked))[1]
    *_, entry = await office.audit()
    assert (entry["kind"], entry["object"], entry["tenant"]) == ("subscription", "s00000001", "ann")
    order = changed.pop("change")
    assert (entry["before"], entry["after"]) == (before, {**changed, "made": order})


async def test_no_secret_is_in_it(office: Office) -> None:
    _, key = await office.ask("POST", "tenants/ann/keys", {})
    _, admin_key = await office.ask("POST", "admin-keys", {"name": "x", "role": "viewer"})
    _, batch = await office.ask("POST", "codes", {"package": "pack", "count": 3})
    await office.ask("POST", "tenants/ann/redeem", {"code": batch["codes"][0]})
    text = str(await office.audit())
    for secret in (key["key"], admin_key["key"], *batch["codes"]):
        assert secret not in text
    for table in ("keys", "admin_keys"):
        with closing(sqlite3.connect(office.path)) as connection:
            for (hashed,) in connection.execute(f"SELECT key_hash FROM {table}"):
                assert hashed[:12] not in text


async def test_a_tenant_that_redeems_is_named(office: Office) -> None:
    _, batch = await office.ask("POST", "codes", {"package": "pack"})
    await office.admin.redeem("ann", b'{"code": "%b"}' % batch["codes"][0].encode(), "req-7")
    *_, entry = await office.audit()
    assert entry["by"] == {"name": "ann", "role": "tenant", "key": None}
    assert (entry["operation"], entry["tenant"], entry["request_id"]) == ("code.redeem", "ann", "req-7")


async def test_it_is_read_in_pages_and_by_tenant(office: Office) -> None:
    for number in range(7):
        await office.ask("POST", f"tenants/{'ann' if number % 2 else 'other'}/keys", {})
    seen: list[int] = []
    after: int | None = 0
    while after is not None:
        _, page = await office.ask("GET", "audit", after=str(after), limit="3")
        seen += [entry["number"] for entry in page["data"]]
        after = page["next"]
    assert seen == [1, 2, 3, 4, 5, 6, 7]
    assert [entry["number"] for entry in await office.audit(tenant="ann")] == [2, 4, 6]
    by = await office.key(VIEWER, "team")
    assert [entry["number"] for entry in await office.audit(by)] == [2, 4, 6, 8]
    assert (await office.ask("GET", "audit", after="x"))[0] == 400
    assert (await office.ask("GET", "audit", limit="x"))[0] == 400


async def test_a_change_that_is_not_durable_has_no_entry(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    await office.ask("POST", "tenants/ann/keys", {})
    with monkeypatch.context() as broken:
        broken.setattr(office.ledger._store, "_execute", _fails)
        broken.setattr(office.ledger._store._spool, "append", _fails)
        assert (await office.ask("PATCH", "tenants/ann", {"status": "suspended"}))[0] == 503
    while not office.ledger.healthy:
        office.clock.advance(1)
        await _turn()
    assert (await office.ask("GET", "tenants/ann"))[1]["status"] == "active"
    await office.ask("POST", "tenants/ann/keys", {})
    assert [entry["operation"] for entry in await office.audit()] == ["key.add", "key.add"]


async def test_a_change_that_waits_in_the_spool_is_made(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(office.ledger._store, "_execute", _fails)
        assert (await office.ask("PATCH", "tenants/ann", {"status": "suspended"}))[0] == 200
        assert (await office.ask("PATCH", "tenants/ann", {"status": "active"}))[
            0
        ] == 503  # while it is known to be down
    while not office.ledger.healthy:
        office.clock.advance(1)
        await _turn()
    assert (await office.ask("GET", "tenants/ann"))[1]["status"] == "suspended"
    assert [entry["operation"] for entry in await office.audit()] == ["tenant.edit"]


def _fails(*_: Any) -> str:
    raise sqlite3.OperationalError("disk I/O error")


async def _turn() -> None:
    await asyncio.sleep(0.001)


FORGED = [
    ("UPDATE audit SET name = 'nobody' WHERE number = 2", "audit entry 2 is not as it was written"),
    ("UPDATE audit SET after = NULL WHERE number = 3", "audit entry 3 is not as it was written"),
    ("DELETE FROM audit WHERE number = 2", "audit entry 3 follows entry 1"),
    ("DELETE FROM audit WHERE number = 3", "the audit log ends with entry 2, not as it was written with 3"),
    ("DELETE FROM audit", "the audit log ends with entry 0, not as it was written with 3"),
    ("DELETE FROM audit_head", "the audit log ends with entry 3, not as it was written with 0"),
]


@pytest.mark.parametrize(("statement", "says"), FORGED)
async def test_what_is_forged_is_found(office: Office, statement: str, says: str) -> None:
    for _ in range(3):
        await office.ask("POST", "tenants/ann/keys", {})
    assert audit(office.path) == []
    with closing(sqlite3.connect(office.path)) as connection:
        kept = list(connection.execute("SELECT * FROM audit")), list(connection.execute("SELECT * FROM audit_head"))
        connection.execute(statement)
        connection.commit()
        assert f"I16: {says}" in audit(office.path)
        for table, rows in zip(("audit", "audit_head"), kept, strict=True):
            connection.execute(f"DELETE FROM {table}")
            connection.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows[0]))})", rows)
        connection.commit()


async def test_the_chain_goes_on_after_a_restart(office: Office) -> None:
    await office.ask("POST", "tenants/ann/keys", {})
    await office.ledger.aclose()
    again = await reopened(office)
    office.ledger = again.ledger
    await again.ask("POST", "tenants/ann/keys", {})
    assert [entry["number"] for entry in await again.audit()] == [1, 2]
    assert audit(office.path) == []


async def test_a_ledger_of_an_earlier_gateway_gets_its_tables(office: Office) -> None:
    await office.ledger.aclose()
    as_version(office.path, 9)
    assert audit(office.path) == []
    assert audited.entries(office.path, 0, 10) == {"data": [], "next": None}
    again = await reopened(office)
    office.ledger = again.ledger
    await again.ask("POST", "tenants/ann/keys", {})
    assert len(await again.audit()) == 1


def test_a_file_that_cannot_be_read_is_told() -> None:
    with pytest.raises(StoreUnavailable):
        audited.entries("/nowhere/l.db", 0, 10)


def test_who_has_no_key_has_no_key_id() -> None:
    assert By("cli", "operator").key_id == ""
