"""Rate cards as operators and tenants meet them: routes.yaml, check, diff, reload, packages, a call, its statement."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from gateway.app import App
from gateway.call import Call
from gateway.changes.compare import changes
from gateway.charging.audit import audit
from gateway.cli import main
from gateway.config.load import load
from gateway.config.model import CardHours, CardTerms
from gateway.demo.scripted import Reply
from gateway.tokens import Tokenizer
from tests.conftest import ADMIN_KEY, World
from tests.stage import CONFIG, Open
from tests.test_reload import reloaded, until
from tests.test_sales import MODELS, written
from tests.virtual import Said, whole

ADMIN = {"authorization": f"Bearer {ADMIN_KEY}"}
ROOT = Path(__file__).parent.parent
CARDS = """
rate_cards:
  standard: {hours: [{from: "00:00", to: "24:00", factor: 0.5}]}
  office: {base: standard, factor: 0.8, hours: []}
packages:
  office: {credits: 1M, valid: 30d, price: 9.9, card: office}
"""


async def post(world: World, path: str, body: Any) -> tuple[int, Any]:
    async with world.http.post(f"{world.url}/admin/v1/{path}", headers=ADMIN, json=body) as answer:
        return answer.status, await answer.json()


async def get(world: World, path: str) -> Any:
    async with world.http.get(f"{world.url}/admin/v1/{path}", headers=ADMIN) as answer:
        return await answer.json()


def cost(answer: dict[str, Any], factor: float) -> float:
    """`small` takes 1 and 2 credits a token."""
    used: dict[str, int] = answer["usage"]
    return (used["prompt_tokens"] + 2 * used["completion_tokens"]) * factor


# -- a gateway --------------------------------------------------------------------------------------------------------


async def test_a_package_on_a_card_of_its_own_from_the_order_to_the_statement(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MOMA_ADMIN_KEY", raising=False)
    await reloaded(world, ("timezone: UTC", f"timezone: UTC{CARDS}"))
    assert (await post(world, "tenants", {"id": "ann", "plan": "empty"}))[0] == 201
    key = (await post(world, "tenants/ann/keys", {}))[1]["key"]
    status, order = await post(world, "orders", {"order_id": "A-1", "tenant": "ann", "package": "office"})
    assert (status, order["credits"]) == (201, "1000000")
    status, answer, headers = await chat_as(world, key)
    assert status == 200
    assert float(headers["x-moma-credits"]) == pytest.approx(cost(answer, 0.8))
    (record,) = (await get(world, "tenants/ann/charges"))["data"]
    assert [(share["card"], share["version"]) for share in record["split"]] == [("office", 1)]
    assert record["charged"] == headers["x-moma-credits"]
    statement = await get(world, "tenants/ann/statement")
    assert (statement["spent"], statement["by_model"][0]["credits"]) == (record["charged"], record["charged"])
    assert (await get(world, "tenants/ann/usage"))["grants"][0]["card"] == "office"
    told = await get(world, f"charges/{record['charge_id']}")
    rates = {line["bucket"]: line["rate"] for line in told["price"]["lines"]}
    assert (rates["input"], rates["output"]) == ("0.8", "1.6")
    await world.app.aclose()
    await asyncio.to_thread(main, ["why", record["charge_id"], "-c", str(world.path / "routes.yaml")])
    out = " ".join(capsys.readouterr().out.split())
    assert re.search(
        r"Price by card standard, version 3 since \S+Z, 00:00-24:00 x 0.5; card office, version 1 since", out
    )
    assert audit(str(world.path / "moma.db")) == []


async def chat_as(world: World, key: str, **body: Any) -> tuple[int, dict[str, Any], dict[str, str]]:
    asked = {"model": "small", "messages": [{"role": "user", "content": "hello there"}], **body}
    headers = {"authorization": f"Bearer {key}"}
    async with world.http.post(f"{world.url}/v1/chat/completions", json=asked, headers=headers) as answer:
        return answer.status, await answer.json(), {k.lower(): v for k, v in answer.headers.items()}


async def test_a_reload_changes_what_the_next_call_costs_and_tells_it(world: World) -> None:
    before = await world.chat()
    value = await reloaded(world, ("timezone: UTC", f"timezone: UTC{CARDS}"))
    assert [change["text"] for change in value["changes"]] == [
        "package office is new",
        "rate card standard is new (cards office, packages office)",
        "rate card office is new (packages office)",
    ]
    after = await world.chat()
    assert float(before[2]["x-moma-credits"]) == cost(before[1], 1)
    assert float(after[2]["x-moma-credits"]) == cost(after[1], 0.5)
    value = await reloaded(world, ("factor: 0.8", "factor: 0.75"), ("factor: 0.5", "factor: 0.25"))
    assert [change["text"] for change in value["changes"]] == [
        "rate card standard: hours adds 00:00-24:00 x 0.25, drops 00:00-24:00 x 0.5 (cards office, packages office)",
        "rate card office: factor 0.8 -> 0.75 (-6.25 %) (packages office)",
    ]
    last = await world.chat()
    assert float(last[2]["x-moma-credits"]) == cost(last[1], 0.25)
    assert [r["card_version"] for r in await world.charges()] == [1, 3, 5]
    await world.app.aclose()
    assert audit(str(world.path / "moma.db")) == []


async def test_a_card_that_was_sold_and_is_gone_is_warned_of_and_goes_on(world: World, caplog: Any) -> None:
    await reloaded(world, ("timezone: UTC", f"timezone: UTC{CARDS}"))
    await post(world, "tenants", {"id": "ann", "plan": "empty"})
    key = (await post(world, "tenants/ann/keys", {}))[1]["key"]
    await post(world, "orders", {"order_id": "A-1", "tenant": "ann", "package": "office"})
    value = await reloaded(world, (CARDS, "\n"))
    warning = (
        "rate card office is not in routes.yaml: it is sold no more, and its last version goes on for what was sold on"
        " it: ann"
    )
    assert value["warnings"] == [warning]
    gone = "rate card office is gone: nothing is sold on it any more; what was goes on by its last version"
    assert f"{gone} (packages office)" in [change["text"] for change in value["changes"]]
    _, answer, headers = await chat_as(world, key)
    assert float(headers["x-moma-credits"]) == pytest.approx(cost(answer, 0.8))
    await world.app.aclose()
    world.app = App(load(world.path / "routes.yaml"))
    await world.app.start("127.0.0.1", 0)
    assert warning in [record.getMessage() for record in caplog.records if record.name == "gateway.app"]
    _, answer, headers = await chat_as(world, key)
    assert float(headers["x-moma-credits"]) == pytest.approx(cost(answer, 0.8))
    status, error = await post(world, "tenants/ann/grants", {"credits": 1, "card": "office"})
    assert (status, error["error"]["message"]) == (400, "card is one of standard, raw.")


async def test_a_call_that_is_under_way_over_a_reload_keeps_its_rates(world: World) -> None:
    go = asyncio.Event()
    world.a.script([Reply(before=(go,))])
    call = asyncio.ensure_future(world.chat())
    await until(lambda: world.app.ledger.open_holds)
    await reloaded(world, ("timezone: UTC", "timezone: UTC\nrate_cards: {standard: {factor: 2}}"))
    go.set()
    _, answer, headers = await call
    assert float(headers["x-moma-credits"]) == cost(answer, 1)
    _, answer, headers = await world.chat()
    assert float(headers["x-moma-credits"]) == cost(answer, 2)
    assert [record["card_version"] for record in await world.charges()] == [1, 2]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_cache_hit_is_charged_its_share_of_what_is_in_force(world: World, stream: bool) -> None:
    night = 'rate_cards: {standard: {hours: [{from: "00:00", to: "24:00", factor: 0.5}]}}'
    cache = "cache: {short: {charge: 25%}}"
    await reloaded(
        world,
        ("timezone: UTC", f"timezone: UTC\n{night}\n{cache}"),
        ("policy: ordered}\n  long", "policy: ordered, cache: short}\n  long"),
    )
    _, answer, _ = await world.chat(model="auto", temperature=0)
    async with world.http.post(
        f"{world.url}/v1/chat/completions",
        json={
            "model": "auto",
            "temperature": 0,
            "stream": stream,
            "messages": [{"role": "user", "content": "hello there"}],
        },
    ) as hit:
        await hit.read()
        assert hit.headers["x-moma-cache"] == "hit"
    first, second = await world.charges()
    assert (float(first["charged"]), float(second["charged"])) == (cost(answer, 0.5), cost(answer, 0.125))
    await world.app.aclose()
    assert audit(str(world.path / "moma.db")) == []


async def test_hours_and_cards_of_grants_and_compensations_go_through_the_api(world: World) -> None:
    await reloaded(world, ("timezone: UTC", f"timezone: UTC{CARDS}"))
    scope = {"models": ["small"], "hours": ["22:00-08:00"]}
    status, grant = await post(world, "tenants/demo/grants", {"credits": 5, "card": "office", "scope": scope})
    assert (status, grant["card"], grant["scope"]) == (201, "office", scope)
    for wrong in ("22:00", "22:00-22:00", "24:00-01:00", "1:00-02:00", "01:00-02:00-03:00", "-"):
        status, error = await post(world, "tenants/demo/grants", {"credits": 5, "scope": {"hours": [wrong]}})
        assert (status, error["error"]["param"]) == (400, "scope"), wrong
    given = {"order_id": "C-1", "credits": 5, "card": "office"}
    assert (await post(world, "tenants/demo/compensations", given))[0] == 201
    assert (await post(world, "tenants/demo/compensations", given))[0] == 200
    status, error = await post(world, "tenants/demo/compensations", {**given, "card": "raw"})
    assert (status, error["error"]["message"]) == (409, "order C-1 is there already, with another card")
    status, error = await post(world, "tenants/demo/compensations", {**given, "card": "gold"})
    assert (status, error["error"]["message"]) == (400, "card is one of standard, raw, office.")
    shown = {grant["package"]: grant["card"] for grant in (await get(world, "tenants/demo/usage"))["grants"]}
    assert shown["compensation"] == "office"


async def test_grants_of_a_plan_are_on_the_card_that_it_names(world: World) -> None:
    await reloaded(
        world,
        ("timezone: UTC", f"timezone: UTC{CARDS}"),
        ("  empty: {}", "  empty: {}\n  study: {grants: [{credits: 1k, every: month, card: office}]}"),
    )
    await post(world, "tenants", {"id": "ann", "plan": "study"})
    (grant,) = (await get(world, "tenants/ann/usage"))["grants"]
    assert (grant["card"], grant["granted"]) == ("office", "1000")


async def test_moma_grant_takes_cards_and_hours(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    await reloaded(world, ("timezone: UTC", f"timezone: UTC{CARDS}"))
    await world.app.aclose()
    asked = ["grant", "add", "demo", "5", "--card", "office", "--hours", "22:00-08:00", "--hours", "12:00-13:00"]
    code = await asyncio.to_thread(main, [*asked, "--json", "-c", str(world.path / "routes.yaml")])
    value = json.loads(capsys.readouterr().out)
    assert (code, value["card"], value["scope"]) == (0, "office", {"hours": ["12:00-13:00", "22:00-08:00"]})


async def test_a_reserve_after_the_exact_count_is_at_the_rates_of_that_moment(opened: Open) -> None:
    """The first one is refused at 22:13, when a token takes 1000 credits; counting ends at 22:14."""

    class Slow(Tokenizer):
        async def bound(self, call: Call) -> int:
            stage.clock.wall_jump_ms += 60_000
            return call.input_bound

    dear = CardTerms(hours=(CardHours("22:00-22:14", 1000 * 1_000_000),))
    config = dataclasses.replace(CONFIG, rate_cards={"standard": (dear,)})
    stage = opened([Said(pieces=[whole(tokens=7)])], tokenizer=Slow(), config=config)
    assert (await stage.ask(max_tokens=2000)).status == 200
    [record] = await stage.durable()
    assert float(record["charged"]) == record["usage"]["input"] + record["usage"]["output"]
    assert float(record["reserved"]) < 10_000


# -- on the command line ----------------------------------------------------------------------------------------------

SHOWN = """
timezone: Asia/Shanghai
rate_cards:
  standard: {hours: [{from: "00:00", to: "08:00", factor: 0.5}]}
  office:
    - {base: standard, factor: 0.8}
    - {effective: 2027-01-01, rates: {"m*": {input: 1, input_cached: 0.1, output: 4}}}
packages: {p: {credits: 10M, card: office, valid: 30d, scope: {hours: [{from: "22:00", to: "08:00"}], agents: [x]}}}
plans: {study: {grants: [{credits: 5M, every: month, card: office}]}}
"""


def test_check_shows_cards_and_who_is_on_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path, f"{MODELS}{SHOWN}")
    assert main(["check", "-c", str(file)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    for line in (
        "standard the beginning the rates of the models 00:00-08:00 x 0.5",
        "office the beginning 0.8 x standard",
        "office 2027-01-01 m*: input 1, output 4, input_cached 0.1",
        "card office; hours 22:00-08:00",
        "5M each month on card office",
        "warning agents of package p is not applied in this version",
    ):
        assert line in out, line
    assert main(["check", "--json", "-c", str(file)]) == 0
    facts = json.loads(capsys.readouterr().out)["understood"]
    assert {
        "card": "office",
        "hours": ["00:00-08:00"],
        "factor": "0.5",
        "rates": {"m": {"input": "0.4", "output": "0.4"}},
    } in (facts["tariffs"])
    cards = facts["rate_cards"]
    assert [(card["name"], card["effective"], card["models"]) for card in cards] == [
        ("standard", None, []), ("office", None, []), ("office", "2027-01-01", ["m"]),
    ]  # fmt: skip


def test_diff_says_what_changes_of_a_card(tmp_path: Path) -> None:
    old = load(written(tmp_path, f"{MODELS}{SHOWN}", "old.yaml"))
    text = (
        SHOWN.replace("output: 4", "output: 5")
        .replace("factor: 0.8", "factor: 0.9")
        .replace("card: office}]", "card: raw}]")
    )
    new = load(written(tmp_path, f"{MODELS}{text}", "new.yaml"))
    assert [change.text for change in changes(old, new)] == [
        "plan study: grants adds 5M credits each month on card raw, drops 5M credits each month on card office"
        " (those of the ledger that have it), from each tenant's next period",
        "rate card office: factor 0.8 -> 0.9 (+12.5 %) (packages p)",
        "rate card office: 2027-01-01.rates.m*.output 4 -> 5 (+25 %) credits per token (packages p)",
    ]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("{base: standard}", "{base: raw}", "base standard -> raw"),
        ("{base: standard}", "{base: standard, factor: 2}", "factor 1 -> 2 (+100 %)"),
        ("{base: raw, hours: []}", "{base: raw}", "hours [] -> none"),
        ("[{base: raw}]", "[{base: raw}, {effective: 2027-01-01, base: raw}]", "2027-01-01.base none -> raw"),
        (
            "[{base: raw}, {effective: 2027-01-01, base: raw, factor: 3}]",
            "[{base: raw}, {effective: 2027-02-01, base: raw, factor: 3}]", "2027-02-01.factor none -> 3",
        ),
        ("{rates: {m: {input: 1, output: 1}}}", "{rates: {m: {input: 1, output: 1, output_audio: 9}}}",
         "rates.m.output_audio none -> 9 credits per token"),
    ],
)  # fmt: skip
def test_diff_tells_each_part_of_a_card(tmp_path: Path, old: str, new: str, told: str) -> None:
    files = [
        load(written(tmp_path, f"{MODELS}rate_cards: {{x: {card}}}\n", f"{number}.yaml"))
        for number, card in enumerate((old, new))
    ]
    assert f"rate card x: {told}" in [change.text for change in changes(*files)]


def test_the_examples_of_the_docs_load(tmp_path: Path) -> None:
    examples = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/cards.md").read_text(encoding="utf-8"), re.S)
    assert len(examples) >= 2
    for example in examples:
        assert load(written(tmp_path, example)).rate_cards
