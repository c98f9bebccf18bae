"""Grants of several cards and scopes: what is held, who pays which units, and that the records say so."""

from __future__ import annotations

import sqlite3
import tempfile
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.call import BUCKETS, Usage
from gateway.charging import orders
from gateway.charging.audit import audit
from gateway.charging.directory import Edit
from gateway.charging.ledger import Ledger, open_ledger
from gateway.charging.offers import RAW, RAW_RATES, STANDARD, Offer, Scope, offered
from gateway.charging.rating import Quote, cost_uc
from gateway.charging.tariffs import plain
from gateway.charging.why import why
from gateway.config.model import Exhausted, Package, Payg, Plan
from gateway.errors import QuotaExhausted
from tests.charging import manage
from tests.charging.fakes import FakeClock

CREDIT = 1_000_000
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
RATES = {
    "small": {**dict.fromkeys(BUCKETS, CREDIT), "images": 0, "audio_ms": 0, "compute_ms": 0, "calls": 0},
    "large": {**dict.fromkeys(BUCKETS, 3 * CREDIT), "output": 12 * CREDIT, "calls": 5 * CREDIT, "images": 0,
              "audio_ms": 0, "compute_ms": 0},
}  # fmt: skip
SMALL = offered("small", "a", "north", frozenset({"chat"}), RATES["small"])
LARGE = offered("large", "b", "south", frozenset({"chat", "big"}), RATES["large"])
ONLY_SMALL = Scope(models=frozenset({"small"}))


class Desk:
    def __init__(self, path: str) -> None:
        self.path = path
        self.clock = FakeClock()
        self.calls = 0

    async def open(self) -> Ledger:
        self.ledger = await open_ledger(self.path, self.clock, "UTC", {"p": Plan("p")}, plain(STANDARD, RATES))
        if "t" not in {account.id for account in self.ledger.tenants()}:
            manage.add_tenant(self.ledger, "t", "p")
        return self.ledger

    async def begin(
        self, *offers: Offer, input_: int = 10, output: int | None = 10, clamp: bool = False
    ) -> tuple[str, Any]:
        self.calls += 1
        name = f"c{self.calls}"
        dearest = [offer.dearest[STANDARD] for offer in offers]
        quote = Quote(
            "t", ("t",), name, "chat", "m", STANDARD, self.ledger.card_version,
            max(d.input for d in dearest) * input_ + max(d.call for d in dearest), max(d.output for d in dearest),
            output, self.clock.ms * 2, input_tokens=input_, offers=offers,
        )  # fmt: skip
        hold = await self.ledger.reserve(name, quote, clamp=clamp)
        self.ledger.dispatched(name, offers[0].backend, offers[0].model)
        return name, hold

    async def settle(self, name: str, offer: Offer, *flags: str, **units: int) -> Any:
        usage = Usage(units, flags=flags)
        receipt = await self.ledger.settle(
            name, usage, model_served=offer.model, backend=offer.backend, rates=RATES[offer.model], price={}
        )
        return self.ledger.charges("t")["data"][-1], receipt

    def left(self) -> list[float]:
        return [grant.available / CREDIT for grant in self.ledger._image.grants.values()]

    async def end(self) -> None:
        self.ledger.check_invariants()
        await self.ledger.aclose()
        assert audit(self.path) == []


@pytest.fixture
async def desk(tmp_path: Path) -> Desk:
    desk = Desk(f"{tmp_path}/l.db")
    await desk.open()
    return desk


async def test_a_raw_pack_counts_tokens_whatever_the_model_costs(desk: Desk) -> None:
    manage.add_grant(desk.ledger, "t", 1000 * CREDIT, card=RAW)
    name, hold = await desk.begin(LARGE, input_=100, output=200)
    assert hold.reserved_uc == 300 * CREDIT
    record, _ = await desk.settle(name, LARGE, input=90, output=150)
    assert (record["charged"], record["reserved"], record["overage"]) == ("240", "300", "0")
    assert record["split"] == [{"grant": "g00000001", "card": "raw", "units": {"input": 90, "output": 150}}]
    assert desk.left() == [760]
    await desk.end()


async def test_a_purse_pays_after_what_others_have_given_back(desk: Desk) -> None:
    """One call holds all of the raw tokens, the next some of the purse behind them; the package pays both."""
    payg = Exhausted(Payg(10**12, 200 * CREDIT))
    packages = {"raw": Package("raw", 300 * CREDIT, "month", card=RAW, priority=20, exhausted=payg)}
    desk.ledger.change(orders.place, "A-1", "t", "raw", 1, packages)
    (first, _), (second, hold) = await desk.begin(SMALL, input_=290), await desk.begin(SMALL, input_=90)
    assert [(grant.id, uc // CREDIT) for grant, uc in hold.parts] == [("g00000002", 100)]
    await desk.settle(first, SMALL, input=10)
    record, _ = await desk.settle(second, SMALL, input=20)
    assert record["split"] == [{"grant": "g00000001", "card": "raw", "units": {"input": 20}}]
    assert desk.left() == [270, 200]
    name, _ = await desk.begin(SMALL, input_=290)
    record, _ = await desk.settle(name, SMALL, input=280)
    assert [share["units"] for share in record["split"]] == [{"input": 270}, {"input": 10}]
    assert desk.left() == [0, 190]
    await desk.end()


async def test_one_charge_is_split_over_cards_at_whole_tokens(desk: Desk) -> None:
    """The raw pack burns first and ends in the middle of the output; two and a half tokens' worth stays as it is."""
    manage.add_grant(desk.ledger, "t", 101 * CREDIT, card=RAW, priority=10)
    manage.add_grant(desk.ledger, "t", 30 * CREDIT, priority=20)
    manage.add_grant(desk.ledger, "t", 1000 * CREDIT, priority=30)
    name, _ = await desk.begin(LARGE, input_=100, output=50)
    record, _ = await desk.settle(name, LARGE, input=95, output=20)
    assert record["split"] == [
        {"grant": "g00000001", "card": "raw", "units": {"input": 95, "output": 6}},
        {"grant": "g00000002", "card": "standard", "units": {"output": 2}},
        {"grant": "g00000003", "card": "standard", "units": {"output": 12}},
    ]
    assert desk.left() == [0, 6, 1000 - 144]
    await desk.end()


async def test_a_split_charge_is_explained_at_the_rates_of_its_cards(desk: Desk) -> None:
    manage.add_grant(desk.ledger, "t", 15 * CREDIT, card=RAW, priority=10)
    manage.add_grant(desk.ledger, "t", 500 * CREDIT, priority=5, scope=ONLY_SMALL)
    manage.add_grant(desk.ledger, "t", 1000 * CREDIT)
    name, _ = await desk.begin(LARGE)
    await desk.settle(name, LARGE, input=10, output=10)
    await desk.end()
    told = why(desk.path, name)
    assert [(line["bucket"], line["quantity"], line["rate"]) for line in told["price"]["lines"]] == [
        ("input", 10, "1"), ("output", 5, "1"), ("output", 5, "12"),
    ]  # fmt: skip
    assert told["price"]["charged"] == told["record"]["charged"] == "75"
    assert [(grant["paid"], grant["why"]) for grant in told["grants"]] == [
        ("0", "it is only for models small"),
        ("15", "what comes before it did not cover the charge"),
        ("60", "what comes before it did not cover the charge"),
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        '[{"grant":"g00000001","card":"raw","units":{"input":10,"output":9}}]',
        '[{"grant":"g00000001","card":"standard","units":{"input":10,"output":10}}]',
        '[{"grant":"g00000002","card":"raw","units":{"input":10,"output":10}}]',
        '[{"grant":null,"card":"raw","units":{"input":10,"output":10}}]',
        '[{"grant":"g00000001","card":"gold","units":{"input":10,"output":10}}]',
        "[1]",
    ],
)
async def test_a_split_that_does_not_add_up_is_found(desk: Desk, wrong: str) -> None:
    manage.add_grant(desk.ledger, "t", 500 * CREDIT, card=RAW)
    name, _ = await desk.begin(LARGE)
    await desk.settle(name, LARGE, input=10, output=10)
    await desk.end()
    with closing(sqlite3.connect(desk.path)) as connection:
        connection.execute("UPDATE records SET split = ?", (wrong,))
        connection.commit()
    assert [line for line in audit(desk.path) if line.startswith("I8: record 1")]


async def test_a_scoped_pack_pays_for_nothing_else(desk: Desk) -> None:
    manage.add_grant(desk.ledger, "t", 1000 * CREDIT, priority=10, scope=ONLY_SMALL)
    manage.add_grant(desk.ledger, "t", 1000 * CREDIT, priority=30)
    name, _ = await desk.begin(SMALL)
    await desk.settle(name, SMALL, input=10, output=10)
    assert desk.left() == [980, 1000]
    name, _ = await desk.begin(LARGE)
    await desk.settle(name, LARGE, input=10, output=10)
    assert desk.left() == [980, 850]
    await desk.end()


@pytest.mark.parametrize(
    ("scope", "small", "large"),
    [
        (Scope(), True, True),
        (Scope(models=frozenset({"small", "other"})), True, False),
        (Scope(tags=frozenset({"big"})), False, True),
        (Scope(models=frozenset({"small"}), tags=frozenset({"big"})), True, True),
        (Scope(regions=frozenset({"south"})), False, True),
        (Scope(tags=frozenset({"chat"}), regions=frozenset({"north"})), True, False),
        (Scope(models=frozenset({"small"}), regions=frozenset({"south"})), False, False),
    ],
)
def test_what_a_scope_covers(scope: Scope, small: bool, large: bool) -> None:
    assert (scope.covers(SMALL), scope.covers(LARGE)) == (small, large)


async def test_a_target_that_nothing_pays_for_is_not_asked(desk: Desk) -> None:
    manage.add_grant(desk.ledger, "t", 1000 * CREDIT, scope=ONLY_SMALL)
    _, hold = await desk.begin(LARGE, SMALL)
    assert hold.covered == {("small", "a")}
    assert hold.reserved_uc == 20 * CREDIT
    with pytest.raises(QuotaExhausted):
        await desk.begin(LARGE)
    await desk.ledger.aclose()


async def test_a_hold_covers_whichever_of_the_targets_answers(desk: Desk) -> None:
    """The small one by its pack, the large one by the wallet; what is held of both comes back but for one."""
    manage.add_grant(desk.ledger, "t", 100 * CREDIT, priority=10, scope=ONLY_SMALL)
    manage.add_grant(desk.ledger, "t", 1000 * CREDIT)
    name, hold = await desk.begin(SMALL, LARGE)
    assert hold.covered == {("small", "a"), ("large", "b")}
    assert [uc / CREDIT for _, uc in hold.parts] == [20, 5 + 30 + 120]
    await desk.settle(name, LARGE, input=10, output=10)
    assert desk.left() == [100, 1000 - 150]
    await desk.end()


async def test_output_is_lowered_to_what_the_packs_pay(desk: Desk) -> None:
    manage.add_grant(desk.ledger, "t", 400 * CREDIT, card=RAW)
    with pytest.raises(QuotaExhausted):
        await desk.begin(LARGE, input_=50, output=1000)
    name, hold = await desk.begin(LARGE, input_=50, output=1000, clamp=True)
    assert (hold.max_tokens, hold.reserved_uc) == (350, 400 * CREDIT)
    desk.ledger.close(name, "aborted")
    with pytest.raises(QuotaExhausted):  # 255 are less than an answer is good for
        await desk.begin(LARGE, input_=145, output=1000, clamp=True)
    assert desk.left() == [400]
    await desk.end()


async def test_a_cap_binds_what_is_held_of_packs_too(desk: Desk) -> None:
    """It leaves room for the small one alone; of both, as much as is held of their packs would pass it."""
    manage.add_grant(desk.ledger, "t", 100 * CREDIT, priority=10, scope=ONLY_SMALL)
    manage.add_grant(desk.ledger, "t", 1000 * CREDIT)
    await manage.edit(desk.ledger, "t", Edit(caps={"day": {"credits": 160 * CREDIT}}))[1]
    _, hold = await desk.begin(SMALL, LARGE)
    assert (hold.covered, hold.reserved_uc) == ({("small", "a")}, 20 * CREDIT)
    with pytest.raises(QuotaExhausted, match="the cap of 160 credits a day of t"):
        await desk.begin(LARGE)
    await desk.ledger.aclose()


async def test_what_nobody_reported_costs_at_most_what_was_held(desk: Desk) -> None:
    manage.add_grant(desk.ledger, "t", 20 * CREDIT, card=RAW, priority=10)
    manage.add_grant(desk.ledger, "t", 1000 * CREDIT)
    name, _ = await desk.begin(SMALL, input_=10, output=10)
    record, _ = await desk.settle(name, SMALL, "estimated", input=10, output=500)
    assert (record["charged"], record["overage"]) == ("20", "0")
    assert desk.left() == [0, 1000]
    await desk.end()


async def test_what_no_pack_pays_becomes_debt_at_the_standard_card(desk: Desk) -> None:
    manage.add_grant(desk.ledger, "t", 20 * CREDIT, card=RAW)
    name, _ = await desk.begin(LARGE, input_=10, output=10)
    record, receipt = await desk.settle(name, LARGE, input=10, output=12)
    assert record["split"][-1] == {"grant": None, "card": "standard", "units": {"output": 2}}
    assert (receipt.overage_uc, receipt.debt_uc) == (24 * CREDIT, 20 * CREDIT)  # at most what was held
    with pytest.raises(QuotaExhausted, match="in debt"):
        await desk.begin(SMALL)
    manage.add_grant(desk.ledger, "t", 50 * CREDIT, scope=ONLY_SMALL)  # pays no debts
    with pytest.raises(QuotaExhausted, match="in debt"):
        await desk.begin(SMALL)
    manage.add_grant(desk.ledger, "t", 30 * CREDIT)
    assert desk.left() == [0, 50, 10]
    await desk.begin(SMALL)
    await desk.ledger.aclose()


async def test_a_plain_hold_never_pays_from_a_pack_that_came_later(desk: Desk) -> None:
    manage.add_grant(desk.ledger, "t", 20 * CREDIT)
    name, hold = await desk.begin(SMALL)
    assert hold.covered is None
    manage.add_grant(desk.ledger, "t", 500 * CREDIT, card=RAW)
    record, receipt = await desk.settle(name, SMALL, input=10, output=15)
    assert (record["split"], receipt.debt_uc, desk.left()) == ([], 5 * CREDIT, [0, 500])
    await desk.end()


async def test_cards_and_scopes_outlive_the_process(desk: Desk) -> None:
    manage.add_grant(desk.ledger, "t", 100 * CREDIT, card=RAW, scope=Scope(tags=frozenset({"chat", "x"})))
    await desk.begin(SMALL)
    await desk.ledger.aclose()
    ledger = await desk.open()
    (grant,) = ledger._image.grants.values()
    assert (grant.card, grant.scope) == (RAW, Scope(tags=frozenset({"chat", "x"})))
    shown = ledger.usage("t")["grants"][0]
    assert (shown["card"], shown["scope"]) == ("raw", {"tags": ["chat", "x"]})
    await desk.end()


SCOPES = st.sampled_from([None, None, ONLY_SMALL, Scope(tags=frozenset({"big"})), Scope(regions=frozenset({"north"}))])
GRANTS = st.tuples(st.integers(1, 400), st.sampled_from([STANDARD, RAW]), SCOPES, st.integers(1, 3))
LISTS = st.sampled_from([(SMALL,), (LARGE,), (SMALL, LARGE), (LARGE, SMALL)])
CALLS = st.tuples(
    LISTS, st.integers(0, 60), st.integers(1, 400), st.booleans(), st.integers(0, 1), st.integers(0, 70),
    st.integers(0, 450), st.integers(0, 20), st.sampled_from([(), (), ("estimated",), ("bad_usage",)]),
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(GRANTS, min_size=1, max_size=6), st.lists(CALLS, min_size=1, max_size=6))
async def test_units_and_credits_are_kept_whatever_the_packs(grants: list[Any], calls: list[Any]) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        desk = Desk(f"{folder}/l.db")
        await desk.open()
        for amount, card, scope, priority in grants:
            manage.add_grant(desk.ledger, "t", amount * CREDIT, card=card, scope=scope, priority=priority)
        for offers, input_, output, clamp, pick, used, made, cached, flags in calls:
            try:
                name, hold = await desk.begin(*offers, input_=input_, output=output, clamp=clamp)
            except QuotaExhausted:
                continue
            desk.ledger.check_invariants()
            answering = [o for o in offers if hold.covered is None or (o.model, o.backend) in hold.covered]
            offer = answering[pick % len(answering)]
            usage = {"input": used, "input_cached": cached, "output": made, "calls": 1}
            usage = {bucket: n for bucket, n in usage.items() if n}
            within = used + cached <= input_ and made <= hold.max_tokens
            record, receipt = await desk.settle(name, offer, *flags, **usage)
            desk.ledger.check_invariants()
            if within:
                assert receipt.overage_uc == 0
            if record["split"]:
                check_split(desk, record, offer, usage, flags)
        await desk.end()


def check_split(desk: Desk, record: Any, offer: Offer, usage: dict[str, int], flags: tuple[str, ...]) -> None:
    """Each share is of a grant that covers the target, in whole units at its card; together they are the usage."""
    cards = {STANDARD: RATES[offer.model], RAW: {**dict.fromkeys(BUCKETS, 0), **RAW_RATES}}
    units: Counter[str] = Counter()
    total_uc = 0
    for share in record["split"]:
        units.update(share["units"])
        total_uc += cost_uc(share["units"], cards[share["card"]])
        if share["grant"] is not None:
            grant = desk.ledger._image.grants[share["grant"]]
            assert grant.card == share["card"]
            assert grant.scope is None or grant.scope.covers(offer)
    assert all(units[bucket] <= n for bucket, n in usage.items())
    assert flags or units == usage
    assert record["charged"] == f"{total_uc / CREDIT:.0f}"
