"""Two calls share a key if, and only if, a model reads the same; never two tenants, routes or endpoints."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.cache.key import LEFT_OUT, key_of, repeatable, route_version
from gateway.call import Call, Request
from gateway.config.model import Config, Limits, Quirks, Require
from gateway.parse import parse_call
from tests.virtual import backend, call, config, model, require, route

EXAMPLES = 5_000 if os.environ.get("MOMA_LONG") else 400


def key(asked: Call, scope: str = "t", version: bytes = b"v", max_output: int | None = None) -> bytes:
    return key_of(asked, scope=scope, version=version, max_output=max_output)


def parsed(text: bytes, endpoint: str = "chat") -> Call:
    return parse_call(Request("r", endpoint, {}, text))


def tagged(value: Any, *, ordered: bool = True) -> Any:
    """A value that is equal to another only if they are the same JSON: 1, 1.0 and true are three values."""
    if isinstance(value, dict):
        items = [(name, tagged(item)) for name, item in value.items()]
        return ("object", tuple(items if ordered else sorted(items, key=lambda item: item[0])))
    if isinstance(value, list):
        return ("list", tuple(map(tagged, value)))
    return (type(value).__name__, repr(value))


def effective(asked: Call) -> Any:
    """What a model reads of a body, told in another way than the key tells it."""
    fields = []
    for name, value in sorted(asked.body.items()):
        if name in LEFT_OUT:
            continue
        if name == "messages":
            fields.append((name, tuple(tagged(message, ordered=False) for message in value)))
        else:
            fields.append((name, tagged(value)))
    return tuple(fields)


LIKE_ONE: list[Any] = [0, 0.0, False, 1, 1.0, True, "1", None, -0.0]
scalars = st.sampled_from([*LIKE_ONE, "", "a", "é", "e\u0301", "\u0000", 2**63, 2**64 - 1, 1e300, 0.1])
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "b", "type"]), inner, max_size=2),
    max_leaves=4,
)
messages = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["user", "system", "tool"]),
            "content": st.sampled_from(["a", "b", "é", "e\u0301", None]),
        },
        optional={"name": st.sampled_from(["n", "m"]), "tool_calls": st.lists(values, max_size=1)},
    ),
    min_size=1,
    max_size=2,
)
seldom = st.sampled_from(["a", "b", 1, 1.0, True, None])
FREE = (
    "audio", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs", "modalities", "moderation",
    "parallel_tool_calls", "prediction", "presence_penalty", "prompt_cache_options", "prompt_cache_retention",
    "reasoning_effort", "response_format", "service_tier", "stop", "store", "temperature", "tool_choice", "tools",
    "top_logprobs", "top_p", "verbosity", "web_search_options", "suffix", "echo", "encoding_format", "unknown",
)  # fmt: skip
BOUNDED = ("n", "max_tokens", "max_completion_tokens", "seed", "best_of")
bodies = st.fixed_dictionaries(
    {"model": st.just("m"), "messages": messages},
    optional={
        **dict.fromkeys(FREE, values),
        **{name: st.sampled_from([1, 2, None]) for name in BOUNDED if name != "best_of"},
        **{name: seldom for name in ("user", "metadata", "safety_identifier", "prompt_cache_key")},
        "stream": st.booleans(),
        "stream_options": st.sampled_from([None, {"include_usage": True}, {}]),
    },
)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Call, Call]:
    """Two bodies that differ in little: a field more, less or otherwise, or only in how they are written."""
    first = draw(bodies)
    second = dict(first)
    for name in draw(st.lists(st.sampled_from([*first, *FREE[:8]]), max_size=2)):
        if name in ("model",):
            continue
        if name == "messages":
            second[name] = draw(messages)
        elif name in BOUNDED:
            second[name] = draw(st.sampled_from([1, 2, None]))
        elif name in FREE and draw(st.booleans()):
            second[name] = draw(values)
        elif name not in ("stream", "stream_options"):
            second.pop(name, None)
    names = draw(st.permutations(list(second)))
    written = json.dumps({name: second[name] for name in names}, ensure_ascii=draw(st.booleans()))
    return parsed(orjson.dumps(first)), parsed(written.encode())


@settings(max_examples=EXAMPLES, deadline=None)
@given(pairs())
def test_a_key_is_shared_by_the_same_effective_body_and_by_no_other(pair: tuple[Call, Call]) -> None:
    first, second = pair
    assert (key(first) == key(second)) == (effective(first) == effective(second))
    assert key(first) == key(parsed(orjson.dumps(first.body)))


@settings(max_examples=EXAMPLES // 4, deadline=None)
@given(bodies, st.text(max_size=8), st.text(max_size=8))
def test_two_tenants_never_share_a_key(body: dict[str, Any], one: str, other: str) -> None:
    asked = parsed(orjson.dumps(body))
    assert (key(asked, scope=one) == key(asked, scope=other)) == (one == other)


def test_scope_version_endpoint_preference_and_plan_are_in_the_key() -> None:
    asked = call(prompt="p", endpoint="completions")
    keys = {
        key(asked),
        key(asked, version=b"w"),
        key(asked, max_output=100),
        key(replace(asked, endpoint="embeddings")),
        key(replace(asked, prefer="quality")),
    }
    assert len(keys) == 5
    assert len({key(asked, scope="a", version=b"b"), key(asked, scope="ab", version=b""), key(asked, scope="")}) == 3


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b'"x": 1', b'"x": 1.0'),
        (b'"x": 1', b'"x": true'),
        (b'"x": 1', b'"x": "1"'),
        (b'"x": 0', b'"x": -0.0'),
        (b'"x": null', b'"y": null'),
        (b'"x": {"a": 1, "b": 2}', b'"x": {"b": 2, "a": 1}'),  # a schema's order is the answer's order
        (b'"x": "\\u00e9"', b'"x": "e\\u0301"'),
        (b'"x": 9007199254740993', b'"x": 9007199254740992'),
        (b'"n": 1', b'"z": 1'),
        (b'"tools": []', b'"tools": null'),
    ],
)
def test_what_is_near_is_not_the_same(one: bytes, other: bytes) -> None:
    whole = b'{"model": "m", "messages": [{"role": "user", "content": "hi"}], %b}'
    assert key(parsed(whole % one)) != key(parsed(whole % other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b'"x": "A"', b'"x": "\\u0041"'),
        (b'"x": 1, "x": 2', b'"x": 2'),  # the parser takes the last, and so do backends get it
        (b'"x": 1, "y": 2', b'"y":2,"x":1'),
        (b'"x": 1e2', b'"x": 100.0'),
        (b'"x": 18446744073709551616', b'"x": 18446744073709551617'),  # beyond 64 bits both become one float
        (b'"user": "a", "x": 1', b'"stream": true, "stream_options": {"include_usage": true}, "x": 1'),
    ],
)
def test_what_backends_are_sent_alike_is_the_same(one: bytes, other: bytes) -> None:
    whole = b'{"model": "m", "messages": [{"role": "user", "content": "hi"}], %b}'
    first, second = parsed(whole % one), parsed(whole % other)
    assert key(first) == key(second)
    assert effective(first) == effective(second)


def test_fields_of_a_message_have_no_order() -> None:
    one = call(messages=[{"role": "user", "content": "a"}])
    other = call(messages=[{"content": "a", "role": "user"}])
    assert key(one) == key(other)


@pytest.mark.parametrize(
    ("body", "sure"),
    [
        ({}, False),
        ({"temperature": 0}, True),
        ({"temperature": 0.0}, True),
        ({"temperature": False}, False),
        ({"temperature": "0"}, False),
        ({"temperature": 0.7}, False),
        ({"temperature": None}, False),
        ({"temperature": 0.7, "seed": 5}, True),
        ({"seed": None}, False),
        ({"seed": 0}, True),
        ({"temperature": 0, "n": 3, "tools": [], "logprobs": True}, True),
    ],
)
def test_an_answer_is_given_again_when_chance_has_no_part_in_it(body: dict[str, Any], sure: bool) -> None:
    assert repeatable(call(**body), sampled=False) is sure
    assert repeatable(call(**body), sampled=True)


def test_embeddings_are_always_the_same() -> None:
    assert repeatable(call(endpoint="embeddings", input="a"), sampled=False)


# -- what a route stands for --------------------------------------------------------------------------------------


def routed(**changes: Any) -> bytes:
    """The version of one route, with something changed somewhere."""
    near = backend("a", region="north", **changes.pop("backend", {}))
    far = backend("b", **changes.pop("other_backend", {}))
    mine = model("m", "a", **changes.pop("model", {}))
    unused = model("n", "b", **changes.pop("unused", {}))
    asked = route("r", "m", **{"fallback_error": ["n"] if changes.pop("fallback", False) else [], **changes})
    made: Config = config([near, far], [mine, unused], [asked])
    return route_version(made, asked)


@pytest.mark.parametrize(
    "change",
    [
        {"backend": {"tags": ("x",)}},
        {"backend": {"headers": {"x": "y"}}},
        {"backend": {"quirks": Quirks(include_usage=False)}},
        {"backend": {"quirks": Quirks(like="vllm")}},
        {"backend": {"api_version": "preview"}},
        {"model": {"max_output": 99}},
        {"model": {"context": 99}},
        {"fallback": True},
        {"policy": "best"},
        {"weigh": {"cost": 1.0}},
        {"require": require(region=["north"])},
    ],
)
def test_the_version_of_a_route_changes_with_what_may_answer(change: dict[str, Any]) -> None:
    assert routed(**change) != routed()


@pytest.mark.parametrize(
    "change",
    [
        {"backend": {"limits": Limits(rpm=1)}},
        {"model": {"quality": 0.9}},
        {"unused": {"max_output": 99}},
        {"other_backend": {"tags": ("x",)}},
        {"cache": "other"},
        {"affinity": "session"},
    ],
)
def test_the_version_of_a_route_outlives_other_edits(change: dict[str, Any]) -> None:
    assert routed(**change) == routed()


def test_another_address_or_name_of_the_model_is_another_version() -> None:
    base = config([backend("a")], [model("m", "a")], [route("r", "m")])
    moved = replace(base, backends={"a": replace(base.backends["a"], base_url="http://elsewhere/v1")})
    via = replace(base.models["m"].via[0], as_name="m-2")
    renamed = replace(base, models={"m": replace(base.models["m"], via=(via,))})
    versions = {route_version(c, c.routes["r"]) for c in (base, moved, renamed)}
    assert len(versions) == 3
    assert Require() == base.routes["r"].require
