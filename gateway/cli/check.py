"""`moma check`: what is wrong with routes.yaml, or what was understood of it."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gateway.cli.summary import summary
from gateway.cli.understood import never_asked, understood
from gateway.config.load import ConfigError, load
from gateway.config.secrets import secrets_of

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
    facts = understood(config)
    unset = (f"secret {name} is not set" for name in secrets_of(config).unset)
    warnings = [*config.warnings, *never_asked(facts), *unset]
    if args.json:
        said = {"problems": [], "warnings": warnings, "models": list(config.models), "understood": facts}
        print(json.dumps(said, ensure_ascii=False))
    else:
        summary(facts, warnings)
    return 0
