"""routes.yaml: what is understood, and every kind of problem with its line and key path."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config.load import ConfigError, load

ROOT = Path(__file__).parent.parent.parent
GOOD = """version: 1
backends:
  a: {kind: openai, base_url: "http://10.0.0.1/v1", region: cn, keys: [env:A_KEY]}
models:
  m: {via: [a], context: 8k, max_output: 1k, price: {input: 2.0, input_cached: 0.4, output: 8}, tags: [chat]}
routes:
  auto: {pick: {tags: [chat]}, policy: balanced, require: {region: [cn]}}
plans:
  p: {grants: [{credits: 1M, every: month}], rpm: 60}
tenants:
  t: {plan: p, keys: ["sha256:6386ab9ada7700fef05aa6c18d00dadf2b8109e1d694ee439ca2c39861f5685a"]}
"""


def problems(tmp_path: Path, text: str) -> list[tuple[int, str, str]]:
    path = tmp_path / "routes.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert all(problem.file == str(path) for problem in caught.value.problems)
    return [(problem.line, problem.key_path, str(problem)) for problem in caught.value.problems]


def test_values_are_exact(tmp_path: Path) -> None:
    path = tmp_path / "routes.yaml"
    path.write_text(GOOD)
    config = load(path)
    model = config.models["m"]
    assert (model.context, model.max_output) == (8000, 1000)
    assert (model.price["input_cached"], model.price["input_audio"], model.price["output_reasoning"]) == (
        400_000,
        2_000_000,
        8_000_000,
    )
    assert (model.rates["input"], model.rates["calls"]) == (1_000_000, 0)
    assert config.routes["auto"].pick == ("m",)
    assert config.plans["p"].grants[0].credits_uc == 10**12
    assert config.warnings == ("policy balanced of route auto runs as ordered in this version",)


def test_the_example_at_the_root_loads() -> None:
    assert set(load(ROOT / "routes.yaml").routes) == {"auto", "china"}


@pytest.mark.parametrize(
    ("old", "new", "line", "key_path", "says"),
    [
        ("region: cn,", "regoin: cn,", 3, "backends.a.regoin", "did you mean region?"),
        ("via: [a]", "via: [b]", 5, "models.m.via.0", "there is no b"),
        (", output: 8}", "}", 5, "models.m.price", "has no output"),
        ("max_output: 1k", "max_output: 9k", 5, "models.m.max_output", "larger than context"),
        ("input: 2.0", "input: -1", 5, "models.m.price.input", "at least 0"),
        ("input: 2.0", "input: 0.0000001", 5, "models.m.price.input", "six decimals"),
        ("tags: [chat]},", "tags: [none]},", 7, "routes.auto.pick", "matches no model"),
        ("[cn]", "[eu]", 7, "routes.auto.require.region", "eu"),
        ("policy: balanced", "policy: best_effort", 7, "routes.auto.policy", "is one of"),
        ("plan: p", "plan: q", 11, "tenants.t.plan", "there is no q"),
        ("sha256:6", "sha256:", 11, "tenants.t.keys", "64 hex digits"),
        ("version: 1", "version: 2", 1, "version", "version: 1"),
        ("kind: openai", "kind: openai, kind: openai", 3, "backends.a.kind", "stands here twice"),
        ("region: cn", "on: cn", 3, "backends.a.on", "quotes"),
    ],
)
def test_a_problem_has_line_path_and_advice(
    tmp_path: Path, old: str, new: str, line: int, key_path: str, says: str
) -> None:
    found = problems(tmp_path, GOOD.replace(old, new, 1))
    assert any((at, path) == (line, key_path) and says in text for at, path, text in found), found


def test_all_problems_are_in_one_report(tmp_path: Path) -> None:
    text = GOOD.replace("rpm: 60", "rpm: many").replace("region: cn,", "regoin: cn,")
    assert len(problems(tmp_path, text)) == 2


def test_a_pasted_secret_is_refused_and_not_repeated(tmp_path: Path) -> None:
    [(line, path, text)] = problems(tmp_path, GOOD.replace("env:A_KEY", "sk-live-abc123"))
    assert (line, path) == (3, "backends.a.keys")
    assert "sk-live" not in text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: &a [1]\nb: *a\n", "aliases"),
        ("a: !!python/object/apply:os.system ['true']\n", "tags"),
        ("a: " + "[" * 40 + "]" * 40, "nested"),
        ("a: [", "expected"),
    ],
)
def test_tricks_are_refused(tmp_path: Path, text: str, says: str) -> None:
    assert says in problems(tmp_path, text)[0][2]


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "routes.yaml"
    with path.open("wb") as file:
        file.truncate(100_000_000)
    with pytest.raises(ConfigError, match="larger than"):
        load(path)
