"""Where answers are kept: S3-FIFO weighted by bytes, in which no tenant can flush what others have.

S3-FIFO (Yang et al., SOSP 2023): what is new waits in a small queue, and only what was asked for again there moves on
to the main one; so a run of calls that are never repeated passes by what is. Each tenant has queues of its own. Room is
made where most is: at the tenant that has more bytes than any other, the one that stores counted with what it stores.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heapify, heappop, heappush, heapreplace
from typing import Final

from cachetools import Cache

from gateway.call import Usage

SMALL_SHARE: Final = 10  # percent of a tenant's bytes
MOST_HITS: Final = 3  # that are remembered of an entry
ENTRY_BYTES: Final = 1_000  # what an entry takes in memory beside its body


@dataclass(slots=True)
class Entry:
    """A whole answer as JSON, with what it used when it was made. `created` is monotonic.

    `tenant` is who stored it; `life` the share of the cache's time that this one has, so that what was stored together
    does not end together.
    """

    tenant: str
    route: str
    model: str
    backend: str
    body: bytes
    usage: Usage
    created: float
    life: float = 1.0

    @property
    def size(self) -> int:
        return len(self.body) + ENTRY_BYTES


class Queues:
    """The entries of one tenant. State: queues of key -> [bytes, hits] (the oldest first), their bytes, and `ghosts`.

    Ghosts are keys that left the small queue without a hit: who comes back goes to the main one at once.
    """

    __slots__ = ("_ghosts", "_main", "_small", "bytes", "small_bytes")

    def __init__(self) -> None:
        self._small: OrderedDict[bytes, list[int]] = OrderedDict()
        self._main: OrderedDict[bytes, list[int]] = OrderedDict()
        self._ghosts: OrderedDict[bytes, None] = OrderedDict()
        self.bytes = self.small_bytes = 0

    def __len__(self) -> int:
        return len(self._small) + len(self._main)

    def hit(self, key: bytes) -> None:
        slot = self._small.get(key) or self._main[key]
        if slot[1] < MOST_HITS:
            slot[1] += 1

    def add(self, key: bytes, size: int) -> None:
        self.bytes += size
        if key in self._ghosts:
            del self._ghosts[key]
            self._main[key] = [size, 0]
        else:
            self.small_bytes += size
            self._small[key] = [size, 0]

    def drop(self, key: bytes) -> None:
        slot = self._small.pop(key, None)
        if slot is None:
            slot = self._main.pop(key)
        else:
            self.small_bytes -= slot[0]
        self.bytes -= slot[0]

    def victim(self) -> bytes:
        """The key to let go next, still in its queue; there must be one. Moves on what has earned it."""
        while True:
            if self._small and (not self._main or self.small_bytes * 100 >= self.bytes * SMALL_SHARE):
                key = self._of_small()
            else:
                key = self._of_main()
            if key is not None:
                return key

    def _of_small(self) -> bytes | None:
        key, slot = next(iter(self._small.items()))
        if slot[1]:
            del self._small[key]
            self.small_bytes -= slot[0]
            self._main[key] = [slot[0], 0]
            return None
        self._ghosts[key] = None
        while len(self._ghosts) > max(1, len(self)):
            self._ghosts.popitem(last=False)
        return key

    def _of_main(self) -> bytes | None:
        key, slot = next(iter(self._main.items()))
        if not slot[1]:
            return key
        slot[1] -= 1
        self._main.move_to_end(key)
        return None


class Answers(Cache[bytes, Entry]):
    """Keys to entries, at most `max_bytes` of them. A lookup counts as a hit; `in` does not.

    State, beside that of the base class: queues by tenant (as many as have entries), how many entries were let go, and
    `_ranking`, a heap of (-bytes, tenant) in which each tenant stands at least once with no less than it has.
    """

    def __init__(self, max_bytes: int) -> None:
        super().__init__(max_bytes, getsizeof=lambda entry: entry.size)
        self._queues: dict[str, Queues] = {}
        self._ranking: list[tuple[int, str]] = []
        self.evicted = 0

    def __getitem__(self, key: bytes) -> Entry:
        entry = super().__getitem__(key)
        self._queues[entry.tenant].hit(key)
        return entry

    def __setitem__(self, key: bytes, entry: Entry) -> None:
        """Raises ValueError for what is larger than all of the cache."""
        size = entry.size
        if size > self.maxsize:
            raise ValueError("an answer is larger than the cache")
        if key in self:
            del self[key]
        while self.currsize + size > self.maxsize:
            self._evict(entry.tenant, size)
        super().__setitem__(key, entry)
        queues = self._queues.setdefault(entry.tenant, Queues())
        queues.add(key, size)
        self._rank(entry.tenant, queues)

    def __delitem__(self, key: bytes) -> None:
        tenant = super().__getitem__(key).tenant
        super().__delitem__(key)
        queues = self._queues[tenant]
        queues.drop(key)
        if not queues:
            del self._queues[tenant]  # and its ghosts: who has nothing here costs nothing

    def popitem(self) -> tuple[bytes, Entry]:
        """What would have to go next. Raises KeyError when there is nothing."""
        if not self._queues:
            raise KeyError("the cache is empty")
        key = self._queues[self._richest()].victim()
        entry = super().__getitem__(key)
        del self[key]
        return key, entry

    def clear(self) -> None:
        super().clear()
        self._queues.clear()
        self._ranking.clear()

    def peek(self, key: bytes) -> Entry | None:
        """Without a hit."""
        return super().__getitem__(key) if key in self else None

    def items_unread(self) -> Iterator[tuple[bytes, Entry]]:
        """All, in the order of their storing, without a hit for any."""
        return ((key, super(Answers, self).__getitem__(key)) for key in self)

    def tenants(self) -> list[tuple[str, int, int]]:
        """(tenant, entries, bytes), the largest first."""
        shares = [(tenant, len(queues), queues.bytes) for tenant, queues in self._queues.items()]
        return sorted(shares, key=lambda share: share[2], reverse=True)

    def _rank(self, tenant: str, queues: Queues) -> None:
        """Only growth has to be told at once; what is told too often is cleared away."""
        heappush(self._ranking, (-queues.bytes, tenant))
        if len(self._ranking) > 2 * len(self._queues) + 64:
            self._ranking = [(-queues.bytes, tenant) for tenant, queues in self._queues.items()]
            heapify(self._ranking)

    def _richest(self) -> str:
        """The first of the ranking that still has what it says; there must be a tenant."""
        while True:
            said, tenant = self._ranking[0]
            queues = self._queues.get(tenant)
            if queues is None:
                heappop(self._ranking)
            elif queues.bytes == -said:
                return tenant
            else:
                heapreplace(self._ranking, (-queues.bytes, tenant))

    def _evict(self, tenant: str, size: int) -> None:
        """From the richest; the one that stores counts as if it had stored already."""
        richest, own = self._richest(), self._queues.get(tenant)
        if own is not None and own.bytes + size >= self._queues[richest].bytes:
            richest = tenant
        del self[self._queues[richest].victim()]
        self.evicted += 1
