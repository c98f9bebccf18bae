"""The ledger: reserve, settle and close calls against grants, in memory, durable by group commits.

No decision suspends, so each is atomic on the loop; `settle` returns a future that is done when the commit is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar
from zoneinfo import ZoneInfo

from gateway.call import Usage
from gateway.charging import directory, preview, statements, views
from gateway.charging.affording import active, afforded, known, standing
from gateway.charging.cards import CARD, Rates
from gateway.charging.counting import count_back
from gateway.charging.image import Image
from gateway.charging.invariants import check_image
from gateway.charging.preview import Terms
from gateway.charging.rating import Quote, cost_uc, provider_cost, shared_uc
from gateway.charging.records import Account, CardVersion, Hold, Key, Receipt
from gateway.charging.store import Store
from gateway.charging.writer import Writer
from gateway.clock import Clock, Timer
from gateway.config.model import Plan
from gateway.errors import StoreUnavailable

HOLD_WRITTEN_AFTER_S: Final = 0.05  # a shorter call is one row, at settle
RECOVERY_S: Final = 1.0
T = TypeVar("T")


async def open_ledger(
    path: str, clock: Clock, timezone: str, plans: Mapping[str, Plan], rates: Rates | None = None
) -> Ledger:
    """Take the lock, read the tables, close what a crash left open, start the writer.

    `rates` that are not those of the last version of the rate card become a new one, durable before this returns.
    Raises LockHeld when another process has the ledger, StoreUnavailable when the file cannot be used.
    """
    store = Store(path, rates)
    try:
        kept = dict(plans)
        image = await asyncio.to_thread(store.open, kept, ZoneInfo(timezone), clock.wall_ms())
    except BaseException:
        store.close()
        raise
    return Ledger(store, image, kept, clock)


class Ledger:
    """One per process, on one loop. State: image, plans, the timer of young holds, `broken`."""

    def __init__(self, store: Store, image: Image, plans: dict[str, Plan], clock: Clock) -> None:
        self.on_commit: Callable[[float, int], None] = lambda seconds, charges: None
        self.on_expired: Callable[[str, int], None] = lambda account, uc: None
        self._store = store
        self._image = image
        self._plans = plans
        self._applied: dict[str, Plan] = {}  # by account: what the configuration says, whatever became of the file
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._young_timer: Timer | None = None
        self._broken = False
        self._closing = False
        self._recovery: asyncio.Task[None] | None = None
        self._counting: asyncio.Task[None] | None = None
        self._writer = Writer(
            self._loop, clock, store.write, self._take, self._committed, self._commit_failed,
            lambda: len(self._image.changes.closings),
        )  # fmt: skip

    # -- a call's charge. No await may stand in these: the decision and its effect on the image are one step. ----

    async def reserve(self, charge_id: str, quote: Quote, *, clamp: bool) -> Hold:
        """Hold the quote's ceiling, or with `clamp` as much output as is affordable; never suspends.

        The same id returns the same open hold. Raises Conflict when the id is closed, QuotaExhausted, StoreUnavailable.
        """
        image = self._usable()
        open_already = image.holds.get(charge_id)
        if open_already is not None:
            return open_already
        if charge_id in image.closed or quote.once in image.once or quote.once in image.once_open:
            raise known(image, charge_id, quote.once)
        now_ms = self._clock.wall_ms()
        found = standing(image, quote, now_ms)
        due = self._clock.now() + HOLD_WRITTEN_AFTER_S
        hold = afforded(image, quote, found, now_ms, clamp=clamp, charge_id=charge_id, due=due)
        image.open(hold, found.meters)
        if self._young_timer is None:
            self._young_timer = self._clock.call_at(due, self._write_young)
        return hold

    def hold_nothing(self, charge_id: str, quote: Quote) -> None:
        """For what is free and settled in the same step: an exhausted tenant is served.

        Raises StoreUnavailable, AccountNotActive.
        """
        image, now, now_ms = self._usable(), self._clock.now(), self._clock.wall_ms()
        active(image, quote, now_ms)
        image.open(Hold(charge_id, quote, None, 0, [], now_ms, now), [])

    def dispatched(self, charge_id: str, backend: str, model: str) -> None:
        """From here on the backend may have worked. Raises StoreUnavailable when the hold was lost with the store."""
        image = self._usable()
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
        assert hold.dispatched or "cache_hit" in flags, "I13: no settle without dispatch or cache hit"
        charged_uc = cost_uc(usage.quantities, rates)
        if status_flags:
            charged_uc = shared_uc(charged_uc, flags)
        capped = bool(flags) and ("bad_usage" in flags or "estimated" in flags)
        if capped:  # not reported: never more than was held
            charged_uc = max(0, min(charged_uc, hold.reserved_uc))
        now_ms = self._clock.wall_ms()
        split: Sequence[Mapping[str, object]] = ()
        if hold.covered is None:
            parts, unpaid_uc = image.pay(hold, charged_uc, now_ms)
        else:
            parts, split, unpaid_uc = image.pay_split(hold, usage, (model_served, backend), capped, now_ms)
            charged_uc = sum(parts.values()) + unpaid_uc
        debt_uc = image.book(hold, charged_uc, unpaid_uc)
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
            if charge_id not in self._image.closed:
                self._image.remember(charge_id, Receipt(durable=True))
        elif usage is not None and rates is not None and (hold.dispatched or "cache_hit" in (*usage.flags, *flags)):
            self.settle(
                charge_id, usage, model_served=model_served or hold.model, backend=backend or hold.backend,
                rates=rates, price=price or {}, status_flags=flags,
            )  # fmt: skip
        else:
            self._void(hold, "voided", (outcome, *flags))

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
        self._image.pay(hold, 0, now_ms)
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

    async def put_rates(self, rates: Rates) -> int:
        """The version of the rate card with these rates: the one in force, or a new one, durable when this returns.

        One at a time. Raises StoreUnavailable.
        """
        image = self._usable()
        if rates != self._store.rates:
            image.changes.cards.append(CardVersion(CARD, image.card_version + 1, self._clock.wall_ms(), rates))
            await self._receipt_future(Receipt())
        return self.card_version

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
        return views.usage(self._usable(), tenant, self._clock.wall_ms())

    def available_uc(self, *tenants: str) -> int:
        """What these could spend now together."""
        return views.available_uc(self._image, tenants, self._clock.wall_ms())

    def preview(self, quote: Quote, *, clamp: bool) -> Terms:
        """What `reserve` would hold now, without holding it. Raises what it would."""
        return preview.terms(self._usable(), quote, self._clock.wall_ms(), clamp=clamp)

    def charges(self, tenant: str, after: int = 0, limit: int = 100) -> dict[str, Any]:
        """Durable charge records in order: {"data", "next"}. Reads the file: call it in a thread."""
        return self._store.charges(tenant, after, limit)

    def statement(self, tenant: str, from_: str | None, to: str | None) -> dict[str, Any]:
        """Of what is durable; the span as in `statements.span`. Reads the file: call it in a thread."""
        span = statements.span(from_, to, self._clock.wall_ms(), self._image.zone)
        return statements.statement(self._store.path, tenant, *span)

    def look(self, read: Callable[..., T], *terms: Any) -> T:
        """What a function says of the image, which it gets with the time as its last argument."""
        return read(self._usable(), *terms, self._clock.wall_ms())

    @property
    def healthy(self) -> bool:
        return not self._broken and not self._closing

    @property
    def card_version(self) -> int:
        """Of the rate card that is in force: what a quote carries."""
        return self._image.card_version

    @property
    def open_holds(self) -> int:
        return len(self._image.holds)

    def check_invariants(self) -> None:
        check_image(self._image)

    # -- durability ---------------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """Commit what is queued and release the lock. Open holds stay as the file has them."""
        self._closing = True
        if self._young_timer is not None:
            self._young_timer.cancel()
        # Not cancelled: their threads would go on with a store that is closed here.
        if tasks := [task for task in (self._recovery, self._counting) if task is not None]:
            await asyncio.wait(tasks)
        await self._writer.aclose()
        self._store.close()

    def _usable(self) -> Image:
        if self._broken or self._closing:
            raise StoreUnavailable("the ledger's store is not available", retry_after_s=RECOVERY_S)
        return self._image

    def _receipt_future(self, receipt: Receipt) -> asyncio.Future[Receipt]:
        """A future of its own per caller: a shared one would be cancelled for all by one."""
        future: asyncio.Future[Receipt] = self._loop.create_future()
        self._image.changes.waiters.append((future, receipt))
        self._writer.kick()
        return future

    def _settled_before(self, charge_id: str) -> asyncio.Future[Receipt]:
        receipt = None if self._broken else self._image.closed.get(charge_id)
        if receipt is not None and receipt.settled and not receipt.durable:
            return self._receipt_future(receipt)
        future: asyncio.Future[Receipt] = self._loop.create_future()
        if receipt is None or not receipt.settled:  # an answer that nothing charged must not go out
            _fail(future, StoreUnavailable(f"charge {charge_id} was lost with the store, or closed without a settle"))
        else:
            future.set_result(receipt)
        return future

    def _write_young(self) -> None:
        """Queue the holds that have become old enough; one timer serves all."""
        self._young_timer = None
        if self._image.store_old(self._clock.now()):
            self._writer.kick()
        if young := self._image.young:
            self._young_timer = self._clock.call_at(next(iter(young.values())).due, self._write_young)

    def _take(self) -> Any:
        # What a lost image still had to write does not fit the file that was read again.
        if self._image.changes.any and not self._broken:
            return self._image.take()
        self._count_back()
        return None

    def _committed(self, changes: Any, seconds: float) -> None:
        for card in changes.cards:
            self._store.rates, self._image.card_version = card.rates, card.version
        for receipt, _, _ in changes.closings:
            receipt.durable = True
        for future, receipt in changes.waiters:
            if not future.done():
                future.set_result(receipt)
        for _, account, _, kind, uc in changes.entries:
            if kind == "expired":
                self.on_expired(account, uc)
        self.on_commit(seconds, len(changes.closings))
        self._count_back()

    def _count_back(self) -> None:
        """No commit is in flight: all records that a new cap lacks are in the file."""
        if self._image.uncounted and self._counting is None and self.healthy:
            self._counting = self._loop.create_task(self._count())

    async def _count(self) -> None:
        await count_back(self._image, self._store, self._clock.wall_ms())
        self._counting = None
        self._writer.kick()

    def _commit_failed(self, changes: Any) -> None:
        """Only the file can tell whether that commit is in it: refuse until it has been read again."""
        self._broken = True
        for future, _ in (*changes.waiters, *self._image.changes.waiters):
            _fail(future, StoreUnavailable("the charge could not be made durable", retry_after_s=RECOVERY_S))
        self._image.changes.waiters.clear()
        self._image.young.clear()
        if not self._closing:
            self._recovery = self._loop.create_task(self._recover())

    async def _recover(self) -> None:
        while not self._closing:
            await self._clock.sleep(RECOVERY_S)
            try:
                plans, zone, now_ms = self._plans, self._image.zone, self._clock.wall_ms()
                self._image = await asyncio.to_thread(self._store.open, plans, zone, now_ms)
            except StoreUnavailable:
                continue
            self._broken = False
            for account, plan in self._applied.items():
                directory.apply_plan(self._image, account, plan, now_ms)
            return


def _fail(future: asyncio.Future[Receipt], error: StoreUnavailable) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # whoever awaits it still gets it; nobody need
