"""`moma reload`: the running gateway reads its routes.yaml again, and says what has changed or why nothing has."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from gateway.cli.reach import Asked, ask_gateway, own_url
from gateway.config.load import load

Subparsers = Any  # argparse keeps the type of add_subparsers() private


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser("reload", help="have the running gateway read its routes.yaml again")
    parser.add_argument("-c", "--config", type=Path, default=Path("routes.yaml"), help="where its address is looked up")
    parser.add_argument("--url", help="the running gateway, default: server.host and port of routes.yaml")
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    value = ask_gateway(args.url or own_url(load(args.config)), Asked("POST", ("reload",)))
    if args.json:
        print(json.dumps(value, ensure_ascii=False))
    else:
        _show(value)
    return 0


def _show(value: dict[str, Any]) -> None:
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(f"{value['result']}: generation {value['generation']} is in force.")
    for change in value["changes"]:
        console.print(f"  {change['text']}")
    for text in value["after_restart"]:
        console.print(f"not yet: {text}")
    for warning in value["warnings"]:
        console.print(f"warning {warning}")
