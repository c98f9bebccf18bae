"""kill -9 in the middle of changes: what has changed has its entry, and what has an entry has changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.charging.audit import audit
from gateway.charging.audited import entries
from gateway.charging.statements import accounts
from tests.charging.killing import killed_after

KILLS = 4


@pytest.mark.parametrize("round_", range(KILLS))
def test_a_change_and_its_entry_are_one(tmp_path: Path, round_: int) -> None:
    path = str(tmp_path / "l.db")
    done: set[int] = set()
    for kill in range(2):  # the second goes on where the first was ended
        done |= set(map(int, killed_after("audit_child", path, 1000 * kill, 0.05 + 0.037 * round_)))
    assert audit(path) == []
    said = [entry["after"]["caps"]["day"]["calls"] for entry in entries(path, 0, 10**6)["data"]]
    assert {str(number) for number in done} <= set(said)
    assert len(said) <= len(done) + 2  # at most one for each kill that nobody has heard of
    [account] = accounts(path)
    assert account.caps == {"day": {"calls": int(said[-1])}}
