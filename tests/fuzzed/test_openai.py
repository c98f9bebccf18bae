"""schemathesis on OpenAI's operations and those beside them: no 5xx, no other shape of error, no hang, no hold."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.charging.audit import audit
from tests.conftest import KEY, World
from tests.fuzzed.conftest import MODEL
from tests.fuzzed.document import document
from tests.fuzzing import SHORT_AND_LONG, fuzz

EXAMPLES = (10, 100)  # an operation; the second for test-long
PHASES = ("fuzzing", "coverage,fuzzing")


@pytest.mark.parametrize("long", SHORT_AND_LONG)
async def test_no_call_fails_or_hangs_or_is_held(
    world: World, long: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = document()
    values = {"body.model": [MODEL], "path.model": [MODEL]}
    run = await fuzz(
        whole, f"{world.url}/v1", KEY, values, path=tmp_path, examples=EXAMPLES[long], long=long,
        phases=PHASES[long], excluded=["positive_data_acceptance", "negative_data_rejection"],
    )  # fmt: skip
    assert run.tested == sum(map(len, whole["paths"].values()))
    assert not caplog.records
    async with asyncio.timeout(5):
        while world.app.ledger.open_holds:
            await asyncio.sleep(0.01)
    world.app.ledger.check_invariants()
    await world.written()
    assert audit(str(world.path / "moma.db")) == []
