"""The file of what is kept: whole conversations of one's own, bounded, fair, and never a reason to fail for good."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.errors import RequestTooLarge, StoreUnavailable
from gateway.kept.file import OVERHEAD_BYTES, SWEPT_AT_ONCE, File, Turn

ROOMY = 1_000_000_000
ROOT = Path(__file__).parent.parent.parent


def turn(name: str, previous: str | None = None, tenant: str = "one", ms: int = 0, size: int = 20) -> Turn:
    return Turn(tenant, name, previous, ms, f'["{name}"]'.encode(), b"r" * size)


def file(tmp_path: Path, max_bytes: int = ROOMY) -> File:
    return File(str(tmp_path / "kept"), max_bytes)


def chain(kept: File, name: str, tenant: str = "one") -> list[str] | None:
    found = kept.chain(tenant, name, ROOMY)
    return None if found is None else [items.decode()[2:-2] for items, _ in found]


def test_a_conversation_is_read_back_in_order_by_whoever_had_it(tmp_path: Path) -> None:
    kept = file(tmp_path)
    assert kept.write([turn("a"), turn("b", "a"), turn("c", "b"), turn("c2", "b")]) == ["kept"] * 4
    assert chain(kept, "c") == ["a", "b", "c"]
    assert chain(kept, "c2") == ["a", "b", "c2"]
    assert chain(kept, "b") == ["a", "b"]
    assert chain(kept, "c", tenant="two") is None
    assert kept.find("two", "c") is None
    assert kept.find("one", "c") == (b'["c"]', b"r" * 20)
    assert not kept.delete("two", "c")
    kept.close()


def test_it_is_there_after_a_restart(tmp_path: Path) -> None:
    kept = file(tmp_path)
    kept.write([turn("a"), turn("b", "a")])
    size = kept.bytes
    kept.close()
    again = file(tmp_path)
    assert chain(again, "b") == ["a", "b"]
    assert again.bytes == size == 2 * (len(b'["a"]') + 20 + OVERHEAD_BYTES)
    assert stat.S_IMODE((tmp_path / "kept").stat().st_mode) == 0o600
    again.close()


def test_what_is_there_is_not_replaced_and_nothing_goes_on_from_nothing(tmp_path: Path) -> None:
    kept = file(tmp_path)
    assert kept.write([turn("a"), turn("a", size=99), turn("b", "gone"), turn("a", tenant="two")]) == [
        "kept",
        "known",
        "orphan",
        "kept",
    ]
    assert kept.find("one", "a") == (b'["a"]', b"r" * 20)
    kept.close()


def test_a_conversation_that_lost_a_turn_is_not_whole(tmp_path: Path) -> None:
    kept = file(tmp_path)
    kept.write([turn("a"), turn("b", "a"), turn("c", "b")])
    assert kept.delete("one", "b")
    assert not kept.delete("one", "b")
    assert chain(kept, "c") is None
    assert chain(kept, "a") == ["a"]
    assert kept.delete("one", "a")
    assert kept.delete("one", "c")
    assert (kept.bytes, kept.tenants()) == (0, [])
    kept.close()


def test_deleted_text_is_overwritten(tmp_path: Path) -> None:
    kept = file(tmp_path)
    kept.write([Turn("one", "a", None, 0, b"a secret of somebody" * 500, b"{}")])
    assert kept.delete("one", "a")
    kept.close()
    assert b"a secret of somebody" not in (tmp_path / "kept").read_bytes()


def test_a_conversation_that_is_too_large_is_refused(tmp_path: Path) -> None:
    kept = file(tmp_path)
    kept.write([turn("a"), turn("b", "a")])
    with pytest.raises(RequestTooLarge):
        kept.chain("one", "b", kept.bytes - 1)
    assert chain(kept, "b") == ["a", "b"]
    kept.close()


def test_conversations_go_when_they_were_not_used(tmp_path: Path) -> None:
    kept = file(tmp_path)
    kept.write([turn("a", ms=10), turn("x", ms=20)])
    kept.write([turn("b", "a", ms=30)])
    assert kept.expire(25) == 1
    assert chain(kept, "x") is None
    assert chain(kept, "b") == ["a", "b"]
    assert kept.expire(31) == 1
    assert (kept.expire(31), kept.bytes) == (0, 0)
    kept.close()


def test_a_sweep_takes_a_bounded_step(tmp_path: Path) -> None:
    kept = file(tmp_path)
    kept.write([turn(f"r{n}") for n in range(SWEPT_AT_ONCE + 5)])
    assert [kept.expire(1) for _ in range(3)] == [SWEPT_AT_ONCE, 5, 0]
    kept.close()


def test_all_of_a_tenant_goes(tmp_path: Path) -> None:
    kept = file(tmp_path)
    kept.write([turn("a"), turn("b", "a"), turn("x"), turn("a", tenant="two")])
    assert kept.forget("one") == 2
    assert kept.tenants() == ["two"]
    assert chain(kept, "a", "two") == ["a"]
    kept.close()


def test_room_is_made_where_most_is(tmp_path: Path) -> None:
    """Who keeps much pushes out what is its own, the oldest conversation first."""
    kept = file(tmp_path, 10 * 2_000)
    size = 2_000 - OVERHEAD_BYTES - len('["m0"]')
    assert kept.write([turn(f"q{n}", tenant="quiet", size=size) for n in range(3)]) == ["kept"] * 3
    outcomes = kept.write([turn(f"m{n}", tenant="loud", ms=n, size=size) for n in range(10)])
    assert outcomes == ["kept"] * 10
    assert kept.bytes == 20_000
    assert [kept.find("loud", f"m{n}") is not None for n in range(10)] == [False] * 3 + [True] * 7
    assert all(kept.find("quiet", f"q{n}") for n in range(3))
    kept.close()


def test_a_conversation_does_not_push_itself_out(tmp_path: Path) -> None:
    kept = file(tmp_path, 3_500)
    assert kept.write([turn("a"), turn("b", "a"), turn("c", "b"), turn("d", "c")]) == ["kept"] * 3 + ["no_room"]
    assert chain(kept, "c") == ["a", "b", "c"]
    assert kept.write([turn("e", size=3_500)]) == ["no_room"]
    assert kept.write([turn("f")]) == ["kept"]  # another one does
    assert chain(kept, "c") is None
    kept.close()


def test_a_random_walk_agrees_with_a_model(tmp_path: Path) -> None:
    """Bounds hold after every step, sums are those of the rows, and what is whole in the model is whole in the file."""
    rng = random.Random(5)
    kept, limit, names = file(tmp_path, 30_000), 30_000, 0
    for step in range(600):
        tenant = rng.choice(["one", "two", "three"])
        with sqlite3.connect(tmp_path / "kept") as look:
            known = (
                []
                if not step
                else [row[0] for row in look.execute("SELECT id FROM responses WHERE tenant = ?", (tenant,))]
            )
        look.close()
        action = rng.random()
        if action < 0.7:
            previous = rng.choice(known) if known and rng.random() < 0.6 else None
            names += 1
            kept.write([turn(f"r{names}", previous, tenant, step, rng.randrange(3_000))])
        elif action < 0.85 and known:
            assert kept.delete(tenant, rng.choice(known))
        elif action < 0.9:
            kept.expire(step - 50)
        elif action < 0.92:
            kept.close()
        assert kept.bytes <= limit
        assert_sums_agree(tmp_path / "kept", kept.bytes)
    kept.close()


def assert_sums_agree(path: Path, total: int) -> None:
    with sqlite3.connect(path) as look:
        tenants = look.execute("SELECT tenant, sum(bytes) FROM responses GROUP BY tenant ORDER BY tenant").fetchall()
        told = look.execute("SELECT tenant, bytes FROM tenants ORDER BY tenant").fetchall()
        sums = look.execute(
            "SELECT tenant, conversation, sum(bytes) FROM responses GROUP BY tenant, conversation ORDER BY 1, 2"
        ).fetchall()
        conversations = look.execute("SELECT tenant, id, bytes FROM conversations ORDER BY 1, 2").fetchall()
    look.close()
    assert tenants == told
    assert sums == conversations
    assert sum(size for _, size in told) == total


def test_a_full_disk_fails_a_write_and_the_next_one_is_tried_again(tmp_path: Path) -> None:
    kept = file(tmp_path)
    kept.write([turn("a")])
    before = kept.bytes
    assert kept._connection is not None
    kept._connection.execute("PRAGMA max_page_count = 1")  # the same error as that of a full disk
    with pytest.raises(StoreUnavailable, match="full"):
        kept.write([turn("b", size=200_000)])
    assert kept.write([turn("c")]) == ["kept"]
    assert chain(kept, "a") == ["a"]
    assert chain(kept, "b") is None
    assert kept.bytes == 2 * before
    kept.close()


def test_a_damaged_file_is_put_aside(tmp_path: Path) -> None:
    (tmp_path / "kept").write_bytes(b"no database" * 1_000)
    kept = file(tmp_path)
    with pytest.raises(StoreUnavailable):
        kept.write([turn("a")])
    assert kept.write([turn("a")]) == ["kept"]
    assert (tmp_path / "kept.damaged").read_bytes().startswith(b"no database")
    kept.close()


def test_a_folder_that_is_not_there_is_an_error_and_no_end(tmp_path: Path) -> None:
    kept = File(str(tmp_path / "gone" / "kept"), ROOMY)
    with pytest.raises(StoreUnavailable):
        kept.write([turn("a")])
    (tmp_path / "gone").mkdir()
    assert kept.write([turn("a")]) == ["kept"]
    kept.close()


CHILD = """
import sys
from gateway.kept.file import File, Turn
kept = File(sys.argv[1], 10**9)
for n in range(10**6):
    kept.write([Turn("one", f"r{n}", f"r{n - 1}" if n % 10 else None, n, b"[]", b"x" * 3_000)])
    print(n, flush=True)
"""


def test_what_was_written_survives_a_kill(tmp_path: Path) -> None:
    for _ in range(3):
        path = tmp_path / f"kept-{_}"
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, cwd=ROOT)
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(60)]
        os.kill(child.pid, signal.SIGKILL)
        lines += child.stdout.readlines()
        child.stdout.close()
        child.wait(10)
        last = int([line for line in lines if line.endswith(b"\n")][-1])
        kept = File(str(path), ROOMY)
        assert chain_ids(kept, last) == last % 10 + 1
        assert all(kept.find("one", f"r{n}") for n in range(last + 1))
        assert_sums_agree(path, kept.bytes)
        kept.close()


def chain_ids(kept: File, last: int) -> int:
    found = kept.chain("one", f"r{last}", ROOMY)
    return 0 if found is None else len(found)
