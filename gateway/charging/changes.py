"""What the next commit has to write."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from gateway.charging.admins import AdminKey
from gateway.charging.alerts import Alert
from gateway.charging.grants import Grant
from gateway.charging.packages import Batch, Code, Order, Subscription
from gateway.charging.records import Account, Hold, Key, Receipt, Row
from gateway.charging.tariffs import CardVersion


@dataclass(slots=True)
class Changes:
    """What changed since the last batch; rows are made when the batch is taken, so they carry the latest values."""

    accounts: dict[str, Account] = field(default_factory=dict)
    keys: dict[str, Key] = field(default_factory=dict)
    grants: dict[str, Grant] = field(default_factory=dict)
    holds: dict[str, Hold | None] = field(default_factory=dict)  # None: delete the row
    closings: list[tuple[Receipt, Hold, int]] = field(default_factory=list)
    entries: list[Row] = field(default_factory=list)  # (ms, account, grant, kind, uc)
    waiters: list[tuple[asyncio.Future[Receipt], Receipt]] = field(default_factory=list)
    cards: list[CardVersion] = field(default_factory=list)  # somebody waits for each
    subscriptions: dict[str, Subscription] = field(default_factory=dict)
    orders: list[Order] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    codes: dict[str, Code] = field(default_factory=dict)
    meters: dict[tuple[str, str, str, int], int | None] = field(default_factory=dict)  # used, by slot; None: delete
    once: dict[str, tuple[int, str] | None] = field(default_factory=dict)  # when, and the charge; None: delete
    alerts: list[Alert] = field(default_factory=list)  # of grants that are among them
    admin_keys: dict[str, AdminKey] = field(default_factory=dict)
    audit: list[Row] = field(default_factory=list)  # in the order of admins.AUDIT_COLUMNS; somebody waits for each
    kept: dict[str, list[Row]] = field(default_factory=dict)  # rows by table, of what the image does not hold

    @property
    def latest_ms(self) -> int:
        """When the last of what was charged or moved was."""
        charged_ms = self.closings[-1][2] if self.closings else 0
        return max(charged_ms, self.entries[-1][0]) if self.entries else charged_ms

    @property
    def sold(self) -> bool:
        return bool(self.subscriptions or self.orders or self.batches or self.codes)

    @property
    def any(self) -> bool:
        return bool(
            self.closings
            or self.waiters
            or self.grants
            or self.accounts
            or self.keys
            or self.holds
            or self.entries
            or self.meters
            or self.once
            or self.sold
            or self.kept
        )
