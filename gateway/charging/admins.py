"""Who may change the ledger by the admin API: keys with a role, for all tenants or for one and those below it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

OPERATOR: Final = "operator"
TENANT_ADMIN: Final = "tenant-admin"
VIEWER: Final = "viewer"
ROLES: Final = (OPERATOR, TENANT_ADMIN, VIEWER)  # each may do all that those after it may
AUDIT_COLUMNS: Final = (
    "number", "ms", "name", "role", "key_id", "operation", "kind", "object", "tenant", "before", "after", "request_id",
    "hash",
)  # fmt: skip
NO_HASH: Final = "0" * 64  # stands for the hash before entry 1


@dataclass(slots=True)
class AdminKey:
    """Only the hash of the secret is known here. `tenant`: it sees that one and those below; None: everything."""

    id: str
    name: str
    role: str
    tenant: str | None
    key_hash: str
    made_by: str
    created_ms: int
    expires_ms: int | None = None
    revoked_ms: int | None = None

    def valid(self, now_ms: int) -> bool:
        return self.revoked_ms is None and (self.expires_ms is None or now_ms < self.expires_ms)


@dataclass(frozen=True, slots=True)
class By:
    """Who asks. `key_id` is "" for who has no key in the ledger."""

    name: str
    role: str
    tenant: str | None = None
    key_id: str = ""
    expires_ms: int | None = None


ROOT: Final = By("root", OPERATOR)  # server.admin_key of routes.yaml
CLI: Final = By("cli", OPERATOR)  # who can write the ledger's file
FILE: Final = By("routes.yaml", "file")  # its change, seen by the gateway or told by a signal


def by_key(key: AdminKey) -> By:
    return By(key.name, key.role, key.tenant, key.id, key.expires_ms)


def by_tenant(tenant: str) -> By:
    """With a key of its own."""
    return By(tenant, "tenant", tenant)


@dataclass(slots=True)
class Admins:
    """State: the keys by id and by hash, and number and hash of the last entry of the audit log."""

    keys: dict[str, AdminKey] = field(default_factory=dict)
    by_hash: dict[str, AdminKey] = field(default_factory=dict)
    number: int = 0
    hash: str = NO_HASH

    def keep(self, key: AdminKey) -> None:
        self.keys[key.id] = self.by_hash[key.key_hash] = key
