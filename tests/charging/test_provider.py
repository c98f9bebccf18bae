"""Records against a provider's count: equal, explained by flags, or not explained."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from zoneinfo import ZoneInfo

from gateway.call import Usage
from gateway.charging.ledger import Ledger
from gateway.charging.offers import RAW
from gateway.charging.provider import Compared, compared, served, totals
from gateway.charging.rating import hit_flags
from tests.charging import manage
from tests.charging.fakes import PRICE, RATES, START_MS, FakeClock, opened, quote
from tests.charging.test_rate_cards import Till
from tests.charging.test_splitting import CREDIT, LARGE, Desk

DAY = "2023-11-15"  # START_MS is 06:13 of it in Shanghai
BUCKETS = {"input": ("input",), "output": ("output",)}


class Books:
    def __init__(self, ledger: Ledger, clock: FakeClock, path: Path) -> None:
        self.ledger, self.clock, self.path, self._n = ledger, clock, f"{path}/l.db", 0

    async def charge(
        self, usage: dict[str, int], *flags: str, backend: str = "b", hit: bool = False, held: int = 100
    ) -> None:
        self._n += 1
        charge_id = f"ch-{self._n}"
        await self.ledger.reserve(charge_id, quote(held, 0), clamp=False)
        if not hit:
            self.ledger.dispatched(charge_id, backend, "m")
        await self.ledger.settle(
            charge_id, Usage(usage, flags=flags), model_served="m", backend="" if hit else backend,
            rates=RATES, price=PRICE, status_flags=hit_flags(0) if hit else (),
        )  # fmt: skip

    async def void(self) -> None:
        await self.ledger.reserve("void", quote(100, 0), clamp=False)
        self.ledger.dispatched("void", "b", "m")
        self.ledger.close("void", "aborted")

    async def against(self, **theirs: int) -> dict[str, Compared]:
        await self.ledger.aclose()
        rows = self.rows({(DAY, "their-m"): Counter(theirs)})
        return {row.bucket: row for row in rows if row.day == DAY}

    def rows(self, theirs: dict[tuple[str, str], Counter[str]]) -> list[Compared]:
        return compared(self.path, "b", {"m": "their-m"}, theirs, BUCKETS, ZoneInfo("Asia/Shanghai"))


async def books(tmp_path: Path) -> Books:
    clock = FakeClock()
    return Books(await opened(tmp_path, clock, credits_uc=10**6), clock, tmp_path)


async def test_what_is_equal(tmp_path: Path) -> None:
    ours = await books(tmp_path)
    await ours.charge({"input": 10, "output": 5})
    await ours.charge({"input": 1, "output": 2})
    rows = await ours.against(input=11, output=7)
    assert rows["input"] == Compared(DAY, "their-m", "input", 11, 11, 0, 0, {})
    assert rows["output"] == Compared(DAY, "their-m", "output", 7, 7, 0, 0, {})


async def test_a_cache_hit_and_another_backend_are_not_asked_about(tmp_path: Path) -> None:
    ours = await books(tmp_path)
    await ours.charge({"input": 10, "output": 5})
    await ours.charge({"input": 10, "output": 5}, hit=True)
    await ours.charge({"input": 10, "output": 5}, backend="c")
    assert (await ours.against(input=10, output=5))["input"].difference == 0
    assert served(ours.path) == {"b", "c"}


async def test_a_difference_without_flags_is_not_explained(tmp_path: Path) -> None:
    ours = await books(tmp_path)
    await ours.charge({"input": 10, "output": 5})
    rows = await ours.against(input=12, output=4)
    assert (rows["input"].difference, rows["input"].unexplained) == (2, 2)
    assert (rows["output"].difference, rows["output"].unexplained) == (-1, -1)


async def test_an_estimate_explains_up_to_what_was_held(tmp_path: Path) -> None:
    ours = await books(tmp_path)
    await ours.charge({"input": 10, "output": 5})
    await ours.charge({"input": 20, "output": 7}, "estimated", "partial", held=100)
    rows = await ours.against(input=10 + 100, output=5)
    assert (rows["input"].difference, rows["input"].unexplained) == (80, 0)
    assert (rows["output"].difference, rows["output"].unexplained) == (-7, 0)
    assert rows["input"].flags == {"estimated": 1, "partial": 1}
    beyond = {row.bucket: row for row in ours.rows({(DAY, "their-m"): Counter(input=111, output=4)})}
    assert (beyond["input"].unexplained, beyond["output"].unexplained) == (1, -1)


async def test_a_void_explains_what_the_backend_did_all_the_same(tmp_path: Path) -> None:
    ours = await books(tmp_path)
    await ours.void()
    rows = await ours.against(input=60, output=40)
    assert (rows["input"].ours, rows["input"].unexplained, rows["input"].flags) == (0, 0, {"voided": 1})


async def test_days_and_models_that_only_one_side_has(tmp_path: Path) -> None:
    ours = await books(tmp_path)
    await ours.charge({"input": 10})
    ours.clock.advance(86_400_000)
    await ours.charge({"input": 3})
    ours.clock.advance(2 * 86_400_000)
    await ours.charge({"input": 3})  # after the last day of the file
    await ours.ledger.aclose()
    rows = ours.rows({(DAY, "x"): Counter(input=4), ("2023-11-16", "their-m"): Counter(input=3)})
    assert [(row.day, row.model, row.ours, row.theirs, row.unexplained) for row in rows if row.bucket == "input"] == [
        (DAY, "their-m", 10, 0, -10),
        (DAY, "x", 0, 4, 4),
        ("2023-11-16", "their-m", 3, 3, 0),
    ]
    assert totals(rows)["input"] == {"ours": 13, "theirs": 7, "difference": -6}


async def test_a_day_is_one_of_the_configured_timezone(tmp_path: Path) -> None:
    ours = await books(tmp_path)
    midnight = (86_400 - (START_MS // 1000 + 8 * 3600) % 86_400) * 1000
    ours.clock.advance(midnight - 1)
    await ours.charge({"input": 1})
    ours.clock.advance(1)
    await ours.charge({"input": 2})
    await ours.ledger.aclose()
    rows = ours.rows({(DAY, "their-m"): Counter(input=1), ("2023-11-16", "their-m"): Counter(input=2)})
    assert [row.unexplained for row in rows] == [0, 0, 0, 0]


async def test_what_was_held_may_have_been_held_at_the_card_raw(tmp_path: Path) -> None:
    desk = Desk(f"{tmp_path}/l.db")
    await desk.open()
    manage.add_grant(desk.ledger, "t", 1000 * CREDIT, card=RAW)
    name, hold = await desk.begin(LARGE, input_=100, output=50)
    desk.ledger.close(name, "aborted")
    await desk.end()
    assert hold.reserved_uc == 150 * CREDIT
    theirs = {("2023-11-14", "large"): Counter(input=150, output=151)}
    rows = compared(desk.path, "b", {}, theirs, BUCKETS, ZoneInfo("UTC"))
    assert [(row.bucket, row.unexplained) for row in rows] == [("input", 0), ("output", 1)]


async def test_what_was_held_may_have_been_held_at_a_cheaper_card(tmp_path: Path) -> None:
    till = await Till(tmp_path, "\n  cheap: {base: raw, factor: 0.25}\n", zone="UTC").open()
    manage.add_grant(till.ledger, "t", 1000 * CREDIT, card="cheap")
    name, model, _ = await till.begin("qwen-l", tokens=100)
    till.ledger.close(name, "aborted")
    await till.end()
    theirs = {("2027-01-01", model): Counter(input=200, output=201)}
    rows = compared(till.path, "a", {}, theirs, BUCKETS, ZoneInfo("UTC"))
    assert [(row.bucket, row.unexplained) for row in rows] == [("input", 0), ("output", 1)]
