"""The ledger's memory image: accounts, grants, holds, and what of them the next commit has to write.

Nothing here suspends, and every step leaves granted = available + reserved + spent + expired + revoked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Final
from zoneinfo import ZoneInfo

from gateway.charging import metering, renewing
from gateway.charging.admins import Admins
from gateway.charging.alerts import Watch
from gateway.charging.caps import Meter, merged
from gateway.charging.changes import Changes
from gateway.charging.grants import NEVER_MS, Grant, burn_key, hours_change_ms, in_hours
from gateway.charging.metering import Counting
from gateway.charging.offers import STANDARD
from gateway.charging.packages import Sold, Subscription, caps_sold
from gateway.charging.records import Account, Hold, Key, Receipt, Row, record_row
from gateway.charging.renewing import Due
from gateway.charging.tariffs import CardVersion
from gateway.config.model import Plan
from gateway.errors import NotFound

CLOSED_KEPT: Final = 5_000  # ids answered again without reading the file; older ones meet the UNIQUE constraint
ONCE_MS: Final = 86_400_000


@dataclass(slots=True)
class Standing:
    """How a path stands, until the next start, expiry, renewal or hour of a grant on it, or change of an account; and
    as long as its meters know what counts.

    `burn` is what may be drawn on, in order; `barred` the account that is not active, "" when all are; `special` says
    that a grant is of another card than standard, or not for everything; `hourly` are the live grants that pay at some
    hours of the day, these or others.
    """

    until_ms: int
    burn: list[Grant]
    meters: list[Meter]
    barred: str
    special: bool
    hourly: list[Grant]


class Image:
    """All mutable state of the ledger. `plans` is the caller's mapping and is read at each renewal."""

    def __init__(self, plans: Mapping[str, Plan], zone: ZoneInfo) -> None:
        self.plans = plans
        self.zone = zone
        self.accounts: dict[str, Account] = {}
        self.grants: dict[str, Grant] = {}
        self.grant_refs: dict[tuple[str, str, str], Grant] = {}  # (account, "ref" or "period", key)
        self.keys: dict[str, Key] = {}
        self.keys_by_hash: dict[str, Key] = {}
        self.sold = Sold()
        self.admins = Admins()
        self.holds: dict[str, Hold] = {}
        self.young: dict[str, Hold] = {}  # those that have no row yet, the oldest first
        # Of the last CLOSED_KEPT that ended and up to as many more. Two tables in turn, from which nothing is taken out
        # one by one: that would have the interpreter make a larger table every few minutes, and give it back.
        self.closed: dict[str, Receipt] = {}
        self.closed_before: dict[str, Receipt] = {}
        self.changes = Changes()
        self.next_seq = 1
        self.cards: dict[str, tuple[CardVersion, ...]] = {}  # those of the last edit of each
        self.debtors: set[str] = set()  # accounts in debt: nearly always none, and one look says so
        self.once: dict[str, int] = {}  # what was charged under an Idempotency-Key, and when: the oldest first
        self.watch = Watch()
        self.once_open: set[str] = set()  # the same of calls in flight, also of those that their clients have left
        self.uncounted: list[Meter] = []  # of caps that are younger than records that count
        self.seen_ms = 0  # the time when somebody last looked at how a path stands
        self._standing: dict[tuple[str, ...], Standing] = {}

    # -- grants -------------------------------------------------------------------------------------------------

    def burn_list(self, path: tuple[str, ...], now_ms: int) -> list[Grant]:
        """The live grants of every node on the path, in burn order. Raises NotFound."""
        return self.standing(path, now_ms).burn

    def standing(self, path: tuple[str, ...], now_ms: int) -> Standing:
        """As it is now: grants are renewed and expired. Raises NotFound."""
        if now_ms < self.seen_ms:
            self._set_back()
        self.seen_ms = now_ms
        known = self._standing.get(path)
        if known is None or now_ms >= known.until_ms:
            known = self._refreshed(path, now_ms)
        return known

    def _refreshed(self, path: tuple[str, ...], now_ms: int) -> Standing:
        nodes = [self.accounts[name] for name in path if name in self.accounts]
        if len(nodes) < len(path):
            raise NotFound(f"no tenant {path[-1]!r}")
        for account in nodes:
            if not all(meter.knows(now_ms) for meter in account.meters):
                self.fit(account, now_ms)
            if now_ms >= account.next_event_ms:
                self.refresh(account, now_ms)
        left = (grant for account in nodes for grant in account.grants if grant.live(now_ms) and not grant.used_up)
        alive = sorted(left, key=burn_key)
        hourly = [grant for grant in alive if grant.scope is not None and grant.scope.hours]
        live = in_hours(alive, now_ms, self.zone) if hourly else alive
        meters = [meter for account in nodes for meter in account.meters]
        for meter in meters:
            meter.look(now_ms)
        until_ms = min(account.next_event_ms for account in nodes)
        known = self._standing[path] = Standing(
            min(until_ms, hours_change_ms(hourly, now_ms, self.zone), *(meter.till_ms for meter in meters)),
            live,
            meters,
            next((account.id for account in nodes if account.status != "active"), ""),
            any(grant.special for grant in live),
            hourly,
        )
        return known

    def _set_back(self) -> None:
        """The clock was: what was due in between is due again, but for what has begun or ended for good."""
        for account in self.accounts.values():
            account.next_event_ms = 0
        self._standing.clear()

    def changed(self, account: Account) -> None:
        """Its grants, caps, plan or place did: whatever is drawn on by its path is looked at again."""
        account.next_event_ms = 0
        self._standing.clear()

    def fit(self, account: Account, now_ms: int, counting: Mapping[str, Counting] | None = None) -> None:
        """Its caps are those of its plan, of its packages and its own; the later take the place of the first.

        Who fits many finds out once what there is to count. A cap that does not know what counts now is counted anew.
        """
        plan = self.plans.get(account.plan)
        wanted = merged(plan.caps if plan else {}, caps_sold(account.subscriptions), account.caps)
        if new := metering.fit(self.changes, account, wanted, self.zone, self.next_seq, now_ms):
            found = self.counting() if counting is None else counting
            metering.count_present(new, found.get(account.id) or Counting())
            self.uncounted += (meter for meter in new if meter.counted_to)
        self.changed(account)

    def counting(self) -> Mapping[str, Counting]:
        return metering.by_account(self.holds.values(), self.changes.closings)

    def refresh(self, account: Account, now_ms: int) -> None:
        """Renew and expire; running it twice is harmless, because a renewal is keyed by its period."""
        due, next_event_ms = renewing.of_plan(account, self.plans.get(account.plan), self.zone, now_ms)
        self.grant_due(account, due, now_ms)
        next_event_ms = account.renews_ms = min(next_event_ms, self._renew_subscriptions(account, now_ms))
        for subscription in account.subscriptions:
            next_event_ms = min(next_event_ms, subscription.ended_ms or NEVER_MS)
        for grant in account.grants:
            if grant.over(now_ms):
                self.expire(grant, grant.expires_ms or now_ms)
        account.grants = [
            grant for grant in account.grants if not grant.over(now_ms) and not (grant.used_up and not grant.ending)
        ]
        for grant in account.grants:
            starts_ms = grant.starts_ms if grant.starts_ms > now_ms else NEVER_MS
            next_event_ms = min(next_event_ms, starts_ms, grant.expires_ms or NEVER_MS)
        account.next_event_ms = next_event_ms
        self._standing.clear()

    def upgrade(self, account: Account, now_ms: int) -> None:
        """Another plan in mid-period."""
        self.grant_due(account, renewing.upgrade(account, self.plans[account.plan], self.zone, now_ms), now_ms)

    def grant_due(self, account: Account, due: list[Due], now_ms: int) -> None:
        """Each once for its period."""
        for one in due:
            if (account.id, "period", one.period) not in self.grant_refs:
                self.add_grant(
                    account, one.credits_uc, now_ms, starts_ms=one.starts_ms, expires_ms=one.expires_ms,
                    priority=one.priority, source_ref=one.source_ref, period=one.period, card=one.card,
                    scope=one.scope, ending=one.ending, price=one.price,
                )  # fmt: skip

    def _renew_subscriptions(self, account: Account, now_ms: int) -> int:
        """Begin the periods that are due and book the ends; returns when the next one begins."""
        refit = False
        for subscription in account.subscriptions:
            for number, start_ms, end_ms in renewing.periods_due(subscription, self.zone, now_ms):
                self._begin_period(account, subscription, number, start_ms, end_ms, now_ms)
                refit |= not number
            if subscription.over(now_ms):
                subscription.closed = refit = True
                self.changes.subscriptions[subscription.id] = subscription
        account.subscriptions = [one for one in account.subscriptions if not one.closed]
        if refit:
            self.fit(account, now_ms)
        return min((renewing.renews_ms(one, self.zone) for one in account.subscriptions), default=NEVER_MS)

    def _begin_period(
        self, account: Account, subscription: Subscription, number: int, start_ms: int, end_ms: int, now_ms: int
    ) -> None:
        """What is left of the last period expires; up to the rollover it is granted anew, in the same commit."""
        left_uc = 0
        ended = [grant for grant in account.grants if grant.offer == subscription.id and grant.over(start_ms)]
        for grant in ended:
            left_uc += grant.available
            self.expire(grant, grant.expires_ms or now_ms)
            account.grants.remove(grant)
        self.grant_due(account, renewing.of_period(subscription, number, start_ms, end_ms, left_uc), now_ms)
        subscription.period = number
        subscription.peak_uc, subscription.paid = subscription.credits_uc, subscription.price
        self.changes.subscriptions[subscription.id] = subscription

    def next_reset_ms(self, path: tuple[str, ...], now_ms: int) -> int | None:
        """The next renewal of any node on the path; None when nothing renews."""
        self.burn_list(path, now_ms)
        next_ms = min(self.accounts[name].renews_ms for name in path)
        return None if next_ms == NEVER_MS else next_ms

    def add_grant(self, account: Account, credits_uc: int, now_ms: int, *, card: str = STANDARD, **terms: Any) -> Grant:
        """Append a grant and its entry. The caller has looked for an earlier one with the same key."""
        grant = Grant(
            id=f"g{len(self.grants) + 1:08d}", account=account.id, granted=credits_uc, available=credits_uc,
            card=card, created_ms=now_ms, **terms,
        )  # fmt: skip
        self.keep_grant(grant)
        self.note(min(now_ms, grant.starts_ms), grant, "granted", credits_uc)
        return grant

    def keep_grant(self, grant: Grant) -> None:
        account = self.accounts[grant.account]
        self.grants[grant.id] = grant
        account.owned.append(grant)
        account.grants.append(grant)
        self.changed(account)
        if grant.ending is not None and grant.ending.alerts:
            self.watch.keep(grant)
        if grant.period:
            self.grant_refs[account.id, "period", grant.period] = grant
        elif grant.source_ref is not None:
            self.grant_refs[account.id, "ref", grant.source_ref] = grant

    def expire(self, grant: Grant, now_ms: int) -> None:
        """What falls due unseen is booked later, at the time at which it fell due."""
        if grant.available:
            uc, grant.available = grant.available, 0
            grant.expired += uc
            self.note(now_ms, grant, "expired", uc)

    def revoke(self, grant: Grant, uc: int, now_ms: int) -> None:
        """Takes back `uc`, which the grant must have."""
        grant.available -= uc
        grant.revoked += uc
        self.note(now_ms, grant, "revoked", uc)

    def note(self, now_ms: int, grant: Grant, kind: str, uc: int, account: str | None = None) -> None:
        self.changes.grants[grant.id] = grant
        self.changes.entries.append((now_ms, account or grant.account, grant.id, kind, uc))

    def repay(self, account: Account, now_ms: int) -> None:
        """Debt is repaid from whatever the account may draw on for everything, before anything else is."""
        for grant in self.burn_list(account.path, now_ms):
            uc = min(account.debt_uc, grant.available) if grant.scope is None else 0
            if uc:
                grant.available -= uc
                grant.spent += uc
                account.debt_uc -= uc
                self.changes.accounts[account.id] = account
                self.note(now_ms, grant, "debt_repaid", uc, account.id)
        if not account.debt_uc:
            self.debtors.discard(account.id)

    # -- holds --------------------------------------------------------------------------------------------------

    def open(self, hold: Hold, meters: list[Meter]) -> None:
        """Take what it holds out of the grants, and room of the caps."""
        for grant, uc in hold.parts:
            grant.available -= uc
            grant.reserved += uc
        if meters:
            hold.marks = metering.mark(meters, hold.reserved_uc, hold.opened_ms)
        if hold.quote.once:
            self.once_open.add(hold.quote.once)
        self.holds[hold.charge_id] = self.young[hold.charge_id] = hold

    def close(self, hold: Hold, receipt: Receipt, now_ms: int, *, numbered: bool) -> None:
        """Take the hold out, and queue its record."""
        del self.holds[hold.charge_id]
        if hold.stored:
            self.changes.holds[hold.charge_id] = None
        else:
            del self.young[hold.charge_id]
        if hold.marks:
            metering.settle(self.changes, hold, receipt)
        if hold.quote.once:
            self._close_once(hold, receipt, now_ms)
        if numbered:
            self.changes.closings.append((receipt, hold, now_ms))
        else:
            receipt.durable = True
        self.remember(hold.charge_id, receipt)

    def _close_once(self, hold: Hold, receipt: Receipt, now_ms: int) -> None:
        once = hold.quote.once
        self.once_open.discard(once)
        if receipt.settled and "partial" not in receipt.flags:
            self.once[once] = now_ms
            self.changes.once[once] = now_ms, hold.charge_id

    def forget_once(self, now_ms: int) -> bool:
        """What is older than a day; whether there was any."""
        old = list(takewhile(lambda once: self.once[once] < now_ms - ONCE_MS, self.once))
        for once in old:
            del self.once[once]
            self.changes.once[once] = None
        return bool(old)

    def store_old(self, now: float) -> bool:
        """Queues the holds that have become old enough to be written; whether there are any."""
        due = list(takewhile(lambda hold: hold.due <= now, self.young.values()))
        for hold in due:
            hold.stored = True
            self.changes.holds[hold.charge_id] = hold
            del self.young[hold.charge_id]
        return bool(due)

    def remember(self, charge_id: str, receipt: Receipt) -> None:
        self.closed[charge_id] = receipt
        if len(self.closed) >= CLOSED_KEPT:
            self.closed_before, self.closed = self.closed, {}

    def ended(self, charge_id: str) -> Receipt | None:
        """How it ended; None for one that is open, unknown, or long gone."""
        return self.closed.get(charge_id) or self.closed_before.get(charge_id)

    # -- batches ------------------------------------------------------------------------------------------------

    def take(self) -> tuple[Changes, list[Row]]:
        """The changes so far and their numbered records. The numbers are assigned here, in the order of closing."""
        if self.watch.lots:
            self.changes.alerts = self.watch.crossed(self.changes.grants, self.changes.latest_ms)
        changes, self.changes = self.changes, Changes()
        rows = []
        for receipt, hold, closed_ms in changes.closings:
            receipt.seq = self.next_seq
            self.next_seq += 1
            rows.append(record_row(receipt, hold, closed_ms))
            receipt.usage = receipt.parts = None  # the row has them; what is remembered of thousands shall be small
        return changes, rows
