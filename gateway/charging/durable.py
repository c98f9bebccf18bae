"""The image made durable by group commits, and what happens to it when the store fails.

Down: the file takes no commits, so they go to the spool; whoever waits gets what was decided, and the image goes on.
Broken: the spool took none either. Nobody knows then what is durable, so the image is read again from both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

from gateway.charging import directory
from gateway.charging.caps import Meter
from gateway.charging.changes import Changes
from gateway.charging.counting import count_back
from gateway.charging.exposure import Exposure
from gateway.charging.image import Image
from gateway.charging.records import Receipt
from gateway.charging.store import Store
from gateway.charging.tariffs import grouped
from gateway.charging.writer import Writer
from gateway.clock import Clock, Timer
from gateway.config.model import Plan
from gateway.errors import StoreUnavailable

RECOVERY_S: Final = 1.0


class Durable:
    """The ledger below its decisions. State: image, plans, the timer of young holds, `broken`, what is exposed."""

    def __init__(
        self, store: Store, image: Image, plans: dict[str, Plan], clock: Clock, exposure_uc: int = 0
    ) -> None:  # fmt: skip
        self.on_commit: Callable[[float, Changes], None] = lambda seconds, changes: None
        self._store = store
        self._image = image
        self._plans = plans
        self._applied: dict[str, Plan] = {}  # by account: what the configuration says, whatever became of the file
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._young_timer: Timer | None = None
        self._broken = False
        self._closing = False
        self._exposure = Exposure(exposure_uc)
        self._recovery: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._counting: asyncio.Task[None] | None = None
        self._writer = Writer(
            self._loop, clock, store.write, self._take, self._committed, self._commit_failed,
            lambda: len(self._image.changes.closings),
        )  # fmt: skip

    async def aclose(self) -> None:
        """Commit what is queued and release the lock. Open holds stay as the file has them."""
        self._closing = True
        if self._young_timer is not None:
            self._young_timer.cancel()
        # Not cancelled: their threads would go on with a store that is closed here.
        if tasks := [task for task in (self._recovery, self._looking, self._counting) if task is not None]:
            await asyncio.wait(tasks)
        await self._writer.aclose()
        self._store.close()

    @property
    def healthy(self) -> bool:
        """The file takes commits."""
        return not (self._broken or self._closing or self._store.down)

    @property
    def serving(self) -> bool:
        """New calls are taken."""
        return not (self._broken or self._closing) and (not self._store.down or self._exposes())

    @property
    def spooled_bytes(self) -> int:
        return self._store.spooled_bytes

    def _exposes(self) -> bool:
        return self._exposure.limit_uc > 0 and self._store.roomy

    def _usable(self) -> Image:
        """For all but calls: what is sold or set up shall be where it is looked for."""
        if self._store.down:
            raise StoreUnavailable("the ledger's store is not available", retry_after_s=RECOVERY_S)
        return self._alive()

    def _open(self) -> Image:
        """For new calls."""
        if self._store.down and not self._exposes():
            raise StoreUnavailable("the ledger's store is not available", retry_after_s=RECOVERY_S)
        return self._alive()

    def _alive(self) -> Image:
        """For calls in flight: they go on while the store is down."""
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
        receipt = None if self._broken else self._image.ended(charge_id)
        if receipt is not None and receipt.settled and not receipt.durable:
            return self._receipt_future(receipt)
        future: asyncio.Future[Receipt] = self._loop.create_future()
        if receipt is None or not receipt.settled:  # an answer that nothing charged must not go out
            fail(future, StoreUnavailable(f"charge {charge_id} was lost with the store, or closed without a settle"))
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
        for card, versions in grouped(changes.cards).items():
            self._image.cards[card] = versions
            self._store.cards[card] = tuple(one.tariff for one in versions)
        for receipt, _, _ in changes.closings:
            receipt.durable = True
        for future, receipt in changes.waiters:
            if not future.done():
                future.set_result(receipt)
        self.on_commit(seconds, changes)
        if self._store.down and self._looking is None and not self._closing:
            self._looking = self._loop.create_task(self._look_again())
        self._count_back()

    async def _look_again(self) -> None:
        """Once a second, whether the file takes commits: the next one looks, as one thread writes."""
        while self._store.down and not (self._broken or self._closing):
            await self._clock.sleep(RECOVERY_S)
            if not self._broken:  # else nothing is written, and nobody would answer
                self._store.try_again = True
                await asyncio.wait([self._receipt_future(Receipt())])
        self._looking = None
        self._exposure.over()

    def _count_back(self) -> None:
        """No commit is in flight: all records that a new cap lacks are in the file. Of one that comes before the task
        begins some may not be."""
        image = self._image
        if image.uncounted and self._counting is None and self.healthy:
            asked = image.uncounted = [meter for meter in image.uncounted if meter.kept]
            self._counting = self._loop.create_task(self._count(image, tuple(asked)))

    async def _count(self, image: Image, asked: Sequence[Meter]) -> None:
        await count_back(image, asked, self._store, self._clock)
        self._counting = None
        self._writer.kick()

    def _commit_failed(self, changes: Any) -> None:
        """Only the file can tell whether that commit is in it: refuse until it has been read again."""
        self._broken = True
        for future, _ in (*changes.waiters, *self._image.changes.waiters):
            fail(future, StoreUnavailable("the charge could not be made durable", retry_after_s=RECOVERY_S))
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


def fail(future: asyncio.Future[Receipt], error: StoreUnavailable) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # whoever awaits it still gets it; nobody need
