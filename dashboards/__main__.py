"""`python -m dashboards` writes every board to dashboards/grafana."""

from __future__ import annotations

from dashboards import BOARDS, GRAFANA
from dashboards.grafana import text

if __name__ == "__main__":
    for board in BOARDS:
        (GRAFANA / f"moma-{board.name}.json").write_text(text(board), encoding="utf-8")
