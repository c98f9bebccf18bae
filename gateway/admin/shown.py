"""What the admin API shows of tenants and keys."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

from gateway.admin.fields import query_int
from gateway.charging.records import Account, Key
from gateway.config.model import Limits

MAX_LISTED: Final = 1000
Listed = TypeVar("Listed", Account, Key)


def listed(items: Iterable[Listed], query: Mapping[str, str], show: Callable[[Listed], Any]) -> dict[str, Any]:
    """In the order of their ids; `next` is the `after` of the following page."""
    limit, after = max(1, query_int(query, "limit", MAX_LISTED, MAX_LISTED)), query.get("after", "")
    rest = sorted((item for item in items if item.id > after), key=lambda item: item.id)
    return {
        "data": [show(item) for item in rest[:limit]],
        "next": rest[limit - 1].id if len(rest) > limit else None,
    }


def shown(account: Account) -> dict[str, Any]:
    return {
        "id": account.id,
        "plan": account.plan,
        "parent": account.parent,
        "tags": list(account.tags),
        "status": account.status,
    }


def shown_key(key: Key) -> dict[str, Any]:
    """Without the hash: who has it could look for the secret at leisure."""
    return {
        "id": key.id,
        "name": key.name,
        "created_at": seconds(key.created_ms),
        "expires_at": seconds(key.expires_ms),
        "revoked_at": seconds(key.revoked_ms),
        "limits": shown_limits(key.limits),
    }


def shown_limits(limits: Limits | None) -> dict[str, int] | None:
    return None if limits is None else limits.given


def seconds(ms: int | None) -> int | None:
    return None if ms is None else ms // 1000
