"""The dashboards as files: current, complete, and as Grafana wants them."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from dashboards import BOARDS, GRAFANA
from dashboards.grafana import COLUMNS, Board, text

FILES = {path.name: json.loads(path.read_text()) for path in sorted(GRAFANA.glob("*.json"))}


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_the_file_is_what_the_source_says(board: Board) -> None:
    file = GRAFANA / f"moma-{board.name}.json"
    assert file.read_text(encoding="utf-8") == text(board), "run: python -m dashboards"


def test_no_other_files_lie_about() -> None:
    assert set(FILES) == {f"moma-{board.name}.json" for board in BOARDS}
    assert {"overview", "models", "tenants", "cache", "ledger"} <= {board.name for board in BOARDS}


@pytest.mark.parametrize("name", FILES)
def test_panels_say_what_they_show_and_in_which_unit(name: str) -> None:
    for panel in panels(FILES[name]):
        assert len(panel["description"]) > 10, panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["targets"], panel["title"]
        for target in panel["targets"]:
            assert target["legendFormat"], panel["title"]
            assert target["instant"] != target["range"]
        steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        values = [step["value"] for step in steps]
        assert values[0] is None
        assert values[1:] == sorted(values[1:])


@pytest.mark.parametrize("name", FILES)
def test_the_datasource_is_a_variable_everywhere(name: str) -> None:
    dashboard = FILES[name]
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    found = [holder["datasource"] for holder in nested(dashboard) if "datasource" in holder]
    assert len(found) > len(panels(dashboard))
    assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in found)


def nested(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, dict):
        return [value, *(inner for part in value.values() for inner in nested(part))]
    return [inner for part in value for inner in nested(part)] if isinstance(value, list) else []


@pytest.mark.parametrize("name", FILES)
def test_every_variable_that_is_used_is_declared_and_the_other_way_round(name: str) -> None:
    dashboard = FILES[name]
    declared = {variable["name"] for variable in dashboard["templating"]["list"]} - {"datasource"}
    exprs = "\n".join(target["expr"] for panel in panels(dashboard) for target in panel["targets"])
    used = {word for word in declared | {"job", "backend", "model", "tenant", "route"} if f"${word}" in exprs}
    assert used == declared


@pytest.mark.parametrize("name", FILES)
def test_panels_lie_side_by_side_and_have_ids_of_their_own(name: str) -> None:
    every = FILES[name]["panels"]
    assert len({panel["id"] for panel in every}) == len(every)
    taken: set[tuple[int, int]] = set()
    for panel in every:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= COLUMNS
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.parametrize("name", FILES)
def test_boards_are_few_panels_with_a_link_to_the_others_and_a_sensible_time(name: str) -> None:
    dashboard = FILES[name]
    assert len(panels(dashboard)) <= 18
    assert dashboard["links"][0]["tags"] == ["moma"] == dashboard["tags"]
    assert dashboard["time"]["from"] in ("now-3h", "now-24h")
    assert dashboard["uid"] == name.removesuffix(".json")


def test_provisioning_is_yaml_of_the_first_version() -> None:
    for name, key in (("dashboards.yml", "providers"), ("datasources.yml", "datasources")):
        said = yaml.safe_load((GRAFANA.parent / "provisioning" / name).read_text())
        assert said["apiVersion"] == 1
        assert said[key]
