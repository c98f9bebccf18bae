"""What the ledger does when its store fails, at each stage of a commit, and when it is closed meanwhile."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from gateway.call import Usage
from gateway.charging.audit import audit
from gateway.charging.ledger import Ledger
from gateway.errors import StoreUnavailable
from tests.charging import manage
from tests.charging.fakes import PRICE, RATES, START_MS, FakeClock, fail_both, opened, quote, recovered, settle

STAGES = ("begin", "execute", "commit", "after commit")


async def hold(ledger: Ledger, *names: str) -> None:
    for name in names:
        await ledger.reserve(name, quote(), clamp=False)
        ledger.dispatched(name, "b", "m")


@pytest.mark.parametrize("stage", STAGES)
async def test_a_commit_that_fails_answers_no_call_and_serving_goes_on(tmp_path: Path, stage: str) -> None:
    ledger = await opened(tmp_path, FakeClock())
    await hold(ledger, "before", "failing", "queued", "open")
    await settle(ledger, "before", 10)
    fail_both(ledger, stage)
    for receipt in (settle(ledger, "failing", 50), settle(ledger, "queued", 60)):
        with pytest.raises(StoreUnavailable):
            await receipt
    assert not ledger.healthy
    with pytest.raises(StoreUnavailable):
        await ledger.reserve("new", quote(), clamp=False)
    await recovered(ledger)
    with pytest.raises(StoreUnavailable):
        await settle(ledger, "open", 70)  # its hold went with the image
    ledger.close("open", "failed")
    await hold(ledger, "after")
    await settle(ledger, "after", 5)
    ledger.check_invariants()
    await ledger.aclose()
    in_file = {"after commit": 10 + 50 + 60 + 5}.get(stage, 15)
    again = await opened(tmp_path, FakeClock())
    assert again.tenant("t").settled_uc == in_file
    await again.aclose()
    assert audit(f"{tmp_path}/l.db") == []


async def test_a_call_that_outlives_a_failed_commit_gets_no_answer_for_nothing(tmp_path: Path) -> None:
    clock = FakeClock()
    ledger = await opened(tmp_path, clock)
    await hold(ledger, "long", "failing")
    clock.advance(60)  # both holds are written
    await manage.add_key(ledger, "t", "00")[1]
    fail_both(ledger, "commit")
    with pytest.raises(StoreUnavailable):
        await settle(ledger, "failing", 50)
    await recovered(ledger)
    with pytest.raises(StoreUnavailable):
        await settle(ledger, "long", 70)
    assert {r["charge_id"]: (r["flags"], r["charged"]) for r in ledger.charges("t")["data"]} == {
        "long": (["crash"], "0"),
        "failing": (["crash"], "0"),
    }
    await ledger.aclose()
    assert audit(f"{tmp_path}/l.db") == []


@pytest.mark.parametrize("end", ["voided", "expired"])
async def test_settling_what_was_closed_otherwise_fails(tmp_path: Path, end: str) -> None:
    clock = FakeClock()
    ledger = await opened(tmp_path, clock)
    await ledger.reserve("a", quote(deadline_ms=START_MS + 1000), clamp=False)
    ledger.dispatched("a", "b", "m")
    if end == "voided":
        ledger.close("a", "failed")
    else:
        clock.advance(2000)
        assert ledger.expire_overdue(clock.wall_ms()) == 1
    with pytest.raises(StoreUnavailable):
        await settle(ledger, "a", 50)
    [record] = ledger.charges("t")["data"] or [await only_record(ledger)]
    assert (record["status"], record["charged"]) == (end, "0")
    await ledger.aclose()


async def only_record(ledger: Ledger) -> dict[str, Any]:
    await manage.add_key(ledger, "t", "00")[1]
    [record] = ledger.charges("t")["data"]
    return dict(record)


async def test_a_wall_clock_set_forward_closes_no_hold_of_a_call_that_goes_on(tmp_path: Path) -> None:
    clock = FakeClock()
    ledger = await opened(tmp_path, clock)
    await ledger.reserve("a", quote(deadline_ms=START_MS + 300_000), clamp=False)
    ledger.dispatched("a", "b", "m")
    assert ledger.expire_overdue(START_MS + 3_600_000) == 0
    assert (await settle(ledger, "a", 50)).charged_uc == 50
    await ledger.aclose()


async def test_closing_during_the_recovery_waits_for_it(tmp_path: Path) -> None:
    ledger = await opened(tmp_path, FakeClock())
    await hold(ledger, "a", "b", "c")
    fail_both(ledger, "commit")
    inner, opening, go_on = ledger._store.open, threading.Event(), threading.Event()

    def slowly(*values: Any) -> Any:
        opening.set()
        assert go_on.wait(5)
        return inner(*values)

    ledger._store.open = slowly  # type: ignore[method-assign, assignment]
    receipt = settle(ledger, "a", 50)
    with pytest.raises(StoreUnavailable):
        await receipt
    assert await asyncio.to_thread(opening.wait, 5)
    closing = asyncio.create_task(ledger.aclose())
    await asyncio.sleep(0.02)
    assert not closing.done()
    go_on.set()
    await closing
    again = await opened(tmp_path, FakeClock())  # the lock is free and no thread still has the file
    await hold(again, "d")
    assert (await settle(again, "d", 1)).seq == 1
    await again.aclose()
    assert audit(f"{tmp_path}/l.db") == []


async def test_a_row_that_cannot_be_written_does_not_end_the_writer(tmp_path: Path) -> None:
    ledger = await opened(tmp_path, FakeClock())
    await hold(ledger, "a")
    huge = ledger.settle(
        "a", Usage({"output": 2**62}), model_served="m", backend="b", rates=dict.fromkeys(RATES, 4), price=PRICE
    )
    with pytest.raises(StoreUnavailable):
        await huge
    await recovered(ledger)
    inner, ledger._writer._write = ledger._writer._write, _defect
    with pytest.raises(StoreUnavailable):
        await manage.add_key(ledger, "t", "00")[1]
    ledger._writer._write = inner
    await recovered(ledger)
    await manage.add_key(ledger, "t", "00")[1]
    await ledger.aclose()


def _defect(*_: object) -> None:
    raise RuntimeError("a defect")


async def test_tenants_of_the_configuration_survive_a_failed_first_commit(tmp_path: Path) -> None:
    ledger = await opened(tmp_path, FakeClock())
    fail_both(ledger, "commit")  # with the tenant itself in it
    with pytest.raises(StoreUnavailable):
        await manage.add_key(ledger, "t", "00")[1]
    await recovered(ledger)
    await hold(ledger, "a")
    assert (await settle(ledger, "a", 50)).charged_uc == 50
    await ledger.aclose()
    assert audit(f"{tmp_path}/l.db") == []


async def test_an_estimate_never_costs_more_than_was_held(tmp_path: Path) -> None:
    ledger = await opened(tmp_path, FakeClock())
    await hold(ledger, "a")
    receipt = await settle(ledger, "a", 900, "estimated")
    assert (receipt.charged_uc, receipt.overage_uc) == (200, 0)
    await ledger.aclose()
