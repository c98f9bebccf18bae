"""Another gateway beside the world's, over the same backends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.app import App
from gateway.config.load import load
from tests.conftest import World


@asynccontextmanager
async def another(world: World, server: str) -> AsyncIterator[App]:
    """Its routes.yaml is the world's, but for the line `server:`; its ledger is its own."""
    text = (world.path / "routes.yaml").read_text()
    line = next(line for line in text.splitlines() if line.startswith("server:"))
    routes = world.path / "another.yaml"
    routes.write_text(text.replace(line, server).replace("moma.db", "another.db"))
    app = App(load(routes))
    await app.start("127.0.0.1", 0)
    try:
        yield app
    finally:
        await app.aclose()
