"""What long streams have passed on is noted in the rows of their holds, and charged when a crash ends them."""

from __future__ import annotations

import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.call import BUCKETS
from gateway.charging.audit import audit
from gateway.charging.directory import Edit
from gateway.charging.ledger import Ledger
from gateway.charging.offers import RAW, offered
from gateway.charging.rating import Quote, credits_text
from gateway.charging.records import Hold, Progress
from gateway.charging.store import read_only
from tests.charging import manage
from tests.charging.fakes import PRICE, RATES, FakeClock, counted, opened, quote, settle

SECOND_MS = 1_000


async def stream(ledger: Ledger, clock: FakeClock, name: str, passed: list[int], asked: Quote | None = None) -> Hold:
    """A call that has run for a while; `passed` ends with how many tokens it has passed on so far."""
    hold = await ledger.reserve(name, asked or quote(), clamp=False)
    ledger.dispatched(name, "b", "m")
    hold.progress = lambda: Progress({"output": passed[-1]}, RATES, PRICE) if passed[-1] else None
    clock.advance(60)
    return hold


async def killed(ledger: Ledger, folder: Path) -> Path:
    """What a kill -9 leaves, once all that was decided so far is in the file."""
    await counted(ledger)
    number = len(ledger.keys("t"))
    await manage.add_key(ledger, "t", f"{number:02}")[1]
    copy = folder / f"killed{number}"
    copy.mkdir()
    for name in ("l.db", "l.db-wal"):
        shutil.copy(folder / name, copy / name)
    return copy


async def after(left: Path, clock: FakeClock) -> tuple[Ledger, list[dict[str, Any]]]:
    """The ledger that starts on it, and the records it finds."""
    ledger = await opened(left, clock)
    ledger.check_invariants()
    assert audit(f"{left}/l.db") == []
    return ledger, ledger.charges("t")["data"]


async def test_a_crash_charges_what_was_passed_on_by_the_last_checkpoint(tmp_path: Path) -> None:
    clock = FakeClock()
    ledger = await opened(tmp_path, clock)
    passed = [30]
    await stream(ledger, clock, "a", passed)
    ledger.checkpoint()
    left = await killed(ledger, tmp_path)
    passed.append(45)
    ledger.checkpoint()
    later = await killed(ledger, tmp_path)
    for folder, tokens in ((left, 30), (later, 45)):
        again, [record] = await after(folder, clock)
        assert (record["status"], record["flags"]) == ("settled", ["crash", "estimated"])
        assert (record["usage"], record["charged"]) == ({"output": tokens}, credits_text(tokens))
        assert again.available_uc("t") == 1000 - tokens
        await again.aclose()
    receipt = await settle(ledger, "a", 70)
    assert receipt.charged_uc == 70
    await ledger.aclose()


async def test_without_a_checkpoint_a_crash_charges_nothing(tmp_path: Path) -> None:
    clock = FakeClock()
    ledger = await opened(tmp_path, clock)
    await stream(ledger, clock, "a", [0])
    ledger.checkpoint()
    again, [record] = await after(await killed(ledger, tmp_path), clock)
    assert (record["flags"], record["charged"]) == (["crash"], "0")
    await again.aclose()
    await ledger.aclose()


async def test_never_more_than_is_held_is_charged_by_a_crash(tmp_path: Path) -> None:
    clock = FakeClock()
    ledger = await opened(tmp_path, clock)
    await stream(ledger, clock, "a", [999])
    ledger.checkpoint()
    again, [record] = await after(await killed(ledger, tmp_path), clock)
    assert record["charged"] == "0.0002"
    await again.aclose()
    await ledger.aclose()


async def test_caps_count_it_in_the_window_in_which_the_call_began(tmp_path: Path) -> None:
    clock = FakeClock()
    ledger = await opened(tmp_path, clock)
    await manage.edit(ledger, "t", Edit(caps={"day": {"credits": 900}, "5h": {"credits": 800}}))[1]
    await stream(ledger, clock, "a", [30])
    await stream(ledger, clock, "b", [40])
    clock.advance(400 * SECOND_MS)  # another slot of the rolling window
    await stream(ledger, clock, "c", [50])
    await settle(ledger, "c", 50)
    ledger.checkpoint()
    again, _ = await after(await killed(ledger, tmp_path), clock)
    assert [cap["used"] for cap in again.usage("t")["caps"]] == ["0.00012", "0.00012"]
    await again.aclose()
    await ledger.aclose()


async def test_grants_of_several_cards_pay_by_units(tmp_path: Path) -> None:
    clock = FakeClock()
    ledger = await opened(tmp_path, clock, 0)
    rates = dict.fromkeys(BUCKETS, 1)
    offer = offered("m", "b", "", frozenset(), rates)
    manage.add_grant(ledger, "t", 150 * 1_000_000, card=RAW, priority=10)
    manage.add_grant(ledger, "t", 900, priority=20)
    asked = replace(quote(100, 100), offers=(offer,), input_tokens=100)
    hold = await stream(ledger, clock, "a", [170], asked)
    assert len(hold.parts) == 2
    ledger.checkpoint()
    again, [record] = await after(await killed(ledger, tmp_path), clock)
    assert [share["units"] for share in record["split"]] == [{"output": 150}, {"output": 20}]
    assert record["charged"] == "150.00002"
    await again.aclose()
    await ledger.aclose()


async def test_a_look_is_one_commit_for_all_and_none_without_news(tmp_path: Path) -> None:
    clock = FakeClock()
    ledger = await opened(tmp_path, clock, 10**6)
    for number in range(50):
        await stream(ledger, clock, f"c{number}", [number])
    await manage.add_key(ledger, "t", "00")[1]
    before = ledger._writer.batches
    ledger.checkpoint()
    await manage.add_key(ledger, "t", "01")[1]
    assert ledger._writer.batches - before <= 2
    with closing(read_only(f"{tmp_path}/l.db")) as connection:
        [(noted,)] = connection.execute("SELECT count(*) FROM holds WHERE passed IS NOT NULL").fetchall()
    assert noted == 49
    before = ledger._writer.batches
    ledger.checkpoint()
    assert not ledger._writer._busy, "nothing has been passed on since"
    for number in range(50):
        ledger.close(f"c{number}", "aborted")
    await ledger.aclose()


async def test_a_young_hold_has_no_row_to_note_it_in(tmp_path: Path) -> None:
    clock = FakeClock()
    ledger = await opened(tmp_path, clock)
    hold = await ledger.reserve("a", quote(), clamp=False)
    ledger.dispatched("a", "b", "m")
    hold.progress = lambda: pytest.fail("it is not asked")
    ledger.checkpoint()
    ledger.close("a", "aborted")
    await ledger.aclose()
