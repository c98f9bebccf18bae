"""Alerts: a share of a package's credits is spent that somebody wants to know of. Each is told once for a period."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.charging.grants import Grant
from gateway.charging.rating import PPM, credits_text, percent_text


@dataclass(frozen=True, slots=True)
class Alert:
    """`lot` is what it was granted for, `level` the share in millionths, `granted_uc` what it is a share of."""

    id: str
    account: str
    lot: str
    level: int
    ms: int
    source_ref: str
    payg: bool  # of what is paid for afterwards: the share is one of its cap
    granted_uc: int
    spent_uc: int

    def __str__(self) -> str:
        what = "the cap of what is paid for afterwards" if self.payg else f"{credits_text(self.granted_uc)} credits"
        spent = credits_text(self.spent_uc)
        return f"{self.account} has spent {percent_text(self.level)} of {what} ({self.source_ref}): {spent} credits"


@dataclass(slots=True)
class Lot:
    """Grants of the same period of the same offer, and the levels that were told of them."""

    grants: list[Grant] = field(default_factory=list)
    told: dict[int, Alert] = field(default_factory=dict)


class Watch:
    """State: the lots with alerts, by account and key and by grant, and all alerts, the oldest first."""

    def __init__(self) -> None:
        self.lots: dict[tuple[str, str], Lot] = {}
        self._of_grant: dict[str, Lot] = {}
        self.alerts: list[Alert] = []

    def keep(self, grant: Grant) -> None:
        """A grant that has alerts. Those that roll over and those of a change come after the one they belong to."""
        lot = self.lots.setdefault((grant.account, grant.lot), Lot())
        lot.grants.append(grant)
        self._of_grant[grant.id] = lot

    def restore(self, alert: Alert) -> None:
        self.alerts.append(alert)
        self.lots.setdefault((alert.account, alert.lot), Lot()).told[alert.level] = alert

    def crossed(self, changed: Mapping[str, Grant], now_ms: int) -> list[Alert]:
        """What grants that have changed came to. Asked once for each commit, so that calls need not ask."""
        found = []
        for name in sorted(self._of_grant.keys() & changed.keys()):
            for alert in self._due(self._of_grant[name], now_ms):
                self.restore(alert)
                found.append(alert)
        return found

    def _due(self, lot: Lot, now_ms: int) -> Iterator[Alert]:
        last = lot.grants[-1]
        assert last.ending is not None
        granted_uc = sum(grant.granted - grant.revoked for grant in lot.grants)
        spent_uc = sum(grant.spent for grant in lot.grants)
        for level in last.ending.alerts:
            if level not in lot.told and granted_uc and spent_uc * PPM >= granted_uc * level:
                yield Alert(
                    f"a{len(self.alerts) + 1:08d}", last.account, last.lot, level, now_ms,
                    last.source_ref or "", last.payg is not None, granted_uc, spent_uc,
                )  # fmt: skip

    def of(self, grants: Iterable[Grant]) -> list[Alert]:
        """What was told of these, the oldest first."""
        lots = {id(lot): lot for grant in grants if (lot := self._of_grant.get(grant.id))}
        found = (alert for lot in lots.values() for alert in lot.told.values())
        return sorted(found, key=lambda alert: alert.id)


def alert_row(alert: Alert) -> tuple[Any, ...]:
    a = alert
    return a.id, a.account, a.lot, a.level, a.ms, a.source_ref, int(a.payg), a.granted_uc, a.spent_uc


def alert_of(row: tuple[Any, ...]) -> Alert:
    name, account, lot, level, ms, source_ref, payg, granted_uc, spent_uc = row
    return Alert(name, account, lot, level, ms, source_ref, bool(payg), granted_uc, spent_uc)
