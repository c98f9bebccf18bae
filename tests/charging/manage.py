"""What an operator does with tenants, keys and grants; each returns its result and a future of its commit."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TypeVar

from gateway.charging import directory
from gateway.charging.directory import Edit
from gateway.charging.grants import PACK_PRIORITY, Grant
from gateway.charging.ledger import Ledger
from gateway.charging.offers import STANDARD, Scope
from gateway.charging.records import Account, Key, Receipt
from gateway.config.model import Limits

T = TypeVar("T")
Changed = tuple[T, asyncio.Future[Receipt]]


def add_tenant(
    ledger: Ledger, tenant: str, plan: str, parent: str | None = None, tags: Sequence[str] = ()
) -> Changed[Account]:
    """Raises Conflict when it exists, NotFound for the parent, InvalidValue for the plan or the depth."""
    return ledger.change(directory.add_account, tenant, plan, parent, tuple(tags))


def edit(ledger: Ledger, tenant: str, asked: Edit) -> Changed[Account]:
    """Plan, place, status and caps. Raises Conflict for a ring, for what is closed and for closing under calls."""
    return ledger.change(directory.edit, tenant, asked)


def add_key(
    ledger: Ledger, tenant: str, key_hash: str, name: str = "", expires_ms: int | None = None,
    limits: Limits | None = None,
) -> Changed[Key]:  # fmt: skip
    """Raises Conflict when the hash is known."""
    return ledger.change(directory.add_key, tenant, key_hash, name, expires_ms, limits)


def revoke_key(ledger: Ledger, tenant: str, key_id: str) -> Changed[Key]:
    """Revoking twice keeps the first time."""
    return ledger.change(directory.revoke_key, tenant, key_id)


def add_grant(
    ledger: Ledger, tenant: str, credits_uc: int, expires_ms: int | None = None, priority: int = PACK_PRIORITY,
    source_ref: str | None = None, starts_ms: int | None = None, card: str = STANDARD, scope: Scope | None = None,
) -> Changed[Grant]:  # fmt: skip
    """The same `source_ref` of a tenant returns its first grant. Repays debt first."""
    terms = (credits_uc, expires_ms, priority, source_ref, starts_ms, card, scope)
    return ledger.change(directory.add_grant, tenant, *terms)
