"""The facts that come with the gateway: each file is sound, dated, says where it is from, and there are enough."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
import yaml

from gateway.config import families as facts
from gateway.config.families import families, family
from gateway.config.yaml_source import ConfigError

FAMILIES = families()
TOKENS = {
    "input", "input_cached", "input_cache_write", "input_cache_write_1h", "input_audio",
    "output", "output_reasoning", "output_audio",
}  # fmt: skip
DEAREST = 1_000 * 1_000_000  # of any currency here, per 1M tokens: a price per 1k or per token would be far off it
CHEAPEST = 1_000


def test_there_are_a_hundred_models_with_a_price() -> None:
    models = [model for name in FAMILIES for model in family(name).models.values()]
    assert len(FAMILIES) >= 12
    assert len(models) >= 100
    assert sum("price" in model for model in models) >= 100


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_says_when_and_where_its_facts_are_from(name: str) -> None:
    one = family(name)
    assert date.fromisoformat(one.date) >= date(2026, 1, 1)
    assert one.currency in ("USD", "CNY")
    assert len(set(one.sources)) == len(one.sources) >= 1
    assert all(source.startswith("https://") for source in one.sources)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_facts_of_a_family_are_possible(name: str) -> None:
    for model, known in family(name).models.items():
        embeds = known["endpoints"] == ("embeddings",)
        assert 0 < known["max_output"] <= known["context"], model
        assert len(set(known["can"])) == len(known["can"]), model
        assert not (embeds and known["can"]), model
        if "price" in known:
            price = known["price"]
            assert price.keys() <= TOKENS, model
            assert price.keys() >= ({"input"} if embeds else {"input", "output"}), model
            assert all(micro == 0 or CHEAPEST <= micro <= DEAREST for micro in price.values()), model
            assert price.get("input_cached", 0) <= price["input"] <= price.get("input_cache_write", price["input"])
        assert known.get("price_up_to", 1) < known["context"], model
        assert "price" in known or "price_up_to" not in known, model


@pytest.mark.parametrize("name", FAMILIES)
def test_no_model_stands_twice_in_a_family(name: str) -> None:
    lines = (facts.FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    models = [line.split(": {")[0].strip().strip('"') for line in lines if line.startswith("  ") and ": {" in line]
    assert len({model.lower() for model in models}) == len(models) == len(family(name).models)
    assert models == sorted(models)


def test_prices_are_as_exact_as_the_file() -> None:
    written = yaml.load((facts.FOLDER / "openai.yaml").read_text(encoding="utf-8"), Loader=yaml.BaseLoader)["models"]
    read = family("openai").models
    assert read["gpt-4o-mini"]["price"] == {
        bucket: Decimal(text) * 1_000_000 for bucket, text in written["gpt-4o-mini"]["price"].items()
    }


def test_what_somebody_has_damaged_names_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "FOLDER", tmp_path)
    (tmp_path / "bad.yaml").write_text("date: soon\nsource: []\nmodels: {m: {context: 1k, max_output: 1k, can: []}}\n")
    with pytest.raises(ConfigError) as caught:
        family("bad")
    assert [(problem.line, problem.key_path, problem.message) for problem in caught.value.problems] == [
        (1, "date", "is a date such as 2027-01-31"),
        (2, "source", "has at least 1"),
        (3, "models.m", "has no endpoints"),
        (1, "", "has no currency"),
    ]
    assert all(problem.file == str(tmp_path / "bad.yaml") for problem in caught.value.problems)
