"""Who calls: a credential becomes a tenant and its plan."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.config.model import Limits, Plan
from gateway.errors import InvalidKey
from gateway.fair import Share

MAX_KEY_CHARS = 512  # a longer credential is not ours; it is not even hashed
_WRONG_KEY = "The api key is missing or not valid. Send it as 'Authorization: Bearer sk-moma-...'."


@dataclass(slots=True)
class Caller:
    """A tenant as one call sees it; `account_path` runs from the billing root to the tenant.

    `key` names the key, where it has `key_limits` of its own.
    """

    tenant: str
    plan: Plan
    account_path: tuple[str, ...]
    key: str = field(default="", repr=False)
    key_limits: Limits | None = None
    share: Share = field(init=False)

    def __post_init__(self) -> None:
        self.share = Share(self.tenant, self.plan.weight, self.plan.priority)


@dataclass(slots=True)
class KeyEntry:
    tenant: str
    expires_ms: int | None
    limits: Limits | None = None


def credential(headers: Mapping[str, str]) -> str:
    """The one place that reads a key from headers; Bearer first, then x-api-key; both must agree if both are sent."""
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    bearer = bearer.strip() if scheme.lower() == "bearer" else ""
    plain = headers.get("x-api-key", "")
    key = bearer or plain
    if not key or (scheme and not bearer) or (bearer and plain and bearer != plain) or len(key) > MAX_KEY_CHARS:
        raise InvalidKey(_WRONG_KEY)
    return key


def key_hash(key: str) -> str:
    """SHA-256 of the whole key, hex: what is stored and compared."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


class Tenants:
    """Keys by hash. State: `_keys` and `_callers`, both replaced as the ledger's accounts change."""

    def __init__(self) -> None:
        self._keys: dict[str, KeyEntry] = {}
        self._callers: dict[str, Caller] = {}

    def put(self, caller: Caller) -> None:
        self._callers[caller.tenant] = caller

    def put_key(self, hashed: str, tenant: str, expires_ms: int | None = None, limits: Limits | None = None) -> None:
        self._keys[hashed] = KeyEntry(tenant, expires_ms, limits)

    def drop_key(self, hashed: str) -> None:
        self._keys.pop(hashed, None)

    def authenticate(self, headers: Mapping[str, str], now_ms: int) -> Caller:
        """Raises InvalidKey, always with the same words: a caller learns nothing from them."""
        hashed = key_hash(credential(headers))
        entry = self._keys.get(hashed)
        if entry is None or (entry.expires_ms is not None and entry.expires_ms <= now_ms):
            raise InvalidKey(_WRONG_KEY)
        caller = self._callers[entry.tenant]
        if entry.limits is None:
            return caller
        return Caller(caller.tenant, caller.plan, caller.account_path, f"key:{hashed}", entry.limits)
