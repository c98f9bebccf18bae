"""All caches of a gateway: they outlive the configuration that named them; operators look at them and purge them."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from gateway.cache.flight import Budget, Flight
from gateway.cache.store import Answers, Entry
from gateway.clock import Clock
from gateway.config.model import Cache
from gateway.metrics import CacheState

_log = logging.getLogger("gateway.cache")
RESULTS: Final = ("hit", "miss", "bypass", "coalesced")
JITTER: Final = 0.1  # of the time to live: what was stored together shall not end together
LOG_FACTOR: Final = 4  # a stream may be so much longer than the largest entry: its answer is a tenth of it
SWEPT_AT_ONCE: Final = 1_000
TENANTS_SHOWN: Final = 50


@dataclass(slots=True)
class _Cache:
    settings: Cache
    answers: Answers
    budget: Budget
    lookups: dict[str, int]


class Caches:
    """Times are monotonic. State: the caches by name, the calls under way that others may join, and their tasks."""

    def __init__(self, clock: Clock, rng: random.Random) -> None:
        self._clock = clock
        self._rng = rng
        self._caches: dict[str, _Cache] = {}
        self._flights: dict[tuple[str, bytes], Flight] = {}
        self._tasks: dict[asyncio.Task[None], Flight] = {}

    def configure(self, caches: Iterable[Cache]) -> None:
        """The caches from now on. One that was there by this name keeps its answers, as far as there is room."""
        before, self._caches = self._caches, {}
        for settings in caches:
            known = before.get(settings.name)
            if known is None:
                lookups = dict.fromkeys(RESULTS, 0)
                known = _Cache(settings, Answers(settings.max_bytes), Budget(settings.max_bytes), lookups)
            elif settings.max_bytes != known.settings.max_bytes:
                known.answers = _moved(known.answers, settings.max_bytes)
                known.budget.limit = settings.max_bytes
            known.settings = settings
            self._caches[settings.name] = known

    def find(self, name: str, key: bytes, max_age_s: float | None = None) -> Entry | None:
        """A stored answer that may be given now."""
        cache = self._caches.get(name)
        if cache is None or key not in cache.answers:
            return None
        entry = cache.answers[key]
        if self._over(cache, entry):
            del cache.answers[key]
            return None
        return entry if self._young(entry, max_age_s) else None

    def peek(self, name: str, key: bytes, max_age_s: float | None = None) -> Entry | None:
        """What `find` would find; leaves no trace."""
        cache = self._caches.get(name)
        entry = None if cache is None else cache.answers.peek(key)
        if cache is None or entry is None or self._over(cache, entry):
            return None
        return entry if self._young(entry, max_age_s) else None

    def _over(self, cache: _Cache, entry: Entry) -> bool:
        return self._clock.now() - entry.created >= cache.settings.ttl_s * entry.life

    def _young(self, entry: Entry, max_age_s: float | None) -> bool:
        return max_age_s is None or self._clock.now() - entry.created < max_age_s

    def keep(self, name: str, key: bytes, entry: Entry) -> None:
        """Stores it, unless it is larger than this cache takes."""
        cache = self._caches.get(name)
        if cache is not None and entry.size <= min(cache.settings.max_entry, cache.answers.maxsize):
            entry.life = 1.0 - JITTER * self._rng.random()
            cache.answers[key] = entry

    def age_s(self, entry: Entry) -> int:
        """In whole seconds, as the header `age` has it."""
        return int(self._clock.now() - entry.created)

    def looked_up(self, name: str, result: str) -> None:
        cache = self._caches.get(name)
        if cache is not None:
            cache.lookups[result] += 1

    def sweep(self) -> None:
        """Lets go what has ended. What was stored first ends first, but for the jitter."""
        for cache in self._caches.values():
            ended = self._clock.now() - cache.settings.ttl_s
            oldest = islice(cache.answers.items_unread(), SWEPT_AT_ONCE)
            for key in [key for key, entry in oldest if entry.created <= ended]:
                del cache.answers[key]

    # -- calls under way ------------------------------------------------------------------------------------------

    def under_way(self, name: str, key: bytes) -> Flight | None:
        return self._flights.get((name, key))

    def budget(self, name: str) -> tuple[int, Budget]:
        """How long the log of one call may be, and what all of them together may take."""
        cache = self._caches.get(name)
        return (0, Budget(0)) if cache is None else (cache.settings.max_entry * LOG_FACTOR, cache.budget)

    def fly(self, key: bytes, flight: Flight, work: Coroutine[Any, Any, None]) -> None:
        """Runs the work of a flight in a task of its own. Others may join the first of a key until it is alone."""
        at = (flight.cache, key)
        if at not in self._flights:
            self._flights[at] = flight
            flight.on_alone = lambda: self._landed(at, flight)
        self.fly_alone(flight, work)

    def fly_alone(self, flight: Flight, work: Coroutine[Any, Any, None]) -> None:
        """One that nobody joins."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[task] = flight
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("an answer could not be kept", exc_info=error)

    def _landed(self, at: tuple[str, bytes], flight: Flight) -> None:
        if self._flights.get(at) is flight:
            del self._flights[at]

    async def aclose(self) -> None:
        """Ends the calls that are still under way, each at its synchronous end."""
        tasks = list(self._tasks)
        for flight in self._tasks.values():
            flight.abandon()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- what operators see and do --------------------------------------------------------------------------------

    def names(self) -> list[str]:
        return list(self._caches)

    def states(self) -> list[CacheState]:
        return [
            CacheState(name, len(cache.answers), int(cache.answers.currsize), cache.lookups)
            for name, cache in self._caches.items()
        ]

    def look(self) -> list[dict[str, Any]]:
        """Figures of each cache; of tenants the largest. Nothing of what was asked or answered."""
        under_way = [name for name, _ in self._flights]
        return [
            {
                "cache": name,
                "entries": len(cache.answers),
                "bytes": cache.answers.currsize,
                "max_bytes": cache.answers.maxsize,
                "ttl_s": cache.settings.ttl_s,
                "hits": cache.lookups["hit"],
                "misses": cache.lookups["miss"],
                "coalesced": cache.lookups["coalesced"],
                "bypassed": cache.lookups["bypass"],
                "evicted": cache.answers.evicted,
                "under_way": under_way.count(name),
                "tenants": [
                    {"tenant": tenant, "entries": entries, "bytes": size}
                    for tenant, entries, size in cache.answers.tenants()[:TENANTS_SHOWN]
                ],
            }
            for name, cache in self._caches.items()
        ]

    def purge(self, cache: str | None = None, tenant: str | None = None, model: str | None = None) -> tuple[int, int]:
        """Lets go what all of these name, None being any: (entries, bytes). `model` is one that answered, or a route.

        A call under way is not joined any more and not stored, unless it is of another cache or tenant.
        """
        entries = size = 0
        for name, one in self._caches.items():
            if cache not in (None, name):
                continue
            gone = [(key, entry) for key, entry in one.answers.items_unread() if _is_of(entry, tenant, model)]
            for key, entry in gone:
                del one.answers[key]
                entries, size = entries + 1, size + entry.size
        for flight in list(self._tasks.values()):
            if cache in (None, flight.cache) and tenant in (None, flight.tenant):
                flight.alone()
        return entries, size


def _is_of(entry: Entry, tenant: str | None, model: str | None) -> bool:
    return tenant in (None, entry.tenant) and model in (None, entry.model, entry.route)


def _moved(answers: Answers, max_bytes: int) -> Answers:
    """The same answers in a cache of another size, those that were stored last at least."""
    moved = Answers(max_bytes)
    moved.evicted = answers.evicted
    for key, entry in answers.items_unread():
        if entry.size <= max_bytes:
            moved[key] = entry
    return moved
