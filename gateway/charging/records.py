"""The values the ledger keeps and hands out: accounts, keys, holds, receipts, and the rows of a charge record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

import orjson

from gateway.call import Usage
from gateway.charging.caps import Meter, Slot
from gateway.charging.grants import NEVER_MS, Grant
from gateway.charging.packages import Subscription
from gateway.charging.rating import Quote, credits_text
from gateway.config.model import Caps, Limits

# A new column goes before the hash and is NULL in older records: their hashes cover what they have.
RECORD_COLUMNS: Final = (
    "seq", "charge_id", "request_id", "tenant", "account_path", "endpoint", "model_requested", "model_served",
    "backend", "rate_card", "card_version", "price_version", "status", "usage", "usage_source", "reserved",
    "charged", "overage", "debt", "loss", "parts", "cost", "flags", "opened_ms", "closed_ms", "split", "key_id", "hash",
)  # fmt: skip
JSON_COLUMNS: Final = ("account_path", "usage", "parts", "flags", "split")
Row = tuple[Any, ...]
CRASH: Final = "crash"  # the flag of what was open when the process died


@dataclass(slots=True)
class Account:
    """A node of the tree. `path` runs from the billing root to the node itself.

    `status` is active, suspended (for a while) or closed (for ever): who is below one that is not active may not call.
    """

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
    status: str = "active"
    caps: Caps = field(default_factory=dict)  # its own, beside those of its plan
    owned: list[Grant] = field(default_factory=list)  # all there ever were
    grants: list[Grant] = field(default_factory=list)  # those that may still pay, or whose end is in force
    next_event_ms: int = 0  # the next start, expiry or renewal: nothing to refresh before it
    renews_ms: int = NEVER_MS  # the next renewal
    meters: list[Meter] = field(default_factory=list)  # of the caps of its plan and its own
    subscriptions: list[Subscription] = field(default_factory=list)  # those whose end is not booked


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
    limits: Limits | None = None  # of its own, beside those of its tenant

    def valid(self, now_ms: int) -> bool:
        return self.revoked_ms is None and (self.expires_ms is None or now_ms < self.expires_ms)


@dataclass(slots=True)
class Progress:
    """How far a stream has come: what it has used at least, and what its target charges and costs for that."""

    quantities: dict[str, int]
    rates: Mapping[str, int]
    price: Mapping[str, int]


@dataclass(slots=True)
class Hold:
    """An open reservation. `max_tokens` is what was granted, which a clamp may have lowered."""

    charge_id: str
    quote: Quote
    max_tokens: int | None
    reserved_uc: int
    parts: Sequence[tuple[Grant, int]]
    opened_ms: int
    due: float  # monotonic: when the hold is old enough to be written, 50 ms after it was opened
    dispatched: bool = False
    backend: str = ""
    model: str = ""
    stored: bool = False
    marks: Sequence[tuple[Meter, Slot, int]] = ()  # what of which caps
    covered: frozenset[tuple[str, str]] | None = None  # model and backend of the offers that it pays for; None: all
    progress: Callable[[], Progress | None] | None = None  # of a stream that runs
    noted_ms: int = 0
    passed: str | None = None  # as it is stored: what its stream has passed on so far, and who would pay for that
    held_tokens: int | None = None  # of a sliced hold: the output it pays so far, of each choice; None: all of it

    def overdue(self, now_ms: int, now: float) -> bool:
        """By the wall clock and by the monotonic one."""
        deadline_ms = self.quote.deadline_ms
        return deadline_ms < now_ms and (now - self.due) * 1000 > deadline_ms - self.opened_ms


@dataclass(slots=True)
class Receipt:
    """How a charge ended. `seq` is 0 when nothing was numbered; else it is known once the receipt is durable.

    `overage_uc` is what no grant paid: debt and loss.
    """

    status: str = "voided"
    usage: Usage | None = None
    model_served: str = ""
    backend: str = ""
    charged_uc: int = 0
    overage_uc: int = 0
    debt_uc: int = 0
    parts: Mapping[str, int] | None = None  # what each grant paid
    cost: int = 0
    flags: tuple[str, ...] = ()
    seq: int = 0
    durable: bool = False
    split: Sequence[Mapping[str, object]] = ()  # the units that each grant paid, where they have several cards

    @property
    def settled(self) -> bool:
        """False for what was voided, expired or lost in a crash: no answer goes out on it."""
        return self.status == "settled" and CRASH not in self.flags


def record_row(end: Receipt, hold: Hold, closed_ms: int) -> Row:
    """In the order of RECORD_COLUMNS, without the hash: that is made where the row is written."""
    quote, usage = hold.quote, end.usage
    used, source = (_json(usage.quantities), usage.source) if usage is not None else ("{}", "reported")
    return (
        end.seq, hold.charge_id, quote.request_id, quote.tenant, _path_json(quote.account_path), quote.endpoint,
        quote.model_requested, end.model_served, end.backend, quote.card, quote.card_version, quote.card_version,
        end.status, used, source, hold.reserved_uc, end.charged_uc, end.overage_uc, end.debt_uc,
        end.overage_uc - end.debt_uc, _json(end.parts) if end.parts else "{}", end.cost,
        _json(end.flags) if end.flags else "[]", hold.opened_ms, closed_ms, _json(end.split) if end.split else None,
        quote.key_id or None,
    )  # fmt: skip


def public_record(row: Row) -> dict[str, Any]:
    """A record as GET .../charges shows it: credits as decimal strings, cost in micro-units of currency."""
    record = dict(zip(RECORD_COLUMNS, row, strict=True))
    for name in JSON_COLUMNS:
        record[name] = orjson.loads(record[name] or "[]")  # a record without a split has none
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
