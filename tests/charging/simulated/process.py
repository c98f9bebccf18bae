"""A gateway as `gateway.app` makes it, over a virtual clock, scripted backends and a file that fails; without threads.

It ends as a process does: by a shutdown, or by a crash from one step to the next.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

from gateway.app import App, ledger_path, open_config_ledger
from gateway.cache.caches import Caches
from gateway.charging.admins import FILE
from gateway.charging.cutting import Statements
from gateway.charging.daily import Daily
from gateway.charging.ledger import Ledger
from gateway.charging.rate_cards import tariffs
from gateway.chores import Chores
from gateway.config.model import Config
from gateway.config.secrets import secrets_of
from gateway.keeping import Keeping
from gateway.metrics import Metrics
from gateway.once import Once
from gateway.reload import Loaded, Reloader
from tests.charging.simulated.backends import Backends
from tests.charging.simulated.disk import Disk
from tests.charging.simulated.http import SimRequest
from tests.charging.simulated.loop import SimClock

FAREWELL_S = 1.0


class Process:
    """State: the app's parts, the requests under way, and whether it is `dead`."""

    def __init__(self, disk: Disk, clock: SimClock, rng: random.Random) -> None:
        self.disk = disk
        self.clock = clock
        self.ledger: Ledger
        self._rng = rng
        self._requests: dict[asyncio.Task[None], SimRequest] = {}
        self.chores: set[asyncio.Task[None]] = set()

    @property
    def dead(self) -> bool:
        return self.disk.dead

    async def start(self, config: Config, backends: Backends) -> None:
        """Raises StoreUnavailable."""
        app = self.app = App(config)
        app.metrics = Metrics()
        self.ledger = app.ledger = await open_config_ledger(config, self.clock)
        parts = self.parts = app._parts = replace(
            app._made(self.clock),
            rng=self._rng,
            client=backends,  # type: ignore[arg-type]
            caches=Caches(self.clock, self._rng),
        )
        backends.dead = lambda: self.dead
        app._once, app._keeping = Once(self.clock), Keeping(None)
        path, zone = ledger_path(config), config.timezone
        app._statements = Statements(self.ledger, path, zone, config.currency, self.clock)
        app._daily = Daily(self.ledger, path, zone)
        app._chores = Chores(self.clock)
        self.reloader: Reloader = app._made_reloader(parts)
        self.front = app._front = app._served(parts, self.reloader)
        app._check(self.reloader.generation)
        await app._chores.aclose()  # `look` does what is due

    def serve(self, request: SimRequest) -> asyncio.Task[None]:
        """As the edge does: a task for each request, cancelled when its client leaves."""
        task = asyncio.get_running_loop().create_task(self.front.handle(request))  # type: ignore[arg-type]
        self._requests[task] = request
        task.add_done_callback(lambda done: self._requests.pop(done, None))
        return task

    async def reload(self, config: Config) -> None:
        """Raises StoreUnavailable."""
        await self.reloader._apply(Loaded(config, secrets_of(config), [], [], tariffs(config)), FILE, "")

    def look(self) -> None:
        """What the app does every few seconds, or minutes."""
        self.app._expire(self.clock.wall_ms())
        self.ledger.checkpoint()
        self.parts.caches.sweep()
        self.parts.health.look(self.clock.now())

        if not self.chores:
            for work in (self.app._daily.catch_up(), self.app._statements.cut_ended()):
                task = asyncio.get_running_loop().create_task(work)
                self.chores.add(task)
                task.add_done_callback(self._chore_ended)

    def _chore_ended(self, task: asyncio.Task[None]) -> None:
        self.chores.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            asyncio.get_running_loop().call_exception_handler({"message": "a chore failed", "exception": error})

    def cut_off(self) -> None:
        """No byte reaches a client from here on."""
        for request in self._requests.values():
            request.gone = True

    async def aclose(self) -> None:
        """As App.aclose and the exit stack of its start: calls have a second, then their connections are closed."""
        app = self.app
        self.front.draining = True
        self.parts.deadlines.end()
        if self._requests:
            await asyncio.wait([*self._requests], timeout=FAREWELL_S)
        self.cut_off()
        for task in self._requests:
            task.cancel()
        if self._requests:
            await asyncio.wait([*self._requests])
        await self.reloader.aclose()
        await app._chores.aclose()
        for chore in [*self.chores]:
            chore.cancel()
        if self.chores:
            await asyncio.wait([*self.chores])
        await app._once.aclose()
        await self.parts.caches.aclose()
        await self.ledger.aclose()
