"""A gateway, its clients and its operator, all out of one seed: who asks what when, what fails, and when it dies."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from gateway.charging.caps import CREDITS
from gateway.config.model import Outage
from gateway.errors import GatewayError
from tests.charging.simulated.backends import Backends
from tests.charging.simulated.disk import Disk
from tests.charging.simulated.http import Answer, SimRequest
from tests.charging.simulated.loop import SimClock, VirtualLoop
from tests.charging.simulated.process import Process
from tests.charging.simulated.town import ADMIN_KEY, KEYS, START_MS, STATIC_KEY, configs_at

OUTAGES = (Outage(), Outage("serve", 20_000_000_000), Outage("serve", 10_000_000_000_000))
DOWN_S = (0.0, 0.5, 30.0)
GIVE_UP_S = 2000.0  # of virtual time: longer than any deadline of a call


@dataclass(frozen=True)
class Mood:
    """How much goes wrong: shares of answers, of commits that fail, and at which the process dies, of clients, and of
    the spool's entries that fail."""

    trouble: float
    failing: float = 0.0
    crashing: float = 0.0
    leaving: float = 0.1
    spool_failing: float = 0.0


MOODS = (
    Mood(0.05), Mood(0.3), Mood(0.7), Mood(0.95, leaving=0.02), Mood(0.2, leaving=0.6), Mood(0.2, failing=0.08),
    Mood(0.2, crashing=0.04), Mood(0.3, failing=0.05, crashing=0.05, leaving=0.3),
    Mood(0.2, failing=0.08, spool_failing=0.3), Mood(0.2, failing=0.08, crashing=0.03, spool_failing=0.1),
)  # fmt: skip


@dataclass(eq=False)
class Asked:
    """A call of a client, as its client knows it. `request` is its id, `process` who was asked, by number."""

    tag: str
    tenant: str
    key: str
    model: str
    once: str | None
    process: int
    at_ms: int
    era: int
    barred: bool  # its key was revoked, or an account on its path suspended, all the time
    request: str = ""
    left: bool = False
    answer: Answer = field(default_factory=lambda: Answer(b""))


@dataclass
class Facts:
    """What the operator was told: orders by id with the answer, keys that are gone, accounts that may not call."""

    orders: dict[str, dict[str, Any]] = field(default_factory=dict)
    wished: dict[str, dict[str, Any]] = field(default_factory=dict)
    revoked: set[str] = field(default_factory=set)
    suspended: set[str] = field(default_factory=set)
    turns: int = 0  # how often an account was suspended, or let in again
    codes: dict[str, str] = field(default_factory=dict)  # tenants that have redeemed them
    capped: set[str] = field(default_factory=set)  # whose caps were edited
    deeds: dict[str, tuple[str, bool]] = field(default_factory=dict)  # by request: its path, and whether it is new
    refused: set[str] = field(default_factory=set)  # requests that would have changed something
    months: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)  # that are cut, by tenant, as shown


class World:
    """State: all of it. What is decided by chance is drawn from `rng` alone."""

    def __init__(self, loop: VirtualLoop, rng: random.Random, folder: str, mood: Mood) -> None:
        self.loop = loop
        self.key_ids: dict[str, str] = {}
        self.rng = rng
        self.mood = mood
        outage = rng.choice(OUTAGES)
        self.configs = tuple(replace(config, outage=outage) for config in configs_at(folder))
        self.path = f"{folder}/moma.db"
        self.version = 0
        self.era = 0  # counts the jumps of the wall clock: what lasts a day is over at once
        self.clock = SimClock(loop, START_MS)
        self.backends = Backends(rng, mood.trouble)
        self.clock_was_set = False
        self.facts = Facts()
        self.calls: list[Asked] = []
        self.story: list[str] = []
        self.unforeseen: list[str] = []
        self.counted: Counter[str] = Counter()
        self.process: Process
        self.processes = self.crashes = 0
        self.driver: asyncio.Task[None] | None = None  # who waits for each operation
        self._up = asyncio.Event()
        self._own: set[asyncio.Task[Any]] = set()
        self.names = itertools.count(1)
        self._asking: dict[asyncio.Task[Any], Asked] = {}

    # -- the process ------------------------------------------------------------------------------------------------

    async def boot(self) -> None:
        """Until one is up: it may die while it starts."""
        while True:
            disk = Disk(self.rng, self.mood.failing, self.mood.crashing, self.mood.spool_failing)
            disk.count = self.seen
            process = self.process = Process(disk, self.clock, self.rng)
            self.processes += 1
            died = self.loop.create_future()
            disk.crash = lambda why, died=died: self._died(why, died)  # type: ignore[misc]
            start = self.loop.create_task(process.start(self.configs[self.version], self.backends))
            await asyncio.wait((start, died), return_when=asyncio.FIRST_COMPLETED)
            if not disk.dead and start.exception() is None:
                break
            if disk.dead and not start.done():
                start.cancel()
                await asyncio.wait((start,))
            disk.dead = True
            disk.let_go()
            self.tell(f"it does not start: {start.exception() if not start.cancelled() else 'killed'}")
            await asyncio.sleep(0.5)
        disk.crash = self._crashed
        self._up.set()

    def let_go(self) -> None:
        """Of the files of the last process, if there was one."""
        if self.processes:
            self.process.disk.let_go()

    def _died(self, why: str, died: asyncio.Future[None]) -> None:
        self.tell(f"killed {why}")
        self.crashes += 1
        if not died.done():
            died.set_result(None)

    def _crashed(self, why: str) -> None:
        self.tell(f"killed {why}")
        self.crashes += 1
        self._up.clear()
        self.process.cut_off()
        self.loop.call_soon(lambda: self.own(self._reboot()))

    async def _reboot(self) -> None:
        current = asyncio.current_task()
        rest = [task for task in self.loop.living() if task not in self._own and task is not current]
        for task in rest:
            task.cancel()
        if rest:
            await asyncio.wait(rest)
        self.process.disk.let_go()
        await asyncio.sleep(self.rng.choice(DOWN_S))
        await self.boot()
        self.tell("up again")

    async def restart(self) -> None:
        """A shutdown and a start, unless it dies meanwhile."""
        process = await self.up()
        self._up.clear()
        closing = self.loop.create_task(process.aclose())
        await asyncio.wait((closing,))
        if process.dead:  # then another is on its way
            await self.up()
            return
        process.disk.dead = True
        if closing.exception() is not None:
            raise AssertionError("the shutdown failed") from closing.exception()
        await self.boot()

    async def up(self) -> Process:
        while not self._up.is_set():
            await self._up.wait()
        return self.process

    def own(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """What no crash ends: clients and the operator."""
        task = self.loop.create_task(work)
        self._own.add(task)
        task.add_done_callback(self._own_ended)
        return task

    def _own_ended(self, task: asyncio.Task[Any]) -> None:
        self._own.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.unforeseen.append(f"{type(error).__name__}: {error}")

    def next_id(self, kind: str) -> str:
        name = f"{kind}-{next(self.names)}"
        task = asyncio.current_task()
        if kind == "req" and task in self._asking:
            self._asking[task].request = name
        return name

    # -- clients and the operator -----------------------------------------------------------------------------------

    async def admin(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """(0, None) when the process died before it had answered."""
        process = await self.up()
        headers = {"authorization": f"Bearer {ADMIN_KEY}"}
        request = SimRequest(method, f"/admin/v1/{path}", headers, orjson.dumps(body or {}), self.rng)
        request.slow = False
        await asyncio.wait((process.serve(request),))
        answer = Answer(request.received)
        if not answer.complete:
            return 0, None
        if method != "GET":
            self._note_deed(f"{method} {path}", answer)
        return answer.status, answer.json

    def _note_deed(self, what: str, answer: Answer) -> None:
        """A month that is cut leaves no entry: that it ended has changed it."""
        request = answer.headers["x-request-id"]
        if 400 <= answer.status < 500:
            self.facts.refused.add(request)
        elif answer.status < 300:
            self.facts.deeds[request] = what, answer.status == 201 and not what.endswith("/statements")

    async def ask(self, asked: Asked, body: dict[str, Any], headers: dict[str, str], leave: Leave | None) -> Answer:
        """One call to its end, or to that of its client's patience."""
        process = self.process
        path = "/v1/embeddings" if "input" in body else "/v1/chat/completions"
        sent = {"authorization": f"Bearer {asked.key}", **headers}
        request = SimRequest("POST", path, sent, orjson.dumps(body), self.rng)
        task = process.serve(request)
        self._asking[task] = asked
        if leave is not None:
            leave(self.loop, lambda: self._leave(asked, request, task))
        turns = self.facts.turns
        await asyncio.wait((task,))
        asked.barred = asked.barred and (asked.key in self.facts.revoked or turns == self.facts.turns)
        del self._asking[task]
        asked.answer = Answer(request.received)
        self.calls.append(asked)
        self.tell(
            f"{asked.request} {asked.tag} by {asked.tenant} to {asked.model}: {asked.answer.status}"
            f"{' ' + asked.answer.code if asked.answer.code else ''}"
            f"{' complete' if asked.answer.complete else ''}{' left' if asked.left else ''}"
            f"{' once ' + asked.once if asked.once else ''}"
        )
        return asked.answer

    def _leave(self, asked: Asked, request: SimRequest, task: asyncio.Task[None]) -> None:
        if not task.done():
            asked.left = request.gone = True
            task.cancel()

    def asked(self, tag: str, key: str, model: str, once: str | None) -> Asked:
        tenant = KEYS.get(key) or ("solo" if key == STATIC_KEY else "")
        barred = key in self.facts.revoked or bool(self.facts.suspended & {*self.path_of(tenant)})
        return Asked(tag, tenant, key, model, once, self.processes, self.clock.wall_ms(), self.era, barred)

    def path_of(self, tenant: str) -> tuple[str, ...]:
        try:
            return self.process.ledger.tenant(tenant).path
        except GatewayError:
            return (tenant,)

    def seen(self, what: str) -> None:
        """Told where there are too many for the story."""
        self.counted[what] += 1

    def tell(self, what: str) -> None:
        self.story.append(f"{self.loop.at:12.4f}  {what}")

    async def quiet(self) -> None:
        """Whatever was begun has ended."""
        mine = asyncio.current_task(), self.driver
        while others := [task for task in self._own if task not in mine]:
            await asyncio.wait(others)
        process = await self.up()
        until = self.loop.at + GIVE_UP_S
        while not process.dead and busy(process) and self.loop.at < until:
            await asyncio.sleep(1.0)

    def check_now(self) -> None:
        """What must hold between any two steps."""
        if self._up.is_set() and not self.process.ledger._broken:  # while the file takes none the image goes on
            self.process.ledger.check_invariants()
            self._check_caps()
            self._check_exposure()

    def _check_exposure(self) -> None:
        """What is at stake in an outage is bounded: each call that began in it takes at most what it held then."""
        exposure = self.process.ledger._exposure
        beyond = any(heard.goes_beyond for heard in self.backends.heard)
        assert beyond or exposure.taken_uc <= exposure.limit_uc, f"beyond the exposure: {exposure}"
        if exposure.taken_uc:
            self.seen("served in an outage")

    def _check_caps(self) -> None:
        """Those of a plan that nobody has edited: what is charged is at most what was held."""
        beyond = any(heard.goes_beyond for heard in self.backends.heard)
        # What the clock has made a cap forget is counted beside the calls.
        if beyond or self.clock_was_set or "ben" in self.facts.capped:
            return
        for meter in self.process.ledger.tenant("ben").meters:
            assert meter.unit != CREDITS or meter.taken <= meter.limit, f"beyond a cap: {meter}"


Leave = Callable[[VirtualLoop, Callable[[], None]], object]
Operation = Callable[[World], Awaitable[None]]


def busy(process: Process) -> bool:
    parts = process.parts
    return bool(
        process._requests or parts.caches._tasks or process.app._once._tasks or process.ledger.open_holds
        or not process.ledger.healthy or process.ledger._writer._busy or process.chores
    )  # fmt: skip
