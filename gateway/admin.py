"""`/admin/v1`: tenants, keys, grants, usage, charges, statements, explain, reload. Guesses at its key are limited."""

from __future__ import annotations

import asyncio
import hmac
import math
import re
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, TypeVar
from urllib.parse import unquote

import orjson

from gateway.cache.caches import Caches
from gateway.charging.ledger import Ledger
from gateway.charging.rating import credits_text
from gateway.charging.records import Account, Key
from gateway.charging.views import LAST_MS
from gateway.clock import Clock
from gateway.config.kinds import number
from gateway.config.model import Limits, Plan
from gateway.errors import InvalidKey, InvalidValue, MethodNotAllowed, NotFound
from gateway.explain.asked import FIELDS
from gateway.limits import Gates
from gateway.tenants import credential, key_hash

FAILED_LOGINS = Limits(rpm=10)
MAX_REMOTES = 1024
PURGED_BY = ("cache", "tenant", "model")
MAX_LISTED = 1000
MAX_TAGS = 64
MAX_TAG_CHARS = 64
_ID = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}")
_NUMBER = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)([kM]?)")
_UNITS = {"": 1, "k": 1_000, "M": 1_000_000}
_LIMIT = number()
Listed = TypeVar("Listed", Account, Key)
Plans = Callable[[], Mapping[str, Plan]]  # those that are in force
Reload = Callable[[], Awaitable[dict[str, Any]]]  # raises a GatewayError when the old configuration stays in force
Why = Callable[[str], dict[str, Any]]  # reads the ledger's file; raises NotFound, StoreUnavailable
Explain = Callable[[Mapping[str, Any]], Awaitable[dict[str, Any]]]


class Admin:
    """Without `reload`, `explain`, `why` or `caches` there is no such path.

    State: failed logins by address, bounded.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        plans: Plans,
        clock: Clock,
        reload: Reload | None = None,
        explain: Explain | None = None,
        why: Why | None = None,
        caches: Caches | None = None,
    ) -> None:
        self._ledger = ledger
        self._plans = plans
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
            case ["tenants", tenant]:
                self._expect(method, "GET")
                return 200, self._tenant(tenant)
            case ["tenants", tenant, "keys"]:
                return await self._keys_of(method, tenant, query, body)
            case ["tenants", tenant, "keys", key_id]:
                self._expect(method, "DELETE")
                return await self._drop_key(tenant, key_id)
            case ["tenants", tenant, "grants"]:
                self._expect(method, "POST")
                return await self._add_grant(tenant, body)
            case ["tenants", tenant, "usage"]:
                self._expect(method, "GET")
                self._tenant(tenant)
                return 200, self._ledger.usage(tenant)
            case ["tenants", tenant, "charges"]:
                self._expect(method, "GET")
                return await self._charges(tenant, query)
            case ["tenants", tenant, "statement"]:
                self._expect(method, "GET")
                self._tenant(tenant)
                span = query.get("from"), query.get("to")
                return 200, await asyncio.to_thread(self._ledger.statement, tenant, *span)
        return await self._of_the_gateway(method, parts, query, body)

    async def _of_the_gateway(
        self, method: str, parts: list[str], query: Mapping[str, str], body: bytes
    ) -> tuple[int, Any]:
        """What belongs to no tenant."""
        match parts:
            case ["reload"] if self._reload is not None:
                self._expect(method, "POST")
                _object(body)
                return 200, await self._reload()
            case ["explain"] if self._explain is not None:
                self._expect(method, "POST")
                return 200, await self._explain(_object(body, *FIELDS))
            case ["charges", charge_id] if self._why is not None:
                self._expect(method, "GET")
                return 200, await asyncio.to_thread(self._why, unquote(charge_id))
            case ["cache"] if self._caches is not None:
                return 200, self._cache_of(self._caches, method, query)
        raise NotFound("There is no such admin path.")

    @staticmethod
    def _expect(method: str, wanted: str) -> None:
        if method != wanted:
            raise MethodNotAllowed(f"This path takes {wanted}.")

    def _expect_to_come(self, expires_ms: int | None) -> None:
        if expires_ms is not None and expires_ms <= self._clock.wall_ms():
            raise InvalidValue("expires_at has passed already.", param="expires_at")

    def _tenant(self, tenant: str) -> dict[str, Any]:
        return shown(self._ledger.tenant(tenant))

    async def _tenants_of(self, method: str, query: Mapping[str, str], body: bytes) -> tuple[int, Any]:
        if method == "GET":
            return 200, listed(self._ledger.tenants(), query, shown)
        self._expect(method, "POST")
        asked = _object(body, "id", "plan", "parent", "tags")
        tenant, plan, parent, tags = _id(asked, "id"), asked.get("plan"), asked.get("parent"), asked.get("tags", [])
        plans = self._plans()
        if not isinstance(plan, str) or plan not in plans:
            raise InvalidValue(f"There is no such plan. Known: {', '.join(plans)}.", param="plan")
        if parent is not None and not isinstance(parent, str):
            raise InvalidValue("parent is the id of a tenant.", param="parent")
        if not isinstance(tags, list) or len(tags) > MAX_TAGS or not all(_is_text(tag, MAX_TAG_CHARS) for tag in tags):
            raise InvalidValue(
                f"tags is a list of at most {MAX_TAGS} strings of at most {MAX_TAG_CHARS} characters.", param="tags"
            )
        account, receipt = self._ledger.add_tenant(tenant, plan, parent, tags)
        await receipt
        return 201, shown(account)

    async def _keys_of(
        self, method: str, tenant: str, query: Mapping[str, str], body: bytes
    ) -> tuple[int, dict[str, Any]]:
        self._tenant(tenant)
        if method == "GET":
            return 200, listed(self._ledger.keys(tenant), query, shown_key)
        self._expect(method, "POST")
        return await self._add_key(tenant, body)

    async def _add_key(self, tenant: str, body: bytes) -> tuple[int, Any]:
        asked = _object(body, "name", "expires_at", "limits")
        key, expires_ms = "sk-moma-" + secrets.token_urlsafe(32), _time_ms(asked, "expires_at")
        self._expect_to_come(expires_ms)
        name = asked.get("name", "")
        if not _is_text(name, 128):
            raise InvalidValue("name is a string of at most 128 characters.", param="name")
        limits = _key_limits(asked.get("limits"))
        entry, receipt = self._ledger.add_key(tenant, key_hash(key), name, expires_ms, limits)
        await receipt
        return 201, {
            "id": entry.id,
            "key": key,
            "name": name,
            "tenant": tenant,
            "expires_at": _seconds(expires_ms),
            "limits": shown_limits(limits),
        }

    async def _drop_key(self, tenant: str, key_id: str) -> tuple[int, Any]:
        self._tenant(tenant)
        _, receipt = self._ledger.revoke_key(tenant, key_id)  # it is refused from here on, not from the commit
        await receipt
        return 200, {"id": key_id, "deleted": True}

    async def _add_grant(self, tenant: str, body: bytes) -> tuple[int, Any]:
        self._tenant(tenant)
        asked = _object(body, "credits", "expires_at", "priority", "source_ref")
        priority = asked.get("priority", 30)
        if isinstance(priority, bool) or not isinstance(priority, int) or not 0 <= priority <= 1000:
            raise InvalidValue("priority is a whole number from 0 to 1000.", param="priority")
        source_ref = asked.get("source_ref")
        if source_ref is not None and (not source_ref or not _is_text(source_ref, 200)):
            raise InvalidValue("source_ref is a string of at most 200 characters.", param="source_ref")
        known = source_ref is not None and self._ledger.grant_of(tenant, source_ref) is not None
        expires_ms = _time_ms(asked, "expires_at")
        if not known:  # whoever asks again gets the first grant, also after it has ended
            self._expect_to_come(expires_ms)
        grant, receipt = self._ledger.add_grant(
            tenant,
            credits_uc(asked.get("credits")),
            expires_ms=expires_ms,
            priority=priority,
            source_ref=source_ref,
        )
        await receipt
        return (200 if known else 201), {
            "id": grant.id,
            "tenant": tenant,
            "credits": credits_text(grant.granted),
            "expires_at": _seconds(grant.expires_ms),
            "priority": grant.priority,
            "source_ref": grant.source_ref,
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

    async def _charges(self, tenant: str, query: Mapping[str, str]) -> tuple[int, Any]:
        self._tenant(tenant)
        after, limit = _query_int(query, "after", 0, 2**53), _query_int(query, "limit", 100, 1000)
        return 200, await asyncio.to_thread(self._ledger.charges, tenant, after, max(1, limit))


def listed(items: Iterable[Listed], query: Mapping[str, str], show: Callable[[Listed], Any]) -> dict[str, Any]:
    """In the order of their ids; `next` is the `after` of the following page."""
    limit, after = max(1, _query_int(query, "limit", MAX_LISTED, MAX_LISTED)), query.get("after", "")
    rest = sorted((item for item in items if item.id > after), key=lambda item: item.id)
    return {
        "data": [show(item) for item in rest[:limit]],
        "next": rest[limit - 1].id if len(rest) > limit else None,
    }


def shown(account: Account) -> dict[str, Any]:
    return {"id": account.id, "plan": account.plan, "parent": account.parent, "tags": list(account.tags)}


def shown_key(key: Key) -> dict[str, Any]:
    """Without the hash: who has it could look for the secret at leisure."""
    return {
        "id": key.id,
        "name": key.name,
        "created_at": _seconds(key.created_ms),
        "expires_at": _seconds(key.expires_ms),
        "revoked_at": _seconds(key.revoked_ms),
        "limits": shown_limits(key.limits),
    }


def shown_limits(limits: Limits | None) -> dict[str, int] | None:
    return None if limits is None else limits.given


def _seconds(ms: int | None) -> int | None:
    return None if ms is None else ms // 1000


def credits_uc(value: object) -> int:
    """Credits as a number or "1M", with at most six decimals, to micro-credits. Raises InvalidValue."""
    wrong = InvalidValue(
        'credits is a positive number with at most six decimals, or a string such as "1M" or "2.5".', param="credits"
    )
    if isinstance(value, str):
        match = _NUMBER.fullmatch(value)
        if match is None:
            raise wrong
        micro = Decimal(match[1]) * _UNITS[match[2]] * 1_000_000
    elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        micro = Decimal(repr(value)) * 1_000_000  # repr: 0.1 is one tenth, as the client wrote it
    else:
        raise wrong
    if not 0 < micro < 2**62:
        raise InvalidValue("credits is out of range: positive, and at most 10^12.", param="credits")
    if micro != int(micro):
        raise wrong
    return int(micro)


def _key_limits(value: object) -> Limits | None:
    """An object of rpm, tpm and concurrency, as routes.yaml writes them. Raises InvalidValue."""
    if value is None or value == {}:
        return None
    kinds = ("rpm", "tpm", "concurrency")
    if not isinstance(value, dict) or not value.keys() <= set(kinds):
        raise InvalidValue(f"limits is an object with some of {', '.join(kinds)}.", param="limits")
    try:
        return Limits(**{kind: _LIMIT.read(limit) for kind, limit in value.items() if limit is not None})
    except ValueError as error:
        raise InvalidValue(f"Each of the limits {error}.", param="limits") from error


def _object(body: bytes, *known: str) -> dict[str, Any]:
    """A JSON object with no other fields than these: a field that is misspelt must not be left out in silence."""
    try:
        value = orjson.loads(body or b"{}")
    except orjson.JSONDecodeError as error:
        raise InvalidValue("The body is not valid JSON.") from error
    if not isinstance(value, dict):
        raise InvalidValue("The body is not a JSON object.")
    for field in value:
        if field not in known:
            raise InvalidValue(f"There is no such field. Known: {', '.join(known) or 'none'}.", param=field[:64])
    return value


def _is_text(value: object, most: int) -> bool:
    """A printable string that UTF-8 can carry."""
    return isinstance(value, str) and len(value) <= most and (value.isprintable() or not value)


def _id(asked: dict[str, Any], field: str) -> str:
    value = asked.get(field)
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise InvalidValue(f"{field} is 1 to 64 letters, digits, dots, dashes or underscores.", param=field)
    return value


def _time_ms(asked: dict[str, Any], field: str) -> int | None:
    """ISO 8601 with an offset, or Unix seconds."""
    value = asked.get(field)
    if value is None:
        return None
    wrong = InvalidValue(f"{field} is a time such as 2027-01-31T00:00:00+08:00, or Unix seconds.", param=field)
    if isinstance(value, int) and not isinstance(value, bool):
        millis = value * 1000
    else:
        try:
            when = datetime.fromisoformat(value) if isinstance(value, str) else None
        except ValueError:
            raise wrong from None
        if when is None or when.tzinfo is None:
            raise wrong
        millis = int(when.timestamp() * 1000)
    if not 0 < millis < LAST_MS:
        raise InvalidValue(f"{field} lies outside the years 1970 to 9999.", param=field)
    return millis


def _query_int(query: Mapping[str, str], field: str, default: int, most: int) -> int:
    text = query.get(field)
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]{1,16}", text) or int(text) > most:
        raise InvalidValue(f"{field} is a whole number from 0 to {most}.", param=field)
    return int(text)
