"""Tenants that keep, go on and delete at once, over a disk that is slow and fails: a conversation is found as it was,
or not at all, and never another tenant's."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gateway.config.model import Responses
from gateway.dialects.responses import answer
from gateway.errors import NotFound, PreviousNotFound, StoreUnavailable
from gateway.kept.file import File, Turn
from gateway.kept.responses import KeptResponses
from tests.charging.fakes import FakeClock

MANY = 20_000_000
STEPS = 250


class Unsteady(File):
    """Its writes take their time, and some of them fail."""

    def __init__(self, path: str, max_bytes: int, failing: float) -> None:
        super().__init__(path, max_bytes)
        self._rng = random.Random(3)
        self._failing = failing

    def write(self, turns: Sequence[Turn]) -> list[str]:
        time.sleep(self._rng.random() * 0.003)
        if self._rng.random() < self._failing:
            raise StoreUnavailable("the disk is full")
        return super().write(turns)


class Walk:
    """`said` is what each response and all before it said, by tenant and id; `gone` is what was deleted."""

    def __init__(self, kept: KeptResponses) -> None:
        self.kept = kept
        self.said: dict[tuple[str, str], list[str]] = {}
        self.before: dict[tuple[str, str], str | None] = {}
        self.gone: set[tuple[str, str]] = set()
        self.missed = self.found = self.made = 0

    async def run(self, tenant: str, rng: random.Random) -> None:
        for _ in range(STEPS):
            mine = [name for owner, name in self.said if owner == tenant]
            action = rng.random()
            if action < 0.55 or not mine:
                await self.go_on(tenant, rng.choice(mine[-5:]) if mine and rng.random() < 0.8 else None)
            elif action < 0.75:
                await self.look(tenant, rng.choice(mine))
            elif action < 0.85:
                await self.pry(tenant, rng)
            else:
                await self.forget(tenant, rng.choice(mine))
            await asyncio.sleep(rng.random() * 0.001)

    async def go_on(self, tenant: str, previous: str | None) -> None:
        self.made += 1
        number = self.made
        text = f"{tenant} {number}"
        original: dict[str, Any] = {"model": "m", "input": text, "previous_response_id": previous}
        earlier = [] if previous is None else self.said[tenant, previous]
        try:
            whole, own = await self.kept.resolve(tenant, original, MANY)
        except PreviousNotFound:
            self.missed += 1
            return
        assert not self.broken(tenant, previous)
        asked = [text] if whole is original else [said_of(item) for item in whole["input"]]
        assert asked == [*earlier, text]
        reply = f"to {text}"
        choices = [{"message": {"content": reply}, "finish_reason": "stop"}]
        response = answer({"id": f"w{number}", "choices": choices}, original)
        self.kept.keep(tenant, original, own, response)
        self.said[tenant, response["id"]] = [*earlier, text, reply]
        self.before[tenant, response["id"]] = previous
        self.found += 1

    async def look(self, tenant: str, name: str) -> None:
        try:
            response = await self.kept.find(tenant, name)
        except NotFound:
            self.missed += 1
        else:
            assert (tenant, name) not in self.gone
            assert said_of(response["output"][0]) == self.said[tenant, name][-1]

    async def pry(self, tenant: str, rng: random.Random) -> None:
        others = [name for owner, name in self.said if owner != tenant]
        if others:
            with pytest.raises(NotFound):
                await self.kept.find(tenant, rng.choice(others))
            with pytest.raises(PreviousNotFound):
                await self.kept.resolve(tenant, {"input": "x", "previous_response_id": rng.choice(others)}, MANY)

    async def forget(self, tenant: str, name: str) -> None:
        try:
            await self.kept.forget(tenant, name)
        except NotFound:
            self.missed += 1
        self.gone.add((tenant, name))

    def broken(self, tenant: str, name: str | None) -> bool:
        """A turn of the conversation was deleted before it was asked for."""
        while name is not None:
            if (tenant, name) in self.gone:
                return True
            name = self.before[tenant, name]
        return False


def said_of(item: dict[str, Any]) -> str:
    content = item["content"]
    return content if isinstance(content, str) else str(content[0]["text"])


@pytest.mark.parametrize("failing", [0.0, 0.3])
async def test_conversations_are_whole_or_not_found(tmp_path: Path, failing: float) -> None:
    counted: Counter[str] = Counter()
    kept = KeptResponses(str(tmp_path / "kept"), Responses(), FakeClock(), lambda outcome: counted.update([outcome]))
    kept._file = Unsteady(str(tmp_path / "kept"), 10**9, failing)
    walk = Walk(kept)
    rng = random.Random(11)
    await asyncio.gather(*(walk.run(tenant, random.Random(rng.random())) for tenant in ("one", "two", "three")))
    if kept._writing is not None:
        await kept._writing
    for (tenant, name), said in walk.said.items():
        whole_of = kept.resolve(tenant, {"input": "x", "previous_response_id": name}, MANY)
        try:
            whole, _ = await whole_of
        except PreviousNotFound:
            assert failing or walk.broken(tenant, name)
        else:
            assert not walk.broken(tenant, name)
            assert [said_of(item) for item in whole["input"]] == [*said, "x"]
    assert walk.found > STEPS
    unwritten = walk.found - sum(counted.values())  # deleted while they waited
    assert 0 <= unwritten <= len(walk.gone)
    assert bool(counted["failed"]) == bool(failing)
    assert kept._waiting_bytes == 0
    await kept.aclose()
