"""`/admin/v1`: tenants, keys, grants, sales, usage, charges, statements, explain, reload.

Guesses at its key are limited.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import unquote

from gateway.admin.fields import (
    card_of,
    credits_uc,
    edit,
    id_of,
    is_text,
    key_limits,
    object_of,
    query_int,
    scope_of,
    time_ms,
)
from gateway.admin.sales import Packages, Sales
from gateway.admin.shown import listed, seconds, shown, shown_key, shown_limits
from gateway.cache.caches import Caches
from gateway.charging import directory, manage, views
from gateway.charging.cutting import Statements
from gateway.charging.ledger import Ledger
from gateway.charging.offers import STANDARD
from gateway.charging.rating import credits_text
from gateway.clock import Clock
from gateway.config.model import Limits, Plan
from gateway.errors import InvalidKey, InvalidValue, MethodNotAllowed, NotFound
from gateway.explain.asked import FIELDS
from gateway.limits import Gates
from gateway.tenants import credential, key_hash

FAILED_LOGINS = Limits(rpm=10)
MAX_REMOTES = 1024
PURGED_BY = ("cache", "tenant", "model")
MAX_TAGS = 64
MAX_TAG_CHARS = 64
Plans = Callable[[], Mapping[str, Plan]]  # those that are in force
Reload = Callable[[], Awaitable[dict[str, Any]]]  # raises a GatewayError when the old configuration stays in force
Why = Callable[[str], dict[str, Any]]  # reads the ledger's file; raises NotFound, StoreUnavailable
Explain = Callable[[Mapping[str, Any]], Awaitable[dict[str, Any]]]


class Admin:
    """Without `reload`, `explain`, `why`, `caches` or `statements` there is no such path.

    State: failed logins by address, bounded.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        plans: Plans,
        clock: Clock,
        packages: Packages = dict,
        reload: Reload | None = None,
        explain: Explain | None = None,
        why: Why | None = None,
        caches: Caches | None = None,
        statements: Statements | None = None,
    ) -> None:
        self._ledger = ledger
        self._statements = statements
        self._plans = plans
        self.sales = Sales(ledger, packages, clock)
        self._reload = reload
        self._clock = clock
        self._explain = explain
        self._why = why
        self._caches = caches
        self._failures = Gates(clock)
        self._remotes: set[str] = set()

    def authorise(self, headers: Mapping[str, str], remote: str, key: str | None) -> None:
        """As `verify`."""
        try:
            sent = credential(headers)
        except InvalidKey:
            sent = ""
        self.verify(sent, remote, key)

    def verify(self, sent: str, remote: str, key: str | None) -> None:
        """Raises InvalidKey, or RateLimited after ten wrong keys in a minute from one address."""
        if key and hmac.compare_digest(sent.encode("utf-8", "surrogateescape"), key.encode()):
            return
        self._failures.of(self._remote(remote), FAILED_LOGINS).admit(0).release(None)
        raise InvalidKey("The admin key is missing or not valid.")

    def _remote(self, remote: str) -> str:
        if remote not in self._remotes and len(self._remotes) >= MAX_REMOTES:
            return "others"
        self._remotes.add(remote)
        return remote

    async def handle(self, method: str, path: str, query: Mapping[str, str], body: bytes) -> tuple[int, Any]:
        """Status and JSON value of one request; `path` begins with /admin/v1/."""
        parts = path.removeprefix("/admin/v1/").strip("/").split("/")
        match parts:
            case ["tenants"]:
                return await self._tenants_of(method, query, body)
            case ["tenants", tenant, *of]:
                return await self._of_tenant(method, tenant, of, query, body)
            case ["packages" | "orders" | "subscriptions" | "codes", *_]:
                return await self.sales.handle(method, parts, query, body)
            case ["reload"] if self._reload is not None:
                self._expect(method, "POST")
                object_of(body)
                return 200, await self._reload()
            case ["explain"] if self._explain is not None:
                self._expect(method, "POST")
                return 200, await self._explain(object_of(body, *FIELDS))
            case ["charges", charge_id] if self._why is not None:
                self._expect(method, "GET")
                return 200, await asyncio.to_thread(self._why, unquote(charge_id))
            case ["cache"] if self._caches is not None:
                return 200, self._cache_of(self._caches, method, query)
        raise NotFound("There is no such admin path.")

    async def _of_tenant(
        self, method: str, tenant: str, of: list[str], query: Mapping[str, str], body: bytes
    ) -> tuple[int, Any]:
        match of:
            case []:
                return 200, await self._one_tenant(method, tenant, body)
            case ["keys"]:
                return await self._keys_of(method, tenant, query, body)
            case ["keys", key_id]:
                self._expect(method, "DELETE")
                return await self._drop_key(tenant, key_id)
            case ["grants"]:
                self._expect(method, "POST")
                return await self._add_grant(tenant, body)
            case ["redeem"]:
                self._expect(method, "POST")
                return await self.sales.redeem(tenant, body)
            case ["compensations"]:
                self._expect(method, "POST")
                return await self.sales.compensate(tenant, body)
            case ["usage"]:
                self._expect(method, "GET")
                self._tenant(tenant)
                return 200, self._ledger.usage(tenant)
            case ["charges"]:
                self._expect(method, "GET")
                return await self._charges(tenant, query)
            case ["statement"]:
                self._expect(method, "GET")
                await self._ledger.change(views.usage, tenant)[1]  # what was due by the clock is booked now
                span = query.get("from"), query.get("to")
                return 200, await asyncio.to_thread(self._ledger.statement, tenant, *span)
            case ["statements", *month] if self._statements is not None and len(month) < 2:
                return await self._statements_of(self._statements, method, tenant, month, body)
        raise NotFound("There is no such admin path.")

    @staticmethod
    def _expect(method: str, wanted: str) -> None:
        if method != wanted:
            raise MethodNotAllowed(f"This path takes {wanted}.")

    def _expect_to_come(self, expires_ms: int | None) -> None:
        if expires_ms is not None and expires_ms <= self._clock.wall_ms():
            raise InvalidValue("expires_at has passed already.", param="expires_at")

    def _tenant(self, tenant: str) -> dict[str, Any]:
        return {**shown(self._ledger.tenant(tenant)), "caps": self._ledger.usage(tenant)["caps"]}

    async def _tenants_of(self, method: str, query: Mapping[str, str], body: bytes) -> tuple[int, Any]:
        if method == "GET":
            return 200, listed(self._ledger.tenants(), query, shown)
        self._expect(method, "POST")
        asked = object_of(body, "id", "plan", "parent", "tags")
        tenant, plan, parent, tags = id_of(asked, "id"), asked.get("plan"), asked.get("parent"), asked.get("tags", [])
        plans = self._plans()
        if not isinstance(plan, str) or plan not in plans:
            raise InvalidValue(f"There is no such plan. Known: {', '.join(plans)}.", param="plan")
        if parent is not None and not isinstance(parent, str):
            raise InvalidValue("parent is the id of a tenant.", param="parent")
        if not isinstance(tags, list) or len(tags) > MAX_TAGS or not all(is_text(tag, MAX_TAG_CHARS) for tag in tags):
            raise InvalidValue(
                f"tags is a list of at most {MAX_TAGS} strings of at most {MAX_TAG_CHARS} characters.", param="tags"
            )
        account, receipt = manage.add_tenant(self._ledger, tenant, plan, parent, tags)
        await receipt
        return 201, shown(account)

    async def _one_tenant(self, method: str, tenant: str, body: bytes) -> dict[str, Any]:
        """PATCH: all that is asked, or nothing of it where one of it cannot be."""
        if method == "GET":
            return self._tenant(tenant)
        self._expect(method, "PATCH")
        asked = object_of(body, "plan", "parent", "status", "caps")
        _, receipt = manage.edit(self._ledger, tenant, edit(asked))
        await receipt
        return self._tenant(tenant)

    async def _keys_of(
        self, method: str, tenant: str, query: Mapping[str, str], body: bytes
    ) -> tuple[int, dict[str, Any]]:
        self._tenant(tenant)
        if method == "GET":
            return 200, listed(self._ledger.keys(tenant), query, shown_key)
        self._expect(method, "POST")
        return await self._add_key(tenant, body)

    async def _add_key(self, tenant: str, body: bytes) -> tuple[int, Any]:
        asked = object_of(body, "name", "expires_at", "limits")
        key, expires_ms = "sk-moma-" + secrets.token_urlsafe(32), time_ms(asked, "expires_at")
        self._expect_to_come(expires_ms)
        name = asked.get("name", "")
        if not is_text(name, 128):
            raise InvalidValue("name is a string of at most 128 characters.", param="name")
        limits = key_limits(asked.get("limits"))
        entry, receipt = manage.add_key(self._ledger, tenant, key_hash(key), name, expires_ms, limits)
        await receipt
        return 201, {
            "id": entry.id,
            "key": key,
            "name": name,
            "tenant": tenant,
            "expires_at": seconds(expires_ms),
            "limits": shown_limits(limits),
        }

    async def _drop_key(self, tenant: str, key_id: str) -> tuple[int, Any]:
        self._tenant(tenant)
        _, receipt = manage.revoke_key(self._ledger, tenant, key_id)  # it is refused from here on, not from the commit
        await receipt
        return 200, {"id": key_id, "deleted": True}

    async def _add_grant(self, tenant: str, body: bytes) -> tuple[int, Any]:
        self._tenant(tenant)
        asked = object_of(body, "credits", "expires_at", "priority", "source_ref", "card", "scope")
        card, scope = card_of(asked.get("card", STANDARD)), scope_of(asked.get("scope"))
        priority = asked.get("priority", 30)
        if isinstance(priority, bool) or not isinstance(priority, int) or not 0 <= priority <= 1000:
            raise InvalidValue("priority is a whole number from 0 to 1000.", param="priority")
        source_ref = asked.get("source_ref")
        if source_ref is not None and (not source_ref or not is_text(source_ref, 200)):
            raise InvalidValue("source_ref is a string of at most 200 characters.", param="source_ref")
        known = source_ref is not None and self._ledger.look(directory.grant_of, tenant, source_ref) is not None
        expires_ms = time_ms(asked, "expires_at")
        if not known:  # whoever asks again gets the first grant, also after it has ended
            self._expect_to_come(expires_ms)
        grant, receipt = manage.add_grant(
            self._ledger,
            tenant,
            credits_uc(asked.get("credits")),
            expires_ms=expires_ms,
            priority=priority,
            source_ref=source_ref,
            card=card,
            scope=scope,
        )
        await receipt
        return (200 if known else 201), {
            "id": grant.id,
            "tenant": tenant,
            "credits": credits_text(grant.granted),
            "expires_at": seconds(grant.expires_ms),
            "priority": grant.priority,
            "source_ref": grant.source_ref,
            "card": grant.card,
            "scope": grant.scope.value if grant.scope else None,
        }

    def _cache_of(self, caches: Caches, method: str, query: Mapping[str, str]) -> dict[str, Any]:
        """GET: figures of all caches. DELETE: lets go what `cache`, `tenant` and `model` name; all without them."""
        if method == "GET":
            return {"data": caches.look(), "next": None}
        self._expect(method, "DELETE")
        for field in query:
            if field not in PURGED_BY:
                raise InvalidValue(f"There is no such filter. Known: {', '.join(PURGED_BY)}.", param=field[:64])
        cache, tenant, model = map(query.get, PURGED_BY)
        if cache is not None and cache not in caches.names():
            raise NotFound(f"no cache {cache[:64]!r}")
        if tenant is not None:
            self._tenant(tenant)
        entries, size = caches.purge(cache, tenant, model)
        return {"purged": entries, "bytes": size}

    async def _statements_of(
        self, statements: Statements, method: str, tenant: str, month: list[str], body: bytes
    ) -> tuple[int, Any]:
        """GET: those that are cut, or that of a month. POST: cuts a month."""
        if month:
            self._expect(method, "GET")
            return 200, await statements.of_month(tenant, month[0])
        if method == "GET":
            return 200, {"data": await statements.listed(tenant), "next": None}
        self._expect(method, "POST")
        asked = object_of(body, "month")
        if not isinstance(asked.get("month"), str):
            raise InvalidValue("month is a month such as 2026-11.", param="month")
        found, new = await statements.cut(tenant, asked["month"])
        return 201 if new else 200, found

    async def _charges(self, tenant: str, query: Mapping[str, str]) -> tuple[int, Any]:
        self._tenant(tenant)
        after, limit = query_int(query, "after", 0, 2**53), query_int(query, "limit", 100, 1000)
        return 200, await asyncio.to_thread(self._ledger.charges, tenant, after, max(1, limit))
