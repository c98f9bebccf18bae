"""The ledger: reserve, settle and close calls against grants, in memory, durable by group commits.

No decision suspends, so each is atomic on the loop; `settle` returns a future that is done when the commit is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar
from zoneinfo import ZoneInfo

from gateway.call import Usage
from gateway.charging import checkpoints, directory, extending, paying, preview, statements, views
from gateway.charging.affording import active, afforded, known, standing
from gateway.charging.durable import Durable
from gateway.charging.invariants import check_image
from gateway.charging.offers import STANDARD
from gateway.charging.preview import Terms
from gateway.charging.rating import THROTTLED, Quote, cost_uc, provider_cost, shared_uc
from gateway.charging.records import Account, Hold, Key, Receipt
from gateway.charging.store import Store
from gateway.charging.tariffs import UNKEPT, Tariffs
from gateway.clock import Clock
from gateway.config.model import Plan
from gateway.errors import StoreUnavailable

HOLD_WRITTEN_AFTER_S: Final = 0.05  # a shorter call is one row, at settle
T = TypeVar("T")


async def open_ledger(
    path: str, clock: Clock, timezone: str, plans: Mapping[str, Plan], cards: Tariffs | None = None,
    exposure_uc: int = 0,
) -> Ledger:  # fmt: skip
    """Take the lock, read the tables, close what a crash left open, start the writer.

    `cards` that are not as the ledger last had them get new versions, durable before this returns.
    `exposure_uc` is what new calls may take in all while the store is down; 0: none is taken.
    Raises LockHeld when another process has the ledger, StoreUnavailable when the file cannot be used.
    """
    store = Store(path, cards)
    try:
        kept = dict(plans)
        image = await asyncio.to_thread(store.open, kept, ZoneInfo(timezone), clock.wall_ms())
    except BaseException:
        store.close()
        raise
    return Ledger(store, image, kept, clock, exposure_uc)


class Ledger(Durable):
    """One per process, on one loop. What it has decided, `Durable` makes durable."""

    # -- a call's charge. No await may stand in these: the decision and its effect on the image are one step. ----

    async def reserve(self, charge_id: str, quote: Quote, *, clamp: bool) -> Hold:
        """Hold the quote's ceiling, or with `clamp` as much output as is affordable; never suspends.

        The same id returns the same open hold. Raises Conflict when the id is closed, QuotaExhausted, StoreUnavailable.
        """
        image = self._open()
        open_already = image.holds.get(charge_id)
        if open_already is not None:
            return open_already
        once = quote.once
        if image.ended(charge_id) is not None or (once and (once in image.once or once in image.once_open)):
            raise known(image, charge_id, once)
        now_ms = self._clock.wall_ms()
        found = standing(image, quote, now_ms)
        due = self._clock.now() + HOLD_WRITTEN_AFTER_S
        hold = afforded(image, quote, found, now_ms, clamp=clamp, charge_id=charge_id, due=due)
        if self._store.down:
            self._exposure.take(hold)
        image.open(hold, found.meters)
        if self._young_timer is None:
            self._young_timer = self._clock.call_at(due, self._write_young)
        return hold

    def extend(self, charge_id: str, tokens: int) -> int:
        """As `extending.extend`: more output for a call in mid-stream whose hold is sliced. Writes nothing."""
        if self._broken:
            return 0
        hold = self._image.holds.get(charge_id) if self._exposure.held else None
        if hold is not None:
            tokens = self._exposure.fitting(hold, tokens)
        more = extending.extend(self._image, charge_id, tokens, self._clock.wall_ms())
        if hold is not None:
            self._exposure.grown(hold)
        return more

    def hold_nothing(self, charge_id: str, quote: Quote) -> None:
        """For what is free and settled in the same step: an exhausted tenant is served.

        Raises StoreUnavailable, AccountNotActive.
        """
        image, now, now_ms = self._open(), self._clock.now(), self._clock.wall_ms()
        active(image, quote, now_ms)
        image.open(Hold(charge_id, quote, None, 0, [], now_ms, now), [])

    def dispatched(self, charge_id: str, backend: str, model: str) -> None:
        """From here on the backend may have worked. Raises StoreUnavailable when the hold was lost with the store."""
        image = self._alive()
        hold = image.holds.get(charge_id)
        if hold is None:
            raise StoreUnavailable(f"charge {charge_id} is not open")
        hold.dispatched, hold.backend, hold.model = True, backend, model
        if hold.stored:
            image.changes.holds[charge_id] = hold
            self._writer.kick()

    def settle(
        self, charge_id: str, usage: Usage, *, model_served: str, backend: str,
        rates: Mapping[str, int], price: Mapping[str, int], status_flags: Sequence[str] = (),
    ) -> asyncio.Future[Receipt]:  # fmt: skip
        """Charge the actual: own hold, other grants, bounded debt, loss. The first result of an id wins.

        The future is done when the commit is. It fails with StoreUnavailable, also when the hold was closed in another
        way before; it never fails for lack of funds.
        """
        image = self._image
        hold = image.holds.get(charge_id)
        if self._broken or hold is None:
            return self._settled_before(charge_id)
        flags = (*usage.flags, *status_flags) if status_flags else usage.flags
        if hold.quote.throttled:
            flags = (*flags, THROTTLED)
        assert hold.dispatched or "cache_hit" in flags, "I13: no settle without dispatch or cache hit"
        charged_uc = cost_uc(usage.quantities, rates)
        if flags:
            charged_uc = shared_uc(charged_uc, flags)
        capped = bool(flags) and ("bad_usage" in flags or "estimated" in flags)
        if capped:  # not reported: never more than was held
            charged_uc = max(0, min(charged_uc, hold.reserved_uc))
        now_ms = self._clock.wall_ms()
        split: Sequence[Mapping[str, object]] = ()
        if hold.covered is None:
            parts, unpaid_uc = paying.pay(image, hold, charged_uc, now_ms)
        else:
            parts, split, unpaid_uc = paying.pay_split(image, hold, usage, (model_served, backend), capped, now_ms)
            charged_uc = sum(parts.values()) + unpaid_uc
        debt_uc = paying.book(image, hold, charged_uc, unpaid_uc)
        if self._exposure.held:
            self._exposure.closed(charge_id, charged_uc)
        cost = provider_cost(usage.quantities, price)
        receipt = Receipt("settled", usage, model_served, backend, charged_uc, unpaid_uc, debt_uc, parts, cost, flags)
        receipt.split = split
        image.close(hold, receipt, now_ms, numbered=True)
        return self._receipt_future(receipt)

    def close(
        self, charge_id: str, outcome: str, usage: Usage | None = None, *, model_served: str = "", backend: str = "",
        rates: Mapping[str, int] | None = None, price: Mapping[str, int] | None = None, flags: Sequence[str] = (),
    ) -> None:  # fmt: skip
        """For the `finally` of a call: no-op when settled; voids, or settles `usage` (which needs `rates`).

        A void is numbered, with `outcome` among its flags, when the call was dispatched. Overtaking its own reserve
        it cancels it: that reserve then raises Conflict.
        """
        if self._broken:
            return
        hold = self._image.holds.get(charge_id)
        if hold is None:
            if self._image.ended(charge_id) is None:
                self._image.remember(charge_id, Receipt(durable=True))
        elif usage is not None and rates is not None and (hold.dispatched or "cache_hit" in (*usage.flags, *flags)):
            self.settle(
                charge_id, usage, model_served=model_served or hold.model, backend=backend or hold.backend,
                rates=rates, price=price or {}, status_flags=flags,
            )  # fmt: skip
        else:
            self._void(hold, "voided", (outcome, *flags))

    def checkpoint(self) -> None:
        """Notes how far streams have come that run long, with one commit for all."""
        if self.healthy and checkpoints.note(self._image, self._clock.wall_ms()):
            self._writer.kick()

    def expire_overdue(self, now_ms: int) -> int:
        """Close the holds whose deadline has passed by both clocks; returns how many.

        A wall clock that is set forward must not close the holds of calls that go on.
        """
        if self._broken:
            return 0
        now = self._clock.now()
        overdue = [hold for hold in self._image.holds.values() if hold.overdue(now_ms, now)]
        for hold in overdue:
            self._void(hold, "expired", ("overdue",))
        if self._image.forget_once(now_ms):
            self._writer.kick()
        return len(overdue)

    def _void(self, hold: Hold, status: str, flags: tuple[str, ...]) -> None:
        now_ms = self._clock.wall_ms()
        paying.pay(self._image, hold, 0, now_ms)
        if self._exposure.held:
            self._exposure.closed(hold.charge_id, 0)
        receipt = Receipt(status, model_served=hold.model, backend=hold.backend, flags=flags)
        self._image.close(hold, receipt, now_ms, numbered=hold.dispatched)
        if hold.dispatched or hold.stored:
            self._writer.kick()

    # -- tenants, keys and grants -------------------------------------------------------------------------------

    def change(self, step: Callable[..., T], *terms: Any) -> tuple[T, asyncio.Future[Receipt]]:
        """A change of the image by a function of `directory`, which gets the time as its last argument.

        The future is done when it is durable. Raises what the step raises, which then has changed nothing.
        """
        changed = step(self._usable(), *terms, self._clock.wall_ms())
        return changed, self._receipt_future(Receipt())

    def apply_plan(self, account: str, plan: Plan) -> Account:
        """Create the account if it is new, and set its plan; grants of a running period stay as they are."""
        image = self._usable()
        self._plans[plan.name] = self._applied[account] = plan
        node = directory.apply_plan(image, account, plan, self._clock.wall_ms())
        self._writer.kick()
        return node

    # -- a new generation of routes.yaml ------------------------------------------------------------------------

    def follow(self, plans: Mapping[str, Plan], tenants: Mapping[str, str]) -> None:
        """The plans from now on, and the plan of each tenant of routes.yaml.

        Grants of a running period stay as they are; what an edited plan offers beside them is due as after a restart.
        """
        image, now_ms = self._usable(), self._clock.wall_ms()
        directory.follow(image, self._plans, plans, tenants, now_ms)
        self._applied = {name: plans[plan] for name, plan in tenants.items()}
        self._writer.kick()

    # -- reading ------------------------------------------------------------------------------------------------

    def tenants(self) -> list[Account]:
        return list(self._image.accounts.values())

    def tenant(self, tenant: str) -> Account:
        return directory.account(self._image, tenant)

    def key(self, key_hash: str) -> Key | None:
        """By the lower-case hex SHA-256; also revoked and expired ones: ask `Key.valid`."""
        return self._image.keys_by_hash.get(key_hash)

    def keys(self, tenant: str) -> list[Key]:
        return [key for key in self._image.keys.values() if key.tenant == tenant]

    def usage(self, tenant: str) -> dict[str, Any]:
        """In the shape of GET /v1/usage; also renews and expires."""
        return views.usage(self._alive(), tenant, self._clock.wall_ms())

    def available_uc(self, *tenants: str) -> int:
        """What these could spend now together."""
        return views.available_uc(self._image, tenants, self._clock.wall_ms())

    def preview(self, quote: Quote, *, clamp: bool) -> Terms:
        """What `reserve` would hold now, without holding it. Raises what it would."""
        return preview.terms(self._alive(), quote, self._clock.wall_ms(), clamp=clamp)

    def charges(self, tenant: str, after: int = 0, limit: int = 100) -> dict[str, Any]:
        """Durable charge records in order: {"data", "next"}. Reads the file: call it in a thread."""
        return self._store.charges(tenant, after, limit)

    def statement(self, tenant: str, from_: str | None, to: str | None) -> dict[str, Any]:
        """Of what is durable; the span as in `statements.span`. Reads the file: call it in a thread."""
        span = statements.span(from_, to, self._clock.wall_ms(), self._image.zone)
        return statements.statement(self._store.path, tenant, *span)

    def look(self, read: Callable[..., T], *terms: Any) -> T:
        """What a function says of the image, which it gets with the time as its last argument."""
        return read(self._alive(), *terms, self._clock.wall_ms())

    @property
    def path(self) -> str:
        return self._store.path

    @property
    def card_version(self) -> int:
        """Of the card standard, where it does not depend on the time."""
        versions = self._image.cards.get(STANDARD)
        return versions[0].version if versions else UNKEPT

    @property
    def open_holds(self) -> int:
        return len(self._image.holds)

    def check_invariants(self) -> None:
        check_image(self._image)
