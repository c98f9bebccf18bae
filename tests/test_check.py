"""`moma check` on a file that is good: the facts, and that people can read them at any width."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import main
from gateway.config.load import load
from gateway.config.model import Plan
from gateway.routing.live import Live
from gateway.routing.router import Router
from tests.virtual import call

GOOD = """version: 1
currency: EUR
timezone: Asia/Shanghai
server: {port: 9000}
backends:
  north: {kind: openai, base_url: "http://10.0.0.1/v1", region: cn-north, chip: npu, limits: {rpm: 5k, tpm: 2M, concurrency: 200}, tags: [own]}
  south: {kind: openai, base_url: "http://10.0.0.2/v1", region: cn-south, keys: [env:A_KEY, env:B_KEY]}
  abroad: {kind: openai, base_url: "https://10.0.0.3/v1", region: us, limits: {rpm: 1234}}
models:
  medium: {via: [north, {backend: south, as: org/Medium, weight: 2}], context: 128k, max_output: 16k,
    price: {input: 2, input_cached: 0.4, output: 8}, rates: {input: 1, output: 4}, tags: [chat]}
  large: {via: [south], context: 256k, max_output: 32k, price: {input: 6, output: 1234.567891, calls: 1}, tags: [chat]}
  far: {via: [abroad], context: 16384, max_output: 4k, price: {input: 0, output: 0}}
aliases: {gpt: medium}
routes:
  auto: {pick: {tags: [chat]}, policy: weighted, require: {region: [cn-north, cn-south]},
    fallback: {error: [far, large], context: [large]}, cache: short}
  safe: {pick: [far], fallback: {error: [auto]}}
cache:
  short: {ttl: 10m, charge: 25%, max_bytes: 8MB}
plans:
  trial: {grants: [{credits: 1M, every: month}, {credits: 2.5k}], rpm: 60, tpm: 200k, concurrency: 8, max_output: 2k}
  narrow: {allow: [chat], rpm: 5}
  free: {}
tenants:
  demo: {plan: trial, keys: ["sha256:6386ab9ada7700fef05aa6c18d00dadf2b8109e1d694ee439ca2c39861f5685a"]}
  guest: {plan: free}
"""  # noqa: E501
NAMES = ["north", "south", "abroad", "medium", "large", "far", "gpt", "auto", "safe", "trial", "narrow", "demo"]


class Checked:
    def __init__(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._path = path / "routes.yaml"
        self._capsys = capsys

    def __call__(self, text: str, *args: str) -> str:
        self._path.write_text(text)
        self._capsys.readouterr()
        assert main(["check", "-c", str(self._path), *args]) == 0
        return self._capsys.readouterr().out

    def json(self, text: str) -> Any:
        return json.loads(self(text, "--json"))


@pytest.fixture
def check(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Checked:
    monkeypatch.delenv("A_KEY", raising=False)
    monkeypatch.setenv("B_KEY", "secret-of-b")
    monkeypatch.setenv("COLUMNS", "100")
    return Checked(tmp_path, capsys)


def by_name(values: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {value["name"]: value for value in values}


# -- facts --------------------------------------------------------------------------------------------------------


def test_models_with_backends_context_and_exact_prices(check: Checked) -> None:
    value = check.json(GOOD)
    assert value["models"] == ["medium", "large", "far"]
    models = by_name(value["understood"]["models"])
    medium = models["medium"]
    assert medium["backends"] == [
        {"backend": "north", "as": "medium", "weight": 1},
        {"backend": "south", "as": "org/Medium", "weight": 2},
    ]
    assert (medium["context"], medium["max_output"]) == (128_000, 16_000)
    assert medium["price"] == {"input": "2", "output": "8", "input_cached": "0.4"}
    assert medium["rates"] == {"input": "1", "output": "4"}
    assert models["large"]["price"] == {"input": "6", "output": "1234.567891", "calls": "1"}


def test_routes_with_the_backends_that_are_left(check: Checked) -> None:
    value = check.json(GOOD)
    routes = by_name(value["understood"]["routes"])
    medium = {"model": "medium", "backends": ["north", "south"]}
    large = {"model": "large", "backends": ["south"]}
    assert routes["auto"] == {
        "name": "auto",
        "policy": "weighted",
        "pick": [medium, large],
        "require": {"region": ["cn-north", "cn-south"]},
        "fallback": {"error": [{"model": "far", "backends": []}, large], "context": [large]},
    }
    assert routes["safe"]["fallback"]["error"] == [medium, large]
    assert value["understood"]["aliases"] == {"gpt": "medium"}
    assert value["warnings"] == [
        "error fallback far of route auto is never asked: none of its backends satisfies what is required",
        "secret env:A_KEY is not set",
    ]


def test_a_picked_model_that_nothing_may_serve_is_told(check: Checked) -> None:
    text = GOOD.replace("pick: {tags: [chat]}", "pick: [medium, far]")
    told = "model far of route auto is never asked: none of its backends satisfies what is required"
    assert told in check.json(text)["warnings"]


def test_plans_tenants_and_the_rest(check: Checked) -> None:
    facts = check.json(GOOD)["understood"]
    plans = by_name(facts["plans"])
    assert plans["trial"] == {
        "name": "trial",
        "grants": [
            {"credits": "1000000", "every": "month", "card": "standard"},
            {"credits": "2500", "every": None, "card": "standard"},
        ],
        "limits": {"rpm": 60, "tpm": 200_000, "concurrency": 8},
        "priority": 100,
        "weight": 1,
        "max_output": 2000,
        "exhausted": "block",
        "alerts": [],
        "allow": None,
    }
    assert plans["narrow"]["allow"] == ["chat"]
    assert facts["tenants"] == [
        {"name": "demo", "plan": "trial", "keys": 1},
        {"name": "guest", "plan": "free", "keys": 0},
    ]
    assert (facts["currency"], facts["timezone"], facts["listen"]) == ("EUR", "Asia/Shanghai", "127.0.0.1:9000")
    assert by_name(facts["backends"])["south"]["keys"] == 2


def test_what_shares_a_limit_is_said_where_it_is_not_the_usual(check: Checked) -> None:
    text = GOOD.replace("  trial: {", "  trial: {weight: 3, priority: 50, ", 1)
    text = text.replace("limits: {rpm: 5k", "check: {path: /up, every: 3s}, limits: {rpm: 5k", 1)
    facts = check.json(text + "defaults: {queue: {length: 7, wait: 1500ms}}\n")["understood"]
    assert facts["queue"] == {"length": 7, "wait_s": 1.5}
    assert (by_name(facts["plans"])["trial"]["weight"], by_name(facts["plans"])["trial"]["priority"]) == (3, 50)
    assert by_name(facts["backends"])["north"]["check"] == "/up every 3 s"
    said = check(text + "defaults: {queue: {length: 7, wait: 1500ms}}\n")
    assert "priority 50, weight 3" in said
    assert "Up to 7 calls wait at each limit, at most 1.5 s." in said
    assert "check /up every 3 s" in " ".join(said.split())
    assert "calls wait" not in check(text + "defaults: {queue: {length: 0}}\n")


def test_which_limits_bind_where(check: Checked) -> None:
    limits = {(limit["of"], limit["name"]): limit for limit in check.json(GOOD)["understood"]["limits"]}
    trial, narrow, north = limits["plan", "trial"], limits["plan", "narrow"], limits["backend", "north"]
    assert (trial["rpm"], trial["tpm"], trial["concurrency"]) == (60, 200_000, 8)
    assert (trial["counted_for"], north["counted_for"]) == ("each tenant", "all calls")
    assert trial["binds"] == ["medium", "large", "far", "gpt", "auto", "safe"]
    assert narrow["binds"] == ["medium", "large", "gpt"]  # what its tenants may call
    assert (north["binds"], north["binds_fallback_of"]) == (["medium", "auto"], ["safe"])
    assert limits["backend", "abroad"]["binds"] == ["far", "safe"]  # auto requires another region
    assert limits["plan", "free"]["rpm"] is None


def test_what_is_said_of_routes_is_what_the_router_does(check: Checked, tmp_path: Path) -> None:
    facts = by_name(check.json(GOOD)["understood"]["routes"])
    config = load(tmp_path / "routes.yaml")
    router = Router(config, random.Random(1), Live(config.breaker))
    for name, route in facts.items():
        decision = router.route(call(model=name), Plan("any"))
        done = {(target.model.name, target.backend.name) for target in decision.targets}
        assert done == pairs(route["pick"])
        fallen = {(target.model.name, target.backend.name) for target in decision.on_error}
        assert fallen == pairs(route["fallback"]["error"]) - done


def pairs(targets: list[dict[str, Any]]) -> set[tuple[str, str]]:
    return {(target["model"], backend) for target in targets for backend in target["backends"]}


def test_caches_with_the_routes_that_use_them(check: Checked) -> None:
    assert check.json(GOOD)["understood"]["caches"] == [
        {
            "name": "short",
            "routes": ["auto"],
            "ttl_s": 600.0,
            "scope": "tenant",
            "charge": "25%",
            "sampled": False,
            "max_bytes": 8_000_000,
            "max_entry": 1_000_000,
        }
    ]


# -- for people ---------------------------------------------------------------------------------------------------


def test_the_summary_says_all_of_it(check: Checked) -> None:
    out = check(GOOD)
    for said in (
        "3 models, 3 backends, 2 routes, 3 plans, 2 tenants; listens on 127.0.0.1:9000",
        "price in EUR",
        "south (as org/Medium, weight 2)",
        "input_cached 0.4 (1)",
        "calls 1 (0)",
        "1234.567891",
        "16,384",
        "1M each month",
        "2,500 once",
        "far (none)",
        "region cn-north or cn-south",
        "medium, auto, safe (fallback)",
        "short  600 s  tenant  25%              without chance  8 MB     auto",
        "every name",
        "plan free, backend south",
        "warning secret env:A_KEY is not set",
    ):
        assert said in out, said
    assert "secret-of-b" not in out


@pytest.mark.parametrize("columns", [None, 80, 100, 140])
def test_every_line_fits(check: Checked, monkeypatch: pytest.MonkeyPatch, columns: int | None) -> None:
    """None is a pipe that says nothing of its width. What is longer than a line is one sentence, for grep."""
    monkeypatch.delenv("COLUMNS") if columns is None else monkeypatch.setenv("COLUMNS", str(columns))
    tables = check(GOOD).splitlines()[1:]
    assert max(len(line) for line in tables if not line.startswith("warning ")) <= (columns or 80)


@pytest.mark.parametrize("columns", [None, 20, 80, 100, 140])
@pytest.mark.parametrize("more", ["-of-the-newest-generation-with-a-name-that-is-longer-than-usual", "通义千问大模型"])
def test_no_name_is_cut_or_broken(
    check: Checked, monkeypatch: pytest.MonkeyPatch, columns: int | None, more: str
) -> None:
    monkeypatch.delenv("COLUMNS") if columns is None else monkeypatch.setenv("COLUMNS", str(columns))
    out = check(re.sub(rf"(?<![\w-])({'|'.join(NAMES)})(?![\w-])", rf"\1{more}", GOOD))
    assert "…" not in out
    for name in NAMES:
        assert f"{name}{more}" in out, name


def test_markup_in_names_is_text(check: Checked) -> None:
    assert "[red]far" in check(GOOD.replace("  far:", '  "[red]far":').replace("[far", '["[red]far"'))


def test_a_file_with_next_to_nothing(check: Checked) -> None:
    assert "0 models, 0 backends, 0 routes, 0 plans, 0 tenants" in check("version: 1\n")


def test_three_hundred_models_stay_readable(check: Checked) -> None:
    model = "  m{}: {{via: [north], context: 8k, max_output: 1k, price: {{input: 1, output: 1}}}}\n"
    models = "".join(model.format(number) for number in range(300))
    out = check(GOOD.replace("models:\n", f"models:\n{models}"))
    assert "m299" in out
    assert len(out.splitlines()) < 450


# -- catalogues ---------------------------------------------------------------------------------------------------

CATALOGUED = """version: 1
currency: USD
backends:
  one: {kind: openai, base_url: "http://10.0.0.1/v1", limits: {rpm: 500}}
  two: {kind: openai, base_url: "http://10.0.0.2/v1"}
models:
  own: {via: [two], context: 8k, max_output: 1k, price: {input: 1, output: 2}, tags: [chat]}
catalogues:
  openai: {backend: one, models: ["gpt-*"], tags: [chat], rates_factor: 1}
routes:
  auto: {pick: {tags: [chat]}, fallback: {error: [gpt-4o, own]}}
"""


def test_what_a_catalogue_makes_is_a_line(check: Checked) -> None:
    facts = check.json(CATALOGUED)["understood"]
    made = by_name(facts["catalogues"])["openai"]["models"]
    assert len(made) > 20
    text = check(CATALOGUED)
    count = len(made)
    assert len(text.splitlines()) < 40
    assert re.search(rf"openai +openai +\d{{4}}-\d\d-\d\d +one +{count}: {made[0]}", text)
    assert f"own (two), {count} of catalogue openai (one)" in " ".join(text.split())
    assert "on error gpt-4o (one), own (two)" in " ".join(text.split())
    assert f"{count} of catalogue openai, auto" in " ".join(text.split())


def test_all_of_a_catalogue_is_in_the_json(check: Checked) -> None:
    facts = check.json(CATALOGUED)["understood"]
    made = by_name(facts["catalogues"])["openai"]["models"]
    assert [model["name"] for model in facts["models"]] == ["own", *made]
    assert all(model["price"] == model["rates"] for model in facts["models"][1:])


def test_a_catalogue_of_which_all_is_written_out_is_told(check: Checked) -> None:
    text = check(CATALOGUED.replace('["gpt-*"]', "[gpt-4o]").replace("  own:", "  gpt-4o:").replace("own]", "gpt-4o]"))
    assert "none, as all are written out" in " ".join(text.split())
