"""A dashboard as Grafana's JSON, of one YAML file. Panels flow from left to right: a board is only a list of rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

COLUMNS: Final = 24
DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
JOB: Final = 'job=~"$job"'
KINDS: Final = ("timeseries", "stat", "bargauge", "state-timeline")


@dataclass(frozen=True)
class Panel:
    """`queries` by legend, which may name labels: {{backend}}. `unit` is one of Grafana's.

    `steps` are (from this value on, colour), the first without a value; `values` are (text, colour) by value.
    """

    title: str
    description: str
    unit: str
    queries: Mapping[str, str]
    kind: str = "timeseries"
    width: int = 8
    height: int = 8
    steps: Sequence[tuple[float | None, str]] = ((None, "green"),)
    stacked: bool = False
    least: float | None = 0
    most: float | None = None
    decimals: int | None = None
    values: Mapping[int, tuple[str, str]] | None = None

    def __post_init__(self) -> None:
        assert self.kind in KINDS, self.kind

    @property
    def expressions(self) -> dict[str, str]:
        """`$S` stands for the selector of the job, `$R` for the window of a rate."""
        return {
            legend: expr.replace("$S", JOB).replace("$R", "$__rate_interval") for legend, expr in self.queries.items()
        }


@dataclass(frozen=True)
class Row:
    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True)
class Variable:
    """A choice of the values of a label of that name; all of them at first."""

    name: str
    label: str
    metric: str


@dataclass(frozen=True)
class Board:
    name: str
    title: str
    description: str
    rows: Sequence[Row]
    variables: Sequence[Variable]
    hours: int

    @property
    def panels(self) -> Iterator[Panel]:
        return (panel for row in self.rows for panel in row.panels)


def read(path: Path) -> Board:
    """Raises TypeError for a key that does not exist, or is missing."""
    said = yaml.safe_load(path.read_text(encoding="utf-8"))
    rows = [Row(row["title"], [Panel(**panel) for panel in row["panels"]]) for row in said.pop("rows")]
    variables = [Variable(name, **variable) for name, variable in said.pop("variables", {}).items()]
    return Board(path.stem, rows=rows, variables=variables, **said)


def text(board: Board) -> str:
    """What the file of a board contains."""
    return json.dumps(dashboard(board), indent=1, ensure_ascii=False) + "\n"


def dashboard(board: Board) -> dict[str, Any]:
    return {
        "uid": f"moma-{board.name}",
        "title": f"MoMA / {board.title}",
        "description": board.description,
        "tags": ["moma"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": f"now-{board.hours}h", "to": "now"},
        "timezone": "browser",
        "links": [_other_boards()],
        "annotations": {"list": [_alerts_as_marks()]},
        "templating": {"list": [_datasource(), *(_variable(v) for v in (JOBS, *board.variables))]},
        "panels": list(_panels(board.rows)),
    }


JOBS = Variable("job", "Gateways", "moma_build_info")


def _datasource() -> dict[str, Any]:
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "hide": 0}


def _variable(variable: Variable) -> dict[str, Any]:
    label = variable.label
    where = "" if variable is JOBS else f"{{{JOB}}}"
    return {
        "name": variable.name,
        "label": label,
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": f"label_values({variable.metric}{where}, {variable.name})", "refId": variable.name},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _other_boards() -> dict[str, Any]:
    return {
        "title": "MoMA",
        "type": "dashboards",
        "tags": ["moma"],
        "asDropdown": True,
        "includeVars": True,
        "keepTime": True,
    }


def _alerts_as_marks() -> dict[str, Any]:
    return {
        "name": "Alerts",
        "datasource": DATASOURCE,
        "enable": True,
        "iconColor": "red",
        "expr": f'ALERTS{{alertname=~"Moma.+",alertstate="firing",severity="page",{JOB}}}',
        "titleFormat": "{{alertname}}",
        "textFormat": "{{instance}} {{model}}",
        "step": "60s",
    }


def _panels(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """Rows and panels with their places and ids."""
    y, number = 0, 0
    for row in rows:
        number += 1
        yield {
            "id": number,
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1},
            "panels": [],
        }
        y, x, tallest = y + 1, 0, 0
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                y, x, tallest = y + tallest, 0, 0
            number += 1
            yield _panel(panel, number, {"x": x, "y": y, "w": panel.width, "h": panel.height})
            x, tallest = x + panel.width, max(tallest, panel.height)
        y += tallest


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "gridPos": place,
        "targets": list(_targets(panel)),
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _options(panel),
    }


def _targets(panel: Panel) -> Iterator[dict[str, Any]]:
    at_once = panel.kind in ("stat", "bargauge")
    for letter, (legend, expr) in zip("ABCDEFGH", panel.expressions.items(), strict=False):
        yield {
            "refId": letter,
            "datasource": DATASOURCE,
            "expr": expr,
            "legendFormat": legend,
            "instant": at_once,
            "range": not at_once,
        }


def _defaults(panel: Panel) -> dict[str, Any]:
    steps = [{"value": value, "color": colour} for value, colour in panel.steps]
    out: dict[str, Any] = {
        "unit": panel.unit,
        "thresholds": {"mode": "absolute", "steps": steps},
        "color": {"mode": "palette-classic" if panel.kind == "timeseries" else "thresholds"},
        "noValue": "no data",
    }
    if panel.least is not None:
        out["min"] = panel.least
    if panel.most is not None:
        out["max"] = panel.most
    if panel.decimals is not None:
        out["decimals"] = panel.decimals
    if panel.values:
        options = {str(value): {"text": said, "color": colour} for value, (said, colour) in panel.values.items()}
        out["mappings"] = [{"type": "value", "options": options}]
    if panel.kind == "timeseries":
        out["custom"] = {
            "lineWidth": 1,
            "fillOpacity": 30 if panel.stacked else 8,
            "showPoints": "never",
            "stacking": {"mode": "normal" if panel.stacked else "none"},
            "thresholdsStyle": {"mode": "line" if len(panel.steps) > 1 else "off"},
        }
    return out


def _options(panel: Panel) -> dict[str, Any]:
    last = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    match panel.kind:
        case "timeseries":
            legend = {
                "displayMode": "table",
                "placement": "bottom",
                "showLegend": True,
                "calcs": ["mean", "max", "last"],
            }
            return {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}
        case "stat":
            return {"reduceOptions": last, "colorMode": "value", "graphMode": "none", "textMode": "auto"}
        case "bargauge":
            return {"reduceOptions": last, "displayMode": "basic", "orientation": "horizontal", "showUnfilled": True}
        case _:
            return {"mergeValues": True, "showValue": "never", "legend": {"showLegend": False}}
