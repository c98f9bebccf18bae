"""What differs between two configurations, in words: everything is told, and no key."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.changes.compare import NEXT_PERIOD, NOW, RESTART, changes, turned
from gateway.cli import main
from gateway.config.load import load
from gateway.config.model import Config, Fallback, Plan, Secret, Via
from gateway.config.secrets import Secrets

KEY, OTHER = (hashlib.sha256(name.encode()).hexdigest() for name in ("key", "other"))
ROUTES = f"""
version: 1
server: {{admin_key: env:ADMIN, drain: 30s}}
backends:
  a: {{kind: openai, base_url: "http://a/v1", keys: [env:A], region: north, headers: {{x-token: secret-one}},
    limits: {{rpm: 100}}}}
  b: {{kind: openai, base_url: "http://b/v1", region: south}}
models:
  small: {{via: [a], context: 4k, max_output: 1k, price: {{input: 1, input_cached: 0.5, output: 2}},
    rates: {{input: 1, output: 2}}, tags: [chat]}}
  large: {{via: [{{backend: b, as: big}}], context: 9k, max_output: 4k, price: {{input: 2, output: 8}}}}
aliases: {{gpt: small}}
routes:
  auto: {{pick: [small, large], policy: ordered}}
cache:
  short: {{ttl: 2m, charge: 50%}}
rate_cards:
  office: {{base: standard, factor: 0.8}}
plans:
  pro: {{grants: [{{credits: 1M, every: month}}], rpm: 60}}
  tiny: {{allow: [small], rpm: 5}}
tenants:
  demo: {{plan: pro, keys: ["sha256:{KEY}"]}}
  kid: {{plan: tiny}}
"""


@pytest.fixture
def told(tmp_path: Path) -> Callable[..., list[str]]:
    """The texts of one edit."""

    def edited(*pairs: tuple[str, str]) -> list[str]:
        text = ROUTES
        for old, new in pairs:
            assert old in text, old
            text = text.replace(old, new)
        old_file, new_file = tmp_path / "old.yaml", tmp_path / "new.yaml"
        old_file.write_text(ROUTES)
        new_file.write_text(text)
        return [change.text for change in changes(load(old_file), load(new_file))]

    return edited


Told = Callable[..., list[str]]

EDITS = {
    "a price": (
        [("price: {input: 1,", "price: {input: 1.2,")],
        ["model small: price.input 1 -> 1.2 (+20 %) per 1M"],
    ),
    "a rate covers its family": (
        [("rates: {input: 1, output: 2}", "rates: {input: 1, output: 1}")],
        ["model small: rates.output 2 -> 1 (-50 %) credits per token"],
    ),
    "a rate that stood for others": (
        [("rates: {input: 1, output: 2}", "rates: {input: 1, input_cached: 0.1, output: 2}")],
        ["model small: rates.input_cached 1 -> 0.1 (-90 %) credits per token"],
    ),
    "a price of 0": (
        [("price: {input: 2, output: 8}", "price: {input: 0, output: 8}")],
        ["model large: price.input 2 -> 0 (-100 %) per 1M (plans pro)"],
    ),
    "a context": ([("context: 4k", "context: 8k")], ["model small: context 4k -> 8k (+100 %)"]),
    "another backend of a model": (
        [("via: [a]", "via: [a, {backend: b, weight: 2}]")],
        ["model small: via adds b as small with weight 2"],
    ),
    "where a backend is": (
        [("http://b/v1", "http://c/v1")],
        ["backend b: base_url http://b/v1 -> http://c/v1 (models large)"],
    ),
    "a header": (
        [("secret-one", "secret-two")],
        ["backend a: headers.x-token has another value (models small)"],
    ),
    "keys of a backend": (
        [("keys: [env:A]", "keys: [env:A, file:/run/a]")],
        ["backend a: keys adds file:/run/a (models small)"],
    ),
    "a limit that is lifted": (
        [(",\n    limits: {rpm: 100}", "")],
        ["backend a: limits.rpm 100 -> none (models small)"],
    ),
    "a backend that nothing uses": (
        [("  b: {", '  c: {kind: openai, base_url: "http://c/v1"}\n  b: {')],
        ["backend c is new (no model uses it)", "backends stand in another order"][:1],
    ),
    "a model that is gone": (
        [
            (
                "  large: {via: [{backend: b, as: big}], context: 9k, max_output: 4k, price: {input: 2, output: 8}}\n",
                "",
            ),
            ("[small, large]", "[small]"),
        ],
        [
            "model large is gone: calls that name it are refused (plans pro)",
            "route auto: pick drops large (plans pro)",
        ],
    ),
    "a new model": (
        [("aliases:", "  new: {via: [a, b], context: 4k, max_output: 1k, price: {input: 1, output: 1}}\naliases:")],
        ["model new is new: served by a as new, b as new (plans pro)"],
    ),
    "an alias": ([("gpt: small", "gpt: large")], ["alias gpt: small -> large"]),
    "another alias": ([("{gpt: small", "{o1: auto, gpt: small")], ["alias o1 is new: it stands for auto (plans pro)"]),
    "a policy": (
        [("policy: ordered", "policy: balanced, weigh: {cost: 1}")],
        [
            "route auto: policy ordered -> balanced (plans pro)",
            "route auto: affinity none -> prefix (plans pro)",
            "route auto: weigh.cost none -> 1 (plans pro)",
        ],
    ),
    "the order of a pick": (
        [("[small, large]", "[large, small]")],
        ["route auto: pick small, large -> large, small (plans pro)"],
    ),
    "grants": (
        [("credits: 1M", "credits: 2M")],
        [
            "plan pro: grants adds 2M credits each month, drops 1M credits each month"
            " (tenants demo and those of the ledger that have it), from each tenant's next period"
        ],
    ),
    "a limit of a plan": (
        [("rpm: 60", "rpm: 30")],
        ["plan pro: rpm 60 -> 30 (-50 %) (tenants demo and those of the ledger that have it)"],
    ),
    "what a plan allows": (
        [("allow: [small]", "allow: [small, auto]")],
        ["plan tiny: allow adds auto (tenants kid and those of the ledger that have it)"],
    ),
    "a tenant's plan": ([("kid: {plan: tiny}", "kid: {plan: pro}")], ["tenant kid: plan tiny -> pro"]),
    "a tenant's keys": ([(KEY, OTHER)], ["tenant demo: keys 1 added, 1 removed, refused from now on"]),
    "a tenant that is gone": (
        [("  kid: {plan: tiny}\n", "")],
        [
            "tenant kid is gone from routes.yaml: its keys there stop working;"
            " its account, grants and other keys stay in the ledger"
        ],
    ),
    "the server": (
        [("drain: 30s", "drain: 60s, port: 9001")],
        ["server.port 8080 -> 9001, takes effect after a restart", "server.drain 30s -> 60s"],
    ),
    "the ledger": (
        [("version: 1", 'version: 1\nstorage: {ledger: "sqlite:other.db"}')],
        ["storage.ledger sqlite:moma.db -> sqlite:other.db, takes effect after a restart"],
    ),
    "defaults": (
        [("version: 1", "version: 1\ndefaults: {timeout: {total: 60s}, retry: {attempts: 5}}")],
        ["defaults.timeout.total 300s -> 60s", "defaults.retry.attempts 3 -> 5 (+66.67 %)"],
    ),
    "the queue": (
        [("version: 1", "version: 1\ndefaults: {queue: {length: 5, wait: 1s}}")],
        ["defaults.queue.length 100 -> 5 (-95 %)", "defaults.queue.wait 5s -> 1s"],
    ),
    "a fallback": (
        [("[small, large], policy: ordered", "[small], policy: ordered, fallback: {error: [large]}")],
        ["route auto: pick drops large (plans pro)", "route auto: fallback.error adds large (plans pro)"],
    ),
    "a cache": (
        [("charge: 50%", "charge: 12.5%, scope: account")],
        [
            "cache short: scope tenant -> account (no route names it)",
            "cache short: charge 50% -> 12.5% (no route names it)",
        ],
    ),
    "a cache that is named": (
        [("policy: ordered", "policy: ordered, cache: short"), ("ttl: 2m", "ttl: 1h")],
        ["route auto: cache none -> short (plans pro)", "cache short: ttl 120s -> 3600s (routes auto)"],
    ),
    "another cache": (
        [("  short: {", "  long: {charge: 1%}\n  short: {")],
        ["cache long is new: answers live 600s, a hit is charged 1% (no route names it)"],
    ),
    "a cache that is gone": (
        [("  short: {ttl: 2m, charge: 50%}\n", "")],
        ["cache short is gone: its answers go (no route names it)"],
    ),
    "comments and spaces": ([("version: 1", "# a comment\nversion:    1")], []),
}


@pytest.mark.parametrize("what", EDITS)
def test_an_edit_in_words(told: Told, what: str) -> None:
    pairs, texts = EDITS[what]
    found = told(*pairs)
    assert found == texts
    assert not any(secret in " ".join(found) for secret in (KEY, OTHER, KEY[:12], "secret-one", "secret-two"))


# -- nothing is left out ------------------------------------------------------------------------------------------


KNOWN: dict[str, Any] = {  # names must be of something that there is
    "kind": "azure",
    "pick": ("large",),
    "via": (Via("b", "x"),),
    "policy": "cheapest",
    "weigh": {"cost": 1.0},
    "allow": frozenset({"small"}),
    "alerts": (500_000,),
    "fallback_error": (Fallback("large"),),
    "fallback_context": (Fallback("large"),),
}


def other_than(value: Any, field: str) -> Any:
    return KNOWN[field] if field in KNOWN else altered(value)


def altered(value: Any) -> Any:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, Secret):
        return Secret(value.reference + "X")
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, frozenset):
        return value | {"another"}
    if isinstance(value, tuple):
        return (*value, altered(value[0]) if value else "another")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        first = dataclasses.fields(value)[0].name
        return dataclasses.replace(value, **{first: altered(getattr(value, first))})
    if isinstance(value, dict):
        return {**value, **{name: altered(item) for name, item in list(value.items())[:1]}} if value else {"x-new": "1"}
    assert value is None, value
    return "another"


def parts(config: Config) -> list[tuple[str, str, str]]:
    """(section, name or "", field) of every field there is."""
    found = []
    for one in dataclasses.fields(Config):
        value = getattr(config, one.name)
        if isinstance(value, dict) and value and dataclasses.is_dataclass(next(iter(value.values()))):
            name, item = next(iter(value.items()))
            found += [(one.name, name, field.name) for field in dataclasses.fields(item) if field.name != "name"]
        elif dataclasses.is_dataclass(value):
            found += [(one.name, "", field.name) for field in dataclasses.fields(value)]
        else:
            found.append((one.name, "", ""))
    return [part for part in found if part[0] not in ("warnings", "sources", "catalogues")]


def test_whatever_field_differs_is_told(tmp_path: Path) -> None:
    file = tmp_path / "routes.yaml"
    file.write_text(ROUTES)
    config = load(file)
    assert len(parts(config)) >= 60
    for section, name, field in parts(config):
        value: Any = getattr(config, section)
        owner = value[name] if name else value
        new: Any = (
            owner if not field else dataclasses.replace(owner, **{field: other_than(getattr(owner, field), field)})
        )
        whole: dict[str, Any] = {
            section: {**value, name: new} if name else new if field else other_than(value, section)
        }
        other = dataclasses.replace(config, **whole)
        found = changes(config, other)
        assert found, (section, name, field)
        assert {change.section for change in found} == {section}


def test_when_each_takes_effect(tmp_path: Path) -> None:
    file = tmp_path / "routes.yaml"
    file.write_text(ROUTES)
    config = load(file)
    server = dataclasses.replace(config.server, host="::1", port=1, max_body=5)
    plan = dataclasses.replace(config.plans["pro"], grants=(), max_output=7)
    other = dataclasses.replace(
        config, server=server, ledger="sqlite:x", timezone="Asia/Shanghai", tenant_label_top=3,
        plans={**config.plans, "pro": plan, "more": Plan("more")},
    )  # fmt: skip
    when = {(change.section, change.key): change.when for change in changes(config, other)}
    assert when == {
        ("timezone", ""): RESTART, ("server", "host"): RESTART, ("server", "port"): RESTART,
        ("server", "max_body"): NOW, ("ledger", ""): RESTART, ("plans", "grants"): NEXT_PERIOD,
        ("plans", "max_output"): NOW, ("plans", ""): NOW, ("tenant_label_top", ""): RESTART,
    }  # fmt: skip


def test_secrets_that_turned_are_told_by_their_reference(tmp_path: Path) -> None:
    file = tmp_path / "routes.yaml"
    file.write_text(ROUTES)
    config = load(file)
    old, new = Secrets({"env:A": "first-value", "env:ADMIN": "x"}), Secrets({"env:A": "second-value", "env:ADMIN": "x"})
    assert [change.text for change in turned(old, new, config)] == ["backend a: another value of env:A"]
    assert "value" not in repr(new)


# -- moma diff ----------------------------------------------------------------------------------------------------


def test_moma_diff(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = tmp_path / "old.yaml", tmp_path / "new.yaml"
    old.write_text(ROUTES)
    new.write_text(
        ROUTES.replace("rpm: 60", "rpm: 30").replace("credits: 1M", "credits: 2M").replace("30s", "30s, port: 1")
    )
    assert main(["diff", str(old), str(old)]) == 0
    assert capsys.readouterr().out == "No difference.\n"
    assert main(["diff", str(old), str(new)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "For calls that begin after a reload",
        "  plan pro: rpm 60 -> 30 (-50 %) (tenants demo and those of the ledger that have it)",
        "From each tenant's next period",
        "  plan pro: grants adds 2M credits each month, drops 1M credits each month"
        " (tenants demo and those of the ledger that have it), from each tenant's next period",
        "After a restart",
        "  server.port 8080 -> 1, takes effect after a restart",
    ]
    assert main(["diff", str(old), str(new), "--json"]) == 1
    value = json.loads(capsys.readouterr().out)
    assert value["same"] is False
    assert value["changes"][2] == {
        "section": "plans", "name": "pro", "key": "rpm", "old": "60", "new": "30", "when": "now",
        "whom": "tenants demo and those of the ledger that have it",
        "text": "plan pro: rpm 60 -> 30 (-50 %) (tenants demo and those of the ledger that have it)",
    }  # fmt: skip
    assert main(["diff", str(old), str(old), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"same": True, "changes": []}


def test_moma_diff_in_trouble(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = tmp_path / "old.yaml", tmp_path / "new.yaml"
    old.write_text(ROUTES)
    new.write_text("version: 2\n")
    assert main(["diff", str(old), str(new)]) == 2
    assert f"{new}:1 version" in capsys.readouterr().err
    assert main(["diff", str(tmp_path / "none.yaml"), str(old)]) == 2
    assert "none.yaml:1" in capsys.readouterr().err
