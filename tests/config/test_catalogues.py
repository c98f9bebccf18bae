"""`catalogues` of routes.yaml: what patterns stand for, what wins, and every problem with its line and key path."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config import catalogues, families
from gateway.config.load import ConfigError, load
from gateway.config.model import Catalogue, Config, Via

FAMILY = """date: 2026-10-01
currency: USD
source: ["https://example.com/prices"]
models:
  big: {context: 128k, max_output: 16k, price: {input: 2.5, input_cached: 1.25, output: 10}, can: [tools, json], endpoints: [chat]}
  big-old: {context: 8k, max_output: 4k, price: {input: 30, output: 60}, can: [], endpoints: [chat]}
  long: {context: 1M, max_output: 64k, price: {input: 1, output: 3}, price_up_to: 200k, can: [vision], endpoints: [chat]}
  vectors: {context: 8191, max_output: 1, price: {input: 0.13}, can: [], endpoints: [embeddings]}
  unpriced: {context: 32k, max_output: 4k, can: [tools], endpoints: [chat]}
"""  # noqa: E501
ONE = "catalogues:\n  acme: {backend: b1, models: [big]}"
HEAD = """version: 1
currency: USD
backends:
  b1: {kind: openai, base_url: "http://10.0.0.1/v1"}
  b2: {kind: openai, base_url: "http://10.0.0.2/v1"}
"""


@pytest.fixture(autouse=True)
def family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "acme.yaml").write_text(FAMILY)
    monkeypatch.setattr(families, "FOLDER", folder)


def loaded(tmp_path: Path, text: str, head: str = HEAD) -> Config:
    path = tmp_path / "routes.yaml"
    path.write_text(head + text)
    return load(path)


def problems(tmp_path: Path, text: str, head: str = HEAD) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, text, head)
    return [str(problem).removeprefix(f"{tmp_path}/") for problem in caught.value.problems]


def test_each_match_is_a_model_as_if_it_were_written_out(tmp_path: Path) -> None:
    config = loaded(
        tmp_path,
        'catalogues: {acme: {backend: b1, models: ["big*", vectors], except: ["*-old"], tags: [x], quality: 0.7}}',
    )
    by_hand = loaded(
        tmp_path,
        "models:\n"
        "  big: {via: [b1], context: 128k, max_output: 16k, price: {input: 2.5, input_cached: 1.25, output: 10},"
        " can: [tools, json], endpoints: [chat], tags: [x], quality: 0.7}\n"
        "  vectors: {via: [b1], context: 8191, max_output: 1, price: {input: 0.13}, can: [], endpoints: [embeddings],"
        " tags: [x], quality: 0.7}\n",
    )
    assert config.models == by_hand.models
    assert config.catalogues == {"acme": Catalogue("acme", "acme", "2026-10-01", "b1", ("big", "vectors"))}


def test_routes_plans_and_aliases_know_what_a_catalogue_makes(tmp_path: Path) -> None:
    config = loaded(
        tmp_path,
        'catalogues: {acme: {backend: b1, models: ["big*"], tags: [chat]}}\n'
        "routes: {auto: {pick: {tags: [chat]}, fallback: {error: [big-old]}}, one: {pick: [big]}}\n"
        "aliases: {gpt: big}\nplans: {p: {allow: [chat, big-old]}}\n"
        'rate_cards: {half: {rates: {"big*": {input: 0.5, output: 1}}}}\n',
    )
    assert config.routes["auto"].pick == ("big", "big-old")
    assert config.routes["one"].pick == ("big",)


def test_a_prefix_is_for_clients_only(tmp_path: Path) -> None:
    config = loaded(tmp_path, "catalogues: {x: {of: acme, backend: b2, models: [big], prefix: acme/}}")
    assert config.models["acme/big"].via == (Via("b2", "big"),)
    assert list(config.models) == ["acme/big"]


def test_prices_are_multiplied_exactly_and_rounded_up(tmp_path: Path) -> None:
    text = "catalogues: {acme: {backend: b1, models: [big, vectors], price_factor: 7.123457}}"
    config = loaded(tmp_path, text, HEAD.replace("USD", "CNY"))
    assert config.models["big"].price["input"] == 17_808_643  # 17.8086425
    assert config.models["big"].price["input_cached"] == 8_904_322  # 8.90432125
    assert config.models["vectors"].price["input"] == 926_050  # 0.92604941


def test_rates_follow_the_price(tmp_path: Path) -> None:
    config = loaded(tmp_path, "catalogues: {acme: {backend: b1, models: [big], price_factor: 2, rates_factor: 1.2}}")
    rates = config.models["big"].rates
    assert (rates["input"], rates["input_cached"], rates["output"], rates["output_reasoning"], rates["calls"]) == (
        6_000_000, 3_000_000, 24_000_000, 24_000_000, 0,
    )  # fmt: skip


def test_rates_may_be_one_for_all(tmp_path: Path) -> None:
    config = loaded(tmp_path, 'catalogues: {acme: {backend: b1, models: ["big*"], rates: {input: 1, output: 4}}}')
    assert [config.models[name].rates["output"] for name in ("big", "big-old")] == [4_000_000, 4_000_000]


def test_an_own_price_comes_in_place_of_a_known_one_and_is_not_multiplied(tmp_path: Path) -> None:
    config = loaded(
        tmp_path,
        "catalogues: {acme: {backend: b1, models: [big, big-old, unpriced], price_factor: 3,"
        ' price: {unpriced: {input: 1, output: 2}, "big-*": {input: 5, output: 6}}}}',
    )
    inputs = {name: model.price["input"] for name, model in config.models.items()}
    assert inputs == {"big": 7_500_000, "big-old": 5_000_000, "unpriced": 1_000_000}


def test_what_is_written_out_wins_wholly(tmp_path: Path) -> None:
    config = loaded(
        tmp_path,
        "models: {big: {via: [b2], context: 4k, max_output: 1k, price: {input: 9, output: 9}}}\n"
        'catalogues: {acme: {backend: b1, models: ["big*"]}}',
    )
    assert config.models["big"].via == (Via("b2", "big"),)
    assert config.models["big"].can is None
    assert config.catalogues["acme"].models == ("big-old",)


def test_two_catalogues_make_one_model_with_two_backends(tmp_path: Path) -> None:
    config = loaded(
        tmp_path,
        'catalogues: {acme: {backend: b1, models: ["big*"]}, second: {of: acme, backend: b2, models: [big]}}',
    )
    assert config.models["big"].via == (Via("b1", "big"), Via("b2", "big"))
    assert config.models["big-old"].via == (Via("b1", "big-old"),)


def test_a_price_that_holds_for_short_inputs_only_is_warned_of(tmp_path: Path) -> None:
    text = "catalogues: {acme: {backend: b1, models: [big, long]}}"
    assert loaded(tmp_path, text).warnings == ("catalogue acme: a long input of long costs more than is counted here",)
    own = text.replace("long]", "long], price: {long: {input: 2, output: 6}}")
    assert loaded(tmp_path, own).warnings == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "catalogues:\n  acme: {backend: b1, models: [bigg]}",
            "routes.yaml:7 catalogues.acme.models.0: matches no model of acme (did you mean big?)",
        ),
        (
            ONE + "\n  x: {of: acme, backend: b1, models: [big, 'z*'], prefix: x}",
            "routes.yaml:8 catalogues.x.models.1: matches no model of acme"
            " (known: big, big-old, long, unpriced, vectors)",
        ),
        (
            "catalogues:\n  acme: {backend: b1, models: [big], except: [old]}",
            "routes.yaml:7 catalogues.acme.except.0: matches no model of acme (did you mean big-old?)",
        ),
        (
            "catalogues:\n  acme: {backend: b1, models: [big], except: ['*']}",
            "routes.yaml:7 catalogues.acme.except: leaves no model (take it out, or leave fewer out)",
        ),
        (
            "catalogues:\n  acmee: {backend: b1, models: [big]}",
            "routes.yaml:7 catalogues.acmee: there is no family acmee (did you mean acme?)",
        ),
        (
            "catalogues:\n  x: {of: ../acme, backend: b1, models: [big]}",
            "routes.yaml:7 catalogues.x.of: there is no family ../acme (did you mean acme?)",
        ),
        (
            "catalogues:\n  acme: {backend: b3, models: ['*']}\nroutes: {auto: {pick: [big]}}",
            "routes.yaml:7 catalogues.acme.backend: there is no b3 (known: b1, b2)",
        ),
        (
            "catalogues:\n  acme: {backend: b1, models: ['*']}",
            "routes.yaml:7 catalogues.acme: no price is known of unpriced "
            '(write price: {"unpriced": {input: 1, output: 2}} in USD, or leave it out by except)',
        ),
        (
            "catalogues:\n  acme: {backend: b1, models: [big], price: {small: {input: 1, output: 1}}}",
            "routes.yaml:7 catalogues.acme.price.small: matches no model of acme"
            " (known: big, big-old, long, unpriced, vectors)",
        ),
        (
            "catalogues:\n  acme: {backend: b1, models: [unpriced], price: {'un*': {input: 1}}}",
            "routes.yaml:7 catalogues.acme.price: of unpriced has no output (a price of 0 must be written)",
        ),
        (
            "catalogues:\n  acme: {backend: b1, models: [big], rates: {input: 1}, rates_factor: 2}",
            "routes.yaml:7 catalogues.acme.rates_factor: stands beside rates (keep one of them)",
        ),
        (
            ONE + "\n  x: {of: acme, backend: b2, models: [big], price_factor: 2}",
            "routes.yaml:8 catalogues.x: makes big with another price than a catalogue above "
            "(give one of them a prefix, or both the same terms)",
        ),
        (
            "catalogues:\n  x: {of: [acme], backend: b1, models: [big]}",
            "routes.yaml:7 catalogues.x.of: is a text of one line",
        ),
        (
            "catalogues:\n  acme: {backend: b1, modles: [big]}\nroutes: {auto: {pick: [big]}}\naliases: {a: big}",
            "routes.yaml:7 catalogues.acme.modles: is not a known key (did you mean models?)",
        ),
        (
            "catalogues:\n  acme: {backend: b1, models: [big], quality: good}\nroutes: {auto: {pick: {tags: [x]}}}",
            "routes.yaml:7 catalogues.acme.quality: is a share from 0% to 100%, such as 50% or 0.5",
        ),
    ],
)  # fmt: skip
def test_a_problem_is_told_once_with_its_place_and_advice(tmp_path: Path, text: str, said: str) -> None:
    assert problems(tmp_path, text) == [said]


def test_another_currency_wants_a_factor(tmp_path: Path) -> None:
    head, text = HEAD.replace("USD", "CNY"), "catalogues:\n  acme: {backend: b1, models: [big]}"
    assert problems(tmp_path, text, head) == [
        "routes.yaml:7 catalogues.acme: the prices of acme are in USD, those here in CNY "
        "(write price_factor: how many CNY are one USD)"
    ]
    own = text.replace("]}", "], price: {big: {input: 1, output: 2}}}")
    assert loaded(tmp_path, own, head).models["big"].price["input"] == 1_000_000


def test_a_currency_that_is_none_is_the_only_problem(tmp_path: Path) -> None:
    assert problems(tmp_path, ONE, HEAD.replace("USD", "[USD]")) == ["routes.yaml:2 currency: is a text of one line"]


def test_a_name_that_a_catalogue_makes_is_not_a_routes_too(tmp_path: Path) -> None:
    text = "catalogues: {acme: {backend: b1, models: [big]}}\nroutes: {big: {pick: [big]}}"
    assert problems(tmp_path, text) == ["routes.yaml:7 routes.big: is the name of a model already"]


def test_what_catalogues_stand_for_is_bounded(tmp_path: Path) -> None:
    many = "".join(f"  c{i}: {{of: acme, backend: b1, models: [big, long], prefix: p{i}/}}\n" for i in range(5001))
    assert problems(tmp_path, f"catalogues:\n{many}") == [
        "routes.yaml:5007 catalogues.c5000.models: all catalogues together make more than 10,000 models"
    ]


def test_comparing_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogues, "MAX_MATCHED", 14)  # the family has 5 models
    assert list(loaded(tmp_path, f"{ONE}\n  x: {{of: acme, backend: b1, models: [big], prefix: x}}").catalogues) == [
        "acme", "x",
    ]  # fmt: skip
    assert problems(tmp_path, f"{ONE}\n  x: {{of: acme, backend: b1, models: [big, long], prefix: x}}") == [
        "routes.yaml:8 catalogues.x: all catalogues together compare names with more than 14 models"
    ]


def test_a_price_by_name_comes_before_one_by_pattern(tmp_path: Path) -> None:
    price = '{"big*": {input: 1, output: 1}, big: {input: 2, output: 2}}'
    config = loaded(tmp_path, f'catalogues: {{acme: {{backend: b1, models: ["big*"], price: {price}}}}}')
    assert [model.price["input"] for model in config.models.values()] == [2_000_000, 1_000_000]
