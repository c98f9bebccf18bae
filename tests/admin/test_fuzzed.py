"""schemathesis against a gateway over real sockets: all operations, with good data and bad, by an operator and by a
tenant admin. What it answers is what the OpenAPI document says, and never a 5xx."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.admin.table import OPERATIONS
from gateway.charging.audit import audit
from gateway.config.model import Limits
from tests.conftest import ADMIN_KEY, World
from tests.fuzzing import SHORT_AND_LONG, fuzz
from tests.test_sales import SOLD

EXAMPLES = (12, 200)  # an operation and phase; the second for test-long
REACHED = {"operator": 10, "tenant-admin": 3}  # operations that have changed something: not all data is refused
UNKNOWABLE = "positive_data_acceptance"  # what is well formed may be no plan of routes.yaml, or have passed


async def ask(world: World, method: str, path: str, body: Any = None) -> Any:
    headers = {"authorization": f"Bearer {ADMIN_KEY}"}
    async with world.http.request(method, f"{world.url}/admin/v1/{path}", json=body, headers=headers) as answer:
        assert answer.status in (200, 201), await answer.text()
        return await answer.json()


async def stocked(world: World) -> dict[str, list[str]]:
    """Something of each kind is there: the values of parameters that lead to it."""
    routes = world.path / "routes.yaml"
    routes.write_text(routes.read_text() + SOLD + "cache: {short: {mode: exact, ttl: 10m}}\n")
    await ask(world, "POST", "reload")
    _, _, headers = await world.chat()
    tenants = [f"t{number}" for number in range(6)]
    for name in tenants:
        await ask(world, "POST", "tenants", {"id": name, "plan": "empty", "parent": "demo"})
    keys = [(await ask(world, "POST", "tenants/t0/keys", {}))["id"] for _ in range(2)]
    asked = {"name": "x", "role": "viewer", "tenant": "t1"}
    admin_keys = [(await ask(world, "POST", "admin-keys", asked))["id"] for _ in range(2)]
    sold = [
        await ask(world, "POST", "orders", {"order_id": f"{package}-{name}", "tenant": name, "package": package})
        for name in tenants for package in ("home", "pack")
    ]  # fmt: skip
    await world.written()
    return {
        "path.tenant": ["demo", *tenants], "query.tenant": ["demo", "t0"], "body.tenant": ["demo", *tenants],
        "body.parent": ["demo", "t0"], "path.key": keys, "path.admin_key": admin_keys,
        "path.charge": [headers["x-request-id"]], "path.order": [order["id"] for order in sold],
        "path.subscription": [order["subscription"] for order in sold if order["subscription"]],
        "body.plan": ["pro", "empty"], "body.package": ["home", "pack"], "body.expires_at": ["2099-01-31T00:00:00Z"],
        "body.code": (await ask(world, "POST", "codes", {"package": "pack", "count": 20}))["codes"],
        "header.if-match": ["*"], "body.version": ["*"],
    }  # fmt: skip


@pytest.mark.parametrize("long", SHORT_AND_LONG)
@pytest.mark.parametrize("role", ["operator", "tenant-admin"])
async def test_the_api_is_what_its_document_says(
    world: World, role: str, long: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.guesses.FAILED_LOGINS", Limits(rpm=10**6))  # it asks each operation without a key
    values, document = await stocked(world), await ask(world, "GET", "openapi.json")
    asked = {"name": "fuzzer", "role": role, "tenant": None if role == "operator" else "demo"}
    key = (await ask(world, "POST", "admin-keys", asked))["key"]
    run = await fuzz(
        document, f"{world.url}/admin/v1", key, values, path=tmp_path, examples=EXAMPLES[long], long=long,
        phases="coverage,fuzzing,stateful", excluded=[UNKNOWABLE],
    )  # fmt: skip
    assert run.tested == len(OPERATIONS)
    world.app.ledger.check_invariants()
    await world.written()
    assert audit(str(world.path / "moma.db")) == []
    reached = {
        entry["operation"]
        for entry in (await ask(world, "GET", "audit?limit=1000"))["data"]
        if entry["by"]["name"] == "fuzzer"
    }
    assert len(reached) >= REACHED[role], reached
