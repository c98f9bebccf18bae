"""Hard constraints first, then the policy's order; fallback widens none of them."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from gateway.config.load import load
from gateway.config.model import Config, Plan, Quirks
from gateway.errors import ContextTooLong, GatewayError, InvalidValue, ModelNotFound, NoBackend
from gateway.routing.estimate import estimated_input, needed_context
from gateway.routing.live import Live
from gateway.routing.router import Decision, Router
from tests.virtual import backend, call, config, model, require, route

ANY = Plan("p")
WORLD = config(
    [
        backend("north", region="cn-north", chip="ascend", tags=("self-hosted",)),
        backend("south", region="cn-south", chip="h20", tags=("self-hosted", "cheap")),
        backend("abroad", region="us", chip="h20"),
        backend("nowhere"),
    ],
    [
        model("plain", "north", "south", can=frozenset(), tags=("chat", "cheap")),
        model("able", "north", "abroad", can=frozenset({"tools", "json"}), tags=("chat",)),
        model("seeing", "abroad", can=frozenset({"vision", "tools"})),
        model("unstated", "nowhere"),
        model("short", "north", context=100),
        model("long", "south", context=100_000),
        model("far", "abroad", context=100_000),
        model("vectors", "north", endpoints=frozenset({"embeddings"})),
        model("spread", "north", "south", "abroad", "nowhere"),
    ],
    [
        route("auto", "plain", "able"),
        route("resident", "spread", require=require(region=["cn-north", "cn-south"]), fallback_error=("far", "long")),
        route("chips", "spread", require=require(chip=["h20"])),
        route("tagged", "spread", require=require(tags=["cheap", "gold"])),
        route("both", "spread", require=require(region=["cn-south"], chip=["ascend"])),
        route("growing", "short", fallback_context=("far", "long"), require=require(region=["cn-north", "cn-south"])),
        route("doubled", "able", "plain", fallback_error=("plain", "long")),
        route("error_only", "short", fallback_error=("long",)),
    ],
    aliases={"gpt-4o-mini": "able", "best": "auto"},
)


def decide(name: str, plan: Plan = ANY, world: Config = WORLD, **body: Any) -> Decision:
    return Router(world, random.Random(1), Live(world.breaker)).route(call(model=name, **body), plan)


def backends(decision: Decision) -> list[str]:
    return [target.backend.name for target in decision.targets]


def refused(name: str, plan: Plan = ANY, **body: Any) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        decide(name, plan, **body)
    return caught.value


def removed(decision: Decision) -> dict[str, str]:
    return {target.backend.name: why for target, why in decision.removed}


def test_ordered_is_as_written() -> None:
    decision = decide("auto")
    assert [target.key for target in decision.targets] == [
        ("north", "plain"), ("south", "plain"), ("north", "able"), ("abroad", "able"),
    ]  # fmt: skip
    assert (decision.route, decision.policy, decision.reason) == ("auto", "ordered", "ordered")


def test_a_model_by_name_is_weighted_over_its_backends() -> None:
    world = config([backend("a"), backend("b")], [model("m", ("a", 1), ("b", 3))])
    router = Router(world, random.Random(7), Live(world.breaker))
    firsts = Counter(router.route(call(), ANY).targets[0].backend.name for _ in range(20_000))
    assert 14_700 < firsts["b"] < 15_300


@pytest.mark.parametrize(
    ("name", "left", "why"),
    [
        ("resident", ["north", "south"], {"abroad": "region", "nowhere": "region"}),
        ("chips", ["south", "abroad"], {"north": "chip", "nowhere": "chip"}),
        ("tagged", ["south"], {"north": "tags", "abroad": "tags", "nowhere": "tags"}),
    ],
)
def test_require_is_a_hard_filter(name: str, left: list[str], why: dict[str, str]) -> None:
    decision = decide(name)
    assert backends(decision) == left
    assert removed(decision) == why
    assert decision.reason == f"ordered;removed={len(why)}"


def test_a_require_that_nothing_meets_is_no_backend() -> None:
    error = refused("both")
    assert isinstance(error, NoBackend)
    assert error.retry_after_s


def test_fallback_never_widens_require() -> None:
    assert [target.key for target in decide("resident").on_error] == [("south", "long")]
    words = "word " * 500
    decision = decide("growing", messages=[{"role": "user", "content": words}])
    assert [target.key for target in decision.all] == [("south", "long")]


def test_fallback_keeps_capabilities_and_endpoints() -> None:
    tools: dict[str, Any] = {"tools": [{"type": "function", "function": {"name": "f"}}]}
    world = config(
        [backend("a")],
        [model("m", "a"), model("dumb", "a", can=frozenset()), model("v", "a", endpoints=frozenset({"embeddings"}))],
        [route("r", "m", fallback_error=("dumb", "v", "m"))],
    )
    assert decide("r", world=world, **tools).on_error == ()


def test_a_target_is_listed_once() -> None:
    keys = [target.key for target in decide("doubled").all]
    assert len(keys) == len(set(keys)) == 5


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, ["able"]),
        ({"response_format": {"type": "json_object"}}, ["able"]),
        ({"response_format": {"type": "text"}}, ["plain", "able"]),
        ({"tools": []}, ["plain", "able"]),
    ],
)
def test_capabilities_are_hard(body: dict[str, Any], left: list[str]) -> None:
    assert list(dict.fromkeys(target.model.name for target in decide("auto", **body).targets)) == left


IMAGE: Any = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}]


def test_an_image_needs_vision_and_says_so() -> None:
    error = refused("auto", messages=IMAGE)
    assert isinstance(error, InvalidValue)
    assert error.param == "model"
    assert "vision" in error.message
    assert backends(decide("seeing", messages=IMAGE)) == ["abroad"]


def test_what_a_model_can_is_not_judged_when_not_stated() -> None:
    assert backends(decide("unstated", messages=IMAGE)) == ["nowhere"]


def test_an_endpoint_that_the_model_lacks_is_the_clients_error() -> None:
    assert refused("vectors").param == "model"
    with pytest.raises(InvalidValue):
        Router(WORLD, random.Random(1), Live(WORLD.breaker)).route(
            call(endpoint="embeddings", model="plain", input="x"), ANY
        )


def of_tokens(number: int) -> list[dict[str, str]]:
    """Messages that are judged to be exactly so many tokens."""
    empty = call(messages=[{"role": "user", "content": ""}]).input_bound
    return [{"role": "user", "content": "x" * (number * 4 - empty)}]


@pytest.mark.parametrize(("tokens", "fits"), [(99, True), (100, True), (101, False)])
def test_the_context_is_met_exactly(tokens: int, fits: bool) -> None:
    messages = of_tokens(tokens)
    assert estimated_input(call(messages=messages)) == tokens
    if fits:
        assert backends(decide("short", messages=messages)) == ["north"]
    else:
        error = refused("short", messages=messages)
        assert isinstance(error, ContextTooLong)
        assert (error.status, error.code, error.param) == (400, "context_length_exceeded", "messages")
        assert "100" in error.message
        assert "is longer than the model's context length" in error.message  # by which LiteLLM knows what it is


def test_too_long_goes_to_the_fallback_for_context_then_for_errors() -> None:
    decision = decide("growing", messages=of_tokens(101))
    assert (backends(decision), decision.on_context) == (["south"], ())
    decision = decide("error_only", messages=of_tokens(101))
    assert (backends(decision), decision.on_error) == (["south"], ())
    assert isinstance(refused("growing", messages=of_tokens(100_001)), ContextTooLong)


TEXT = "x" * 4000
TOKENS = list(range(1000))


@pytest.mark.parametrize(
    ("endpoint", "body", "needed"),
    [
        ("embeddings", {"input": TEXT}, 1000),
        ("embeddings", {"input": [TEXT] * 100}, 1000),
        ("embeddings", {"input": ["short", TEXT]}, 1000),
        ("embeddings", {"input": TOKENS}, 1000),
        ("embeddings", {"input": [[1], TOKENS] * 50}, 1000),
        ("completions", {"prompt": [TEXT] * 20}, 1000),
        ("completions", {"prompt": TEXT, "n": 5}, 1000),
    ],
)
def test_each_prompt_of_a_batch_has_the_context_to_itself(endpoint: str, body: dict[str, Any], needed: int) -> None:
    for context, fits in ((needed - 1, False), (needed + 20, True)):  # a lone text counts with its template
        endpoints = frozenset({"chat", "completions", "embeddings"})
        world = config([backend("a")], [model("m", "a", context=context, endpoints=endpoints)])
        router = Router(world, random.Random(1), Live(world.breaker))
        if fits:
            assert router.route(call(endpoint=endpoint, **body), ANY).needed in range(needed, needed + 11)
        else:
            with pytest.raises(ContextTooLong):
                router.route(call(endpoint=endpoint, **body), ANY)


def test_an_exact_count_beats_the_estimate() -> None:
    router = Router(WORLD, random.Random(1), Live(WORLD.breaker))
    asked = call(model="short", messages=of_tokens(150))
    assert [target.backend.name for target in router.route(asked, ANY, 100).targets] == ["north"]
    with pytest.raises(ContextTooLong):
        router.route(call(model="short", messages=of_tokens(60)), ANY, 101)


@pytest.mark.parametrize(("tokens", "near"), [(49, False), (50, True), (200, True), (201, False)])
def test_near_the_limit_is_a_factor_of_two(tokens: int, near: bool) -> None:
    asked = call(model="short", messages=of_tokens(tokens))
    assert Router(WORLD, random.Random(1), Live(WORLD.breaker)).near_limit(asked.model, needed_context(asked)) == near


@pytest.mark.parametrize("asked", ["gpt-4o-mini", "best"])
def test_an_alias_is_what_it_stands_for(asked: str) -> None:
    assert decide(asked).route == WORLD.aliases[asked]


@pytest.mark.parametrize("name", ["", "nope", "Plain", "plain ", "x" * 256])
def test_an_unknown_name_is_not_found_and_not_repeated_at_length(name: str) -> None:
    with pytest.raises(ModelNotFound) as caught:
        Router(WORLD, random.Random(1), Live(WORLD.breaker)).route(
            call(model="x") if not name else call(model=name), ANY
        )
    assert (caught.value.status, caught.value.param) == (404, "model")
    assert len(caught.value.message) < 200


@pytest.mark.parametrize(
    ("allow", "reachable"),
    [
        (None, {*WORLD.models, *WORLD.aliases, *WORLD.routes}),
        (set(), set()),
        ({"cheap"}, {"plain"}),
        ({"chat"}, {"plain", "able", "gpt-4o-mini"}),
        ({"auto"}, {"auto", "best"}),
        ({"best"}, {"best"}),
        ({"able", "short"}, {"able", "short", "gpt-4o-mini"}),
    ],
)
def test_a_plan_lists_exactly_what_it_serves(allow: set[str] | None, reachable: set[str]) -> None:
    plan = Plan("p", allow=None if allow is None else frozenset(allow))
    router = Router(WORLD, random.Random(1), Live(WORLD.breaker))
    assert set(router.names(plan)) == reachable
    for name in (*WORLD.models, *WORLD.aliases, *WORLD.routes):
        try:
            router.route(call(model=name), plan)
        except ModelNotFound:
            assert name not in reachable
        except GatewayError:
            assert name in reachable  # found, but it cannot serve this call
        else:
            assert name in reachable


def test_names_are_in_the_order_of_the_file() -> None:
    assert Router(WORLD, random.Random(1), Live(WORLD.breaker)).names(ANY) == [
        *WORLD.models,
        *WORLD.aliases,
        *WORLD.routes,
    ]


ROUTES = """
version: 1
backends:
  north: {kind: openai, base_url: "http://127.0.0.1:1/v1", region: north}
  south: {kind: openai, base_url: "http://127.0.0.1:2/v1", region: south}
models:
  a: {via: [north], context: 1k, max_output: 100, price: {input: 1, output: 1}}
  b: {via: [north, south], context: 1k, max_output: 100, price: {input: 1, output: 1}}
routes:
  first: {pick: [a], fallback: {error: [second]}}
  second: {pick: [b, a], require: {region: [south]}}
"""


def from_file(tmp_path: Path) -> Decision:
    path = tmp_path / "routes.yaml"
    path.write_text(ROUTES)
    return decide("first", world=load(path))


def test_a_route_in_a_fallback_list_stands_for_its_models(tmp_path: Path) -> None:
    assert {target.model.name for target in from_file(tmp_path).on_error} == {"b"}


def test_a_route_in_a_fallback_list_keeps_its_own_require(tmp_path: Path) -> None:
    assert [target.backend.name for target in from_file(tmp_path).on_error] == ["south"]


QUIRKED = config(
    [backend("any"), backend("deep", quirks=Quirks(like="deepseek")), backend("chat", quirks=Quirks(like="zhipu"))],
    [model("m", "any", "deep", "chat"), model("picky", "deep", "chat")],
    [],
)


def sorted_backends(decision: Decision) -> list[str]:
    return sorted(backends(decision))


def test_what_a_provider_lacks_takes_its_targets_out() -> None:
    assert sorted_backends(decide("m", world=QUIRKED)) == ["any", "chat", "deep"]
    seeded = decide("m", world=QUIRKED, seed=0)
    assert (sorted_backends(seeded), removed(seeded)) == (["any", "chat"], {"deep": "dialect"})
    assert sorted_backends(decide("m", world=QUIRKED, seed=None, logprobs=True)) == ["any", "deep"]
    assert sorted_backends(decide("m", world=QUIRKED)) == [
        "any",
        "chat",
        "deep",
    ]  # each kind of call has a list of its own


def test_a_field_that_no_provider_knows_is_named() -> None:
    with pytest.raises(InvalidValue) as caught:
        decide("picky", world=QUIRKED, logit_bias={"5": 1})
    assert caught.value.param == "logit_bias"
