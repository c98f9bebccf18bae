"""What the ledger must do, as plain arithmetic over pots of credits: no batches, no file, nothing put off.

Renewals and expiries happen the moment their time comes; the ledger does them when it next looks.
"""

from __future__ import annotations

import calendar
import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

DAY_MS = 86_400_000
SHANGHAI_MS = 8 * 3_600_000  # it has no summer time
WRITTEN_AFTER_MS = 50  # a younger hold leaves nothing in the file
LEAST_CLAMPED = 256
Terms = tuple[str, int, int, int | None, int]
Offer = tuple[int, str | None, int]  # how much, every when, with which priority


@dataclass
class Pot:
    """A grant: what of it is neither left, spent nor expired is held."""

    owner: str
    granted: int
    starts: int
    ends: int | None
    priority: int
    created: int
    left: int
    spent: int = 0
    expired: int = 0

    @property
    def prepaid(self) -> bool:
        return self.priority <= 1000

    @property
    def terms(self) -> Terms:
        return (self.owner, self.granted, self.starts, self.ends, self.priority)

    def over(self, now: int) -> bool:
        return self.ends is not None and self.ends <= now


@dataclass
class Open:
    """A call in flight, with what it holds of which pots."""

    name: str
    request: str
    tenant: str
    tokens: int
    parts: list[tuple[Pot, int]]
    opened: int
    deadline: int
    most: int = 0  # tokens that a sliced one may grow to
    rate: int = 0
    version: int = 0  # of the rate card, at its reserve
    sent: bool = False
    written: bool = False
    path: tuple[str, ...] = ()

    @property
    def held(self) -> int:
        return sum(uc for _, uc in self.parts)


@dataclass(frozen=True)
class Entry:
    """A charge record, without what the model has no opinion on."""

    name: str
    request: str
    tenant: str
    version: int
    status: str
    reserved: int
    charged: int
    debt: int
    loss: int
    parts: tuple[tuple[Terms, int], ...]
    flags: tuple[str, ...]


@dataclass
class Books:
    """`paths` run from the root to each account; `plans` are what each one's plan offers, `since` its activation."""

    now: int
    paths: dict[str, tuple[str, ...]] = field(default_factory=dict)
    plans: dict[str, tuple[Offer, ...]] = field(default_factory=dict)
    since: dict[str, int] = field(default_factory=dict)
    pots: list[Pot] = field(default_factory=list)
    renewed: set[tuple[str, int, int]] = field(default_factory=set)
    refs: set[tuple[str, str]] = field(default_factory=set)
    calls: dict[str, Open] = field(default_factory=dict)
    closed: dict[str, int | None] = field(default_factory=dict)  # what was charged, None when nothing was settled
    entries: list[Entry] = field(default_factory=list)
    debt: Counter[str] = field(default_factory=Counter)
    charged: Counter[str] = field(default_factory=Counter)
    loss: Counter[str] = field(default_factory=Counter)
    version: int = 1
    barred: set[str] = field(default_factory=set)
    caps: dict[str, dict[tuple[str, str], int]] = field(default_factory=dict)
    uses: list[tuple[tuple[str, ...], int, int, int]] = field(default_factory=list)  # path, opened, credits, calls

    # -- time ---------------------------------------------------------------------------------------------------

    def account(self, name: str, parent: str | None, offers: tuple[Offer, ...]) -> None:
        self.paths[name] = (*(self.paths[parent] if parent else ()), name)
        self.plans[name], self.since[name] = offers, self.now
        self.pass_to(self.now)

    def pass_to(self, now: int) -> None:
        self.now = now
        for pot in self.pots:
            if pot.over(now):
                pot.expired, pot.left = pot.expired + pot.left, 0
        for name, offers in self.plans.items():
            for index, (uc, every, priority) in enumerate(offers):
                start, end = period(self.since[name], every, now)
                if (name, index, start) not in self.renewed:
                    self.renewed.add((name, index, start))
                    self.pots.append(Pot(name, uc, start, end, priority, now, uc))
        for call in self.calls.values():
            call.written = call.written or now - call.opened >= WRITTEN_AFTER_MS

    def next_event(self) -> int:
        times = [ms for pot in self.pots for ms in (pot.starts, pot.ends) if ms is not None and ms > self.now]
        return min(times, default=self.now + DAY_MS)

    # -- grants -------------------------------------------------------------------------------------------------

    def grant(self, owner: str, uc: int, starts: int, ends: int | None, priority: int, ref: str | None) -> None:
        if ref is not None and (owner, ref) in self.refs:
            return
        if ref is not None:
            self.refs.add((owner, ref))
        self.pots.append(Pot(owner, uc, starts, ends, priority, self.now, uc))
        self.repay(owner)

    def move(self, name: str, parent: str) -> None:
        """What is under way ends where it began."""
        cut = len(self.paths[name]) - 1
        for one, path in self.paths.items():
            if name in path:
                self.paths[one] = (*self.paths[parent], *path[cut:])

    def live(self, path: tuple[str, ...]) -> list[Pot]:
        return [p for p in self.pots if p.owner in path and p.starts <= self.now and not p.over(self.now)]

    def draw(self, path: tuple[str, ...], uc: int, *, prepaid: bool = False) -> list[tuple[Pot, int]]:
        """Take up to `uc` out of what the tenant may spend, what burns first at first."""
        parts = []
        never = 1 << 70
        for pot in sorted(self.live(path), key=lambda p: (p.priority, p.ends or never, p.created)):
            part = min(uc, pot.left) if pot.prepaid or not prepaid else 0
            if part:
                pot.left -= part
                uc -= part
                parts.append((pot, part))
        return parts

    def repay(self, name: str) -> None:
        for pot, uc in self.draw(self.paths[name], self.debt[name]):
            pot.spent += uc
            self.debt[name] -= uc

    # -- calls --------------------------------------------------------------------------------------------------

    def reserve(self, call: Open, input_uc: int, rate: int, *, clamp: bool, slice_: int = 0) -> bool:
        """`call.tokens` is what is asked for, and then what was granted."""
        call.rate = rate
        call.path = self.paths[call.tenant]
        for name in call.path:
            self.repay(name)
            if self.debt[name]:
                return False
        rooms = self.rooms(call.path)
        if self.barred & {*call.path} or any(unit == "calls" and room < 1 for unit, room in rooms):
            return False
        free = min(
            [sum(pot.left for pot in self.live(call.path)), *(room for unit, room in rooms if unit == "credits")]
        )
        large = slice_ and call.tokens > slice_ and (input_uc + rate * call.tokens) * 4 > free
        if large and input_uc + rate * slice_ <= free:
            call.most, call.tokens = call.tokens, slice_
        elif input_uc + rate * call.tokens > free:
            fits = min(call.tokens, max(0, free - input_uc) // rate) if clamp else 0
            if fits < max(1, min(LEAST_CLAMPED, call.tokens)) or input_uc > free:
                return False
            call.tokens = fits
        call.parts = self.draw(call.path, input_uc + rate * call.tokens)
        call.version = self.version
        self.calls[call.name] = call
        return True

    def extend(self, name: str, wanted: int) -> int:
        """How many more tokens a sliced call holds."""
        call = self.calls[name]
        wanted = min(wanted, call.most - call.tokens)
        if wanted <= 0:
            return 0
        for node in call.path:
            self.repay(node)
            if self.debt[node]:
                return 0
        rooms = [
            limit - self.used(node, window, unit) - self.held(node, window, unit)
            for node in call.path
            for (window, unit), limit in self.caps.get(node, {}).items()
            if unit == "credits" and counts(window, call.opened, self.now)
        ]
        free = min([sum(pot.left for pot in self.live(call.path)), *rooms])
        fits = min(wanted, max(0, free) // call.rate)
        if self.barred & {*call.path} or fits < min(LEAST_CLAMPED, wanted):
            return 0
        for pot, uc in self.draw(call.path, call.rate * fits):
            place = next((n for n, (held, _) in enumerate(call.parts) if held is pot), None)
            if place is None:
                call.parts.append((pot, uc))
            else:
                call.parts[place] = (pot, call.parts[place][1] + uc)
        call.tokens += fits
        return fits

    def rooms(self, path: tuple[str, ...]) -> list[tuple[str, int]]:
        """What each cap on the path leaves, by all that ever was: nothing is summed up in between."""
        return [
            (unit, limit - self.used(name, window, unit) - self.held(name, window, unit))
            for name in path
            for (window, unit), limit in self.caps.get(name, {}).items()
        ]

    def used(self, name: str, window: str, unit: str) -> int:
        counting = [use for use in self.uses if name in use[0] and counts(window, use[1], self.now)]
        return sum(use[2] if unit == "credits" else use[3] for use in counting)

    def held(self, name: str, window: str, unit: str) -> int:
        counting = [c for c in self.calls.values() if name in c.path and counts(window, c.opened, self.now)]
        return sum(call.held if unit == "credits" else 1 for call in counting)

    def settle(self, name: str, cost: int, flags: tuple[str, ...]) -> int:
        """From what the call holds, then from what else it may spend, then as debt, at most what it held; then lost."""
        call = self.calls.pop(name)
        charged = min(cost, call.held) if {"bad_usage", "estimated"} & {*flags} else cost
        due, paid = charged, []
        for pot, held in call.parts:
            if not pot.prepaid:  # after what is prepaid, which others may have given back
                first = self.draw(call.path, due, prepaid=True)
                paid += first
                due -= sum(uc for _, uc in first)
            used = min(held, due)
            due -= used
            paid.append((pot, used))
            self.give_back(pot, held - used)
        paid += self.draw(call.path, due)
        for pot, uc in paid:
            pot.spent += uc
        unpaid = charged - sum(uc for _, uc in paid)
        debt = min(unpaid, max(0, call.held - self.debt[call.tenant]))
        self.debt[call.tenant] += debt
        self.loss[call.tenant] += unpaid - debt
        self.charged[call.tenant] += charged
        self.uses.append((call.path, call.opened, charged, int("cache_hit" not in flags)))
        self.record(call, "settled", flags, charged, debt, unpaid - debt, paid)
        self.closed[name] = charged
        return charged

    def close(self, name: str, status: str, flag: str) -> None:
        """A void or an expiry; it has a number when a backend may have worked. Of an unknown id it is only kept."""
        call = self.calls.pop(name, None)
        self.closed.setdefault(name, None)
        if call is not None:
            for pot, uc in call.parts:
                self.give_back(pot, uc)
            if call.sent:
                self.record(call, status, (flag,))

    def overdue(self) -> list[str]:
        """In the order in which they were opened."""
        late = WRITTEN_AFTER_MS  # by the monotonic clock, which is looked at from then on
        return [name for name, call in self.calls.items() if self.now > call.deadline + late]

    def reopened(self) -> None:
        """Holds do not outlive the process: of those that were written, each that was sent is a record of a crash.

        A charge that left no record is forgotten, unless this start has just closed it.
        """
        numbered = {entry.name for entry in self.entries}
        self.closed = {name: charged for name, charged in self.closed.items() if name in numbered}
        calls, self.calls = self.calls, {}
        for name, call in sorted(calls.items()):
            for pot, uc in call.parts:
                self.give_back(pot, uc)
            if call.written:
                self.closed[name] = None
            if call.written and call.sent:
                self.record(call, "settled", ("crash",))

    def give_back(self, pot: Pot, uc: int) -> None:
        if pot.over(self.now):
            pot.expired += uc
        else:
            pot.left += uc

    def record(
        self, call: Open, status: str, flags: tuple[str, ...], charged: int = 0, debt: int = 0, loss: int = 0,
        paid: list[tuple[Pot, int]] | None = None,
    ) -> None:  # fmt: skip
        sums: dict[int, int] = {}
        for pot, uc in paid or []:
            sums[id(pot)] = sums.get(id(pot), 0) + uc
        parts = sorted(((pot.terms, sums[id(pot)]) for pot in self.pots if sums.get(id(pot))), key=repr)
        self.entries.append(
            Entry(
                call.name, call.request, call.tenant, call.version, status, call.held, charged, debt, loss,
                tuple(parts), flags,
            )
        )  # fmt: skip


def counts(window: str, then: int, now: int) -> bool:
    """Whether what was used then is of the window that runs now."""
    if window == "day":
        return (then + SHANGHAI_MS) // DAY_MS == (now + SHANGHAI_MS) // DAY_MS
    if window == "5h":
        return now < then - then % 300_000 + 300_000 + 5 * 3_600_000
    return window == "total"


def period(since: int, every: str | None, now: int) -> tuple[int, int | None]:
    """The [start, end) that `now` lies in."""
    if every is None:
        return since, None
    for start, end in itertools.pairwise(starts(since, every)):
        if now < end:
            return start, end
    raise AssertionError("there is always a next one")


def starts(since: int, every: str) -> Iterator[int]:
    """Each day, or each month on the day of the first or the month's last."""
    if every == "day":
        yield from itertools.count(since, DAY_MS)
    first = datetime.fromtimestamp((since + SHANGHAI_MS) // 1000, UTC)
    for month in itertools.count(first.month - 1):
        year, number = first.year + month // 12, month % 12 + 1
        day = min(first.day, calendar.monthrange(year, number)[1])
        yield int(first.replace(year=year, month=number, day=day).timestamp()) * 1000 - SHANGHAI_MS
