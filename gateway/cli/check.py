"""`moma check`: what is wrong with routes.yaml, or what was understood of it."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from gateway.config.load import ConfigError, load, unset_secrets
from gateway.config.model import Config

Subparsers = Any  # argparse keeps the type of add_subparsers() private


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser("check", help="check routes.yaml")
    parser.add_argument("-c", "--config", type=Path, default=Path("routes.yaml"))
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    try:
        config = load(args.config)
    except ConfigError as error:
        print(json.dumps({"problems": [asdict(p) for p in error.problems]}) if args.json else error)
        return 1
    warnings = [*config.warnings, *(f"secret {name} is not set" for name in unset_secrets(config))]
    if args.json:
        print(json.dumps({"problems": [], "warnings": warnings, "models": list(config.models)}))
    else:
        _summary(config, warnings)
    return 0


def _summary(config: Config, warnings: list[str]) -> None:
    console = Console()
    table = Table("model", "via", "context", "input", "output", title=f"prices in {config.currency} per 1M tokens")
    for model in config.models.values():
        via = ", ".join(v.backend for v in model.via)
        prices = (f"{model.price[bucket] / 1_000_000:g}" for bucket in ("input", "output"))
        table.add_row(model.name, via, str(model.context), *prices)
    console.print(table)
    for route in config.routes.values():
        console.print(f"route {route.name}: {route.policy} over {', '.join(route.pick)}", highlight=False)
    for tenant in config.tenants.values():
        console.print(f"tenant {tenant.name}: plan {tenant.plan}", highlight=False)
    for warning in warnings:
        console.print(f"[yellow]warning[/] {warning}", highlight=False)
