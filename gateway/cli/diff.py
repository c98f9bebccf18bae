"""`moma diff OLD NEW`: what changes for whom, in words. Exits like diff(1): 0 nothing, 1 something, 2 trouble."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from gateway.changes.compare import NEXT_PERIOD, NOW, RESTART, Change, changes
from gateway.config.load import ConfigError, load

Subparsers = Any  # argparse keeps the type of add_subparsers() private
SAME, DIFFERENT, TROUBLE = 0, 1, 2
TITLES = {
    NOW: "For calls that begin after a reload",
    NEXT_PERIOD: "From each tenant's next period",
    RESTART: "After a restart",
}


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser("diff", help="what an edit of routes.yaml changes, and for whom")
    parser.add_argument("old", type=Path, metavar="OLD")
    parser.add_argument("new", type=Path, metavar="NEW")
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    try:
        found = changes(load(args.old), load(args.new))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return TROUBLE
    if args.json:
        print(json.dumps({"same": not found, "changes": [asdict(change) for change in found]}, ensure_ascii=False))
    else:
        _show(found)
    return DIFFERENT if found else SAME


def _show(found: list[Change]) -> None:
    console = Console(highlight=False, markup=False, soft_wrap=True)
    if not found:
        console.print("No difference.")
    for when, title in TITLES.items():
        if of_then := [change for change in found if change.when == when]:
            console.print(Text(title, style="bold"))
            for change in of_then:
                console.print(f"  {change.text}")
