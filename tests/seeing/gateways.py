"""Another gateway beside the world's, over the same backends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.app import App
from gateway.config.load import load
from tests.conftest import World


@asynccontextmanager
async def another(world: World, server: str = "", **edits: str) -> AsyncIterator[App]:
    """Its routes.yaml is the world's, but for the line `server:` and what is put in front of the sections in `edits`.

    Its ledger is its own.
    """
    text = (world.path / "routes.yaml").read_text().replace("moma.db", "another.db")
    line = next(line for line in text.splitlines() if line.startswith("server:"))
    text = text.replace(line, server or line)
    for section, before in edits.items():
        assert f"\n{section}:\n" in text
        text = text.replace(f"\n{section}:\n", f"\n{before}{section}:\n")
    routes = world.path / "another.yaml"
    routes.write_text(text)
    app = App(load(routes))
    await app.start("127.0.0.1", 0)
    try:
        yield app
    finally:
        await app.aclose()
