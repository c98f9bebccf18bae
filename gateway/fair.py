"""Who is next at a limit: the lowest priority first, then tenants in turns, in proportion to their weight.

Start-time fair queueing with one unit per call (Goyal, Vin and Cheng, 1996): each call that is served moves the tag of
its tenant on by 1 / weight, and the tenant with the least tag is next. Who comes back begins where the others are.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, Protocol

MUCH_MORE: Final = 4.0  # times what another has waiting, by weight: chance alone makes twice
MEASURED_OVER: Final = 64  # calls that the line served last, from which its pace is told


@dataclass(frozen=True)
class Share:
    """What a tenant may claim of what is short. Of two priorities the lower one is served first, always."""

    tenant: str
    weight: int = 1
    priority: int = 100


class Grant(Protocol):
    """What a call that waits is given."""

    def undo(self) -> None: ...


class Limit(Protocol):
    """What a call waits at."""

    def leave(self, waiter: Waiter) -> None: ...


class Waiter:
    """A call that waits at one or more limits for the first that has room for it.

    State: the limits it still waits at; when it is woken, `grant` is what it was given: None when all pushed it out.
    """

    __slots__ = ("at", "grant", "share", "tokens", "woken")

    def __init__(self, share: Share, tokens: int) -> None:
        self.share = share
        self.tokens = tokens
        self.at: dict[Limit, None] = {}
        self.grant: Grant | None = None
        self.woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def wake(self, grant: Grant | None) -> None:
        self.leave()
        self.grant = grant
        if not self.woken.done():  # it is when the call is about to learn that it was cancelled
            self.woken.set_result(None)

    def leave(self) -> None:
        """Synchronous, so that a call that is cancelled leaves no gap."""
        while self.at:
            limit, _ = self.at.popitem()
            limit.leave(self)

    def pushed_out(self, limit: Limit) -> None:
        del self.at[limit]
        if not self.at:
            self.wake(None)


class _Flow:
    """The calls of one tenant that wait, the oldest first."""

    __slots__ = ("calls", "share", "tag")

    def __init__(self, share: Share, tag: float) -> None:
        self.share = share
        self.tag = tag
        self.calls: OrderedDict[Waiter, None] = OrderedDict()

    @property
    def claim(self) -> tuple[int, float]:
        """Who has the greatest gives way first."""
        return self.share.priority, len(self.calls) / self.share.weight

    def gives_way(self, to: Share, calls: int) -> bool:
        """To an earlier priority, or to who has much less: else it would only change who is refused, and later."""
        priority, claim = self.claim
        return priority > to.priority or (priority == to.priority and claim > MUCH_MORE * calls / to.weight)


class Line:
    """At most `length` calls that wait at one limit; there is a line only while somebody waits.

    State: calls by tenant, the tag of the call served last by priority, how many wait, and how fast they are served.
    """

    __slots__ = ("_flows", "_length", "_reached", "_served", "_since", "size")

    def __init__(self, length: int, now: float) -> None:
        self._length = length
        self._flows: dict[str, _Flow] = {}
        self._reached: dict[int, float] = {}
        self.size = 0
        self._served = 0.0
        self._since = now

    def join(self, waiter: Waiter) -> Waiter | None:
        """Returns who has no place: nobody, the newest call of a tenant that has much more waiting, or this one."""
        share = waiter.share
        out = None
        if self.size >= self._length:
            longest = self._who_gives_way(share)
            if longest is None:
                return waiter
            out = next(reversed(longest.calls))
            self.leave(out)
        flow = self._flows.get(share.tenant)
        if flow is None:
            tag = self._reached.get(share.priority, 0.0) + 1 / share.weight
            flow = self._flows[share.tenant] = _Flow(share, tag)
        flow.calls[waiter] = None
        self.size += 1
        return out

    def has_place(self, share: Share) -> bool:
        return self.size < self._length or self._who_gives_way(share) is not None

    def _who_gives_way(self, share: Share) -> _Flow | None:
        own = self._flows.get(share.tenant)
        longest = max(self._flows.values(), key=lambda flow: flow.claim, default=None)
        if longest is None or not longest.gives_way(share, (len(own.calls) if own else 0) + 1):
            return None
        return longest

    def first(self) -> Waiter:
        flow = min(self._flows.values(), key=lambda flow: (flow.share.priority, flow.tag))
        return next(iter(flow.calls))

    def served(self, waiter: Waiter, now: float) -> None:
        """The first one has what it waited for."""
        flow = self._flows[waiter.share.tenant]
        self._reached[flow.share.priority] = flow.tag
        flow.tag += 1 / flow.share.weight
        self.leave(waiter)
        self._served += 1
        if self._served >= MEASURED_OVER:
            self._served /= 2
            self._since = now - (now - self._since) / 2

    def leave(self, waiter: Waiter) -> None:
        flow = self._flows[waiter.share.tenant]
        del flow.calls[waiter]
        self.size -= 1
        if not flow.calls:
            del self._flows[waiter.share.tenant]

    def empty_in_s(self, now: float) -> float | None:
        """How long all that wait now will take at the pace so far; None: none was served yet."""
        return self.size * (now - self._since) / self._served if self._served else None
