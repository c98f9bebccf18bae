"""Who calls: a credential becomes a tenant and its plan."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from gateway.config.model import Limits, Plan
from gateway.errors import InvalidKey
from gateway.fair import Share

MAX_KEY_CHARS = 512  # a longer credential is not ours; it is not even hashed
# LiteLLM tells a wrong key from a bad request by its first four words, which are OpenAI's.
_WRONG_KEY = "Incorrect API key provided, or none. Send it as 'Authorization: Bearer sk-moma-...'."


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
    key_id: str = ""  # "" for a key of routes.yaml
    share: Share = field(init=False)

    def __post_init__(self) -> None:
        self.share = Share(self.tenant, self.plan.weight, self.plan.priority)


class Key(Protocol):
    """What the ledger knows of a key."""

    @property
    def id(self) -> str: ...

    @property
    def tenant(self) -> str: ...

    @property
    def limits(self) -> Limits | None: ...

    def valid(self, now_ms: int) -> bool: ...


class Account(Protocol):
    """What the ledger knows of a tenant."""

    @property
    def plan(self) -> str: ...

    @property
    def path(self) -> tuple[str, ...]: ...


class Directory(Protocol):
    """The ledger's tenants and keys, as they are now."""

    def key(self, key_hash: str) -> Key | None: ...

    def tenant(self, tenant: str) -> Account: ...


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
    """One generation of routes.yaml over the ledger, which is asked each time: a key that is revoked there is gone.

    `keys` are those of routes.yaml: tenants by hash. Whoever has no plan any more may call nothing.

    State: the callers that were seen so far, until they get another plan or place; there are as many as tenants, and
    as many as keys.
    """

    def __init__(self, plans: Mapping[str, Plan], keys: Mapping[str, str], directory: Directory) -> None:
        self._plans = plans
        self._keys = keys
        self._directory = directory
        self._callers: dict[str, Caller] = {}
        self._by_key: dict[str, Caller] = {}

    def caller(self, tenant: str) -> Caller:
        """Raises NotFound."""
        account = self._directory.tenant(tenant)
        caller = self._callers.get(tenant)
        if caller is None or caller.account_path is not account.path or caller.plan.name != account.plan:
            caller = self._met(tenant, account)
        return caller

    def authenticate(self, headers: Mapping[str, str], now_ms: int) -> Caller:
        """Raises InvalidKey, always with the same words: a caller learns nothing from them."""
        return self.by_hash(key_hash(credential(headers)), now_ms)

    def by_hash(self, hashed: str, now_ms: int) -> Caller:
        """As `authenticate`, for who was heard before."""
        tenant = self._keys.get(hashed)
        if tenant is not None:
            return self.caller(tenant)
        key = self._directory.key(hashed)
        if key is None or not key.valid(now_ms):
            raise InvalidKey(_WRONG_KEY)
        caller, known = self.caller(key.tenant), self._by_key.get(hashed)
        if (
            known is None
            or known.account_path is not caller.account_path
            or known.plan is not caller.plan
            or known.key_limits is not key.limits
        ):
            limited = "" if key.limits is None else f"key:{hashed}"
            known = Caller(caller.tenant, caller.plan, caller.account_path, limited, key.limits, key.id)
            self._by_key[hashed] = known
        return known

    def _met(self, tenant: str, account: Account) -> Caller:
        plan = self._plans.get(account.plan) or Plan(account.plan, allow=frozenset(), gone=True)
        caller = self._callers[tenant] = Caller(tenant, plan, account.path)
        return caller
