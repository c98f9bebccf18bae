"""The whole gateway out of one seed: what must hold after any life of it, and that the simulation would notice."""

from __future__ import annotations

import functools
import logging
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.charging.mutants import MUTANTS
from tests.charging.simulate import Tally, run, tallied, tally
from tests.charging.simulated.backends import BAD, GOOD

ONLY_LONG = pytest.mark.skipif(os.environ.get("MOMA_LONG") != "1", reason="MOMA_LONG=1 runs it")
SEEDS = 200
PARTS = 4
MANY_SEEDS = 20_000
MOST_SEEDS = 100  # in which every mutant is found
DOC = (Path(__file__).parents[2] / "docs" / "charging.md").read_text(encoding="utf-8")


@functools.cache
def part_of(part: int) -> Tally:
    return tally(range(part * SEEDS // PARTS, (part + 1) * SEEDS // PARTS))


@pytest.mark.parametrize("part", range(PARTS))
def test_nothing_is_wrong_after_a_life_of_the_gateway(part: int) -> None:
    found = part_of(part)
    print(f"\n{found}")
    assert found.wrong == []
    assert min(found.answered, found.dispatched, found.records) > 500, "it was no life"
    assert found.crashes > 20


def test_all_that_can_happen_does() -> None:
    """What backends do (the table of docs/charging.md), how calls end, and where the process dies."""
    seen = sum((part_of(part).happened for part in range(PARTS)), Counter[str]())
    ends = {"settled", "voided", "in debt", "estimated", "partial", "bad_usage", "zero_usage", "crash", "cache_hit"}
    ends |= {"quota_exhausted", "downgraded", "throttled", "paid for afterwards", "card evening", "card raw"}
    heard = {
        "200", "invalid_api_key", "account_not_active", "insufficient_quota", "conflict", "deadline_exceeded",
        "backend_error", "no_backend_available", "backend_overloaded", "content_filter", "store_unavailable",
        "shutting_down", "hit", "miss", "bypass", "coalesced", "replayed",
    }  # fmt: skip
    killed = {
        f"killed {where}"
        for where in (
            "at any time", "before a commit", "after a commit, which nobody has heard of", "before the ledger was read",
            "when the ledger had been read", "in the middle of an entry of the spool",
            "when the file had what the spool still has",
        )
    }  # fmt: skip
    outages = {"a commit went to the spool", "the file has what waited in the spool", "served in an outage"}
    others = {"a month was cut"}
    assert {*ends, *heard, *killed, *outages, *others, *GOOD, *BAD} - seen.keys() == set()


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
