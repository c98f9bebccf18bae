"""schemathesis on OpenAI's operations and those beside them: no 5xx, no other shape of error, no hang, no hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.demo.backend import FORMS, OPERATIONS
from tests.conftest import KEY, World
from tests.fuzzed.books import balanced
from tests.fuzzed.conftest import MODEL
from tests.fuzzed.document import document
from tests.fuzzing import SHORT_AND_LONG, fuzz

EXAMPLES = (20, 100)  # an operation; the second for test-long
REACHED = (4, 8)  # paths of the backend that speaks as OpenAI does: not all data is refused
PHASES = ("fuzzing", "coverage,fuzzing")


async def responses(world: World) -> list[str]:
    """The ids of some that are kept, each of which goes on from the one before."""
    ids: list[str] = []
    for _ in range(3):
        asked = {"model": "plain", "input": "hello", "previous_response_id": ids[-1] if ids else None}
        async with world.http.post(f"{world.url}/v1/responses", json=asked) as answer:
            ids.append((await answer.json())["id"])
    return ids


@pytest.mark.parametrize("long", SHORT_AND_LONG)
async def test_no_call_fails_or_hangs_or_is_held(
    world: World, long: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole, kept = document(), await responses(world)
    values = {
        "body.model": [MODEL], "path.model": [MODEL], "path.response_id": kept, "body.previous_response_id": kept,
    }  # fmt: skip
    run = await fuzz(
        whole, f"{world.url}/v1", KEY, values, path=tmp_path, examples=EXAMPLES[long], long=long,
        phases=PHASES[long], excluded=["positive_data_acceptance", "negative_data_rejection"],
    )  # fmt: skip
    assert run.tested == sum(map(len, whole["paths"].values()))
    assert not caplog.records
    print(
        f"{len(world.a.requests)} reached the backend that speaks as OpenAI does, {len(world.b.requests)} Anthropic's"
    )
    reached = {seen.path for seen in world.a.requests}
    assert reached <= {*OPERATIONS, *FORMS}
    assert len(reached) >= REACHED[long], reached
    assert world.b.requests
    assert await balanced(world)
