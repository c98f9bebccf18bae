"""What would be held for a call is what is held, whatever its endpoint; and the example of the documentation loads."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gateway.config.load import load
from tests.conftest import ADMIN_KEY, World
from tests.endpoints.conftest import Post

DOC = Path(__file__).parent.parent.parent / "docs" / "endpoints.md"
CALLS: list[tuple[str, str, dict[str, Any]]] = [
    ("rerank", "rerank", {"model": "judge", "query": "a b", "documents": ["c", "d e"]}),
    ("images/generations", "images", {"model": "painter", "prompt": "sea", "n": 2}),
    ("audio/speech", "speech", {"model": "speaker", "input": "hello", "voice": "v", "response_format": "pcm"}),
    ("embeddings", "embeddings", {"model": "vectors", "input": ["a", "b"]}),
]


async def explained(world: World, endpoint: str, body: dict[str, Any]) -> dict[str, Any]:
    headers = {"authorization": f"Bearer {ADMIN_KEY}"}
    wish = {"body": body, "endpoint": endpoint, "tenant": "demo"}
    async with world.http.post(f"{world.url}/admin/v1/explain", json=wish, headers=headers) as answer:
        value: dict[str, Any] = await answer.json()
    return value


@pytest.mark.parametrize(("path", "endpoint", "body"), CALLS)
async def test_what_is_explained_is_held(
    world: World, post: Post, path: str, endpoint: str, body: dict[str, Any]
) -> None:
    value = await explained(world, endpoint, body)
    assert value["refusal"] is None
    async with post(path, **body) as answer:
        assert answer.status == 200
        await answer.read()
    [record] = await world.charges()
    assert record["reserved"] == value["reserve"]
    assert record["endpoint"] == endpoint


async def test_what_is_counted_is_in_the_expected_cost(world: World) -> None:
    costs = []
    for n in (1, 3):
        value = await explained(world, "images", {"model": "painter", "prompt": "sea", "n": n})
        costs.append(value["candidates"][0]["expected_cost"])
    assert costs[1] - costs[0] == pytest.approx(2 * 100 / 1e6)


async def test_a_model_that_serves_something_else_is_removed(world: World) -> None:
    value = await explained(world, "images", {"model": "judge", "prompt": "sea"})
    assert {one["removed_by"] for one in value["candidates"]} == {"endpoint"}
    assert value["refusal"]["code"] == "invalid_value"


async def test_the_statement_has_the_usage_of_the_records(world: World, post: Post) -> None:
    for path, _, body in CALLS:
        async with post(path, **body) as answer:
            await answer.read()
    await asyncio.sleep(0)
    headers = {"authorization": f"Bearer {ADMIN_KEY}"}
    async with world.http.get(f"{world.url}/admin/v1/tenants/demo/statement", headers=headers) as answer:
        statement = await answer.json()
    by_model = {line["model"]: line["usage"] for line in statement["by_model"]}
    assert by_model == {record["model_served"]: record["usage"] for record in await world.charges()}
    assert by_model["painter"]["images"] == 2
    assert by_model["speaker"]["audio_ms"] == 5 * 60


def test_the_example_of_the_documentation_loads(tmp_path: Path) -> None:
    models = DOC.read_text().partition("```yaml\n")[2].partition("```")[0]
    routes = tmp_path / "routes.yaml"
    routes.write_text(
        "version: 1\ncurrency: CNY\ntimezone: UTC\nstorage: {ledger: sqlite:moma.db}\n"
        f'backends:\n  a: {{kind: openai, base_url: "http://127.0.0.1:1/v1"}}\n{models}'
        "plans: {p: {}}\ntenants: {}\n"
    )
    assert {name: len(model.endpoints) for name, model in load(routes).models.items()} == {
        "reranker": 1, "painter": 1, "dreamer": 1, "speaker": 1, "whisper": 2,
    }  # fmt: skip
