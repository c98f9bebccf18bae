"""A store that is down when calls settle: they are answered, and charged once it is back, exactly once."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.charging.audit import audit
from gateway.charging.ledger import Ledger, open_ledger
from gateway.charging.spool import KEPT_FREE, SPOOL_BYTES, Commit, Spool
from gateway.charging.tariffs import plain
from gateway.clock import LoopClock
from gateway.errors import QuotaExhausted, StoreUnavailable
from tests.charging import manage
from tests.charging.fakes import RATES, Down, FakeClock, fail_next, opened, plan, quote, recovered, settle
from tests.charging.older import as_version

STAGES = ("begin", "execute", "commit", "after commit")


async def hold(ledger: Ledger, *names: str) -> None:
    for name in names:
        await ledger.reserve(name, quote(), clamp=False)
        ledger.dispatched(name, "b", "m")


def killed(folder: Path) -> Path:
    """What a kill -9 at this moment leaves."""
    copy = folder / "killed"
    copy.mkdir()
    for name in ("l.db", "l.db-wal", "l.db.spool"):
        if (folder / name).exists():
            shutil.copy(folder / name, copy / name)
    return copy


def charged(folder: Path) -> dict[str, int]:
    with closing(sqlite3.connect(folder / "l.db")) as connection:
        return dict(connection.execute("SELECT charge_id, charged FROM records ORDER BY seq").fetchall())


@pytest.mark.parametrize("stage", STAGES)
async def test_calls_in_flight_are_answered_and_charged_once(tmp_path: Path, stage: str) -> None:
    ledger = await opened(tmp_path, FakeClock(), 10_000)
    await hold(ledger, "before", "failing", "queued", "later", "void", "open")
    await settle(ledger, "before", 10)
    fail_next(ledger, stage)
    with Down(ledger) as down:
        first, second = settle(ledger, "failing", 50), settle(ledger, "queued", 60)
        assert ((await first).charged_uc, (await second).charged_uc) == (50, 60)
        assert not ledger.healthy
        assert not ledger.serving
        with pytest.raises(StoreUnavailable):
            await ledger.reserve("new", quote(), clamp=False)
        with pytest.raises(StoreUnavailable):
            manage.add_key(ledger, "t", "00")
        assert (await settle(ledger, "later", 70)).seq == 4
        ledger.close("void", "failed")
        while down.tries < 3:
            await asyncio.sleep(0.01)
        ledger.check_invariants()
    await recovered(ledger)
    assert (await settle(ledger, "open", 5)).charged_uc == 5  # its hold has outlived the outage
    await hold(ledger, "after")
    await settle(ledger, "after", 1)
    ledger.check_invariants()
    await ledger.aclose()
    all_ = {"before": 10, "failing": 50, "queued": 60, "later": 70, "void": 0, "open": 5, "after": 1}
    assert charged(tmp_path) == all_
    assert audit(f"{tmp_path}/l.db") == []
    assert not (tmp_path / "l.db.spool").exists()


@pytest.mark.parametrize("stage", STAGES)
async def test_a_kill_during_the_outage_loses_and_doubles_nothing(tmp_path: Path, stage: str) -> None:
    ledger = await opened(tmp_path, FakeClock())
    await hold(ledger, "a", "b", "c")
    fail_next(ledger, stage)
    with Down(ledger):
        await settle(ledger, "a", 50)
        await settle(ledger, "b", 60)
        left = killed(tmp_path)
    for _ in range(2):  # a start that is killed before the spool is cleared finds the same once more
        kept = (left / "l.db.spool").read_bytes()
        again = await opened(left, FakeClock())
        assert again.tenant("t").settled_uc == 110
        assert again.available_uc("t") == 890
        await again.aclose()
        (left / "l.db.spool").write_bytes(kept)
    assert charged(left) == {"a": 50, "b": 60}
    assert audit(f"{left}/l.db") == []
    await recovered(ledger)
    await ledger.aclose()
    assert charged(tmp_path) == {"a": 50, "b": 60}
    assert audit(f"{tmp_path}/l.db") == []


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("what", ["nothing", "a key"])
async def test_a_commit_without_records_has_its_number_too(tmp_path: Path, stage: str, what: str) -> None:
    ledger = await opened(tmp_path, FakeClock())
    await hold(ledger, "a")
    await manage.add_key(ledger, "t", "00")[1]
    fail_next(ledger, stage)
    with Down(ledger):
        if what == "nothing":
            await ledger.change(lambda image, now_ms: None)[1]
        else:
            await manage.add_key(ledger, "t", "01")[1]
        await settle(ledger, "a", 50)
        left = killed(tmp_path)
    await recovered(ledger)
    await ledger.aclose()
    again = await opened(left, FakeClock())
    assert len(again.keys("t")) == 1 + (what == "a key")
    await again.aclose()
    for folder in (tmp_path, left):
        assert charged(folder) == {"a": 50}
        assert audit(f"{folder}/l.db") == []


async def test_a_gateway_that_ends_in_the_outage_leaves_it_to_the_next(tmp_path: Path) -> None:
    ledger = await opened(tmp_path, FakeClock())
    await hold(ledger, "a", "b")
    fail_next(ledger, "commit")
    with Down(ledger):
        await settle(ledger, "a", 50)
        settle(ledger, "b", 60)
        await ledger.aclose()
    assert charged(tmp_path) == {}
    assert (tmp_path / "l.db.spool").exists()
    again = await opened(tmp_path, FakeClock())
    assert again.tenant("t").settled_uc == 110
    await again.aclose()
    assert charged(tmp_path) == {"a": 50, "b": 60}
    assert not (tmp_path / "l.db.spool").exists()


@pytest.mark.parametrize("cut", range(1, 400, 37))
async def test_a_torn_tail_is_what_nobody_was_answered(tmp_path: Path, cut: int) -> None:
    ledger = await opened(tmp_path, FakeClock())
    await hold(ledger, "a", "b")
    fail_next(ledger, "commit")
    with Down(ledger):
        await settle(ledger, "a", 50)
        ends = ledger._store._spool.used
        await settle(ledger, "b", 60)
        left = killed(tmp_path)
    with (left / "l.db.spool").open("r+b") as spool:
        spool.seek(ends + cut)
        spool.write(b"\xff" * 4096)
    again = await opened(left, FakeClock())
    assert again.tenant("t").settled_uc == 50
    await again.aclose()
    assert audit(f"{left}/l.db") == []
    await ledger.aclose()


async def test_debt_and_grants_are_what_they_were_before_the_kill(tmp_path: Path) -> None:
    ledger = await opened(tmp_path, FakeClock())
    await hold(ledger, "a")
    fail_next(ledger, "begin")
    with Down(ledger):
        assert (await settle(ledger, "a", 1150)).debt_uc == 150
        left = killed(tmp_path)
    again = await opened(left, FakeClock())
    assert again.tenant("t").debt_uc == 150
    with pytest.raises(QuotaExhausted):
        await again.reserve("c", quote(), clamp=False)
    await manage.add_grant(again, "t", 500)[1]
    assert (again.tenant("t").debt_uc, again.available_uc("t")) == (0, 350)
    await again.aclose()
    await ledger.aclose()
    assert audit(f"{left}/l.db") == []


async def test_a_spool_that_is_full_answers_no_more_and_nothing_before_is_lost(tmp_path: Path) -> None:
    ledger = await opened(tmp_path, FakeClock(), 10**9)
    await hold(ledger, "a", "b", "c")
    fail_next(ledger, "begin")
    with Down(ledger):
        await settle(ledger, "a", 50)
        spool = ledger._store._spool
        used, spool.used = spool.used, SPOOL_BYTES - 10
        with pytest.raises(StoreUnavailable):
            await settle(ledger, "b", 60)
        assert not ledger.healthy
        spool.used = used
        with pytest.raises(StoreUnavailable):
            await settle(ledger, "c", 70)
        ledger.close("c", "failed")
    await recovered(ledger)
    assert ledger.tenant("t").settled_uc == 50
    await ledger.aclose()
    assert charged(tmp_path) == {"a": 50}
    assert audit(f"{tmp_path}/l.db") == []


async def test_a_spool_of_another_history_is_not_mixed_in(tmp_path: Path) -> None:
    ledger = await opened(tmp_path, FakeClock())
    await hold(ledger, "a")
    fail_next(ledger, "begin")
    with Down(ledger):
        await settle(ledger, "a", 50)
        left = killed(tmp_path)
    await ledger.aclose()
    other = tmp_path / "other"
    other.mkdir()
    fresh = await opened(other, FakeClock())
    await hold(fresh, "x")
    await fresh.aclose()
    shutil.copy(left / "l.db.spool", other / "l.db.spool")
    with pytest.raises(StoreUnavailable, match="Move the spool aside"):
        await opened(other, FakeClock())
    (other / "l.db.spool").unlink()
    await (await opened(other, FakeClock())).aclose()


async def test_no_call_waits_over_a_second_for_a_file_that_is_locked(tmp_path: Path) -> None:
    clock = LoopClock(asyncio.get_running_loop())
    ledger = await open_ledger(f"{tmp_path}/l.db", clock, "UTC", {"p": plan(10**9)}, plain("standard", {"m": RATES}))
    ledger.apply_plan("t", plan(10**9))
    await hold(ledger, *(f"c{number}" for number in range(50)))
    with closing(sqlite3.connect(tmp_path / "l.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        longest = 0.0
        for number in range(50):
            began = time.monotonic()
            await settle(ledger, f"c{number}", 1)
            longest = max(longest, time.monotonic() - began)
            await asyncio.sleep(0.03)
        assert longest < 2.0  # half a second, and what a busy machine adds
        assert charged(tmp_path) == {}
        other.execute("ROLLBACK")
    await recovered(ledger)
    await ledger.aclose()
    assert len(charged(tmp_path)) == 50
    assert audit(f"{tmp_path}/l.db") == []


async def test_a_ledger_without_numbers_of_its_commits_gets_them(tmp_path: Path) -> None:
    ledger = await opened(tmp_path, FakeClock())
    await hold(ledger, "a")
    await settle(ledger, "a", 10)
    await ledger.aclose()
    as_version(f"{tmp_path}/l.db", 7)
    ledger = await opened(tmp_path, FakeClock())
    await hold(ledger, "b")
    fail_next(ledger, "after commit")
    await settle(ledger, "b", 20)
    await recovered(ledger)
    await ledger.aclose()
    assert charged(tmp_path) == {"a": 10, "b": 20}
    assert audit(f"{tmp_path}/l.db") == []


# -- new calls while it is down --------------------------------------------------------------------------------------


async def exposed(path: Path, exposure_uc: int) -> Ledger:
    ledger = await open_ledger(f"{path}/l.db", FakeClock(), "UTC", {"p": plan(10**6)}, exposure_uc=exposure_uc)
    ledger.apply_plan("t", plan(10**6))
    await manage.add_key(ledger, "t", "00")[1]
    return ledger


async def test_calls_go_on_up_to_the_exposure_and_are_charged_later(tmp_path: Path) -> None:
    ledger = await exposed(tmp_path, 450)
    await hold(ledger, "a")
    fail_next(ledger, "commit")
    with Down(ledger):
        await settle(ledger, "a", 10)
        assert ledger.serving
        await hold(ledger, "b", "c")  # 200 each
        with pytest.raises(StoreUnavailable, match="exposure"):
            await ledger.reserve("d", quote(), clamp=False)
        assert (await settle(ledger, "b", 20)).charged_uc == 20
        ledger.close("c", "failed")
        await hold(ledger, "d", "e")  # what was not used is free again
        assert (await settle(ledger, "d", 200)).charged_uc == 200
        with pytest.raises(StoreUnavailable, match="exposure"):
            await ledger.reserve("f", quote(), clamp=False)
        ledger.check_invariants()
    await recovered(ledger)
    await asyncio.sleep(0.02)
    await hold(ledger, "f", "g", "h")
    for name in ("e", "f", "g", "h"):
        await settle(ledger, name, 1)
    await ledger.aclose()
    assert charged(tmp_path) == {"a": 10, "b": 20, "c": 0, "d": 200, "e": 1, "f": 1, "g": 1, "h": 1}
    assert audit(f"{tmp_path}/l.db") == []


async def test_a_stream_that_began_in_the_outage_grows_up_to_the_exposure(tmp_path: Path) -> None:
    ledger = await exposed(tmp_path, exposure_uc=500)
    await hold(ledger, "a")
    fail_next(ledger, "commit")
    with Down(ledger):
        await settle(ledger, "a", 10)
        long = replace(quote(100, 10**6), slice_tokens=100)
        found = await ledger.reserve("b", long, clamp=False)
        assert found.reserved_uc == 200
        assert [ledger.extend("b", 200), ledger.extend("b", 200), ledger.extend("b", 200)] == [200, 100, 0]
        assert found.reserved_uc == 500
        ledger.check_invariants()
        with pytest.raises(StoreUnavailable, match="exposure"):
            await ledger.reserve("c", quote(1, 1), clamp=True)
        ledger.dispatched("b", "b", "m")
        await settle(ledger, "b", 50)
        assert (await ledger.reserve("c", quote(100, 350), clamp=False)).reserved_uc == 450
        ledger.close("c", "aborted")
    await recovered(ledger)
    await ledger.aclose()


async def test_no_new_call_is_taken_where_the_spool_has_room_for_those_in_flight_only(tmp_path: Path) -> None:
    ledger = await exposed(tmp_path, 10**6)
    await hold(ledger, "a")
    fail_next(ledger, "commit")
    with Down(ledger):
        await settle(ledger, "a", 10)
        used, ledger._store._spool.used = ledger._store._spool.used, SPOOL_BYTES - KEPT_FREE + 1
        assert not ledger.serving
        with pytest.raises(StoreUnavailable):
            await ledger.reserve("b", quote(), clamp=False)
        ledger._store._spool.used = used
    await recovered(ledger)
    await ledger.aclose()


# -- disks -----------------------------------------------------------------------------------------------------------


@contextmanager
def size_limited(path: Path) -> Iterator[None]:
    """No file of this process may grow beyond what the ledger's WAL has now: what a full disk does to it."""
    size = path.stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_full_disk_refuses_new_calls_and_recovers_without_a_restart(tmp_path: Path) -> None:
    ledger = await opened(tmp_path, FakeClock(), 10**9)
    await manage.add_key(ledger, "t", "00")[1]
    await hold(ledger, "a", "b")
    with size_limited(tmp_path / "l.db-wal"):
        assert (await settle(ledger, "a", 50)).charged_uc == 50
        await asyncio.sleep(0.1)  # it tries again and again meanwhile
        assert not ledger.healthy
        with pytest.raises(StoreUnavailable):
            await ledger.reserve("c", quote(), clamp=False)
    await recovered(ledger)
    await hold(ledger, "d")
    assert (await settle(ledger, "d", 50)).seq == 2
    ledger.check_invariants()
    await ledger.aclose()
    assert audit(f"{tmp_path}/l.db") == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB."""
    path = tmp_path / "disk"
    path.mkdir()
    mount, umount = shutil.which("mount"), shutil.which("umount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(path)]
    if not mount or os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("NOT TESTED: a real full disk needs the right to mount a file system")
    yield path
    subprocess.run([umount or "umount", "-l", str(path)], check=True)


async def test_a_disk_that_is_really_full_costs_no_answer_and_no_charge(small_disk: Path) -> None:
    ledger = await opened(small_disk, FakeClock(), 10**9)
    names = [f"c{number}" for number in range(2_000)]
    await hold(ledger, *names)
    filler = small_disk / "filler"
    with pytest.raises(OSError, match="No space"):
        filler.write_bytes(b"x" * 24_000_000)
    for start in range(0, 2_000, 100):
        receipts = [settle(ledger, name, 1) for name in names[start : start + 100]]
        for receipt in receipts:
            assert (await receipt).charged_uc == 1
    assert not ledger.healthy
    filler.unlink()
    await recovered(ledger)
    ledger.check_invariants()
    await ledger.aclose()
    assert len(charged(small_disk)) == 2_000
    assert audit(f"{small_disk}/l.db") == []


# -- the file itself -------------------------------------------------------------------------------------------------


def commit(number: int, *values: Any) -> Commit:
    return Commit(number, "x", "y", [["INSERT INTO t VALUES (?)", [[value] for value in values]]])  # type: ignore[list-item]


def test_entries_come_back_in_order_and_those_of_an_earlier_outage_do_not(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path / "s"))
    assert spool.open() == []
    for number in range(5, 9):
        spool.append(commit(number, "é", None, 2**63 - 1))
    spool.clear()
    spool.append(commit(9, 1))
    spool.append(commit(10, 2))
    assert list(spool.commits()) == [commit(9, 1), commit(10, 2)]
    again = Spool(str(tmp_path / "s"))
    assert again.open() == [commit(9, 1), commit(10, 2)]
    again.append(commit(11, 3))
    assert [one.number for one in again.commits()] == [9, 10, 11]
    assert (tmp_path / "s").stat().st_size == SPOOL_BYTES
    spool.close()
    again.close()
    assert (tmp_path / "s").exists()


def test_what_no_ledger_takes_is_not_kept(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path / "s"))
    spool.open()
    for value in (2**63, object()):
        with pytest.raises(TypeError):
            spool.append(commit(1, value))
    with pytest.raises(OSError, match="full"):
        spool.append(commit(1, "x" * SPOOL_BYTES))
    assert spool.used == 0
    spool.close()
    assert not (tmp_path / "s").exists()


async def test_a_spool_that_somebody_deletes_keeps_nothing_and_is_made_again(tmp_path: Path) -> None:
    ledger = await opened(tmp_path, FakeClock())
    await hold(ledger, "a")
    (tmp_path / "l.db.spool").unlink()
    fail_next(ledger, "begin")
    with pytest.raises(StoreUnavailable):
        await settle(ledger, "a", 50)
    await recovered(ledger)
    await hold(ledger, "b")
    fail_next(ledger, "begin")
    assert (await settle(ledger, "b", 50)).charged_uc == 50
    await recovered(ledger)
    await ledger.aclose()
    assert charged(tmp_path) == {"b": 50}


def test_an_fsync_that_failed_is_never_tried_again_on_the_same_handle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(str(tmp_path / "s"))
    spool.open()

    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(OSError, match="Input/output"):
            spool.append(commit(1))
    with pytest.raises(OSError, match="not open"):
        spool.append(commit(2))
    assert spool.open() == [commit(1)]  # only the file can tell
    spool.close()
