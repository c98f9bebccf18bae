"""Random walks over a real ledger file, against a model of one grant's worth of arithmetic."""

from __future__ import annotations

import asyncio
import tempfile

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gateway.charging.rating import credits_text
from gateway.errors import QuotaExhausted
from tests.charging.fakes import FakeClock, opened, quote, settle

IDS = st.sampled_from([f"c{i}" for i in range(12)])


class LedgerMachine(RuleBasedStateMachine):
    """The model: one pot (no grant expires here), what is held of it, the charged, debt and loss."""

    @initialize()
    def start(self) -> None:
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = FakeClock()
        self.ledger = self.runner.run(opened(self.folder.name, self.clock))
        self.granted, self.spent, self.charged, self.debt, self.loss = 1000, 0, 0, 0, 0
        self.open: dict[str, int] = {}
        self.sent: set[str] = set()
        self.closed: set[str] = set()
        self.numbered: list[str] = []
        self.grants: set[int] = set()

    @property
    def free(self) -> int:
        return self.granted - self.spent - sum(self.open.values())

    def repay(self) -> None:
        repaid = min(self.debt, self.free)
        self.debt -= repaid
        self.spent += repaid

    @rule(name=IDS, tokens=st.integers(0, 400))
    def reserve(self, name: str, tokens: int) -> None:
        if name in self.closed:
            return
        if name not in self.open:
            self.repay()
        fits = name in self.open or (not self.debt and 100 + tokens <= self.free)
        try:
            hold = self.runner.run(self.ledger.reserve(name, quote(100, tokens), clamp=False))
        except QuotaExhausted:
            assert not fits
            return
        assert fits
        self.open.setdefault(name, hold.reserved_uc)

    @rule(name=IDS)
    def dispatch(self, name: str) -> None:
        if name in self.open:
            self.ledger.dispatched(name, "b", "m")
            self.sent.add(name)

    @rule(name=IDS, tokens=st.integers(0, 900), bad=st.booleans())
    def settle(self, name: str, tokens: int, bad: bool) -> None:
        if name not in self.sent or name not in self.open:
            return

        async def run() -> int:
            future = settle(self.ledger, name, tokens, *(["bad_usage"] if bad else []))
            again = settle(self.ledger, name, 5)
            assert (await again) == (await future)
            return (await future).charged_uc

        held = self.open.pop(name)
        cost = min(tokens, held) if bad else tokens
        paid = min(cost, self.free)
        debt = max(0, min(cost - paid, held - self.debt))
        self.spent, self.charged, self.debt = self.spent + paid, self.charged + cost, self.debt + debt
        self.loss += cost - paid - debt
        assert self.runner.run(run()) == cost
        self.closed.add(name)
        self.numbered.append(name)

    @rule(name=IDS)
    def close(self, name: str) -> None:
        self.ledger.close(name, "aborted")
        if self.open.pop(name, None) is not None and name in self.sent:
            self.numbered.append(name)
        self.closed.add(name)

    @rule(number=st.integers(0, 5), uc=st.integers(1, 500))
    def grant(self, number: int, uc: int) -> None:
        self.ledger.add_grant("t", uc, source_ref=f"o{number}")
        if number not in self.grants:
            self.grants.add(number)
            self.granted += uc
            self.repay()

    @rule(ms=st.integers(1, 80))
    def wait(self, ms: int) -> None:
        self.clock.advance(ms)
        self.runner.run(asyncio.sleep(0))

    @rule()
    def restart(self) -> None:
        """The holds that were written end as a crash, those that were not leave nothing."""
        stored = {n for n, hold in self.ledger._image.holds.items() if hold.stored}
        self.runner.run(self.ledger.aclose())
        self.ledger = self.runner.run(opened(self.folder.name, self.clock))
        self.numbered += sorted(stored & self.sent)
        self.sent -= set(self.open) - stored
        self.open.clear()
        # A void without a number is forgotten at a restart, but the one that the restart itself made is not.
        self.closed = (self.closed & set(self.numbered)) | stored

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "ledger"):
            return
        self.ledger.check_invariants()
        shown, account = self.ledger.usage("t"), self.ledger.tenant("t")
        assert (account.settled_uc, account.debt_uc, account.loss_uc) == (self.charged, self.debt, self.loss)
        assert shown["available"] == credits_text(self.free)
        assert self.ledger.open_holds == len(self.open)

    def teardown(self) -> None:
        if not hasattr(self, "ledger"):
            return
        self.runner.run(self.ledger.aclose())
        data = self.ledger.charges("t", 0, 1000)["data"]
        assert [r["seq"] for r in data] == list(range(1, len(data) + 1))
        assert sorted(r["charge_id"] for r in data) == sorted(self.numbered)
        self.runner.close()
        self.folder.cleanup()


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(
    max_examples=150, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
