"""What docs/catalogue.md shows loads, with the facts that come with the gateway, and its figures hold."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import yaml

from gateway.config.families import families, family
from gateway.config.json_schema import document
from gateway.config.load import load
from gateway.config.schema import SCHEMA, Keys, Names
from gateway.probing.trials import TRIALS

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "catalogue.md").read_text(encoding="utf-8")


def test_the_example_loads_and_is_what_is_said(tmp_path: Path) -> None:
    [text] = re.findall(r"^```yaml\n(version: 1.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    validator = jsonschema.Draft202012Validator(json.loads(document()))
    validator.validate(yaml.safe_load(text))
    for bad in ("price_factor: -1", "prefixes: x", "quality: 7"):
        assert not validator.is_valid(yaml.safe_load(text.replace("prefix: doubao/", bad)))
    path = tmp_path / "routes.yaml"
    path.write_text(text)
    models = load(path).models
    assert [via.backend for via in models["gpt-5"].via] == ["openai-1", "openai-2"]
    assert [via.backend for via in models["gpt-4o"].via] == ["openai-1"]
    assert [via.backend for via in models["gpt-4o-mini"].via] == ["openai-2"]
    assert not [name for name in models if "audio" in name]
    assert len([name for name in models if name.startswith("doubao/")]) == len(family("doubao").models)


def test_its_figures_hold() -> None:
    models = [model for name in families() for model in family(name).models]
    assert "over 150 models" in PAGE
    assert len(models) > 150
    assert [name for name in families() if f"`{name}`" not in PAGE] == []


def test_all_keys_and_trials_are_told() -> None:
    catalogues = SCHEMA.keys["catalogues"]
    assert isinstance(catalogues, Names)
    assert isinstance(catalogues.of, Keys)
    assert [key for key in catalogues.of.keys if f"`{key}`" not in PAGE] == []
    assert [name for name in TRIALS if f"| {name} |" not in PAGE] == []
