"""What a cache hit is charged: an exact share, rounded in the tenant's favour, that the audit recomputes."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.call import Usage
from gateway.charging.audit import audit
from gateway.charging.ledger import Ledger
from gateway.charging.rating import hit_flags, percent_text, shared_uc
from gateway.errors import QuotaExhausted
from tests.charging.fakes import RATES, FakeClock, opened, quote


@given(st.integers(0, 10**15), st.integers(0, 10**6))
def test_the_share_on_the_record_is_the_share_that_was_charged(uc: int, ppm: int) -> None:
    assert shared_uc(uc, ("zero_usage", *hit_flags(ppm))) == uc * ppm // 10**6


def test_what_is_no_hit_is_charged_in_full() -> None:
    assert shared_uc(7, ("estimated",)) == 7
    assert shared_uc(7, ("charge:10%",)) == 7


def test_shares_are_written_exactly() -> None:
    assert [percent_text(ppm) for ppm in (0, 1, 250_000, 333_333, 10**6)] == [
        "0%",
        "0.0001%",
        "25%",
        "33.3333%",
        "100%",
    ]


def hit(ledger: Ledger, name: str, ppm: int, tokens: int = 10) -> None:
    usage = Usage({"output": tokens})
    ledger.settle(
        name, usage, model_served="m", backend="", rates=RATES, price={}, status_flags=hit_flags(ppm)
    )  # fmt: skip


async def test_a_hit_that_costs_nothing_is_recorded_for_a_tenant_that_has_nothing(tmp_path: Path) -> None:
    ledger = await opened(tmp_path, FakeClock(), credits_uc=0)
    with pytest.raises(QuotaExhausted):
        await ledger.reserve("refused", quote(1, None), clamp=False)
    ledger.hold_nothing("free", quote())
    hit(ledger, "free", 0)
    assert ledger.open_holds == 0
    ledger.check_invariants()
    await ledger.aclose()
    assert audit(f"{tmp_path}/l.db") == []
    [record] = ledger.charges("t")["data"]
    assert (record["charged"], record["usage"], record["flags"]) == ("0", {"output": 10}, ["cache_hit", "charge:0%"])


async def test_the_audit_finds_a_share_or_a_charge_that_was_changed(tmp_path: Path) -> None:
    ledger = await opened(tmp_path, FakeClock())
    await ledger.reserve("a", quote(5, None), clamp=False)
    hit(ledger, "a", 333_333)
    await ledger.aclose()
    path = f"{tmp_path}/l.db"
    assert audit(path) == []
    for flags in ('["cache_hit","charge:50%"]', '["cache_hit","charge:x%"]', '["cache_hit"]', "[]"):
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("UPDATE records SET flags = ?", (flags,))
            connection.commit()
        assert "I8: record 1 has charged 3, not what its card says" in audit(path)
