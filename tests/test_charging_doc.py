"""The examples of docs/charging.md, step by step, with a gateway."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import openai
import pytest

from tests.storefront import ADMIN_KEY, Storefront, open_storefront

DOC = (Path(__file__).parents[1] / "docs" / "charging.md").read_text(encoding="utf-8")
PARTS = re.split(r"^### ", DOC.partition("## By example\n")[2].partition("\n## ")[0], flags=re.M)[1:]
ORDER = re.compile(r"order (\S+): (?:(\d+) x )?(\S+) for (\w+)")
CALL = re.compile(r"call by (\w+): (\w+), (\S+) in, (\S+) out")
REFUND = re.compile(r"refund (\S+)")
CHANGE = re.compile(r"change (\S+) to (\S+)")
FACTORS = {"k": 1_000, "M": 1_000_000}


@dataclass
class Step:
    when: str
    what: str
    left: str
    refused: bool


def number(text: str) -> int:
    factor = FACTORS.get(text[-1], 1)
    return int(Decimal(text.rstrip("kM")) * factor)


def steps_of(part: str) -> list[Step]:
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in part.splitlines() if line.startswith("| 2")]
    found = []
    for when, what, left, _ in rows:
        refused, _, rest = left.partition("refused, ")
        found.append(Step(when, what, rest or refused, bool(rest)))
    return found


class Teller:
    """State: who acted last, and the subscriptions of orders."""

    def __init__(self, shop: Storefront) -> None:
        self._shop = shop
        self._who = ""
        self._subscriptions: dict[str, str] = {}

    async def does(self, what: str) -> bool:
        """Whether it was let in."""
        shop = self._shop
        if order := ORDER.fullmatch(what):
            name, quantity, package, self._who = order.groups()
            status, said = await shop.order(name, self._who, package, int(quantity or 1))
            self._subscriptions[name] = said.get("subscription")
            return status in (200, 201)
        if call := CALL.fullmatch(what):
            self._who, model, read, written = call.groups()
            try:
                used = await shop.call(self._who, number(written), prompt=number(read), model=model)
            except openai.RateLimitError:
                return False
            assert used == number(read) + number(written)
            return True
        if refund := REFUND.fullmatch(what):
            return (await shop.admin("POST", f"orders/{refund[1]}/refund", {}))[0] == 201
        if change := CHANGE.fullmatch(what):
            where = f"subscriptions/{self._subscriptions[change[1]]}/change"
            return (await shop.admin("POST", where, {"package": change[2]}))[0] == 200
        assert what == "time passes", what
        return True

    async def left(self) -> str:
        return await self._shop.available(self._who)


@pytest.mark.parametrize("part", PARTS, ids=[part.partition("\n")[0] for part in PARTS])
async def test_an_example_is_so(part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOMA_TEST_ADMIN_KEY", ADMIN_KEY)
    packages = "timezone: Asia/Shanghai\npackages:\n" + "".join(
        f"  {one}\n" for one in re.findall(r"^`(\w+: \{.*?\})`", part, re.M)
    )
    steps = steps_of(part)
    assert len(steps) > 1
    async with open_storefront(tmp_path, steps[0].when.replace(" ", "T"), packages) as shop:
        for name, parent in (("ann", None), ("team", None), ("family", None), ("mia", "family")):
            await shop.tenant(name, parent)
        await shop.tenant("leo", "family", caps={"month": {"credits": 3_000_000}})
        teller = Teller(shop)
        for step in steps:
            shop.calendar.to(step.when.replace(" ", "T"))
            assert await teller.does(step.what) is not step.refused, step
            assert await teller.left() == str(number(step.left)), step


def test_each_kind_of_package_has_an_example() -> None:
    kinds = (Path(__file__).parents[1] / "docs" / "packages.md").read_text().partition("## An example of each kind")[2]
    keys = set(re.findall(r"(\w+):", " ".join(re.findall(r"`(\w+: \{.*?\})`", kinds.partition("\n## ")[0]))))
    wanted = keys & {"every", "rollover", "periods", "valid", "card", "scope", "once", "caps", "price"}
    shown = set(re.findall(r"(\w+):", " ".join(re.findall(r"^`(\w+: \{.*?\})`", "\n".join(PARTS), re.M))))
    assert wanted <= shown
