"""Every query of a dashboard or rule names metrics, labels and values that exist, and what it says it shows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from dashboards import BOARDS, PROMETHEUS
from dashboards.grafana import JOBS
from gateway.metrics import NO_FAILURE, Distributions, LiveGauges, Metrics
from tests.conftest import World
from tests.seeing.promql import Names, names

TARGET = {"job", "instance"}
OF_PROMETHEUS = {"up": TARGET, "ALERTS": TARGET | {"alertname", "alertstate", "severity"}}
OUTCOMES = {"completed", "cache_hit", "refused", "failed", "aborted"}
VALUES = {
    ("moma_requests_total", "outcome"): OUTCOMES,
    ("moma_attempts_total", "outcome"): NO_FAILURE | {"connect", "timeout", "status", "broken"},
    ("moma_credits_total", "kind"): {"reserved", "settled", "overage", "expired"},
    ("moma_limit_refusals_total", "kind"): {"rpm", "tpm", "concurrency", "quota", "queue", "queue_timeout"},
    ("moma_queued_calls", "limit"): {"tenant", "backend"},
    ("moma_cache_lookups_total", "result"): {"hit", "miss", "bypass", "coalesced"},
    ("moma_config_reloads_total", "outcome"): {"applied", "unchanged", "refused", "failed"},
}
OPEN = {
    "cache",
    "status",
    "tenant",
    "backend",
    "model",
    "route",
    "gen_ai_response_model",
    "gen_ai_provider_name",
    "alertname",
}


@dataclass
class Said:
    """An expression, where it stands, and the labels that a legend or an annotation shows of it."""

    where: str
    expr: str
    shown: set[str]


def rules(file: str) -> Iterator[dict[str, Any]]:
    for group in yaml.safe_load((PROMETHEUS / file).read_text())["groups"]:
        yield from group["rules"]


ALERTS = list(rules("moma-alerts.yml"))
RECORDS = {rule["record"]: names(rule["expr"]) for rule in rules("moma-records.yml")}


def everything() -> Iterator[Said]:
    for board in BOARDS:
        for panel in board.panels:
            for legend, expr in panel.expressions.items():
                yield Said(f"{board.name}: {panel.title}", expr, set(re.findall(r"{{(\w+)}}", legend)))
        for variable in (JOBS, *board.variables):
            yield Said(f"{board.name}: ${variable.name}", variable.metric, {variable.name})
    for rule in rules("moma-records.yml"):
        yield Said(rule["record"], rule["expr"], set())
    for alert in ALERTS:
        shown = set(re.findall(r"\$labels\.(\w+)", str(alert["annotations"])))
        yield Said(alert["alert"], alert["expr"], shown)


ALL = list(everything())


def declared(registry: CollectorRegistry) -> dict[str, set[str]]:
    """The labels of each name that a scrape may show, whether it has a series already or not."""
    found: dict[str, set[str]] = {}
    for family in registry.collect():
        labels = set(getattr(family, "_labelnames", ())) | {label for s in family.samples for label in s.labels}
        endings = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(family.type, [""])
        for ending in endings:
            found[family.name + ending] = (labels | {"le"} if ending == "_bucket" else labels - {"le"}) | TARGET
    return found


async def known(world: World) -> dict[str, set[str]]:
    exposed = declared(world.app.metrics.registry) | OF_PROMETHEUS
    for record, found in RECORDS.items():  # in the order of the files: each knows those before it
        exposed[record] = kept(found, labels_of(found, exposed))
    return exposed


def labels_of(found: Names, exposed: dict[str, set[str]]) -> set[str]:
    return set().union(*(exposed[selector.metric] for selector in found.selectors if selector.metric in exposed))


def kept(found: Names, labels: set[str]) -> set[str]:
    """What an aggregation leaves of the labels."""
    return labels & found.grouped if found.grouped else labels


async def test_every_metric_exists_with_its_labels(world: World) -> None:
    exposed = await known(world)
    wrong = []
    for said in ALL:
        found = names(said.expr)
        assert found.selectors, said.where
        for selector in found.selectors:
            labels = exposed.get(selector.metric)
            if labels is None:
                wrong.append(f"{said.where}: there is no metric {selector.metric}")
                continue
            wrong += [
                f"{said.where}: {selector.metric} has no label {label}"
                for label, _, _ in selector.matchers
                if label not in labels
            ]
        labels = labels_of(found, exposed)
        wrong += [f"{said.where}: no metric has the label {label}" for label in found.grouped - labels]
        wrong += [
            f"{said.where}: shows {label}, which is aggregated away" for label in said.shown - kept(found, labels)
        ]
    assert wrong == []


def test_every_value_that_is_asked_for_can_occur() -> None:
    bounds = {c._about[0]: {str(float(b)) for b in c.bounds} for c in collectors() if isinstance(c, Distributions)}
    for said in ALL:
        for selector in names(said.expr).selectors:
            for label, operator, value in selector.matchers:
                if "$" in value or value == "" or label in TARGET | OPEN:
                    continue
                if label == "le":
                    assert value in bounds[selector.metric.removesuffix("_bucket")], said.where
                elif selector.metric == "ALERTS":
                    assert value in ("firing", "pending", "page", "ticket"), said.where
                else:
                    asked = set(value.split("|")) if operator in ("=~", "!~") else {value}
                    assert asked <= VALUES[selector.metric, label], said.where


def collectors() -> list[object]:
    return list(Metrics().registry._collector_to_names)


async def test_every_metric_of_ours_is_looked_at(world: World) -> None:
    """What nobody looks at is not worth its memory; these are for ad-hoc questions or by other means."""
    seen = {selector.metric for said in ALL for selector in names(said.expr).selectors}
    families = {re.sub("_(bucket|sum|count|total)$", "", name) for name in declared(world.app.metrics.registry)}
    unseen = {name for name in families if not any(metric.startswith(name) for metric in seen)}
    assert {name for name in unseen if name.startswith(("moma_", "gen_ai_"))} <= set()


def test_what_the_checks_rest_on_is_read_from_the_code() -> None:
    live = LiveGauges(list, list)
    registry = CollectorRegistry()
    registry.register(live)
    assert declared(registry)["moma_breaker_state"] == {"backend", "model"} | TARGET
    assert declared(Metrics().registry)["moma_requests_total"] >= {"route", "model", "backend", "outcome", "status"}
    assert "le" in declared(Metrics().registry)["moma_overhead_seconds_bucket"]


@pytest.mark.parametrize(
    ("expr", "error"),
    [
        ("moma_nothing_total", "no metric"),
        ('moma_cost_total{tenant="x"}', "no label tenant"),
        ("sum by (backend) (moma_cost_total)", "no metric has the label"),
    ],
)
async def test_the_check_finds_what_is_wrong(
    world: World, monkeypatch: pytest.MonkeyPatch, expr: str, error: str
) -> None:
    monkeypatch.setattr("tests.seeing.test_names.ALL", [Said("here", expr, set())])
    with pytest.raises(AssertionError, match=error):
        await test_every_metric_exists_with_its_labels(world)
