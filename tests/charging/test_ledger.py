import asyncio
from pathlib import Path

import pytest

from gateway.call import Usage
from gateway.charging.ledger import Ledger
from gateway.charging.statements import statement
from gateway.charging.store import LockHeld
from gateway.errors import Conflict, QuotaExhausted, StoreUnavailable
from tests.charging import manage
from tests.charging.fakes import START_MS, FakeClock, fail_both, opened, quote, recovered, settle


async def test_settle_charges_once_and_returns_the_rest(tmp_path: Path) -> None:
    ledger = await opened(tmp_path, FakeClock())
    await ledger.reserve("a", quote(), clamp=False)
    assert await ledger.reserve("a", quote(), clamp=False) is not None
    ledger.dispatched("a", "b", "m")
    first = await settle(ledger, "a", 150)
    second = await settle(ledger, "a", 999)
    assert (first.seq, first.charged_uc, second) == (1, 150, first)
    ledger.close("a", "completed")
    with pytest.raises(Conflict):
        await ledger.reserve("a", quote(), clamp=False)
    assert ledger.usage("t")["available"] == "0.00085"
    assert [r["charge_id"] for r in ledger.charges("t")["data"]] == ["a"]
    ledger.check_invariants()
    await ledger.aclose()


async def test_of_a_thousand_at_once_only_those_that_fit_are_held(tmp_path: Path) -> None:
    ledger = await opened(tmp_path, FakeClock(), 1000)
    results = await asyncio.gather(
        *(ledger.reserve(f"c{i}", quote(), clamp=False) for i in range(1000)), return_exceptions=True
    )
    assert sum(not isinstance(result, BaseException) for result in results) == 5
    assert all(isinstance(r, QuotaExhausted) for r in results if isinstance(r, BaseException))
    ledger.check_invariants()
    await ledger.aclose()


async def test_clamp_lowers_the_output_but_not_below_the_minimum(tmp_path: Path) -> None:
    ledger = await opened(tmp_path, FakeClock(), 1000)
    assert (await ledger.reserve("a", quote(100, 2000), clamp=True)).max_tokens == 900
    ledger.close("a", "refused")
    with pytest.raises(QuotaExhausted):
        await ledger.reserve("b", quote(900, 2000), clamp=True)
    await ledger.aclose()


async def test_overage_becomes_debt_then_loss_and_the_next_grant_repays(tmp_path: Path) -> None:
    ledger = await opened(tmp_path, FakeClock(), 200)
    await ledger.reserve("a", quote(), clamp=False)
    ledger.dispatched("a", "b", "m")
    receipt = await settle(ledger, "a", 700)
    assert (receipt.charged_uc, receipt.overage_uc) == (700, 500)
    assert (ledger.tenant("t").debt_uc, ledger.tenant("t").loss_uc) == (200, 300)
    with pytest.raises(QuotaExhausted):
        await ledger.reserve("b", quote(0, None), clamp=False)
    grant, durable = manage.add_grant(ledger, "t", 500, source_ref="order-1")
    await durable
    assert manage.add_grant(ledger, "t", 900, source_ref="order-1")[0] is grant
    assert (grant.spent, grant.available, ledger.tenant("t").debt_uc) == (200, 300, 0)
    ledger.check_invariants()
    await ledger.aclose()
    shown = statement(f"{tmp_path}/l.db", "t", START_MS - 1, START_MS + 1)
    assert (shown["granted"], shown["spent"], shown["closing"]) == ("0.0007", "0.0004", "0.0003")


async def test_a_restart_rebuilds_the_image_and_ends_the_holds(tmp_path: Path) -> None:
    clock = FakeClock()
    ledger = await opened(tmp_path, clock, 1000)
    for name in "abc":
        await ledger.reserve(name, quote(), clamp=False)
    ledger.dispatched("b", "b", "m")
    ledger.dispatched("c", "b", "m")
    await settle(ledger, "c", 50)
    clock.advance(60)  # a and b are written
    await ledger.aclose()
    again = await opened(tmp_path, clock, 1000)
    assert again.usage("t")["available"] == "0.00095"
    assert [(r["charge_id"], r["flags"]) for r in again.charges("t")["data"]] == [("c", []), ("b", ["crash"])]
    again.check_invariants()
    await again.aclose()


async def test_renewal_is_keyed_by_period_and_the_rest_expires(tmp_path: Path) -> None:
    clock = FakeClock()
    ledger = await opened(tmp_path, clock, 1000, "day")
    await ledger.reserve("a", quote(), clamp=False)
    clock.advance(86_400_000)
    assert ledger.usage("t") == ledger.usage("t")
    assert ledger.usage("t")["available"] == "0.001"
    ledger.close("a", "aborted")
    ledger.check_invariants()
    assert ledger.usage("t")["available"] == "0.001"
    assert ledger.expire_overdue(START_MS * 3) == 0
    await ledger.aclose()


async def test_a_void_is_numbered_only_after_dispatch(tmp_path: Path) -> None:
    ledger = await opened(tmp_path, FakeClock())
    for name in "ab":
        await ledger.reserve(name, quote(), clamp=False)
    ledger.dispatched("b", "b", "m")
    ledger.close("a", "aborted")
    ledger.close("b", "failed")
    ledger.close("never", "aborted")
    with pytest.raises(Conflict):
        await ledger.reserve("never", quote(), clamp=False)
    await ledger.reserve("d", quote(), clamp=False)
    ledger.dispatched("d", "b", "m")
    ledger.close("d", "aborted", Usage({"output": 7}), rates={"output": 1})
    await manage.add_key(ledger, "t", "00", "k")[1]
    rows = [(r["charge_id"], r["status"]) for r in ledger.charges("t")["data"]]
    assert rows == [("b", "voided"), ("d", "settled")]
    await ledger.aclose()


async def test_a_failed_commit_refuses_until_the_file_takes_writes_again(tmp_path: Path) -> None:
    ledger = await opened(tmp_path, FakeClock())
    await ledger.reserve("a", quote(), clamp=False)
    ledger.dispatched("a", "b", "m")
    await manage.add_key(ledger, "t", "00", "k")[1]

    fail_both(ledger, "begin")
    with pytest.raises(StoreUnavailable):
        await settle(ledger, "a", 50)
    assert ledger.healthy is False
    with pytest.raises(StoreUnavailable):
        await ledger.reserve("b", quote(), clamp=False)
    await recovered(ledger)
    assert ledger.usage("t")["available"] == "0.001"
    await ledger.reserve("b", quote(), clamp=False)
    ledger.check_invariants()
    await ledger.aclose()


async def test_a_second_process_is_shut_out(tmp_path: Path) -> None:
    ledger = await opened(tmp_path, FakeClock())
    with pytest.raises(LockHeld, match="held by another process"):
        await opened(tmp_path, FakeClock())
    await ledger.aclose()


@pytest.mark.parametrize("linked", ["the file", "the folder", "a file that is not there yet"])
async def test_a_ledger_has_one_lock_by_whatever_link_it_is_opened(tmp_path: Path, linked: str) -> None:
    real, other = tmp_path / "real", tmp_path / "other"
    real.mkdir()
    if linked == "the folder":
        other.symlink_to(real)
    else:
        other.mkdir()
        (other / "l.db").symlink_to(real / "l.db")
    first, second = (other, real) if linked == "a file that is not there yet" else (real, other)
    ledger = await opened(first, FakeClock())
    with pytest.raises(LockHeld, match=f"{real}/l.db.lock is held"):
        await opened(second, FakeClock())
    await settled(ledger)
    for path in (first, second):
        assert statement(f"{path}/l.db", "t", 0, START_MS * 2)["granted"] == "0.001"
    await ledger.aclose()
    assert sorted(path.name for path in real.iterdir()) == ["l.db", "l.db.lock"]
    await (await opened(second, FakeClock())).aclose()


async def settled(ledger: Ledger) -> None:
    """A charge is on disk, and with it all that came before."""
    await ledger.reserve("a", quote(), clamp=False)
    ledger.dispatched("a", "b", "m")
    await settle(ledger, "a", 1)
