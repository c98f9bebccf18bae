"""routes.yaml: what is understood, and every kind of problem with its line and key path."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from gateway.config.json_schema import document
from gateway.config.load import ConfigError, load
from gateway.config.model import Cache, Quirks, Responses

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
    assert config.warnings == ()


@pytest.mark.parametrize(
    ("written", "ppm"),
    [("0%", 0), ("25%", 250_000), ("33.3333%", 333_333), ("0.000001", 1), ("1", 10**6), ("100%", 10**6)],
)
def test_the_charge_of_a_hit_is_exact(tmp_path: Path, written: str, ppm: int) -> None:
    path = tmp_path / "routes.yaml"
    path.write_text(f"version: 1\ncache: {{c: {{charge: {written}}}}}\n")
    assert load(path).caches["c"].charge_ppm == ppm


def test_a_cache_has_defaults_and_bounds_that_fit(tmp_path: Path) -> None:
    path = tmp_path / "routes.yaml"
    path.write_text(
        "version: 1\ncache: {c: {}, small: {max_bytes: 500kB}, all: {ttl: 1h, scope: account, sampled: true}}\n"
    )
    caches = load(path).caches
    assert caches["c"] == Cache("c", "exact", 600.0, "tenant", 0, False, 64_000_000, 1_000_000)
    assert caches["small"].max_entry == 500_000
    assert caches["all"] == Cache("all", ttl_s=3600.0, scope="account", sampled=True)


@pytest.mark.parametrize(
    ("cache", "key_path", "said"),
    [
        ("{charge: 33.33333%}", "cache.c.charge", "exact to a millionth"),
        ("{charge: 101%}", "cache.c.charge", "share from 0% to 100%"),
        ("{scope: world}", "cache.c.scope", "one of tenant, account"),
        ("{max_bytes: 1MB, max_entry: 2MB}", "cache.c.max_entry", "larger than max_bytes"),
        ("{max_entry: 65MB}", "cache.c.max_entry", "larger than max_bytes"),
        ("{tll: 1m}", "cache.c.tll", "did you mean ttl?"),
    ],
)
def test_problems_of_a_cache(tmp_path: Path, cache: str, key_path: str, said: str) -> None:
    [(line, path, text)] = problems(tmp_path, f"version: 1\ncache:\n  c: {cache}\n")
    assert (line, path) == (3, key_path)
    assert said in text


@pytest.mark.parametrize(
    ("written", "responses"),
    [
        ("{ledger: 'sqlite:x.db', when_down: serve}", Responses(keep_s=30 * 86_400, max_bytes=1_000_000_000)),
        ("{responses: {keep: 7d}}", Responses(keep_s=7 * 86_400)),
        ("{responses: {keep: 1h, max_bytes: 50MB}}", Responses(keep_s=3_600, max_bytes=50_000_000)),
        ("{responses: none}", None),
    ],
)
def test_responses_are_kept_as_long_as_is_said(tmp_path: Path, written: str, responses: Responses | None) -> None:
    path = tmp_path / "routes.yaml"
    path.write_text(GOOD + f"storage: {written}\n")
    config = load(path)
    assert config.responses == responses
    assert config.outage.when_down == ("serve" if "serve" in written else "refuse")


@pytest.mark.parametrize("wrong", ["off", "all", "{keep: long}", "{days: 30}"])
def test_problems_of_keeping_responses(tmp_path: Path, wrong: str) -> None:
    (problem,) = problems(tmp_path, GOOD + f"storage: {{responses: {wrong}}}\n")
    assert problem[1].startswith("storage.responses")
    assert "keep, max_bytes" in problem[2] or "is a duration" in problem[2]


def test_names_of_headers_are_in_lower_case(tmp_path: Path) -> None:
    path = tmp_path / "routes.yaml"
    text = GOOD.replace("region: cn,", 'region: cn, headers: {X-Org: "a b", content-type: application/json},')
    path.write_text(text)
    assert load(path).backends["a"].headers == {"x-org": "a b", "content-type": "application/json"}
    jsonschema.Draft202012Validator(json.loads(document())).validate(as_editors_see(text))


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
        ("sha256:6", "sha256:", 11, "tenants.t.keys.0", "64 hex digits"),
        ("version: 1", "version: 2", 1, "version", "from 1 to 1"),
        ("kind: openai", "kind: openai, kind: openai", 3, "backends.a.kind", "stands here twice"),
        ("region: cn", "on: cn", 3, "backends.a.on", "quotes"),
        ("version: 1", "# version: 1", 1, "", "has no version (write version: 1 at the top)"),
        ("version: 1", "version: 1\ntimezone: Asia/Shangai", 2, "timezone", "time zone such as Asia/Shanghai"),
        ("version: 1", "version: 1\ntimezone: ../../etc/passwd", 2, "timezone", "time zone"),
        ("version: 1", "version: 1\nserver: {port: 65536}", 2, "server.port", "from 0 to 65535"),
        ("version: 1", "version: 1\nserver: {port: -1}", 2, "server.port", "is a number"),
        ("version: 1", "version: 1\nserver: {max_body: 20 MB}", 2, "server.max_body", "20MB"),
        ("version: 1", "version: 1\nserver: {drain: 30}", 2, "server.drain", "30s"),
        ("version: 1", "version: 1\nstorage: {ledger: redis://x}", 2, "storage.ledger", "sqlite:PATH"),
        ("version: 1", "version: 1\ndefaults: {retry: {attempts: 0}}", 2, "defaults.retry.attempts", "from 1"),
        ("version: 1", "version: 1\ndefaults: {retry: {backoff: 5s..1s}}", 2, "defaults.retry.backoff", "range"),
        ("version: 1", "version: 1\ndefaults: {timeout: {total: 0s}}", 2, "defaults.timeout.total", "duration above 0"),
        ("version: 1", "version: 1\ndefaults: {breaker: {errors: 150%}}", 2, "defaults.breaker.errors", "share"),
        ("version: 1", "version: 1\naliases: {x: n}", 2, "aliases.x", "there is no n (known: auto, m)"),
        ("version: 1", "version: 1\naliases: {m: auto}", 2, "aliases.m", "already"),
        ("version: 1", "version: 1\ncache: {c: {mode: fuzzy}}", 2, "cache.c.mode", "exact, semantic"),
        ("version: 1", "version: 1\nobservability: {tenant_label: 50}", 2, "observability.tenant_label", "top_50"),
        ("version: 1", "version: 1\nincude: [x]", 2, "incude", "did you mean include?"),
        ("http://10.0.0.1/v1", "ftp://10.0.0.1/v1", 3, "backends.a.base_url", "http or https"),
        ("http://10.0.0.1/v1", "http://u:p@10.0.0.1/v1", 3, "backends.a.base_url", "without credentials"),
        ("http://10.0.0.1/v1", "http://10.0.0.1:99999/v1", 3, "backends.a.base_url", "http or https"),
        ("region: cn,", 'headers: {x: "a\\r\\ny: b"},', 3, "backends.a.headers.x", "one line"),
        ("region: cn,", 'headers: {"bad name": x},', 3, "backends.a.headers.bad name", "is no name of a header"),
        ("region: cn,", 'headers: {"x:": y},', 3, "backends.a.headers.x:", "is no name of a header"),
        ("region: cn,", 'headers: {"": y},', 3, "backends.a.headers.", "is no name of a header"),
        ("region: cn,", "headers: {naïve: y},", 3, "backends.a.headers.naïve", "is no name of a header"),
        ("region: cn,", "headers: {content-length: 5},", 3, "backends.a.headers.content-length", "(take it out)"),
        ("region: cn,", "headers: {Host: x},", 3, "backends.a.headers.Host", "the gateway sets itself"),
        ("region: cn,", "headers: {Transfer-Encoding: x},", 3, "backends.a.headers.Transfer-Encoding", "sets itself"),
        ("region: cn,", "headers: {connection: close},", 3, "backends.a.headers.connection", "sets itself"),
        ("region: cn,", "headers: {Authorization: x},", 3, "backends.a.headers.Authorization", "write it under keys"),
        (
            "region: cn,",
            "headers: {x-a: 1, X-A: 2},",
            3,
            "backends.a.headers.X-A",
            "twice, as header names ignore case",
        ),
        ("region: cn,", 'headers: {x: "密"},', 3, "backends.a.headers.x", "in ASCII"),
        ("region: cn,", 'headers: {x: "a\\tb"},', 3, "backends.a.headers.x", "one line"),
        ("region: cn,", "region: cn, limits: {rpm: 0},", 3, "backends.a.limits.rpm", "at least 1"),
        ("region: cn,", "region: cn, check: {path: health},", 3, "backends.a.check.path", "such as /health"),
        ("region: cn,", "region: cn, check: {path: /a b},", 3, "backends.a.check.path", "such as /health"),
        ("region: cn,", "region: cn, check: {every: 5s},", 3, "backends.a.check", "path"),
        ("version: 1", "version: 1\ndefaults: {queue: {length: 5k}}", 2, "defaults.queue.length", "from 0 to 1000"),
        ("version: 1", "version: 1\ndefaults: {queue: {wait: 0s}}", 2, "defaults.queue.wait", "duration"),
        ("region: cn,", "region: cn, quirks: {include_usage: 1},", 3, "backends.a.quirks.include_usage", "true"),
        ("region: cn,", "region: cn, quirks: deepsek,", 3, "backends.a.quirks", "is one of deepseek"),
        ("region: cn,", "region: cn, quirks: {like: x},", 3, "backends.a.quirks.like", "is one of deepseek"),
        ("region: cn,", "region: cn, quirks: {liek: vllm},", 3, "backends.a.quirks.liek", "did you mean like?"),
        ("region: cn,", 'region: cn, api_version: "2024-10-21",', 3, "backends.a.api_version", "of the kind azure"),
        ("region: cn,", "region: cn, api_version: newest,", 3, "backends.a.api_version", "such as 2024-10-21"),
        ("region: cn,", 'region: cn, hours: [{from: "25:00", to: "8"}],', 3, "backends.a.hours.0.from", "08:30"),
        ("kind: openai, ", "", 3, "backends.a", "has no kind"),
        ("via: [a]", "via: []", 5, "models.m.via", "at least 1"),
        ("policy: balanced", "policy: balanced, weigh: {cost: 0}", 7, "routes.auto.weigh", "no weight above 0"),
        ("via: [a]", "via: [{backend: a, weight: 0}]", 5, "models.m.via.0.weight", "from 1"),
        ("via: [a]", "via: [{backend: a, was: x}]", 5, "models.m.via.0.was", "did you mean as?"),
        ("via: [a]", "via: [{as: x}]", 5, "models.m.via.0", "has no backend"),
        ("context: 8k", "context: 8.0001k", 5, "models.m.context", "100k"),
        ("tags: [chat]},", "tags: chat},", 7, "routes.auto.pick.tags", "is a list"),
        ("region: [cn]}", "tags: [gpu]}", 7, "routes.auto.require.tags", "no backend has the tags gpu"),
        ("policy: balanced", "fallback: {error: [auto]}", 7, "routes.auto.fallback.error.0", "falls back on itself"),
        ("policy: balanced", "fallback: {errors: [m]}", 7, "routes.auto.fallback.errors", "did you mean error?"),
        ("policy: balanced", "cache: none", 7, "routes.auto.cache", "there is no none"),
        ("rpm: 60", "rpm: 60, allow: [chatt]", 9, "plans.p.allow.0", "did you mean chat?"),
        ("credits: 1M, every: month", "credits: 1M, every: year", 9, "plans.p.grants.0.every", "month, week, day"),
        ("rpm: 60", "rpm: 1e3", 9, "plans.p.rpm", "60, 100k or 5M"),
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


MANY = """version: 1
server: {prot: 1}
backends:
  a: {kind: openai, base_url: "http://10.0.0.1/v1", region: cn}
  b: {kind: openai, base_url: "http://10.0.0.2/v1", region: eu, tags: [own]}
models:
  m: {via: [aa], context: 4k, max_output: 1k, price: {input: 1}, tags: [chat]}
  n: {via: [b], context: 4k, max_output: 5k, price: {input: 1, output: 1}}
aliases: {x: z}
routes:
  r: {pick: [mm], cache: none, fallback: {error: [q]}}
  s: {pick: {tags: [chart]}}
  t: {pick: [n], require: {region: [us]}}
  u: {pick: [n], require: {region: [cn]}}
plans: {p: {rpm: 5, allow: [zz]}}
tenants: {t: {plan: q}}
"""
MANY_PROBLEMS = {
    "server.prot", "models.m.via.0", "models.m.price", "models.n.max_output", "aliases.x", "routes.r.pick.0",
    "routes.r.cache", "routes.r.fallback.error.0", "routes.s.pick", "routes.t.require.region", "routes.u.require",
    "plans.p.allow.0", "tenants.t.plan",
}  # fmt: skip


def test_one_unknown_key_hides_no_other_problem(tmp_path: Path) -> None:
    assert sorted(path for _, path, _ in problems(tmp_path, MANY)) == sorted(MANY_PROBLEMS)
    assert {path for _, path, _ in problems(tmp_path, MANY.replace("prot", "port"))} == MANY_PROBLEMS - {"server.prot"}


@pytest.mark.parametrize(
    ("old", "new", "paths"),
    [
        ("region: cn,", "regoin: cn,", ["backends.a.regoin"]),  # so the route's require is not to blame
        ("region: cn,", "zone: cn,", ["backends.a.zone"]),
        ("region: cn,", "region: true,", ["backends.a.region"]),
        ("kind: openai", "knd: openai", ["backends.a.knd"]),
        ("kind: openai", "type: openai", ["backends.a", "backends.a.type"]),  # who knows what it was meant to be
        ("backends:", "bakends:", ["bakends"]),
        ("backends:", "providers:", ["providers"]),
        ("backends:\n  a: {", "backends:\n  - {", ["backends"]),
        ("  a: {", "  a: 5 #", ["backends.a"]),
        ("  a: {", "  on: {", ["backends.on", "models.m.via.0"]),
        ("version: 1", "version: 1\nbackends: {}", ["backends"]),
        ("via: [a]", "vai: [a]", ["models.m.vai"]),
        ("via: [a]", "via: a", ["models.m.via"]),
        ("via: [a]", "via: [[a], {backend: q}]", ["models.m.via.0", "models.m.via.1"]),
        ("via: [a]", "via: [{bakend: a}]", ["models.m.via.0.bakend"]),
        ("output: 8}", "outptu: 8}", ["models.m.price.outptu"]),
        ("output: 8}", "output: -8}", ["models.m.price.output"]),
        ("output: 8}", "out: 8}", ["models.m.price.out"]),
        ("price: {input: 2.0, input_cached: 0.4, output: 8}", "price: 2", ["models.m.price"]),
        ("output: 8}", "cost: 8}, endpoints: [embeding]", ["models.m.endpoints.0", "models.m.price.cost"]),
        (
            "input: 2.0, input_cached: 0.4, output: 8}",
            "}, endpoints: [embeding]",
            ["models.m.endpoints.0", "models.m.price"],
        ),
        ("context: 8k", "context: 8 k", ["models.m.context"]),
        ("max_output: 1k, ", "", ["models.m"]),
        ("tags: [chat]}\n", "tags: chat}\n", ["models.m.tags"]),
        ("tags: [chat]}\n", "tag: [chat]}\n", ["models.m.tag"]),
        ("  m: {", "  no: {", ["models.no"]),
        ("pick: {tags: [chat]}", "pick: {tags: [[chat]]}", ["routes.auto.pick.tags.0"]),
        ("pick: {tags: [chat]}", "pick: {tag: [chat]}", ["routes.auto.pick.tag"]),
        ("pick: {tags: [chat]}", "pick: {}", ["routes.auto.pick"]),
        ("pick: {tags: [chat]}", "pick: m", ["routes.auto.pick"]),
        ("pick: {tags: [chat]}, ", "", ["routes.auto"]),
        ("require: {region: [cn]}", "require: {region: cn}", ["routes.auto.require.region"]),
        ("require: {region: [cn]}", "require: {region: [[cn]]}", ["routes.auto.require.region.0"]),
        ("require: {region: [cn]}", "require: {region: [us]}", ["routes.auto.require.region"]),
        ("plan: p, ", "", ["tenants.t"]),
        ("plan: p, ", "plan: [p], ", ["tenants.t.plan"]),
        ("plans:", "plan:", ["plan"]),
        ("tenants:\n  t: {", "tenants:\n  t: 5 #", ["tenants.t"]),
        ("rpm: 60", "rpm: 60, allow: [[m], mm]", ["plans.p.allow.0", "plans.p.allow.1"]),
        (
            "tags: [chat]}\n",
            "tags: [[chat]]}\naliases: {x: [m], y: mm}\n",
            ["aliases.x", "aliases.y", "models.m.tags.0"],
        ),
    ],
)
def test_what_follows_from_a_problem_is_none(tmp_path: Path, old: str, new: str, paths: list[str]) -> None:
    assert old in GOOD
    assert sorted(path for _, path, _ in problems(tmp_path, GOOD.replace(old, new, 1))) == paths


def test_an_include_that_is_not_there_is_blamed_alone(tmp_path: Path) -> None:
    text = "version: 1\ninclude: [none.yaml]\n" + MODELS.replace(", output: 8", "") + PLANS
    assert [path for _, path, _ in problems(tmp_path, text)] == ["include", "models.m.price"]


def test_a_pasted_secret_is_refused_and_not_repeated(tmp_path: Path) -> None:
    [(line, path, text)] = problems(tmp_path, GOOD.replace("env:A_KEY", "sk-live-abc123"))
    assert (line, path) == (3, "backends.a.keys.0")
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


def test_a_file_that_cannot_be_read_says_why_and_where_it_was_looked_for(tmp_path: Path) -> None:
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"version: 1 # \xe9")
    for path, says in (
        (tmp_path / "none.yaml", f"No such file or directory (looked for {tmp_path / 'none.yaml'})"),
        (tmp_path, f"Is a directory (looked for {tmp_path})"),
        (latin, "it is not UTF-8"),
    ):
        with pytest.raises(ConfigError) as refused:
            load(path)
        assert str(refused.value) == f"{path}:1 .: cannot be read: {says}"


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "routes.yaml"
    with path.open("wb") as file:
        file.truncate(100_000_000)
    with pytest.raises(ConfigError, match="larger than"):
        load(path)


def test_what_is_not_applied_yet_is_named(tmp_path: Path) -> None:
    """Every key and value that this version accepts and does not act on."""
    path = tmp_path / "routes.yaml"
    path.write_text("""version: 1
server: {admin_listen: "127.0.0.1:9"}
defaults: {breaker: {window: 10s}}
backends:
  a: {kind: anthropic, base_url: "http://h/v1", on_disconnect: drain, hours: [{from: "00:00", to: "08:00"}]}
models:
  m1: {via: [a], context: 8k, max_output: 1k, price: {input: 2, output: 8}, quality: 0.5, tokenizer: o200k}
  m2: {via: [a], context: 8k, max_output: 1k, price: {input: 2, output: 8}, quality: 0.5, tokenizer: o200k}
  m3: {via: [a], context: 8k, max_output: 1k, price: {input: 2, output: 8}, quality: 0.5, tokenizer: o200k}
  m4: {via: [a], context: 8k, max_output: 1k, price: {input: 2, output: 8}, quality: 0.5, tokenizer: o200k}
routes:
  r: {pick: [m1], policy: cheapest, weigh: {cost: 1}, cache: c, affinity: session, when: {any: thing}}
cache:
  c: {mode: exact}
  d: {mode: semantic}
plans:
  p: {exhausted: block, priority: 1, weight: 2}
""")
    later = " is not applied in this version"
    assert sorted(load(path).warnings) == sorted(
        [
            "admin_listen" + later,
            "hours of backend a" + later,
            "tokenizer of 4 models (m1, m2, m3, ...)" + later,
            "when of route r" + later,
            "cache d keeps nothing, as no route names it",
            "mode semantic of cache d runs as exact in this version",
            "weigh of route r decides nothing, as its policy is cheapest",
        ]
    )


def test_one_key_is_of_one_tenant(tmp_path: Path) -> None:
    hashed = GOOD.split("keys: [")[2].split("]")[0]
    [(line, path, text)] = problems(tmp_path, GOOD + f"  u: {{plan: p, keys: [{hashed}]}}\n")
    assert (line, path) == (12, "tenants.u.keys.0")
    assert "is a key of t already" in text


def test_a_require_that_leaves_nothing_is_a_problem(tmp_path: Path) -> None:
    text = GOOD.replace("models:", '  b: {kind: openai, base_url: "http://b/v1", region: eu}\nmodels:').replace(
        "[cn]", "[eu]"
    )
    [(line, path, says)] = problems(tmp_path, text)
    assert (line, path) == (8, "routes.auto.require")
    assert "leaves no backend" in says


def written(folder: Path, **texts: str) -> Path:
    for name, text in texts.items():
        path = folder / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "routes.yaml"


BACKENDS, MODELS = (
    GOOD.split("models:")[0].split("version: 1\n")[1],
    "models:" + GOOD.split("models:")[1].split("plans:")[0],
)
PLANS = "plans:" + GOOD.split("plans:")[1]


def test_files_are_merged_by_section_and_name(tmp_path: Path) -> None:
    more = "models:\n  m2: {via: [a], context: 8k, max_output: 1k, price: {input: 1, output: 1}}\n"
    path = written(
        tmp_path,
        routes="version: 1\ninclude: [backends.yaml, models/*.yaml]\nserver: {port: 1}\n" + PLANS,
        backends="version: 1\nserver: {host: 127.0.0.2}\n" + BACKENDS,
        **{"models/one": MODELS, "models/two": more},
    )
    config = load(path)
    assert (list(config.models), config.server.port, config.server.host) == (["m", "m2"], 1, "127.0.0.2")


def test_a_problem_in_an_included_file_names_that_file(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        routes="version: 1\ninclude: [more.yaml]\n" + PLANS,
        more=BACKENDS + MODELS.replace("via: [a]", "via: [b]"),
    )
    with pytest.raises(ConfigError) as caught:
        load(path)
    [problem] = caught.value.problems
    assert (problem.file, problem.line, problem.key_path) == (str(tmp_path / "more.yaml"), 4, "models.m.via.0")


def test_the_same_name_in_two_files_names_both_places(tmp_path: Path) -> None:
    path = written(
        tmp_path, routes="version: 1\ninclude: [more.yaml]\n" + BACKENDS + MODELS + PLANS, more="\n" + MODELS
    )
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert [str(problem) for problem in caught.value.problems] == [
        f"{tmp_path}/more.yaml:{line} {key}: stands in {path}:{line + 3} already (remove one)"
        for line, key in ((3, "models.m"), (5, "routes.auto"))
    ]


def test_files_may_include_each_other(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        routes="version: 1\ninclude: [more.yaml]\n" + BACKENDS + PLANS,
        more="include: [routes.yaml, more.yaml]\n" + MODELS,
    )
    assert list(load(path).models) == ["m"]


@pytest.mark.parametrize(
    ("include", "says"),
    [
        ("[none.yaml]", "matches no file: none.yaml"),
        ("[models/*.yaml]", "matches no file"),
        ("{a: b}", "is a list of files"),
        ("[[a]]", "is a list of files"),
    ],
)
def test_an_include_that_matches_nothing_is_a_problem(tmp_path: Path, include: str, says: str) -> None:
    [(line, path, text)] = problems(tmp_path, GOOD.replace("version: 1", f"version: 1\ninclude: {include}"))
    assert (line, path) == (2, "include")
    assert says in text


def test_all_files_together_are_bounded(tmp_path: Path) -> None:
    path = written(tmp_path, routes="version: 1\ninclude: [a.yaml, b.yaml]\n", a="#" * 600_000, b="#" * 600_000)
    with pytest.raises(ConfigError, match="larger than") as caught:
        load(path)
    assert caught.value.problems[0].line == 2


def test_values_of_all_files_together_are_bounded(tmp_path: Path) -> None:
    values = "a: [" + "[]," * 60_000 + "]"
    path = written(tmp_path, routes="version: 1\ninclude: [a.yaml, b.yaml]\n", a=values, b=values)
    with pytest.raises(ConfigError, match=r"b\.yaml:1 .: more than 100,000 values"):
        load(path)


def test_a_pipe_is_read(tmp_path: Path) -> None:
    """`moma check -c <(make-routes)`"""
    path = tmp_path / "routes.yaml"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_text, args=(GOOD,))
    writer.start()
    assert set(load(path).models) == {"m"}
    writer.join()


def test_after_many_problems_none_is_advised_on(tmp_path: Path) -> None:
    found = problems(tmp_path, GOOD + "".join(f"backend{number}: 1\n" for number in range(60)))
    assert sum("did you mean backends?" in text for _, _, text in found) == 50
    assert len(found) == 60


def test_the_published_schema_is_current() -> None:
    """`python -m gateway.config.json_schema > docs/routes.schema.json` makes it."""
    assert (ROOT / "docs/routes.schema.json").read_text() == document()


def as_editors_see(text: str) -> Any:
    return yaml.safe_load(text)


@pytest.mark.parametrize("path", ["routes.yaml", "gateway/demo/routes.yaml"])
def test_what_is_good_is_good_for_the_published_schema(path: str) -> None:
    text = (ROOT / path).read_text().replace("sha256:KEY_HASH", "sha256:" + "0" * 64)  # which the demo fills in
    jsonschema.Draft202012Validator(json.loads(document())).validate(as_editors_see(text))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("region: cn,", "regoin: cn,"),
        ("input: 2.0", "input: -1"),
        ("policy: balanced", "policy: best_effort"),
        ("kind: openai, ", ""),
        ("env:A_KEY", "sk-live"),
        ("version: 1", "version: 2"),
        ("via: [a]", "via: []"),
        ("credits: 1M", "credits: 1 M"),
        ("http://10.0.0.1/v1", "10.0.0.1"),
        ("region: cn,", "headers: {Content-Length: x},"),
        ("region: cn,", "headers: {authorization: x},"),
        ("region: cn,", 'headers: {"bad name": x},'),
        ("region: cn,", 'headers: {x-org: "密"},'),
    ],
)
def test_what_is_bad_is_bad_for_the_published_schema(old: str, new: str) -> None:
    validator = jsonschema.Draft202012Validator(json.loads(document()))
    validator.validate(as_editors_see(GOOD))
    assert not validator.is_valid(as_editors_see(GOOD.replace(old, new, 1)))


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("deepseek", Quirks(like="deepseek")),
        ("{like: vllm, include_usage: false}", Quirks(like="vllm", include_usage=False)),
        ("{max_tokens_field: x}", Quirks(max_tokens_field="x")),
    ],
)
def test_quirks(tmp_path: Path, written: str, expected: Quirks) -> None:
    path = tmp_path / "routes.yaml"
    path.write_text(GOOD.replace("region: cn,", f"region: cn, quirks: {written},", 1), encoding="utf-8")
    assert load(path).backends["a"].quirks == expected


def test_a_version_of_the_api_of_azure(tmp_path: Path) -> None:
    path = tmp_path / "routes.yaml"
    text = GOOD.replace("kind: openai,", "kind: azure,", 1).replace(
        "region: cn,", "region: cn, api_version: 2024-10-21,"
    )
    path.write_text(text, encoding="utf-8")
    assert load(path).backends["a"].api_version == "2024-10-21"
