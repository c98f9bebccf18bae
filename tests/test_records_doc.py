"""What docs/records.md promises to whoever checks exported records without the gateway."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.charging.audit import audit
from gateway.charging.export import export
from gateway.charging.ledger import open_ledger
from gateway.charging.offers import RAW
from gateway.charging.records import RECORD_COLUMNS
from gateway.charging.tariffs import plain
from tests.charging import manage
from tests.charging.fakes import RATES, FakeClock, plan, quote, settle
from tests.charging.test_splitting import CREDIT, LARGE, Desk

DOC = (Path(__file__).parents[1] / "docs" / "records.md").read_text(encoding="utf-8")
ODD = 'm"\\\n\x1f\x7f模型\u2028é'


@pytest.fixture
async def exported(tmp_path: Path) -> Path:
    """Two files; names of a client's choice need not be plain."""
    path = f"{tmp_path}/l.db"
    ledger = await open_ledger(path, FakeClock(), "Asia/Shanghai", {"p": plan(10**6)}, plain("standard", {"m": RATES}))
    ledger.apply_plan("t", plan(10**6))
    for number in range(4):
        asked = quote()
        asked.model_requested = ODD
        await ledger.reserve(f"ch-{number}", asked, clamp=False)
        ledger.dispatched(f"ch-{number}", "b", "m")
        await settle(ledger, f"ch-{number}", number, "partial")
    await ledger.aclose()
    assert audit(path) == []
    export(path, tmp_path / "out", "jsonl", 2, whole=False)
    return tmp_path / "out" / "records-000000000003-000000000004.jsonl"


def checked(tmp_path: Path, file: Path) -> tuple[int, str]:
    (program,) = re.findall(r"```python\n(.*?)```", DOC, re.S)
    script = tmp_path / "check.py"
    script.write_text(program, encoding="utf-8")
    done = subprocess.run([sys.executable, str(script), str(file)], capture_output=True, text=True, timeout=30)
    return done.returncode, done.stdout + done.stderr


def test_the_program_of_the_documentation_verifies_an_exported_file(tmp_path: Path, exported: Path) -> None:
    assert json.loads(exported.read_bytes().splitlines()[0])["model_requested"] == ODD
    assert checked(tmp_path, exported) == (0, "all records are as they were written\n")


async def test_it_verifies_a_charge_that_was_split(tmp_path: Path) -> None:
    desk = Desk(f"{tmp_path}/l.db")
    await desk.open()
    manage.add_grant(desk.ledger, "t", 101 * CREDIT, card=RAW, priority=10)
    manage.add_grant(desk.ledger, "t", 5000 * CREDIT)
    for _ in range(2):  # the second is of the card standard alone
        name, _ = await desk.begin(LARGE, input_=100, output=50)
        await desk.settle(name, LARGE, input=95, output=20)
    await desk.end()
    export(desk.path, tmp_path / "out", "jsonl", 2, whole=False)
    file = tmp_path / "out" / "records-000000000001-000000000002.jsonl"
    split = [json.loads(line)["split"] for line in file.read_bytes().splitlines()]
    assert split[0][0] == {"grant": "g00000001", "card": "raw", "units": {"input": 95, "output": 6}}
    assert checked(tmp_path, file) == (0, "all records are as they were written\n")


def test_it_finds_a_change_and_what_is_missing(tmp_path: Path, exported: Path) -> None:
    whole = exported.read_bytes()
    exported.write_bytes(whole.replace(b'"charged":3', b'"charged":2'))
    assert checked(tmp_path, exported) == (1, "record 4 was changed\n")
    exported.write_bytes(whole.splitlines(keepends=True)[0])
    assert checked(tmp_path, exported) == (1, "records are missing at the end\n")


def test_all_columns_are_named_in_their_order() -> None:
    table = DOC.partition("## A record")[2].partition("In the file")[0]
    first = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert tuple(re.findall(r"`(\w+)`", " ".join(first))) == RECORD_COLUMNS
