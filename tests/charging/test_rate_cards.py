"""Rate cards of routes.yaml: what is resolved of them, which version is in force when, and what calls cost by them."""

from __future__ import annotations

import tempfile
from datetime import datetime
from math import ceil
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.call import Usage
from gateway.charging import rate_cards
from gateway.charging.audit import audit
from gateway.charging.in_force import Cards, unkept
from gateway.charging.ledger import Ledger, open_ledger
from gateway.charging.offers import Scope
from gateway.charging.rate_cards import tariffs
from gateway.charging.rating import Quote
from gateway.charging.records import Hold
from gateway.charging.why import why
from gateway.config.load import ConfigError, load
from gateway.config.model import Config, Plan
from gateway.errors import QuotaExhausted
from gateway.hours import minute_of_day
from tests.charging import manage
from tests.charging.fakes import FakeClock, fail_both, recovered
from tests.charging.test_splitting import MEMORY

CREDIT = 1_000_000
SHANGHAI = ZoneInfo("Asia/Shanghai")
MODELS = """version: 1
timezone: {zone}
backends:
  a: {{kind: openai, base_url: "http://10.0.0.1/v1"}}
models:
  qwen-s: {{via: [a], context: 8k, max_output: 1k, price: {{input: 1, output: 2}}, rates: {{input: 1, output: 4}}}}
  qwen-l: {{via: [a], context: 8k, max_output: 1k, price: {{input: 1, output: 2}}, rates: {{input: 3, output: 12}}}}
  glm: {{via: [a], context: 8k, max_output: 1k, price: {{input: 1, output: 2}}, rates: {{input: 0.000003, output: 2}}}}
  embed: {{via: [a], context: 8k, max_output: 1k, price: {{input: 1}}, endpoints: [embeddings]}}
rate_cards:
"""


def loaded(folder: Path, cards: str, zone: str = "Asia/Shanghai") -> Config:
    path = folder / "routes.yaml"
    path.write_text(MODELS.format(zone=zone) + cards)
    return load(path)


def ms(text: str, zone: ZoneInfo = SHANGHAI) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=zone).timestamp() * 1000)


def rates(cards: Cards, card: str, at: str, zone: ZoneInfo = SHANGHAI) -> dict[str, tuple[int, int]]:
    """Input and output of each model that the card has, in micro-credits."""
    version = cards.at(ms(at, zone)).versions.get(card)
    found = version.tariff.rates if version else {}
    return {model: (of["input"], of["output"]) for model, of in found.items()}


def resolved(folder: Path, text: str) -> Cards:
    return unkept(tariffs(loaded(folder, text)), SHANGHAI)


# -- what is resolved -------------------------------------------------------------------------------------------------

WRITTEN = """
  student: {base: standard, factor: 0.8}
  office:
    rates:
      qwen-s: {input: 0.5, input_cached: 0.1, output: 1}
      "qwen-*": {input: 2, output: 8}
      embed: {input: 0.1}
  team: {base: office, factor: 0.5, rates: {glm: {input: 7, output: 7}}}
  tokens: {base: raw, factor: 2}
"""


def test_names_patterns_bases_and_factors_become_whole_micro_credits(tmp_path: Path) -> None:
    cards, at = resolved(tmp_path, WRITTEN), "2027-01-01"
    assert rates(cards, "standard", at) == {
        "qwen-s": (CREDIT, 4 * CREDIT), "qwen-l": (3 * CREDIT, 12 * CREDIT), "glm": (3, 2 * CREDIT),
        "embed": (CREDIT, CREDIT),
    }  # fmt: skip
    assert rates(cards, "student", at)["qwen-l"] == (2_400_000, 9_600_000)
    assert rates(cards, "student", at)["glm"] == (3, 1_600_000), "2.4 is rounded up, once"
    assert rates(cards, "office", at) == {
        "qwen-s": (500_000, CREDIT), "qwen-l": (2 * CREDIT, 8 * CREDIT), "embed": (100_000, 0),
    }  # fmt: skip
    assert rates(cards, "team", at) == {
        "qwen-s": (250_000, 500_000), "qwen-l": (CREDIT, 4 * CREDIT), "embed": (50_000, 0),
        "glm": (7 * CREDIT, 7 * CREDIT),
    }  # fmt: skip
    assert rates(cards, "tokens", at)["qwen-l"] == (2 * CREDIT, 2 * CREDIT)
    office = cards.at(0).versions["office"].tariff.rates
    assert (office["qwen-s"]["input_cached"], office["qwen-s"]["input_audio"], office["qwen-l"]["calls"]) == (
        100_000, 500_000, 0,
    )  # fmt: skip


def test_factors_of_a_chain_and_of_an_hour_are_rounded_once(tmp_path: Path) -> None:
    """3 millionths x 0.1 x 0.1 x 7 are 0.21, at night 2.1; rounded at each step they would be 7 and 70."""
    text = """
  one: {base: standard, factor: 0.1}
  two: {base: one, factor: 0.1}
  three: {base: two, factor: 7, hours: [{from: "00:00", to: "08:00", factor: 10}]}
"""
    cards = resolved(tmp_path, text)
    assert rates(cards, "three", "2027-01-01T12:00")["glm"][0] == 1
    assert rates(cards, "three", "2027-01-01T07:00")["glm"][0] == 3, "2.1, and not ten times what was rounded up"


HOURS = """
  standard: {hours: [{from: "00:00", to: "08:00", factor: 0.5}, {from: "22:00", to: "24:00", factor: 0.75}]}
  student: {base: standard, factor: 0.8}
  flat: {base: standard, hours: []}
  office: {base: standard, hours: [{from: "23:00", to: "01:00", factor: 0.25}]}
"""


@pytest.mark.parametrize(
    ("at", "standard", "student", "flat", "office"),
    [
        ("2027-01-01T07:59:59", 50, 40, 100, 100),
        ("2027-01-01T08:00", 100, 80, 100, 100),
        ("2027-01-01T21:59:59", 100, 80, 100, 100),
        ("2027-01-01T22:00", 75, 60, 100, 100),
        ("2027-01-01T23:00", 75, 60, 100, 25),
        ("2027-01-02T00:00", 50, 40, 100, 25),
        ("2027-01-02T00:59:59", 50, 40, 100, 25),
        ("2027-01-02T01:00", 50, 40, 100, 100),
    ],
)
def test_hours_are_those_of_the_card_or_of_its_base(
    tmp_path: Path, at: str, standard: int, student: int, flat: int, office: int
) -> None:
    cards = resolved(tmp_path, HOURS)
    found = [rates(cards, card, at)["qwen-s"][0] * 100 // CREDIT for card in ("standard", "student", "flat", "office")]
    assert found == [standard, student, flat, office]


DATED = """
  standard:
    - hours: [{from: "00:00", to: "08:00", factor: 0.5}]
    - {effective: 2027-07-01, factor: 1.1}
  student:
    - {effective: 2027-03-01, base: standard, factor: 0.8}
    - {effective: 2027-09-01, base: standard, factor: 0.9}
  soon: {effective: 2028-01-01, base: student}
"""


@pytest.mark.parametrize(
    ("at", "standard", "student"),
    [
        ("2026-12-31T12:00", 1000, None),
        ("2027-02-28T23:59:59", 1000, None),
        ("2027-03-01T00:00", 500, 400),
        ("2027-03-01T09:00", 1000, 800),
        ("2027-06-30T23:59:59", 1000, 800),
        ("2027-07-01T00:00", 1100, 880),
        ("2027-09-01T00:00", 1100, 990),
    ],
)
def test_versions_begin_at_midnight_of_their_date(tmp_path: Path, at: str, standard: int, student: int | None) -> None:
    cards = resolved(tmp_path, DATED)
    assert rates(cards, "standard", at)["qwen-s"][0] * 1000 // CREDIT == standard
    found = rates(cards, "student", at)
    assert (found["qwen-s"][0] * 1000 // CREDIT if found else None) == student
    assert rates(cards, "soon", at) == {}


def test_standard_is_there_before_its_first_date(tmp_path: Path) -> None:
    cards = resolved(tmp_path, "\n  standard: {effective: 2027-01-01, factor: 2}\n  x: {base: standard}\n")
    for at, rate in (("2026-12-31T23:59", 1), ("2027-01-01", 2)):
        assert rates(cards, "standard", at)["qwen-s"][0] == rates(cards, "x", at)["qwen-s"][0] == rate * CREDIT


def test_what_never_changes_is_looked_at_once(tmp_path: Path) -> None:
    cards = resolved(tmp_path, WRITTEN)
    assert all(cards.at(ms(at)) is cards.at(0) for at in ("2026-01-01", "2030-01-01"))


def test_what_is_in_force_is_known_until_the_next_edge(tmp_path: Path) -> None:
    cards = resolved(tmp_path, DATED)
    now = cards.at(ms("2027-06-30T12:00"))
    assert now.until_ms == ms("2027-07-01T00:00")
    assert cards.at(now.until_ms - 1) is now
    assert cards.at(now.until_ms) is not now
    assert cards.at(now.since_ms).standard == now.standard, "a clock that is set back"


# -- what is wrong ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("card", "key", "says"),
    [
        ("x: {base: standrad, factor: 2}", "x.base", "there is no standrad (did you mean standard?)"),
        ("x: {rates: {qwen-x: {input: 1, output: 1}}}", "x.rates.qwen-x", "there is no qwen-x (did you mean qwen-s?)"),
        ("x: {rates: {'gpt-*': {input: 1, output: 1}}}", "x.rates.gpt-*", "matches no model"),
        ("x: {rates: {glm: {input: 1}}}", "x.rates.glm", "has no output (a rate of 0 must be written)"),
        ("x: {rates: {embed: {output: 1}}}", "x.rates.embed", "has no input"),
        ("x: {rates: {glm: {inptu: 1, output: 1}}}", "x.rates.glm.inptu", "did you mean input?"),
        ("x: {factor: 2, rates: {glm: {input: 1, output: 1}}}", "x.factor", "multiplies the rates of a base"),
        ("x: {base: standard, factor: -1}", "x.factor", "is a factor from 0 to 1000"),
        ("x: {base: standard, factor: 1001}", "x.factor", "is a factor from 0 to 1000"),
        ("x: {base: standard, fator: 2}", "x.fator", "did you mean factor?"),
        ("x: {base: standard, effective: 1.1.2027}", "x.effective", "is a date such as 2027-01-31"),
        ("x: {}", "x", "has no rates (write rates: or base:)"),
        ("x: []", "x", "has at least 1"),
        ("x: {base: x}", "x", "is a base of itself"),
        ("raw: {base: standard}", "raw", "is a card already"),
        ("standard: {base: raw}", "standard.base", "standard is made of the rates of the models"),
        ("x: [{base: standard}, {base: raw}]", "x.1", "two versions have no date"),
        (
            "x: [{base: raw, effective: 2027-01-01}, {base: standard, effective: 2027-01-01}]",
            "x.1.effective", "two versions begin on 2027-01-01 (give each its own effective: date)",
        ),
        (
            "x: {base: raw, hours: [{from: '00:00', to: '08:00', factor: 1}, {from: '23:00', to: '00:01', factor: 2}]}",
            "x.hours.1", "has hours in common with entry 1 of the list",
        ),
        (
            "x: {rates: {glm: {input: 999999999999, output: 1}}, hours: [{from: '08:00', to: '09:00', factor: 2}]}",
            "x", "takes more than 10^12 credits a token",
        ),
        ("x: {base: raw, hours: [{from: '08:00', to: '08:00', factor: 1}]}", "x.hours.0", "has no minute"),
        ("x: {base: raw, hours: [{from: '8:00', to: '09:00', factor: 1}]}", "x.hours.0.from", "is a time of day"),
        ("x: {base: raw, hours: [{from: '08:00', to: '09:00'}]}", "x.hours.0", "has no factor"),
    ],
)  # fmt: skip
def test_a_problem_has_its_place_and_advice(tmp_path: Path, card: str, key: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, f"  {card}\n")
    [problem] = caught.value.problems
    assert (problem.line, problem.key_path) == (11, f"rate_cards.{key}")
    assert says in str(problem)


def test_a_ring_of_bases_is_found_in_each_of_its_cards(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, "  x: {base: y}\n  y: [{base: standard}, {effective: 2027-01-01, base: x}]\n")
    assert [problem.key_path for problem in caught.value.problems] == ["rate_cards.x", "rate_cards.y"]


MINUTES = ", ".join(f"{{from: '00:{n:02}', to: '00:{n + 1:02}', factor: {n}}}" for n in range(30))
CHAIN = [*(f"c{n}: {{base: c{n + 1}}}" for n in range(3000)), "c3000: {base: raw}"]
DATES = ["x:", *(f"  - {{base: raw, effective: {1000 + n}-01-01}}" for n in range(8999))]
TOO_MANY = "all cards together have rates of more than 100,000 models"


@pytest.mark.parametrize(
    ("cards", "says"),
    [
        (CHAIN, "stands on more than 20 other cards"),
        ([f"standard: {{hours: [{MINUTES}]}}", *(f"c{n}: {{base: standard}}" for n in range(900))], TOO_MANY),
        ([*DATES, "y: {base: x}", f"z: [{{base: y, hours: [{MINUTES}]}}]"], TOO_MANY),
    ],
    ids=["a chain", "many cards", "many dates and hours"],
)  # fmt: skip
def test_cards_are_bounded_in_what_they_stand_for(tmp_path: Path, cards: list[str], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, "".join(f"  {card}\n" for card in cards))
    assert says in str(caught.value.problems[0])


def test_patterns_are_bounded_in_what_they_are_compared_with(tmp_path: Path) -> None:
    model = "{via: [a], context: 8k, max_output: 1k, price: {input: 1, output: 2}}"
    models = "".join(f"  m{n}: {model}\n" for n in range(200))
    text = MODELS.format(zone="UTC").replace("models:\n", f"models:\n{models}")
    patterns = "".join(f"      '[{n}mq]*': {{input: 1, output: 1}}\n" for n in range(5000))
    (tmp_path / "routes.yaml").write_text(f"{text}  x:\n    rates:\n{patterns}")
    with pytest.raises(ConfigError, match="all cards together compare names with more than 1,000,000 models"):
        load(tmp_path / "routes.yaml")


def test_cards_that_stand_on_two_each_are_resolved_in_no_time(tmp_path: Path) -> None:
    pairs = [f"[{{base: c{n + 1}}}, {{effective: 2027-01-01, base: c{n + 2}}}]" for n in range(18)]
    text = "".join(f"  c{n}: {pair}\n" for n, pair in enumerate(pairs)) + "  c18: {base: raw}\n  c19: {base: raw}\n"
    cards = resolved(tmp_path, text)
    assert rates(cards, "c0", "2027-01-01")["glm"] == (CREDIT, CREDIT)


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("packages: {p: {credits: 1, card: offic}}", "packages.p.card"),
        ("plans: {p: {grants: [{credits: 1, card: offic}]}}", "plans.p.grants.0.card"),
    ],
)
def test_a_card_that_is_named_must_be_there(tmp_path: Path, section: str, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, f"  office: {{base: raw}}\n{section}\n")
    [problem] = caught.value.problems
    assert (problem.key_path, str(problem).split(": ", 1)[1]) == (key, "there is no offic (did you mean office?)")


@pytest.mark.parametrize(
    ("package", "good"),
    [
        ("{credits: 1, card: small}", True),
        ("{credits: 1, card: above}", True),
        ("{credits: 1, card: small, scope: {models: [glm, qwen-s]}}", True),
        ("{credits: 1, card: small, scope: {models: [glm]}}", False),
        ("{credits: 1, card: above, scope: {models: [glm]}}", False),
        ("{credits: 1, card: wide, scope: {models: [glm]}}", True),
        ("{credits: 1, scope: {models: [glm]}}", True),
    ],
)
def test_a_package_that_could_pay_for_nothing_is_a_problem(tmp_path: Path, package: str, good: bool) -> None:
    cards = """
  small: {rates: {"qwen-?": {input: 1, output: 1}}}
  above: {base: small, factor: 2}
  wide: [{base: small}, {effective: 2027-01-01, base: standard}]
"""
    if good:
        assert loaded(tmp_path, f"{cards}packages: {{p: {package}}}\n").packages
        return
    with pytest.raises(ConfigError, match="has no rates for any model of the package's scope"):
        loaded(tmp_path, f"{cards}packages: {{p: {package}}}\n")


# -- in the ledger ----------------------------------------------------------------------------------------------------


class Till:
    """A ledger that is opened with what routes.yaml says, and calls of tenant `t` that it prices."""

    def __init__(self, folder: Path, text: str, now: str = "2027-01-01T12:00", zone: str = "Asia/Shanghai") -> None:
        self.folder, self.text, self.zone = folder, text, zone
        self.path = f"{folder}/l.db"
        self.clock = FakeClock(ms(now, ZoneInfo(zone)))
        self.calls = 0
        self.ledger: Ledger
        self.cards: Cards

    async def open(self) -> Till:
        wanted = tariffs(loaded(self.folder, self.text, self.zone))
        self.ledger = await open_ledger(self.path, self.clock, self.zone, {"p": Plan("p")}, wanted)
        self.cards = self.ledger.look(rate_cards.known)
        if not self.ledger.tenants():
            manage.add_tenant(self.ledger, "t", "p")
        return self

    async def edit(self, text: str, *, restart: bool = False) -> None:
        self.text = text
        if restart:
            await self.ledger.aclose()
            await self.open()
        else:
            self.cards = await rate_cards.put(self.ledger, tariffs(loaded(self.folder, text, self.zone)))

    async def begin(self, model: str = "qwen-s", tokens: int = 100) -> tuple[str, str, Any]:
        """A call that may read and write so many tokens."""
        begun, _ = await self.reserve(model, tokens, clamp=False)
        return begun

    async def reserve(self, model: str, tokens: int, *, clamp: bool) -> tuple[tuple[str, str, Any], Hold]:
        self.calls += 1
        name, now_ms = f"c{self.calls}", self.clock.ms
        in_force = self.cards.at(now_ms)
        offer = in_force.offer(model, "a", "", frozenset())
        dearest = offer.dearest["standard"]
        quote = Quote(
            "t", ("t",), f"r-{name}", "chat", model, "standard", in_force.version, dearest.input * tokens,
            dearest.output, tokens, now_ms + 10**9, tokens, 1, (offer,),
        )  # fmt: skip
        hold = await self.ledger.reserve(name, quote, clamp=clamp)
        self.ledger.dispatched(name, "a", model)
        return (name, model, in_force), hold

    async def settle(self, begun: tuple[str, str, Any], *flags: str, **units: int) -> dict[str, Any]:
        name, model, in_force = begun
        usage = Usage(units or {"input": 10, "output": 10}, flags=flags)
        await self.ledger.settle(name, usage, model_served=model, backend="a", rates=in_force.standard[model], price={})
        record: dict[str, Any] = self.ledger.charges("t", 0, 5000)["data"][-1]
        return record

    async def charge(self, model: str = "qwen-s", **units: int) -> dict[str, Any]:
        return await self.settle(await self.begin(model), **units)

    def versions(self) -> list[tuple[str, int]]:
        return sorted((one.card, one.version) for of in self.ledger._image.cards.values() for one in of)

    async def end(self) -> None:
        self.ledger.check_invariants()
        await self.ledger.aclose()
        assert audit(self.path) == []


NIGHT = '\n  standard: {hours: [{from: "00:00", to: "08:00", factor: 0.5}]}\n'


async def test_the_version_on_a_record_says_which_hours_priced_it(tmp_path: Path) -> None:
    till = await Till(tmp_path, NIGHT, "2027-01-01T07:59").open()
    manage.add_grant(till.ledger, "t", 10**6 * CREDIT)
    night = await till.charge()
    till.clock.advance(60_000)
    day = await till.charge()
    assert [(r["charged"], r["rate_card"], r["card_version"]) for r in (night, day)] == [
        ("25", "standard", 2), ("50", "standard", 1),
    ]  # fmt: skip
    await till.end()
    told = why(till.path, night["charge_id"])["price"]
    assert [(line["bucket"], line["rate"]) for line in told["lines"]] == [("input", "0.5"), ("output", "2")]
    assert told["cards"] == [
        {
            "card": "standard", "version": 2, "effective_at": "2026-12-31T23:59:00Z", "from": None,
            "hours": ["00:00-08:00"], "factor": "0.5",
        }
    ]  # fmt: skip


async def test_the_reserve_decides_and_not_the_end(tmp_path: Path) -> None:
    """Over an hour's edge, over a date, and over an edit."""
    text = "\n  standard: [{factor: 1}, {effective: 2027-02-01, factor: 3}]\n"
    till = await Till(tmp_path, NIGHT, "2027-01-01T07:59").open()
    manage.add_grant(till.ledger, "t", 10**6 * CREDIT)
    night = await till.begin()
    till.clock.advance(120_000)
    assert (await till.settle(night))["charged"] == "25"
    day = await till.begin()
    await till.edit(text)
    till.clock.ms = ms("2027-01-31T23:59")
    january = await till.begin()
    assert (await till.settle(day))["card_version"] == 1
    till.clock.ms = ms("2027-02-01")
    record = await till.settle(january)
    assert (record["charged"], record["card_version"]) == ("50", 3)
    record = await till.charge()
    assert (record["charged"], record["card_version"]) == ("150", 4)
    await till.end()


async def test_an_edit_appends_all_of_a_card_and_what_is_the_same_nothing(tmp_path: Path) -> None:
    till = await Till(tmp_path, NIGHT + WRITTEN).open()
    first = till.versions()
    others = [("office", 1), ("team", 1), ("tokens", 1)]
    assert first == sorted([*others, ("standard", 1), ("standard", 2), ("student", 1), ("student", 2)])
    await till.edit(NIGHT + WRITTEN)
    await till.edit(NIGHT + WRITTEN, restart=True)
    assert till.versions() == first
    cheaper = WRITTEN.replace("factor: 0.8", "factor: 0.7")
    for restart in (False, True):
        await till.edit(NIGHT + cheaper, restart=restart)
        assert till.versions() == sorted([*others, ("standard", 1), ("standard", 2), ("student", 3), ("student", 4)])
    await till.edit(NIGHT.replace("08:00", "07:00") + cheaper)
    assert till.versions() == sorted([*others, ("standard", 3), ("standard", 4), ("student", 5), ("student", 6)])
    await till.end()


async def test_a_grant_pays_by_its_card_and_the_record_names_its_version(tmp_path: Path) -> None:
    till = await Till(tmp_path, WRITTEN).open()
    manage.add_grant(till.ledger, "t", 1000 * CREDIT, card="office", priority=10)
    manage.add_grant(till.ledger, "t", 1000 * CREDIT, priority=20)
    record = await till.charge("qwen-l", input=10, output=10)
    assert (record["charged"], record["split"]) == (
        "100", [{"grant": "g00000001", "card": "office", "version": 1, "units": {"input": 10, "output": 10}}],
    )  # fmt: skip
    record = await till.charge("glm", input=10, output=10)
    assert (record["charged"], record["parts"]) == ("20.00003", [{"grant": "g00000002", "credits": "20.00003"}])
    assert record["split"][0]["card"] == "standard", "office has no rate for it: it does not pay"
    await till.edit(WRITTEN.replace("output: 8", "output: 9"))
    record = await till.charge("qwen-l", input=10, output=10)
    assert (record["charged"], record["split"][0]["version"]) == ("110", 2)
    await till.end()
    told = why(till.path, record["charge_id"])["price"]
    assert [(line["card"], line["version"], line["rate"]) for line in told["lines"]] == [
        ("office", 2, "2"), ("office", 2, "9"),
    ]  # fmt: skip
    assert [(card["card"], card["version"]) for card in told["cards"]] == [("standard", 1), ("office", 2)]


async def test_one_charge_is_split_over_cards_of_any_kind(tmp_path: Path) -> None:
    till = await Till(tmp_path, WRITTEN).open()
    for credits_, card in ((40, "office"), (8, "student"), (7, "raw"), (5000, "standard")):
        manage.add_grant(till.ledger, "t", credits_ * CREDIT, card=card)
    record = await till.charge("qwen-l", input=10, output=10)
    assert [(share["card"], share["units"]) for share in record["split"]] == [
        ("office", {"input": 10, "output": 2}), ("raw", {"output": 7}), ("standard", {"output": 1}),
    ]  # fmt: skip
    assert record["charged"] == "55", "36 + 7 + 12: what is left of student is less than the 9.6 of one token"
    await till.end()


async def test_a_card_that_is_gone_goes_on_for_what_was_sold_on_it(tmp_path: Path) -> None:
    till = await Till(tmp_path, HOURS, "2027-01-01T23:30").open()
    manage.add_grant(till.ledger, "t", 1000 * CREDIT, card="office")
    await till.edit("\n  other: {base: raw}\n")
    for restart in (False, True):
        await till.edit("\n  other: {base: raw}\n", restart=restart)
        record = await till.charge(input=100)
        assert (record["charged"], record["split"][0]["card"]) == ("25", "office"), "its hours too"
    assert till.ledger.look(rate_cards.users) == {"office": ["t"]}
    await till.end()


@pytest.mark.parametrize("stage", ["commit", "after commit"])
async def test_cards_outlive_a_store_that_failed(tmp_path: Path, stage: str) -> None:
    till = await Till(tmp_path, NIGHT + WRITTEN).open()
    await manage.add_grant(till.ledger, "t", 5000 * CREDIT, card="office")[1]
    before = till.versions()
    begun = await till.begin("qwen-l")
    fail_both(till.ledger, stage)
    with pytest.raises(Exception, match="durable"):
        await till.settle(begun)
    await recovered(till.ledger)
    assert till.versions() == before
    await till.charge("qwen-l")
    await till.end()


# -- what is charged recomputes ---------------------------------------------------------------------------------------

MOVES = st.lists(
    st.tuples(
        st.sampled_from([1, 59_999, 60_000, 3_599_000, 3_600_000, 6 * 3_600_000, 30 * 86_400_000, -60_000]),
        st.sampled_from(["qwen-s", "qwen-l", "glm"]),
        st.integers(0, 90),
        st.integers(0, 90),
        st.sampled_from([None, None, None, (0, False), (1, False), (2, True)]),
    ),
    min_size=1,
    max_size=12,
)
EDITS = [
    HOURS,
    NIGHT + "  office: {base: standard, factor: 0.7}\n  student: {base: office}\n",
    DATED + '  office: {rates: {"qwen-*": {input: 1, output: 0}}, hours: [{from: "01:30", to: "03:00", factor: 3}]}\n',
]


def by_hand(config: Config, card: str, model: str, at_ms: int, zone: ZoneInfo) -> dict[str, int] | None:
    """What a card takes of a model, from the text of routes.yaml: another way than that of the gateway."""
    now = datetime.fromtimestamp(at_ms / 1000, zone)

    def terms_of(name: str) -> Any:
        begun = [terms for terms in config.rate_cards.get(name, ()) if terms.effective <= now.date().isoformat()]
        return begun[-1] if begun else None

    def exact(name: str) -> dict[str, Any] | None:
        terms = terms_of(name)
        if name == "standard" and terms is None:
            return dict(config.models[model].rates)
        if terms is None:
            return None
        own = [found for pattern, found in terms.rates.items() if pattern == model or pattern == model[:5] + "*"]
        below = config.models[model].rates if name == "standard" else exact(terms.base) if terms.base else None
        if own:
            return dict(own[0])
        return None if below is None else {bucket: rate * terms.factor / 10**6 for bucket, rate in below.items()}

    def hours(name: str) -> Any:
        terms = terms_of(name)
        return () if terms is None else hours(terms.base) if terms.hours is None and terms.base else terms.hours or ()

    found, clock = exact(card), now.strftime("%H:%M")
    for one in hours(card):
        start, end = one.span.split("-")
        if start <= clock < end or (start > end and (clock >= start or clock < end)):
            found = found and {bucket: rate * one.factor / 10**6 for bucket, rate in found.items()}
    return found and {bucket: ceil(round(rate, 9)) for bucket, rate in found.items()}


@pytest.mark.parametrize("zone", ["Asia/Shanghai", "Europe/Berlin", "Australia/Lord_Howe"])
@settings(max_examples=25, deadline=None)
@given(MOVES, st.sampled_from(["standard", "office", "student"]), st.integers(0, 2))
@example([(3_600_000, "qwen-s", 1, 1, None)] * 6, "office", 0)
async def test_what_is_charged_follows_from_the_record(zone: str, moves: Any, card: str, edit: int) -> None:
    """At edges of hours, dates and edits, where clocks are set and where they are not; also for calls over an edge."""
    of = ZoneInfo(zone)
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        start = {"Europe/Berlin": "2027-03-27T22:59", "Australia/Lord_Howe": "2027-04-03T23:59"}.get(zone)
        till = await Till(Path(folder), EDITS[edit], start or "2027-02-28T22:59", zone).open()
        manage.add_grant(till.ledger, "t", 10**6 * CREDIT, card=card, priority=10)
        manage.add_grant(till.ledger, "t", 10**6 * CREDIT, priority=20)
        for wait_ms, model, read, written, change in moves:
            begun, at_ms, config = await till.begin(model), till.clock.ms, loaded(till.folder, till.text, zone)
            till.clock.ms += wait_ms
            if change:
                await till.edit(EDITS[change[0]], restart=False)
            record = await till.settle(begun, input=read, output=written)
            rates_ = by_hand(config, card, model, at_ms, of) or by_hand(config, "standard", model, at_ms, of)
            assert rates_ is not None
            uc = read * rates_["input"] + written * rates_["output"]
            assert record["charged"] == f"{uc / CREDIT:.6f}".rstrip("0").rstrip("."), (record, rates_)
        await till.end()


GRANTS = st.lists(
    st.tuples(
        st.integers(1, 400),
        st.sampled_from(["standard", "raw", "office", "student"]),
        st.sampled_from([None, None, ("models", "qwen-s"), ("hours", "22:00-02:00"), ("hours", "00:15-23:45")]),
        st.integers(1, 3),
    ),
    min_size=1,
    max_size=6,
)
CALLS = st.lists(
    st.tuples(
        st.sampled_from(["qwen-s", "qwen-l", "glm"]), st.integers(1, 200), st.booleans(), st.integers(0, 220),
        st.integers(0, 220), st.sampled_from([(), (), ("estimated",), ("bad_usage",)]),
        st.sampled_from([0, 60_000, 3_600_000, 12 * 3_600_000]), st.sampled_from([None, None, None, 0, 1, 2]),
    ),
    min_size=1,
    max_size=8,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(GRANTS, CALLS)
async def test_the_books_are_right_whatever_the_cards_hours_and_edits(grants: Any, calls: Any) -> None:
    """What is within its hold is paid in full, by grants that were open at its reserve, at the rates of that moment."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        till = await Till(Path(folder), EDITS[0], "2027-02-28T21:59").open()
        for amount, card, scope, priority in grants:
            of = Scope(**{scope[0]: frozenset({scope[1]})}) if scope else None
            manage.add_grant(till.ledger, "t", amount * CREDIT, card=card, scope=of, priority=priority)
        for model, tokens, clamp, read, written, flags, wait_ms, edit in calls:
            opened_ms = till.clock.ms
            try:
                begun, hold = await till.reserve(model, tokens, clamp=clamp)
            except QuotaExhausted:
                till.clock.ms += wait_ms
                continue
            till.ledger.check_invariants()
            till.clock.ms += wait_ms
            if edit is not None:
                await till.edit(EDITS[edit])
            record = await till.settle(begun, *flags, input=read, output=written)
            till.ledger.check_invariants()
            if read <= tokens and written <= hold.max_tokens:
                assert record["overage"] == "0"
            for part in record["parts"]:
                grant = till.ledger._image.grants[part["grant"]]
                assert grant.scope is None or grant.scope.open(minute_of_day(opened_ms, SHANGHAI))
            for share in record["split"]:
                version = begun[2].versions.get(share["card"])
                assert share.get("version", version and version.version) == (version and version.version)
        await till.end()
