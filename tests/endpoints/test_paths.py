"""Every path whose endpoint some model serves is there."""

from __future__ import annotations

import pytest

from tests.conftest import World

PATHS = {
    "chat/completions": "chat",
    "completions": "completions",
    "embeddings": "embeddings",
    "rerank": "rerank",
    "images/generations": "images",
    "audio/speech": "speech",
    "audio/transcriptions": "transcriptions",
    "audio/translations": "translations",
}


@pytest.mark.parametrize("path", PATHS)
async def test_what_is_configured_is_there(world: World, path: str) -> None:
    async with world.http.post(f"{world.url}/v1/{path}", json={}) as answer:
        assert (answer.status, (await answer.json())["error"]["code"]) == (400, "invalid_value")
