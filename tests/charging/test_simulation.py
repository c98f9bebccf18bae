"""The whole gateway out of one seed: what must hold after any life of it, and that the simulation would notice."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.charging.mutants import MUTANTS
from tests.charging.simulate import run, tallied, tally

ONLY_LONG = pytest.mark.skipif(os.environ.get("MOMA_LONG") != "1", reason="MOMA_LONG=1 runs it")
SEEDS = 200
PARTS = 4
MANY_SEEDS = 20_000
MOST_SEEDS = 12  # in which every mutant is found
DOC = (Path(__file__).parents[2] / "docs" / "charging.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("part", range(PARTS))
def test_nothing_is_wrong_after_a_life_of_the_gateway(part: int) -> None:
    found = tally(range(part * SEEDS // PARTS, (part + 1) * SEEDS // PARTS))
    print(f"\n{found}")
    assert found.wrong == []
    assert min(found.answered, found.dispatched, found.records) > 500, "it was no life"
    assert found.crashes > 20


@pytest.mark.long
@ONLY_LONG
def test_nor_after_twenty_thousand() -> None:
    found = tallied(range(MANY_SEEDS), os.cpu_count() or 1)
    print(f"\n{found}")
    assert found.wrong == []


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_a_seed_is_the_same_life_each_time(hash_seed: str) -> None:
    """In another process, whose sets have another order."""
    command = [sys.executable, "-m", "tests.charging.simulate", "--seed", "6", "-v"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=True, env={**os.environ, "PYTHONHASHSEED": hash_seed}
    )
    (digest,) = re.findall(r"digest (\w{64})", done.stdout)
    assert digest == run(6).digest
    assert run(7).digest not in ("", digest)


@pytest.fixture
def quiet() -> Iterator[None]:
    """Mutants make the gateway log what has broken it."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("mutant", MUTANTS)
def test_it_notices_when(mutant: str) -> None:
    run(0)  # the town is there before anything is broken
    with MUTANTS[mutant]():
        assert any(run(seed).wrong for seed in range(MOST_SEEDS))


def test_the_docs_name_what_it_notices() -> None:
    table = DOC.partition("### What it would notice")[2].partition("\n## ")[0]
    assert re.findall(r"^\| ([a-z][^|]*) \|", table, re.M)[1:] == [*MUTANTS]
