"""The values the ledger keeps and hands out: accounts, keys, holds, receipts, and the rows of a charge record."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

import orjson

from gateway.call import Usage
from gateway.charging.grants import NEVER_MS, Grant
from gateway.charging.rating import Quote, credits_text

RECORD_COLUMNS: Final = (
    "seq", "charge_id", "request_id", "tenant", "account_path", "endpoint", "model_requested", "model_served",
    "backend", "rate_card", "card_version", "price_version", "status", "usage", "usage_source", "reserved",
    "charged", "overage", "debt", "loss", "parts", "cost", "flags", "opened_ms", "closed_ms",
)  # fmt: skip
Row = tuple[Any, ...]


@dataclass(slots=True)
class Account:
    """A node of the tree. `path` runs from the billing root to the node itself."""

    id: str
    plan: str
    parent: str | None
    path: tuple[str, ...]
    tags: tuple[str, ...]
    activated_ms: int
    debt_limit_uc: int | None = None  # None: the call's own hold
    debt_uc: int = 0
    settled_uc: int = 0  # all that was charged to calls of this node
    loss_uc: int = 0
    owned: list[Grant] = field(default_factory=list)  # all there ever were
    grants: list[Grant] = field(default_factory=list)  # those that may still pay
    next_event_ms: int = 0  # the next start, expiry or renewal: nothing to refresh before it
    renews_ms: int = NEVER_MS  # the next renewal


@dataclass(slots=True)
class Key:
    """An api key; only the hash of the secret is known here."""

    id: str
    tenant: str
    key_hash: str
    name: str
    created_ms: int
    expires_ms: int | None
    revoked_ms: int | None = None

    def valid(self, now_ms: int) -> bool:
        return self.revoked_ms is None and (self.expires_ms is None or now_ms < self.expires_ms)


@dataclass(slots=True)
class Hold:
    """An open reservation. `max_tokens` is what was granted, which a clamp may have lowered."""

    charge_id: str
    quote: Quote
    max_tokens: int | None
    reserved_uc: int
    parts: list[tuple[Grant, int]]
    opened_ms: int
    due: float  # monotonic: when the hold is old enough to be written, 50 ms after it was opened
    open: bool = True
    dispatched: bool = False
    backend: str = ""
    model: str = ""
    stored: bool = False

    def overdue(self, now_ms: int, now: float) -> bool:
        """By the wall clock and by the monotonic one."""
        deadline_ms = self.quote.deadline_ms
        return deadline_ms < now_ms and (now - self.due) * 1000 > deadline_ms - self.opened_ms


@dataclass(slots=True)
class Receipt:
    """The result of a charge. `seq` is 0 when nothing was numbered; else it is known once the receipt is durable.

    `settled` is false for what was voided, expired or lost in a crash: no answer goes out on it.
    """

    seq: int = 0
    charged_uc: int = 0
    overage_uc: int = 0
    cost: int = 0
    durable: bool = False
    settled: bool = False


@dataclass(slots=True)
class Closing:
    """How a hold ends, before it has a number."""

    status: str
    usage: Usage
    model_served: str
    backend: str
    charged: int = 0
    debt: int = 0
    loss: int = 0
    parts: dict[str, int] = field(default_factory=dict)
    cost: int = 0
    flags: tuple[str, ...] = ()


def record_row(seq: int, hold: Hold, end: Closing, closed_ms: int) -> Row:
    """In the order of RECORD_COLUMNS."""
    quote = hold.quote
    return (
        seq, hold.charge_id, quote.request_id, quote.tenant, _path_json(quote.account_path), quote.endpoint,
        quote.model_requested, end.model_served, end.backend, quote.card, quote.card_version, quote.card_version,
        end.status, _json(end.usage.quantities), end.usage.source, hold.reserved_uc, end.charged,
        end.debt + end.loss, end.debt, end.loss, _json(end.parts), end.cost, _json(end.flags) if end.flags else "[]",
        hold.opened_ms, closed_ms,
    )  # fmt: skip


def public_record(row: Row) -> dict[str, Any]:
    """A record as GET .../charges shows it: credits as decimal strings, cost in micro-units of currency."""
    record = dict(zip(RECORD_COLUMNS, row, strict=True))
    for name in ("account_path", "usage", "parts", "flags"):
        record[name] = orjson.loads(record[name])
    for name in ("reserved", "charged", "overage", "debt", "loss"):
        record[name] = credits_text(record[name])
    record["parts"] = [{"grant": grant, "credits": credits_text(uc)} for grant, uc in record["parts"].items()]
    return record


@lru_cache(maxsize=4096)
def _path_json(path: tuple[str, ...]) -> str:
    """Kept, because every record of a tenant has the same."""
    return _json(path)


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()
