"""Random walks over a real ledger file, compared with a model and audited after every step.

A tree of accounts with plans that renew, grants that start and end while calls are in flight, clamped reserves, debt,
edits of the rates, restarts, crashes and a store that fails.
"""

from __future__ import annotations

import asyncio
import copy
import heapq
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import orjson
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gateway.call import Usage
from gateway.charging.audit import audit
from gateway.charging.directory import Edit
from gateway.charging.ledger import open_ledger
from gateway.charging.rating import Quote, credits_text
from gateway.charging.reconcile import reconciled
from gateway.charging.records import Receipt
from gateway.charging.tariffs import plain
from gateway.errors import AccountNotActive, Conflict, QuotaExhausted, StoreUnavailable
from tests.charging import manage
from tests.charging.fakes import PRICE, FakeClock, FakeTimer, fail_both, fail_next, recovered
from tests.charging.model import Books, Entry, Open
from tests.charging.walks import (
    ASKS,
    BEFORE,
    CAPS,
    CARDS,
    GIFTS,
    HOUR_MS,
    LATER,
    LEVELS,
    OFFERS,
    PICKS,
    PLANS,
    START_MS,
    TENANTS,
    USES,
    Ask,
    Gift,
    Use,
)  # fmt: skip

SLICE = 60
LONG = os.environ.get("MOMA_LONG") == "1"
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # what a disk does is for other tests
T = TypeVar("T")


class Clock(FakeClock):
    """All timers wait for `advance`: when a hold is written must not depend on how long a step really takes."""

    def call_at(self, when: float, callback: Callable[[], None]) -> FakeTimer:
        timer = FakeTimer(callback)
        heapq.heappush(self._timers, (when, id(timer), timer))
        return timer

    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(0.001)  # only the recovery sleeps


class LedgerMachine(RuleBasedStateMachine):
    """State: the ledger and its file, the model, and the receipts that somebody has got, by request id."""

    @initialize()
    def start(self) -> None:
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory(dir=MEMORY)
        self.path = f"{self.folder.name}/l.db"
        self.clock = Clock(START_MS)
        self.books = Books(START_MS)
        self.receipts: dict[str, Receipt] = {}
        self.asked = self.copies = self.card = 0
        self.run(self.first_start())

    def run(self, steps: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(steps)

    async def first_start(self) -> None:
        await self.open()
        self.books.account("top", None, OFFERS["top"])
        for name in ("ann", "ben"):
            await self.advance(5 * HOUR_MS)  # no two plans renew in the same millisecond
            await manage.add_tenant(self.ledger, name, name, "top")[1]
            self.books.account(name, "top", OFFERS[name])
        self.key, durable = manage.add_key(self.ledger, "top", "00")
        await durable

    async def open(self) -> None:
        self.ledger = await open_ledger(
            self.path, self.clock, "Asia/Shanghai", PLANS, plain("standard", CARDS[self.card])
        )
        self.ledger.apply_plan("top", PLANS["top"])

    async def advance(self, ms: int) -> None:
        if ms < 0:
            ms = self.books.next_event() - self.clock.ms - (ms == BEFORE)
        if ms:
            self.clock.advance(ms)
            self.books.pass_to(self.clock.ms)

    async def committed(self) -> None:
        """A second revocation changes nothing, and is durable when all before it is."""
        await manage.revoke_key(self.ledger, "top", self.key.id)[1]

    def picked(self, pick: int, *, sent: bool | None = None) -> Open | None:
        calls = [call for call in self.books.calls.values() if sent in (None, call.sent)]
        return calls[pick % len(calls)] if calls else None

    # -- calls --------------------------------------------------------------------------------------------------

    @rule(asks=st.lists(ASKS, min_size=1, max_size=3), later=LATER)
    def reserve(self, asks: list[Ask], later: int) -> None:
        self.run(self.advance(later))
        for ask in asks:
            self.begin(ask)

    @rule(asks=st.lists(ASKS, min_size=1, max_size=3), later=LATER)
    def stream(self, asks: list[Ask], later: int) -> None:
        """Calls that hold a slice, where all that they may write is large against what there is."""
        self.run(self.advance(later))
        for ask in asks:
            self.begin(ask._replace(send=True), slice_=SLICE if (ask.tokens or 0) > SLICE else 0)

    @rule(pick=PICKS, tokens=st.integers(1, 600), later=LATER)
    def extend(self, pick: int, tokens: int, later: int) -> None:
        self.run(self.advance(later))
        growing = [call for call in self.books.calls.values() if call.most]
        if growing:
            call = growing[pick % len(growing)]
            assert self.ledger.extend(call.name, tokens) == self.books.extend(call.name, tokens)

    def begin(self, ask: Ask, slice_: int = 0) -> Open | None:
        """None where the ledger, and the model, refuse."""
        tokens, now = ask.tokens or 0, self.clock.ms
        self.asked += 1
        call = Open(f"c{self.asked}", f"r{self.asked}", ask.tenant, tokens, [], now, now + ask.life)
        quote = self.quote(call, ask.input_uc, ask.rate, ask.tokens)
        quote.slice_tokens = slice_
        fits = self.books.reserve(call, ask.input_uc, ask.rate, clamp=ask.clamp, slice_=slice_)
        try:
            hold = self.run(self.ledger.reserve(call.name, quote, clamp=ask.clamp))
        except (QuotaExhausted, AccountNotActive):
            assert not fits
            return None
        assert fits
        held_tokens = hold.max_tokens if hold.held_tokens is None else hold.held_tokens
        assert (hold.reserved_uc, held_tokens or 0) == (call.held, call.tokens)
        if ask.send:
            self.send(call)
        return call

    def quote(self, call: Open, input_uc: int = 0, rate: int = 1, tokens: int | None = None) -> Quote:
        path, version = self.books.paths[call.tenant], self.ledger.card_version
        return Quote(
            call.tenant, path, call.request, "chat", "m", "standard", version, input_uc, rate, tokens, call.deadline
        )  # fmt: skip

    def send(self, call: Open) -> None:
        self.ledger.dispatched(call.name, "b", "m")
        call.sent = True

    @rule(pick=PICKS, ask=ASKS, later=LATER)
    def dispatch(self, pick: int, ask: Ask, later: int) -> None:
        """Perhaps of a call that waited so long that its hold is written."""
        self.begin(ask._replace(send=False))
        self.run(self.advance(later))
        if call := self.picked(pick, sent=False):
            self.send(call)

    @rule(asks=st.lists(ASKS, max_size=2), uses=st.lists(USES, min_size=1, max_size=3), later=LATER)
    def settle(self, asks: list[Ask], uses: list[Use], later: int) -> None:
        """Several in a batch, those of now among them; what was not sent yet is sent, unless it is a cache hit."""
        for ask in asks:
            self.begin(ask)
        self.run(self.advance(later))

        async def settle() -> None:
            picked = ((self.picked(use.pick), use) for use in uses)
            for answer in [self.settled(call, use) for call, use in picked if call]:
                await answer

        self.run(settle())

    def settled(self, call: Open, use: Use) -> Coroutine[Any, Any, None]:
        """Decided at once; whoever asks once more while it is on its way gets the same."""
        if not call.sent and use.flags != ("cache_hit",):
            self.send(call)
        receipt, again = self.charge(call, use), self.charge(call, Use(0, 1, 1, use.flags))
        charged = self.books.settle(call.name, self.cost(use), use.flags)

        async def answered() -> None:
            self.receipts[call.request] = await receipt
            assert await again is await receipt
            assert (await receipt).charged_uc == charged

        return answered()

    def charge(self, call: Open, use: Use) -> asyncio.Future[Receipt]:
        usage, rates = Usage({"input": use.input, "output": use.output}), CARDS[self.card]["m"]
        return self.ledger.settle(
            call.name, usage, model_served="m", backend="b", rates=rates, price=PRICE, status_flags=use.flags
        )

    def cost(self, use: Use) -> int:
        rates = CARDS[self.card]["m"]
        return use.input * rates["input"] + use.output * rates["output"]

    @rule(pick=PICKS, used=st.booleans(), later=LATER)
    def close(self, pick: int, used: bool, later: int) -> None:
        """Of a call that was sent, what it used may be charged; of one that was not, nothing."""
        self.run(self.advance(later))
        call = self.picked(pick)
        if call is None:
            return
        usage = Usage({"output": 70}, "estimated", ("estimated",)) if used else None
        self.ledger.close(call.name, "aborted", usage, rates=CARDS[self.card]["m"])
        if used and call.sent:
            self.books.settle(call.name, self.cost(Use(0, 0, 70)), ("estimated",))
        else:
            self.books.close(call.name, "voided", "aborted")

    @rule(pick=PICKS)
    def again(self, pick: int) -> None:
        """An id is used once: an open one has its hold, a closed one stays as it is, one that was not yet never is."""
        if call := self.picked(pick):
            hold = self.run(self.ledger.reserve(call.name, self.quote(call, 5000), clamp=False))
            assert hold.reserved_uc == call.held
        self.asked += 1
        self.ledger.close(f"c{self.asked}", "aborted")  # it overtakes its own reserve
        self.books.close(f"c{self.asked}", "voided", "aborted")
        self.run(self.closed_stay_closed())

    async def closed_stay_closed(self) -> None:
        for name, charged in self.books.closed.items():
            call = Open(name, "late", "top", 0, [], 0, 0)
            with pytest.raises(Conflict):
                await self.ledger.reserve(name, self.quote(call), clamp=False)
            self.ledger.close(name, "late")
            if charged is None:
                with pytest.raises(StoreUnavailable):
                    await self.charge(call, Use(0, 1, 1))
            else:
                assert (await self.charge(call, Use(0, 1, 1))).charged_uc == charged

    # -- grants and time ----------------------------------------------------------------------------------------

    @rule(gifts=st.lists(GIFTS, min_size=1, max_size=2), later=LATER)
    def grant(self, gifts: list[Gift], later: int) -> None:
        self.run(self.advance(later))
        for owner, uc, priority, after, lasts, ref in gifts:
            starts = self.clock.ms + after
            ends = None if lasts is None else self.clock.ms + lasts
            manage.add_grant(self.ledger, owner, uc, ends, priority, ref, starts)
            self.books.grant(owner, uc, starts, ends, priority, ref)

    # -- the tree -----------------------------------------------------------------------------------------------

    @rule(name=TENANTS, caps=CAPS, later=LATER)
    def cap(self, name: str, caps: dict[str, dict[str, int]], later: int) -> None:
        """What the tenant and those below it have used already counts."""
        self.run(self.advance(later))
        manage.edit(self.ledger, name, Edit(caps=caps))
        self.books.caps[name] = {(window, unit): n for window, limits in caps.items() for unit, n in limits.items()}
        self.run(self.counted())

    async def counted(self) -> None:
        while self.ledger._image.uncounted:
            await self.committed()
            await asyncio.sleep(0.001)

    @rule(name=TENANTS, later=LATER)
    def suspend(self, name: str, later: int) -> None:
        """Or let in again."""
        self.run(self.advance(later))
        self.books.barred ^= {name}
        manage.edit(self.ledger, name, Edit(status="suspended" if name in self.books.barred else "active"))

    @rule(later=LATER)
    def move(self, later: int) -> None:
        """Ben lives at the top, or below ann."""
        self.run(self.advance(later))
        parent = "ann" if self.books.paths["ben"] == ("top", "ben") else "top"
        self.books.move("ben", parent)
        manage.edit(self.ledger, "ben", Edit(parent=parent))

    # -- the process and its file -------------------------------------------------------------------------------

    @rule(
        how=st.sampled_from(["restart", "crash", "commit", "after commit"]), asks=st.lists(ASKS, max_size=2),
        pick=PICKS, flip=st.booleans(), later=LATER,
    )  # fmt: skip
    def trouble(self, how: str, asks: list[Ask], pick: int, flip: bool, later: int) -> None:
        """The process ends, or is killed, or a stage of a commit fails, each with no commit in flight yet."""
        for ask in asks:
            self.begin(ask)
        self.run(self.advance(later))
        self.run(self.committed())
        if how == "restart":
            self.run(self.restarted(other_rates=flip))
        elif how == "crash":
            self.run(self.crashed(pick, answered=flip))
        else:
            self.run(self.commit_fails(pick, how))
        self.books.reopened()

    @rule(
        stage=st.sampled_from(["begin", "execute", "commit", "after commit"]), picks=st.lists(PICKS, max_size=2),
        killed=st.booleans(), later=LATER,
    )  # fmt: skip
    def outage(self, stage: str, picks: list[int], killed: bool, later: int) -> None:
        """The file takes no commit, and the spool does: who waits is answered. Perhaps it ends with a kill."""
        self.run(self.advance(later))
        self.run(self.committed())
        self.run(self.spooled(stage, picks))
        if killed:
            self.run(self.killed())
            self.books.reopened()
        else:
            self.run(recovered(self.ledger))

    async def spooled(self, stage: str, picks: list[int]) -> None:
        fail_next(self.ledger, stage)
        await manage.add_grant(self.ledger, "ben", 60)[1]
        self.books.grant("ben", 60, self.clock.ms, None, 30, None)
        for pick in picks:
            if call := self.picked(pick, sent=True):
                await self.settled(call, Use(0, 100, 100))

    async def killed(self) -> None:
        dead = self.ledger
        self.copies += 1
        path, self.path = self.path, f"{self.folder.name}/l{self.copies}.db"
        for suffix in ("", "-wal", ".spool"):
            shutil.copy(path + suffix, self.path + suffix)
        await self.open()
        await dead.aclose()

    async def restarted(self, other_rates: bool) -> None:
        await self.ledger.aclose()
        self.card ^= other_rates
        self.books.version += other_rates
        await self.open()

    async def crashed(self, pick: int, answered: bool) -> None:
        """What was answered is in the file the moment that it is; what was decided and known to nobody, is not."""
        dead = self.ledger
        if answered and (call := self.picked(pick, sent=True)):
            await self.settled(call, Use(0, 100, 100))
        for call in self.books.calls.values():
            if call.sent:
                self.charge(call, Use(0, 50, 60))
            else:
                dead.close(call.name, "aborted")
        manage.add_grant(dead, "ann", 777)
        await self.killed()

    async def commit_fails(self, pick: int, stage: str) -> None:
        """Nobody gets an answer; only the file knows what became of the charge."""
        fail_both(self.ledger, stage)
        books = copy.deepcopy(self.books)
        if call := self.picked(pick, sent=True):
            durable: asyncio.Future[Receipt] = self.charge(call, Use(0, 100, 100))
            books.settle(call.name, self.cost(Use(0, 100, 100)), ())
        else:
            durable = manage.add_grant(self.ledger, "ben", 60)[1]
            books.grant("ben", 60, self.clock.ms, None, 30, None)
        with pytest.raises(StoreUnavailable):
            await durable
        with pytest.raises(StoreUnavailable):
            await self.ledger.reserve("c0", self.quote(Open("c0", "r0", "top", 0, [], 0, 0)), clamp=False)
        await recovered(self.ledger)
        if stage == "after commit":
            self.books = books

    # -- after every step ---------------------------------------------------------------------------------------

    @invariant()
    def agrees(self) -> None:
        if hasattr(self, "key"):
            self.run(self.check())

    async def check(self) -> None:
        overdue = self.books.overdue()
        assert self.ledger.expire_overdue(self.clock.ms) == len(overdue), "I11"
        for name in overdue:
            self.books.close(name, "expired", "overdue")
        self.ledger.check_invariants()  # I1-I4, I6, I10, I13
        assert self.ledger.card_version == self.books.version
        assert self.ledger.open_holds == len(self.books.calls), "I6, I11"
        for name in self.books.paths:
            self.check_shown(name)
        await self.committed()
        self.check_file()
        self.check_alerts()
        assert audit(self.path) == []  # I1, I3-I6, I8, I9, I13, I14 of the file alone
        assert [each for each in reconciled(self.path, self.clock.ms) if each.check != "I11"] == []

    def check_shown(self, name: str) -> None:
        shown, every = self.ledger.usage(name), self.books.live(self.books.paths[name])
        live = [pot for pot in every if pot.prepaid]
        used = {(cap["account"], cap["window"], cap["unit"]): (cap["used"], cap["held"]) for cap in shown["caps"]}
        assert used == {
            (node, *key): tuple(
                credits_text(n) if key[1] == "credits" else str(n)
                for n in (self.books.used(node, *key), self.books.held(node, *key))
            )
            for node in self.books.paths[name]
            for key in self.books.caps.get(node, {})
        }, "I7"
        account, books = self.ledger.tenant(name), self.books
        sums = (books.charged[name], books.debt[name], books.loss[name])
        assert (account.settled_uc, account.debt_uc, account.loss_uc) == sums
        assert self.ledger.available_uc(name) == sum(pot.left for pot in live)
        available, spent = sum(pot.left for pot in live), sum(pot.spent for pot in live)
        reserved = sum(pot.granted for pot in live) - available - spent
        assert [shown[key] for key in ("available", "reserved", "spent")] == [
            credits_text(uc) for uc in (available, reserved, spent)
        ]
        assert [(purse["account"], purse["spent"], purse["amount"]) for purse in shown["payg"]] == [
            (pot.owner, credits_text(pot.spent), credits_text(pot.spent)) for pot in every if not pot.prepaid
        ]

    def check_file(self) -> None:
        books = self.books
        with closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)) as connection:
            grants = {row[0]: row[1:] for row in connection.execute(GRANTS)}
            records = [entry_of(row, grants) for row in connection.execute(RECORDS)]
            accounts = {row[0]: row[1:] for row in connection.execute(ACCOUNTS)}
            holds = dict(connection.execute("SELECT charge_id, dispatched FROM holds").fetchall())
        assert [entry for _, _, entry in records] == books.entries, "I5"
        assert [seq for seq, _, _ in records] == list(range(1, len(records) + 1)), "I9"
        assert holds == {name: call.sent for name, call in books.calls.items() if call.written}, "I3"
        assert accounts == {n: (books.charged[n], books.debt[n], books.loss[n]) for n in books.paths}, "I4"
        pots = [(*pot.terms, pot.spent, pot.expired) for pot in books.pots]
        assert sorted(grants.values(), key=repr) == sorted(pots, key=repr), "I1, I2"
        for request, receipt in self.receipts.items():
            found = [(seq, entry.charged) for seq, asked, entry in records if asked == request]
            assert found == [(receipt.seq, receipt.charged_uc)], f"I12: {request}"

    def check_alerts(self) -> None:
        """Told of each period once, and of no level that was not reached."""
        told = []
        with closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)) as connection:
            for account, payg, level, spent, granted in connection.execute(ALERTS):
                assert spent * 10**6 >= granted * level
                told.append((account, payg, level))
        reached = [
            (pot.owner, int(not pot.prepaid), level)
            for pot in self.books.pots
            for level in LEVELS.get((pot.owner, pot.priority), ())
            if pot.spent * 10**6 >= pot.granted * level
        ]
        assert sorted(told) == sorted(reached)

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            self.run(self.ledger.aclose())
            self.runner.close()
            self.folder.cleanup()


GRANTS = "SELECT id, account, granted, starts_ms, expires_ms, priority, spent, expired FROM grants"
ACCOUNTS = "SELECT id, settled_uc, debt_uc, loss_uc FROM accounts"
ALERTS = "SELECT account, payg, level, spent, granted FROM alerts"
RECORDS = (
    "SELECT seq, charge_id, request_id, tenant, card_version, status, reserved, charged, debt, loss, parts, flags"
    " FROM records ORDER BY seq"
)


def entry_of(row: tuple[Any, ...], grants: dict[str, tuple[Any, ...]]) -> tuple[int, str, Entry]:
    seq, name, request, tenant, version, status, reserved, charged, debt, loss, parts, flags = row
    paid = sorted(((grants[grant][:5], uc) for grant, uc in orjson.loads(parts).items()), key=repr)
    sums = (reserved, charged, debt, loss)
    return seq, request, Entry(name, request, tenant, version, status, *sums, tuple(paid), tuple(orjson.loads(flags)))


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(
    max_examples=1000 if LONG else 50, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
