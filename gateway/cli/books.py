"""What the commands that read the ledger's file have in common: it is read as it is, beside a gateway that runs."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from gateway.app import ledger_path
from gateway.config.load import load
from gateway.config.model import Config

Work = Callable[[argparse.Namespace, Config, str], int]


def add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-c", "--config", type=Path, default=Path("routes.yaml"))
    parser.add_argument("--json", action="store_true")


def reading(args: argparse.Namespace, work: Work) -> int:
    """`work` with the configuration and the path of the ledger that it names; its exit code."""
    config = load(args.config)
    return work(args, config, ledger_path(config))
