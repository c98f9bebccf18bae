"""Records against balances by their sums: what is found, and what is left to the audit."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from gateway.charging.reconcile import OVERDUE_MS, reconciled
from gateway.errors import StoreUnavailable
from tests.charging import manage
from tests.charging.fakes import START_MS, FakeClock, opened, quote, settle
from tests.charging.older import as_version
from tests.charging.test_chain import charge, void


@pytest.fixture
async def path(tmp_path: Path) -> str:
    clock = FakeClock()
    ledger = await opened(tmp_path, clock, credits_uc=100)
    await ledger.reserve("ch-1", quote(100, 0), clamp=False)
    ledger.dispatched("ch-1", "b", "m")
    await settle(ledger, "ch-1", 150)  # 50 are debt
    manage.add_grant(ledger, "t", 1000, expires_ms=START_MS + 10_000)
    await charge(ledger, "ch-2", 20)
    await void(ledger, "ch-3")
    clock.advance(20_000)
    ledger.usage("t")
    await ledger.aclose()
    return f"{tmp_path}/l.db"


def told(path: str, now_ms: int = START_MS) -> list[str]:
    return [str(difference) for difference in reconciled(path, now_ms)]


def changed(path: str, forged: str) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(forged)
        connection.commit()
    return told(path)


def test_books_that_are_right(path: str) -> None:
    assert told(path) == []


@pytest.mark.parametrize(
    ("forged", "found"),
    [
        ("UPDATE grants SET spent = spent + 1 WHERE id = 'g00000001'", "I5: grant g00000001 has spent 101, not 100"),
        ("UPDATE grants SET expired = 0", "I5: grant g00000002 has expired 0, not 930"),
        ("DELETE FROM grants WHERE id = 'g00000001'", "I5: grant g00000001 is not there, and has paid or moved"),
        ("UPDATE accounts SET settled_uc = 0", "I5: account t has settled_uc 0, not 170"),
        ("UPDATE accounts SET debt_uc = 1", "I5: account t has debt_uc 1, not 0"),
        ("DELETE FROM accounts", "I5: account t is not there, and has records"),
        ("DELETE FROM entries WHERE kind = 'debt_repaid'", "I5: account t has debt_uc 0, not 50"),
        ("UPDATE records SET charged = 21 WHERE seq = 2", "I4: all records have parts of 120, not 121"),
        ("UPDATE records SET tenant = 'u' WHERE seq = 2", "I5: account u is not there, and has records"),
        ("DELETE FROM records WHERE seq = 1", "I9: all records are 2, and the last is number 3"),
        ("DELETE FROM records WHERE seq = 3", "I14: all records end at 2, not 3"),
    ],
)
def test_what_does_not_agree_is_found(path: str, forged: str, found: str) -> None:
    assert found in changed(path, forged)


def test_sums_beyond_64_bits_are_exact(path: str) -> None:
    huge = 2**62
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"UPDATE records SET charged = {huge}, parts = '{{\"g00000001\":{huge}}}' WHERE seq <= 2")
        connection.execute(f"UPDATE records SET charged = {huge} + 1, overage = 0 WHERE seq = 3")
        connection.commit()
    assert f"I4: all records have parts of {2 * huge}, not {3 * huge + 1 - 50}" in told(path)


async def test_a_hold_that_nobody_will_close(path: str, tmp_path: Path) -> None:
    clock = FakeClock()
    ledger = await opened(tmp_path, clock)
    manage.add_grant(ledger, "t", 1000)
    await ledger.reserve("held", quote(deadline_ms=START_MS + 1000), clamp=False)
    clock.advance(60)
    await ledger.aclose()
    late = START_MS + 1000 + OVERDUE_MS
    assert told(path, late) == []
    assert told(path, late + 1) == [f"I11: hold held holds 200, and its deadline passed {OVERDUE_MS // 1000} s ago"]


def test_a_ledger_without_a_chain_and_one_that_is_damaged(path: str) -> None:
    as_version(path, 3)
    assert told(path) == []
    with pytest.raises(StoreUnavailable, match="malformed JSON; see moma verify"):
        changed(path, "UPDATE records SET parts = '{' WHERE seq = 2")
