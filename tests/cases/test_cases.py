"""routes.test.yaml: every expectation holds, or fails with what happened; every problem has a place and advice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from gateway.cases.load import load_cases
from gateway.cases.schema import SCHEMA
from gateway.cli import main
from gateway.config.json_schema import document
from gateway.config.load import ConfigError, load

ROOT = Path(__file__).parent.parent.parent
ROUTES = """
version: 1
currency: CNY
backends:
  north: {kind: openai, base_url: "http://north/v1", keys: [env:MOMA_NEVER_SET], region: cn, limits: {rpm: 60}}
  south: {kind: openai, base_url: "http://south/v1", region: cn}
  abroad: {kind: openai, base_url: "http://abroad/v1", region: us}
models:
  small:
    {via: [north, {backend: south, weight: 3}], context: 4k, max_output: 1k, price: {input: 1, output: 2}, can: [tools]}
  large: {via: [south, abroad], context: 128k, max_output: 8k, price: {input: 4, output: 16}, quality: 0.9}
routes:
  auto: {pick: [small, large], require: {region: [cn]}, fallback: {error: [large]}}
  cheap: {pick: [small, large], policy: cheapest}
  grow: {pick: [small], fallback: {context: [large], error: [large]}}
plans:
  pro: {grants: [{credits: 1M, every: month}], rpm: 60}
  empty: {}
  narrow: {grants: [{credits: 1k}], allow: [cheap]}
tenants:
  demo: {plan: pro}
"""
HELLO = "messages: [{role: user, content: Hello}]"


class Team:
    """A folder with routes.yaml and routes.test.yaml, and the command that its CI runs."""

    def __init__(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.path = path
        self.routes = path / "routes.yaml"
        self.routes.write_text(ROUTES)
        self._capsys = capsys
        self.out = self.err = ""

    def test(self, text: str, *args: str) -> int:
        (self.path / "routes.test.yaml").write_text(text)
        return self.run("-c", str(self.routes), *args)

    def run(self, *args: str) -> int:
        self._capsys.readouterr()
        code = main(["test", *args])
        self.out, self.err = self._capsys.readouterr()
        return code

    def case(self, body: str, expect: str, more: str = "") -> dict[str, Any]:
        """The outcome of one case, in JSON."""
        text = f"version: 1\ncases:\n  one:\n    body: {body}\n    expect: {expect}\n{more}"
        code = self.test(text, "--json")
        value = json.loads(self.out)
        assert code == (0 if value["failed"] == 0 else 1)
        case: dict[str, Any] = value["cases"][0]
        return case

    def problems(self, text: str) -> list[str]:
        assert self.test(f"version: 1\ncases:\n{text}") == 2
        return [line.removeprefix(f"{self.path}/") for line in self.err.splitlines()]


@pytest.fixture
def team(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Team:
    monkeypatch.setenv("COLUMNS", "100")
    return Team(tmp_path, capsys)


def ask(model: str, more: str = "") -> str:
    return f"{{model: {model}, {HELLO}{more}}}"


@pytest.mark.parametrize(
    ("body", "expect", "more"),
    [
        (ask("auto"), "{model: small, route: auto, policy: ordered}", ""),
        (ask("auto"), "{order: [small@north, small@south, large@south], fallback: []}", ""),
        (ask("auto"), "{removed: {large@abroad: region}}", ""),
        (ask("small"), "{backend: [north, south]}", ""),
        (ask("small"), "{backend: south}", "    when: {down: [north]}\n"),
        (ask("auto"), "{model: large, backend: south}", "    when: {down: [small@north, small@south]}\n"),
        (ask("auto"), "{backend: south, removed: {small@north: limit}}", "    when: {full: [north]}\n"),
        (ask("cheap"), "{max_cost: 0.001, max_reserve: 8.1k}", "    tenant: demo\n"),
        (ask("cheap", ", max_tokens: 7"), "{max_reserve: 60}", "    tenant: demo\n"),
        (ask("small"), "{refusal: model_not_found}", "    plan: narrow\n"),
        (ask("auto"), "{refusal: 404, removed: {small@north: allow}}", "    plan: narrow\n"),
        (ask("auto"), "{refusal: insufficient_quota}", "    plan: empty\n"),
        (ask("small", ", temperature: hot, tools: [1]"), "{backend: [north, south]}", ""),
        (ask("small", ", n: no"), "{refusal: 400}", ""),
        ('{model: small, prompt: "a", max_tokens: 5}', "{model: small}", "    endpoint: completions\n"),
        (ask("small", ", max_tokens: 5"), "{model: small}", "    endpoint: messages\n"),
        (ask("small"), "{refusal: invalid_value}", "    endpoint: messages\n"),
        ('{model: small, input: "a"}', "{model: small}", "    endpoint: responses\n"),
        (ask("small"), "{refusal: invalid_value}", "    headers: {X-Moma-Prefer: speed}\n"),
        (ask("grow"), "{model: large}", "    when: {down: [north, small@south]}\n"),
    ],
)
def test_an_expectation_that_holds(team: Team, body: str, expect: str, more: str) -> None:
    case = team.case(body, expect, more)
    assert case["differences"] == []
    assert case["passed"]


@pytest.mark.parametrize(
    ("body", "expect", "more", "key", "got"),
    [
        (ask("auto"), "{model: large}", "", "model", "small@north"),
        (ask("small"), "{backend: north}", "", "backend", "small@north or small@south"),
        (ask("small"), "{order: [small@north, small@south]}", "", "order",
         "small@north, small@south or small@south, small@north"),
        (ask("auto"), "{route: cheap}", "", "route", "auto"),
        (ask("auto"), "{policy: weighted}", "", "policy", "ordered"),
        (ask("grow"), "{fallback: [large@south]}", "", "fallback", "large@south, large@abroad"),
        (ask("auto"), "{removed: {large@south: region}}", "", "removed", "it is not removed"),
        (ask("small"), "{removed: {large@south: region}}", "", "removed", "large@south is no candidate"),
        (ask("auto"), "{removed: {large@abroad: chip}}", "", "removed", "by region"),
        (ask("auto"), "{refusal: 404}", "", "refusal", "none: it goes to small@north"),
        (ask("nope"), "{model: small}", "", "refusal", "404 model_not_found: The model 'nope' does not exist"),
        (ask("auto"), "{max_reserve: 10}", "", "max_reserve", "8049 credits"),
        (ask("cheap"), "{max_cost: 0.000001}", "", "max_cost", "CNY expected"),
        (ask("auto"), "{backend: south}", "    when: {down: [large@south]}\n", "backend", "small@north"),
    ],
)  # fmt: skip
def test_an_expectation_that_does_not_hold(team: Team, body: str, expect: str, more: str, key: str, got: str) -> None:
    case = team.case(body, expect, more)
    assert not case["passed"]
    [difference] = case["differences"]
    assert difference["key"] == key
    assert got in difference["got"]


def test_a_long_body_comes_from_a_file_beside(team: Team) -> None:
    body = {"model": "grow", "messages": [{"role": "user", "content": "word " * 6000}]}
    (team.path / "long.json").write_text(json.dumps(body))
    assert team.case("long.json", "{model: large, removed: {small@north: context}}")["passed"]


def test_what_a_team_reads(team: Team) -> None:
    text = f"version: 1\ncases:\n  good: {{body: {ask('auto')}, expect: {{model: small}}}}\n"
    assert team.test(text) == 0
    assert team.out == "ok    good\n1 passed, 0 failed\n"
    text += f"  bad:\n    body: {ask('auto')}\n    expect: {{model: large}}\n"
    assert team.test(text) == 1
    for words in ("FAIL  bad", "routes.test.yaml:4", "large     small@north", "reason  ordered", "Removed from auto",
                  "1 passed, 1 failed"):  # fmt: skip
        assert words in team.out


def test_the_file_may_be_named_and_may_include_others(team: Team) -> None:
    more = team.path / "more.yaml"
    more.write_text(f"version: 1\ncases:\n  two: {{body: {ask('cheap')}, expect: {{model: small}}}}\n")
    main_file = team.path / "all.yaml"
    main_file.write_text(
        f"version: 1\ninclude: [more.yaml]\ncases:\n  one: {{body: {ask('auto')}, expect: {{model: small}}}}\n"
    )
    assert team.run(str(main_file), "-c", str(team.routes)) == 0
    assert "2 passed" in team.out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("  a: {body: {model: m}}", "routes.test.yaml:3 cases.a: has no expect"),
        ("  a: {body: {model: m}, expect: {}}", "routes.test.yaml:3 cases.a.expect: expects nothing"),
        ("  a: {expect: {model: small}}", "routes.test.yaml:3 cases.a: has no body"),
        ("  a: {body: none.json, expect: {model: small}}", "cases.a.body: cannot be read: No such file"),
        ("  a: {body: [1], expect: {model: small}}", "cases.a.body: is what a client would send"),
        ("  a: {body: {}, expect: {modle: small}}", "is not a known key (did you mean model?)"),
        ("  a: {body: {}, expect: {model: smal}}", "there is no model smal (did you mean small?)"),
        ("  a: {body: {}, expect: {model: []}}", "is a name, or a list of those that are right"),
        ("  a: {body: {}, expect: {backend: [nort]}}", "there is no backend nort (did you mean north?)"),
        ("  a: {body: {}, expect: {route: aut}}", "there is no route or model aut (did you mean auto?)"),
        ("  a: {body: {}, expect: {policy: random}}", "is one of balanced"),
        ("  a: {body: {}, expect: {order: [small]}}", "is MODEL@BACKEND"),
        ("  a: {body: {}, expect: {order: [large@north]}}", "large is not served by north (it is by south, abroad)"),
        ("  a: {body: {}, expect: {removed: {small@north: regoin}}}", "is one of endpoint"),
        ("  a: {body: {}, expect: {refusal: modl_not_found}}", "(did you mean model_not_found?)"),
        ("  a: {body: {}, expect: {refusal: 200}}", "is a status such as 404"),
        ("  a: {body: {}, expect: {refusal: 404, model: small}}", "stands beside what only a call that is served has"),
        ("  a: {body: {}, expect: {max_reserve: lots}}", "max_reserve: is a number"),
        ("  a: {body: {}, expect: {model: small}, tenant: dem}", "there is no tenant dem (did you mean demo?)"),
        ("  a: {body: {}, expect: {model: small}, plan: pr}", "there is no plan pr (did you mean pro?)"),
        ("  a: {body: {}, expect: {model: small}, plan: pro, tenant: demo}", "stands beside tenant"),
        ("  a: {body: {}, expect: {model: small}, when: {down: [nort]}}", "there is no backend nort"),
        ("  a: {body: {}, expect: {model: small}, when: {down: [tiny@north]}}", "there is no model tiny"),
        ("  a: {body: {}, expect: {model: small}, when: {full: [south]}}", "backend south has no limits"),
        ("  a: {body: {}, expect: {model: small}, endpoint: paint}", "is one of chat, completions, embeddings"),
        ("  {}", "routes.test.yaml:2 cases: has no case"),
    ],
)
def test_a_problem_has_a_place_and_advice(team: Team, text: str, said: str) -> None:
    assert any(said in line for line in team.problems(text)), team.err


def test_all_problems_are_reported_together(team: Team) -> None:
    problems = team.problems("  a: {body: {}, expect: {model: x}}\n  b: {body: {}, expect: {backend: y}}\n  c: {}\n")
    assert len(problems) == 4


def test_a_file_that_is_missing_or_wrong_is_exit_code_2(team: Team) -> None:
    assert team.run("-c", str(team.routes)) == 2
    assert "routes.test.yaml" in team.err
    team.routes.write_text("version: 1\nroute: {}\n")
    assert team.test("version: 1\ncases: {}\n", "--json") == 2
    assert json.loads(team.out)["problems"][0]["key_path"] == "route"


def test_values_of_a_body_have_the_types_of_json(team: Team) -> None:
    written = "{a: 1, b: 1.5, c: true, d: null, e: yes, f: '1', g: 2027-01-31, h: 1e3, i: -0, j: [1, x], k: 12:30}"
    path = team.path / "routes.test.yaml"
    path.write_text(f"version: 1\ncases:\n  a: {{body: {written}, expect: {{model: small}}}}\n")
    [case] = load_cases(path, load(team.routes))
    assert json.loads(case.body) == {
        "a": 1, "b": 1.5, "c": True, "d": None, "e": "yes", "f": "1", "g": "2027-01-31", "h": 1000.0, "i": 0,
        "j": [1, "x"], "k": "12:30",
    }  # fmt: skip


def test_the_projects_own_expectations_hold(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", "-c", str(ROOT / "routes.yaml")]) == 0
    assert "0 failed" in capsys.readouterr().out


def test_the_schema_for_editors_is_current_and_knows_the_example() -> None:
    """`python -m gateway.cases.json_schema > docs/routes.test.schema.json` makes it."""
    published = (ROOT / "docs" / "routes.test.schema.json").read_text()
    assert published == document(SCHEMA, "routes.test.yaml")
    jsonschema.validate(yaml.safe_load((ROOT / "routes.test.yaml").read_text()), json.loads(published))


def test_hostile_files_are_refused_as_routes_yaml_is(team: Team) -> None:
    path = team.path / "routes.test.yaml"
    for text in ("version: &a 1\ncases: *a\n", "version: 1\ncases: !!python/object:x {}\n", "[" * 50):
        path.write_text(text)
        with pytest.raises(ConfigError):
            load_cases(path, load(team.routes))
