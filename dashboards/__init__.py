"""The Grafana dashboards: boards/*.yml say what is on them, `python -m dashboards` writes grafana/*.json."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from dashboards.grafana import read

_HERE: Final = Path(__file__).parent
GRAFANA: Final = _HERE / "grafana"
PROMETHEUS: Final = _HERE / "prometheus"
BOARDS: Final = [read(path) for path in sorted((_HERE / "boards").glob("*.yml"))]
