"""An admin API without a socket, over a small tree: two companies, one of which has a team and a member."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from gateway.admin.api import Admin
from gateway.charging.admins import CLI, By
from gateway.charging.cutting import Statements
from gateway.charging.ledger import Ledger, open_ledger
from gateway.charging.why import why
from gateway.config.model import Limits, Package, Plan, PlanGrant
from gateway.errors import GatewayError
from tests.charging import manage
from tests.charging.fakes import quote, settle
from tests.test_admin import CACHES
from tests.virtual import VirtualClock

PLANS = {
    "company": Plan("company", (PlanGrant(10**12, "month"),), Limits(rpm=60), allow=frozenset({"small", "large"})),
    "member": Plan("member", (), Limits(rpm=6, tpm=100), allow=frozenset({"small"}), caps={"day": {"calls": 5}}),
    "wide": Plan("wide", (), Limits(rpm=600), allow=frozenset({"small"})),
}
PACKAGES = {
    "pack": Package("pack", 10**12, valid_s=30 * 86_400.0, price=5_990_000),
    "tiny": Package("tiny", 1, valid_s=86_400.0, priority=1, alerts=(1_000_000,)),
    "home": Package("home", 10**13, "month", price=9_900_000, caps={"5h": {"calls": 100}}),
}


class Office:
    """State: the ledger, its clock, and the admin API over both."""

    def __init__(self, ledger: Ledger, clock: VirtualClock, path: str) -> None:
        self.ledger, self.clock, self.path = ledger, clock, path
        self.admin = Admin(
            ledger=ledger, plans=lambda: PLANS, packages=lambda: PACKAGES, clock=clock, caches=CACHES,
            reload=self._reload, explain=self._explain, why=lambda charge: why(path, charge),
            statements=Statements(ledger, path, "UTC", "CNY", clock),
        )  # fmt: skip

    async def _reload(self, by: By, request_id: str) -> dict[str, Any]:
        return {"result": "unchanged", "generation": 1, "changes": [], "after_restart": [], "warnings": []}

    async def _explain(self, wish: Mapping[str, Any]) -> dict[str, Any]:
        return {"candidates": [], "order": []}

    async def ask(
        self, method: str, path: str, body: Any = None, by: By = CLI, if_match: str | None = None, **query: str
    ) -> tuple[int, Any]:
        data = b"" if body is None else orjson.dumps(body)
        try:
            status, value = await self.admin.handle(method, f"/admin/v1/{path}", query, data, by, "req-1", if_match)
        except GatewayError as error:
            return error.status, error.body()["error"]
        return status, orjson.loads(orjson.dumps(value))

    async def key(self, role: str, tenant: str | None = None, by: By = CLI, **more: Any) -> By:
        """Who has a new key."""
        asked = {"name": f"{role} of {tenant}", "role": role, "tenant": tenant, **more}
        status, made = await self.ask("POST", "admin-keys", asked, by)
        assert status == 201, made
        return self.holder(made["key"])

    def holder(self, key: str) -> By:
        return self.admin.verify(key, "127.0.0.1", None)

    async def audit(self, by: By = CLI, **query: str) -> list[dict[str, Any]]:
        status, page = await self.ask("GET", "audit", None, by, **query)
        assert status == 200, page
        entries: list[dict[str, Any]] = page["data"]
        return entries

    async def charge(self, tenant: str, number: int) -> None:
        asked = quote()
        asked.tenant, asked.account_path = tenant, self.ledger.tenant(tenant).path
        await self.ledger.reserve(f"c{number}", asked, clamp=False)
        self.ledger.dispatched(f"c{number}", "b", "m")
        await settle(self.ledger, f"c{number}", 7)


async def office(path: Path) -> Office:
    """With the companies acme (team, and ann in it) and other."""
    clock, file = VirtualClock(), str(path / "l.db")
    ledger = await open_ledger(file, clock, "Asia/Shanghai", PLANS)
    for name, plan, parent in (("acme", "company", None), ("team", "member", "acme"), ("ann", "member", "team")):
        await manage.add_tenant(ledger, name, plan, parent)[1]
    await manage.add_tenant(ledger, "other", "company")[1]
    return Office(ledger, clock, file)
