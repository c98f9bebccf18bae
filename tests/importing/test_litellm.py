"""LiteLLM's configuration carried over: what becomes of it, what the report says, and that no secret is copied."""

from __future__ import annotations

import json
import os
import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.cli import main
from gateway.config.load import load
from gateway.config.model import Config
from gateway.importing.draft import flow
from gateway.importing.litellm import convert
from gateway.importing.report import CHANGED, FILL, LOST
from gateway.importing.source import Unreadable, read_tree

HERE = Path(__file__).parent
SECRETS = ("inline-secret", "secret-in-the-file", "header-secret", "db-secret")

BOMB = "a0: &a0 [1, 2]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9))


class Importer:
    def __init__(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.path = path
        self.output = path / "routes.yaml"
        self._capsys = capsys
        self.out = self.err = ""

    def run(self, *args: str) -> int:
        self._capsys.readouterr()
        code = main(["import", "litellm", *args])
        self.out, self.err = self._capsys.readouterr()
        return code

    def file(self, name: str, *args: str) -> dict[str, Any]:
        """The JSON of an import of one of the files beside this one."""
        self.run(str(HERE / f"{name}.yaml"), "--json", *args)
        value: dict[str, Any] = json.loads(self.out)
        return value

    def text(self, text: str, *args: str) -> dict[str, Any]:
        source = self.path / "config.yaml"
        source.write_text(text)
        self.run(str(source), "--json", *args)
        value: dict[str, Any] = json.loads(self.out)
        return value

    def config(self, value: dict[str, Any]) -> Config:
        assert value["problems"] == []
        self.output.write_text(value["routes"])
        return load(self.output)


@pytest.fixture
def importer(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Importer:
    monkeypatch.setenv("COLUMNS", "80")
    return Importer(tmp_path, capsys)


def entry(name: str = "m", params: str = "", info: str = "") -> str:
    known = (
        "input_cost_per_token: 1e-06, output_cost_per_token: 0.000002, max_input_tokens: 8000, max_output_tokens: 1000"
    )
    model = "" if "model:" in params else f"model: openai/{name}, "
    return f"  - {{model_name: {name}, litellm_params: {{{model}{params}}}, model_info: {{{known}{info}}}}}\n"


def model_list(*entries: str) -> str:
    return "model_list:\n" + "".join(entries)


def remarks(value: dict[str, Any], kind: str) -> dict[str, str]:
    return {remark["key_path"]: remark["what"] for remark in value["report"] if remark["kind"] == kind}


def test_a_small_team_is_carried_over_whole(importer: Importer) -> None:
    config = importer.config(importer.file("small_team"))
    assert config.currency == "USD"
    model = config.models["gpt-4o"]
    assert [(via.as_name, via.weight) for via in model.via] == [("gpt-4o-eu", 3), ("gpt-4o", 1)]  # 600 to 200 rpm
    assert (model.context, model.max_output) == (128_000, 16_384)
    assert (model.price["input"], model.price["output"], model.price["input_cached"]) == (
        2_500_000,
        10_000_000,
        1_250_000,
    )
    azure = config.backends[model.via[0].backend]
    assert azure.base_url == "https://team-eu.openai.azure.com/openai/v1"
    assert (azure.keys[0].reference, azure.limits.rpm) == ("env:AZURE_EU_KEY", 600)
    embedding = config.models["text-embedding-3-small"]
    assert (embedding.endpoints, embedding.price["input"]) == (frozenset({"embeddings"}), 20_000)
    qwen = config.models["qwen"]
    assert config.backends[qwen.via[0].backend].keys == ()
    assert qwen.price["input"] == 0
    assert (config.timeout.total_s, config.retry.attempts) == (120.0, 3)
    assert config.server.admin_key is not None
    assert config.server.admin_key.reference == "env:LITELLM_MASTER_KEY"


def test_whatever_is_not_carried_over_is_reported_with_its_line(importer: Importer) -> None:
    value = importer.file("enterprise")
    lost = remarks(value, LOST)
    for path in (
        "environment_variables", "x-common", "callback_settings", "model_list.0.litellm_params.temperature",
        "model_list.0.litellm_params.timeout", "model_list.1.litellm_params.model", "model_list.5.litellm_params.model",
        "model_list.6.model_name", "model_list.7.model_info.mode", "model_list.9.litellm_params.model",
        "model_list.8.litellm_params.extra_headers.X-Api-Token", "router_settings.allowed_fails",
        "router_settings.redis_host", "router_settings.redis_password", "router_settings.model_group_alias.lost",
        "router_settings.fallbacks", "litellm_settings.success_callback", "litellm_settings.max_budget",
        "general_settings.database_url", "general_settings.store_model_in_db",
    ):  # fmt: skip
        assert path in lost, path
    lines = (HERE / "enterprise.yaml").read_text().splitlines()
    for remark in value["report"]:
        key = remark["key_path"].rpartition(".")[2]
        assert key.isdigit() or key in lines[remark["line"] - 1], remark
    assert {r["line"] for r in value["report"] if r["key_path"] == "model_list.1.litellm_params.model"} == {19}


def test_names_that_fall_back_become_routes(importer: Importer) -> None:
    routes = importer.file("enterprise")["routes"]
    assert (
        "claude: {pick: [claude-1], policy: fastest, fallback: {error: [claude-2, cheap]}, cache: imported}" in routes
    )
    assert "cheap: {pick: [cheap-model], policy: fastest, fallback: {error: [claude], context: [claude]}" in routes
    assert "aliases:\n  gpt-4: cheap\n  hidden-one: claude\n" in routes
    assert "retry: {attempts: 4}" in routes
    assert "breaker: {cooldown: 60s}" in routes
    assert "timeout: {total: 45500ms}" in routes
    assert "imported: {mode: exact, ttl: 600s}" in routes
    assert "tags: [beta, staff]" in routes


def test_what_must_be_filled_in_is_what_check_says(importer: Importer) -> None:
    value = importer.file("quickstart")
    said = {(problem["key_path"], problem["message"]) for problem in value["problems"]}
    assert said == {
        (path, message)
        for name in ("gpt-4o-mini", "ollama-llama")
        for path, message in (
            (f"models.{name}", "has no context"), (f"models.{name}", "has no max_output"),
            (f"models.{name}.price", "has no input"), (f"models.{name}.price", "has no output"),
        )
    }  # fmt: skip
    assert len(remarks(value, FILL)) == 2
    filled = value["routes"].replace("price: {}", "context: 128k, max_output: 16k, price: {input: 0.15, output: 0.6}")
    importer.output.write_text(filled)
    assert set(load(importer.output).models) == {"gpt-4o-mini", "ollama-llama"}


def test_litellms_own_table_fills_in_prices_and_contexts(importer: Importer) -> None:
    table = importer.path / "prices.json"
    table.write_text(
        '{"gpt-4o-mini": {"input_cost_per_token": 1.5e-07, "output_cost_per_token": 6e-07, "max_input_tokens": 128000,'
        ' "max_output_tokens": 16384, "mode": "chat"}, "ollama/llama3.1": {"input_cost_per_token": 0}}'
    )
    value = importer.file("quickstart", "--prices", str(table))
    assert "models.gpt-4o-mini" not in {problem["key_path"] for problem in value["problems"]}
    assert "context: 128000, max_output: 16384, price: {input: 0.15, output: 0.6}" in value["routes"]


@pytest.mark.parametrize("name", ["small_team", "enterprise", "quickstart"])
def test_no_secret_is_copied_or_shown(importer: Importer, name: str) -> None:
    importer.run(str(HERE / f"{name}.yaml"), "-o", str(importer.output))
    shown = importer.out + importer.err
    importer.run(str(HERE / f"{name}.yaml"), "--json")
    everything = shown + importer.out + importer.output.read_text()
    assert not [secret for secret in SECRETS if secret in everything]


def test_each_inline_key_gets_a_variable_of_its_own(importer: Importer) -> None:
    text = model_list(
        entry("a", "api_key: sk-one"),
        entry("a", "api_key: sk-two"),
        entry("b", "api_key: sk-one"),
        entry("c", "api_key: none"),
    )
    config = importer.config(importer.text(text))
    keys = {name: [config.backends[via.backend].keys for via in model.via] for name, model in config.models.items()}
    assert [[key.reference for key in found] for found in keys["a"]] == [["env:A_API_KEY"], ["env:A_API_KEY_2"]]
    assert [[key.reference for key in found] for found in keys["b"]] == [["env:A_API_KEY"]]
    assert keys["c"] == [()]


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        (("weight: 0.7", "weight: 0.3"), [7, 3]),
        (("weight: 2", "weight: 1"), [2, 1]),
        (("weight: 2", "weight: 4"), [1, 2]),
        (("weight: 0.333333", "weight: 0.666667"), [333333, 666667]),
        (("tpm: 30000", "tpm: 10000"), [3, 1]),
        (("rpm: 5", "rpm: 5"), [1, 1]),
        (("weight: 1", "weight: 0"), [1]),
        (("", ""), [1, 1]),
    ],
)
def test_weights_keep_their_proportion(importer: Importer, weights: tuple[str, str], expected: list[int]) -> None:
    text = model_list(*(entry("m", f"model: openai/m{n}, {weight}") for n, weight in enumerate(weights)))
    config = importer.config(importer.text(text))
    assert [via.weight for via in config.models["m"].via] == expected


@pytest.mark.parametrize(
    ("strategy", "policy"),
    [("least-busy", "least_busy"), ("latency-based-routing", "fastest"), ("cost-based-routing", "cheapest"),
     ("usage-based-routing-v2", "least_busy")],
)  # fmt: skip
def test_a_strategy_becomes_a_policy_where_there_is_a_choice(importer: Importer, strategy: str, policy: str) -> None:
    text = model_list(entry("m", "model: openai/x"), entry("m", "model: groq/y"), entry("lone"))
    value = importer.text(f"{text}router_settings: {{routing_strategy: {strategy}}}\n")
    config = importer.config(value)
    assert config.routes["m"].policy == policy
    assert "lone" in config.models
    assert "router_settings.routing_strategy" in remarks(value, CHANGED)
    assert len(config.routes["m"].pick) == (2 if policy == "cheapest" else 1)


def test_orders_are_asked_one_after_the_other(importer: Importer) -> None:
    text = model_list(
        entry("m", "model: openai/x, order: 2"),
        entry("m", "model: groq/y, order: 1"),
        entry("m", "model: xai/z, order: 1"),
    )
    route = importer.config(importer.text(text)).routes["m"]
    assert (route.pick, [fallback.model for fallback in route.fallback_error]) == (("m-1",), ["m-2"])


def test_what_keeps_calls_in_a_region_is_not_dropped_in_silence(importer: Importer) -> None:
    value = importer.text(model_list(entry("m", "model: openai/x, region_name: eu")))
    assert "model_list.0.litellm_params.region_name" in remarks(value, LOST)


def test_a_deployment_without_a_name_is_lost_and_text_completions_stay_what_they_are(importer: Importer) -> None:
    value = importer.text(model_list(entry("image", "model: azure/"), entry("m", "model: text-completion-openai/x")))
    assert "model_list.0.litellm_params.model" in remarks(value, LOST)
    assert {name: set(model.endpoints) for name, model in importer.config(value).models.items()} == {
        "m": {"completions"}
    }


def test_a_fallback_of_all_names_is_one_of_each_but_itself(importer: Importer) -> None:
    settings = "\nlitellm_settings: {context_window_fallbacks: [{'*': [long]}]}"
    config = importer.config(importer.text(model_list(entry("m"), entry("long")) + settings))
    assert [fallback.model for fallback in config.routes["m"].fallback_context] == ["long"]
    assert "long" not in config.routes


def test_a_cached_input_has_its_price_by_either_name(importer: Importer) -> None:
    info = ", input_cost_per_token_cache_hit: 7e-08"
    assert importer.config(importer.text(model_list(entry("m", info=info)))).models["m"].price["input_cached"] == 70_000


@pytest.mark.parametrize(
    ("params", "base_url", "as_name"),
    [
        ("model: gpt-4o", "https://api.openai.com/v1", "gpt-4o"),
        ("model: claude-3-haiku", "https://api.anthropic.com/v1", "claude-3-haiku"),
        (
            "model: gemini/gemini-2.0-flash",
            "https://generativelanguage.googleapis.com/v1beta/openai",
            "gemini-2.0-flash",
        ),
        ("model: groq/llama", "https://api.groq.com/openai/v1", "llama"),
        ("model: openrouter/meta/llama", "https://openrouter.ai/api/v1", "meta/llama"),
        ("model: ollama/llama3, api_base: 'http://box:11434/'", "http://box:11434/v1", "llama3"),
        ("model: my/model, custom_llm_provider: openai, api_base: 'http://box/v1'", "http://box/v1", "my/model"),
        ("model: azure/d, api_base: 'https://x.openai.azure.com'", "https://x.openai.azure.com/openai/v1", "d"),
    ],
)
def test_where_a_deployment_is_reached(importer: Importer, params: str, base_url: str, as_name: str) -> None:
    config = importer.config(importer.text(model_list(entry("m", params))))
    [via] = config.models["m"].via
    assert (config.backends[via.backend].base_url, via.as_name) == (base_url, as_name)


def test_an_address_with_credentials_is_not_copied(importer: Importer) -> None:
    value = importer.text(model_list(entry("m", "api_base: 'http://user:db-secret@box/v1'")))
    assert "db-secret" not in json.dumps(value)
    assert "model_list.0.litellm_params.api_base" in remarks(value, FILL)


def test_capabilities_are_stated_only_when_all_are_known(importer: Importer) -> None:
    whole = ", supports_function_calling: true, supports_response_schema: false, supports_vision: true"
    value = importer.text(model_list(entry("all", info=whole), entry("some", info=", supports_vision: true")))
    config = importer.config(value)
    assert config.models["all"].can == frozenset({"tools", "vision"})
    assert config.models["some"].can is None
    assert "model_list.1.model_info" in remarks(value, LOST)


def test_a_price_of_more_than_six_decimals_is_rounded_and_said(importer: Importer) -> None:
    value = importer.text(model_list(entry("m", info=", cache_read_input_token_cost: 1.23456789e-08")))
    assert importer.config(value).models["m"].price["input_cached"] == 12_346
    assert "model_list.0.model_info.cache_read_input_token_cost" in remarks(value, CHANGED)


def test_unknown_keys_are_reported(importer: Importer) -> None:
    text = model_list(entry("m", "new_thing: 1", ", other_thing: 2")) + "router_settings: {third: 3}\nfourth: 4\n"
    lost = remarks(importer.text(text), LOST)
    entry_ = {"model_list.0.litellm_params.new_thing", "model_list.0.model_info.other_thing"}
    assert lost.keys() == {*entry_, "router_settings.third", "fourth"}


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (model_list(entry("m", "rpm: os.environ/RPM")), "model_list.0.litellm_params.rpm"),
        (model_list(entry("m", "weight: heavy")), "model_list.0.litellm_params.weight"),
        (model_list(entry("m", "order: first")), "model_list.0.litellm_params.order"),
        (
            model_list(entry("m", info=", input_cost_per_audio_token: dear")),
            "model_list.0.model_info.input_cost_per_audio_token",
        ),
        ("router_settings: [1]", "router_settings"),
        ("router_settings: {num_retries: many}", "router_settings.num_retries"),
        ("router_settings: {timeout: soon}", "router_settings.timeout"),
        ("router_settings: {fallbacks: 7}", "router_settings.fallbacks"),
        ("router_settings: {fallbacks: [{nowhere: [m]}]}", "router_settings.fallbacks"),
        ("litellm_settings: {context_window_fallbacks: [{nowhere: [m]}]}", "litellm_settings.context_window_fallbacks"),
        ("router_settings: {model_group_alias: [1]}", "router_settings.model_group_alias"),
        ("litellm_settings: {default_fallbacks: m}", "litellm_settings.default_fallbacks"),
        ("litellm_settings: {cache: true, cache_params: 5}", "litellm_settings.cache_params"),
    ],
)
def test_a_value_that_is_not_understood_is_not_dropped_in_silence(importer: Importer, text: str, path: str) -> None:
    assert path in remarks(importer.text(text), LOST)


def test_included_files_are_read_with_their_lines(importer: Importer) -> None:
    (importer.path / "more.yaml").write_text("\n" + model_list(entry("two", "new_thing: 1")))
    value = importer.text("include: [more.yaml]\n" + model_list(entry("one")))
    assert set(importer.config(value).models) == {"one", "two"}
    [remark] = [remark for remark in value["report"] if remark["key_path"].endswith("new_thing")]
    assert (Path(remark["file"]).name, remark["line"]) == ("more.yaml", 3)


def test_a_file_is_written_once(importer: Importer) -> None:
    source = str(HERE / "small_team.yaml")
    assert importer.run(source, "-o", str(importer.output)) == 0
    assert "moma check accepts it" in importer.out
    assert main(["check", "-c", str(importer.output)]) == 0
    importer.output.write_text("mine")
    assert importer.run(source, "-o", str(importer.output)) == 2
    assert "File exists" in importer.err
    assert importer.output.read_text() == "mine"


def test_without_a_file_the_yaml_goes_to_standard_output_alone(importer: Importer) -> None:
    assert importer.run(str(HERE / "quickstart.yaml")) == 1
    assert importer.out.startswith("# Made by `moma import litellm`")
    assert importer.out.rstrip().endswith("plans: {}")
    for words in ("Carried over in another way", "To be filled in", "moma check does not accept it yet"):
        assert words in importer.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model_list: [\n", "is not YAML"),
        ("- 1\n", "is not a mapping"),
        (BOMB, "has more than"),
        ("a: " + "[" * 80 + "]" * 80, "nested too deeply"),
        ("a: &a [*a]\n", "nested too deeply"),
    ],
)  # fmt: skip
def test_what_cannot_be_read(importer: Importer, text: str, said: str) -> None:
    source = importer.path / "config.yaml"
    source.write_text(text)
    assert importer.run(str(source)) == 2
    assert said in importer.err


def test_a_file_that_is_not_there(importer: Importer) -> None:
    assert importer.run("none.yaml") == 2
    assert "No such file" in importer.err
    assert importer.run(str(HERE / "quickstart.yaml"), "--prices", "none.json") == 2


def test_an_empty_configuration_makes_an_empty_one(importer: Importer) -> None:
    value = importer.text("")
    assert importer.config(value).models == {}
    assert remarks(value, LOST).keys() == {"model_list"}


@pytest.mark.parametrize(
    "junk",
    [
        "model_list: 7",
        "model_list: [7, {}, {model_name: x}, {model_name: y, litellm_params: 3}]",
        "router_settings: [1]",
        "litellm_settings: x",
        "general_settings: null",
        "router_settings: {fallbacks: 7, model_group_alias: [1], num_retries: many, timeout: soon}",
        "litellm_settings: {cache: true, cache_params: 5, request_timeout: -3}",
    ],
)
def test_junk_is_no_failure(importer: Importer, junk: str) -> None:
    value = importer.text(junk)
    importer.config(value)
    assert value["report"]


def test_text_that_yaml_would_take_for_something_else_is_quoted() -> None:
    assert flow(
        {"no": "yes", "2.5-pro": Decimal("0.50"), "a b": ["x: y", "#1", "", "北京"], "n": True, "k": "30s"}
    ) == ('{"no": "yes", "2.5-pro": 0.5, "a b": ["x: y", "#1", "", "北京"], "n": true, k: 30s}')


def test_the_environment_is_not_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "environ", {})
    draft, _ = convert(read_tree(HERE / "small_team.yaml"), {})
    assert "env:AZURE_EU_KEY" in draft.text()
    with pytest.raises(Unreadable):
        read_tree(tmp_path)


def test_whatever_stands_where_something_else_should_there_is_a_routes_yaml(tmp_path: Path) -> None:
    """Each value of a configuration in turn becomes junk of each kind; a seeded tenth of them in `make test`."""
    path = tmp_path / "config.yaml"
    whole = yaml.safe_load((HERE / "enterprise.yaml").read_text())
    places = _places(whole)
    if os.environ.get("MOMA_LONG") != "1":
        places = random.Random(1).sample(places, len(places) // 10)
    for place in places:
        for junk in (None, 7, -1.5, True, "x", "os.environ/X", [], ["y"], {}, {"z": 1}, [{"z": [1]}]):
            path.write_text(yaml.safe_dump(_replaced(whole, place, junk)))
            text = convert(read_tree(path), {})[0].text()
            assert yaml.safe_load(text)["version"] == 1, (place, junk)
            assert not [secret for secret in SECRETS if secret in text], (place, junk)


def _places(value: Any) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, child in inner for place in ((key,), *((key, *below) for below in _places(child)))]


def _replaced(value: Any, place: tuple[Any, ...], junk: Any) -> Any:
    if not place:
        return junk
    copied = dict(value) if isinstance(value, dict) else list(value)
    copied[place[0]] = _replaced(value[place[0]], place[1:], junk)
    return copied


def test_a_wildcard_is_sent_to_catalogues(importer: Importer) -> None:
    text = 'model_list:\n  - {model_name: "openai/*", litellm_params: {model: "openai/*"}}\n'
    (found,) = [one for one in importer.text(text + entry())["report"] if "wildcard" in one["what"]]
    assert (found["kind"], found["key_path"]) == (LOST, "model_list.0.model_name")
    assert "catalogues" in found["todo"]
