"""Rules as promtool sees them, and what whoever is woken up by one finds in the runbook."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from dashboards import PROMETHEUS
from tests.seeing import needs
from tests.seeing.test_names import ALERTS, RECORDS

RUNBOOK = Path(__file__).parents[2] / "docs" / "runbook.md"
NEEDS_PROMTOOL = needs("promtool", "prometheus")
CASES = yaml.safe_load((PROMETHEUS / "moma-alerts.test.yml").read_text())["tests"]
FIRING = re.compile(r'alertname="(\w+)",alertstate="firing"')


def promtool(*arguments: str) -> str:
    done = subprocess.run(["promtool", *arguments], cwd=PROMETHEUS, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@NEEDS_PROMTOOL
def test_promtool_finds_rules_and_configuration_good() -> None:
    said = promtool("check", "rules", "moma-records.yml", "moma-alerts.yml")
    assert f"{len(RECORDS)} rules found" in said
    assert f"{len(ALERTS)} rules found" in said
    promtool("check", "config", "prometheus.yml")


@NEEDS_PROMTOOL
def test_alerts_ring_when_they_should_and_only_then() -> None:
    assert "SUCCESS" in promtool("test", "rules", "moma-alerts.test.yml")


def test_each_alert_has_a_case_that_rings_it() -> None:
    ringing = {
        name
        for case in CASES
        for test in case["promql_expr_test"]
        for sample in test["exp_samples"]
        for name in FIRING.findall(sample["labels"])
    }
    assert ringing == {alert["alert"] for alert in ALERTS}


def test_the_gateway_that_is_well_has_every_metric_that_rings() -> None:
    """Or its silence would say nothing."""
    healthy = CASES[0]
    series = {entry["series"].partition("{")[0] for entry in healthy["input_series"]}
    text = "\n".join(path.read_text() for path in (PROMETHEUS / "moma-records.yml", PROMETHEUS / "moma-alerts.yml"))
    named = set(
        re.findall(r"\b(?:moma|gen_ai|process)_[a-z0-9_]+|\bup\b", re.sub(r"#.*|gen_ai_response_model", "", text))
    )
    assert named - {"moma_", *(f"moma_{word}" for word in ("records", "alerts"))} <= series
    assert all("ALERTS" not in str(test["exp_samples"]) for test in healthy["promql_expr_test"])


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_says_how_bad_it_is_and_where_to_read_on(alert: dict[str, dict[str, str]]) -> None:
    assert alert["labels"]["severity"] in ("page", "ticket")
    assert alert["annotations"].keys() == {"summary", "runbook_url"}
    path, _, anchor = alert["annotations"]["runbook_url"].partition("#")
    assert RUNBOOK.parents[1] / path == RUNBOOK
    assert anchor == str(alert["alert"]).lower()


def entries() -> dict[str, str]:
    """The runbook's text by its headings."""
    parts = re.split(r"^## (.+)$", RUNBOOK.read_text(encoding="utf-8"), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_the_runbook_has_an_entry_for_each_alert_and_for_no_other() -> None:
    assert {name for name in entries() if name.startswith("Moma")} == {alert["alert"] for alert in ALERTS}


@pytest.mark.parametrize("alert", [alert["alert"] for alert in ALERTS])
def test_an_entry_says_what_it_means_what_to_look_at_and_what_to_do(alert: str) -> None:
    entry = entries()[alert]
    for part in ("**Means:**", "**Look at:**", "**Do:**"):
        assert len(entry.split(part)[1].strip()) > 40, part
