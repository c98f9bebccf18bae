"""What the commands that read the ledger's file have in common: it is read as it is, beside a gateway that runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from gateway.app import ledger_path
from gateway.cli.reach import NO, WRONG_USE, CommandFailed
from gateway.config.load import ConfigError, load
from gateway.config.model import Config
from gateway.errors import GatewayError

Work = Callable[[argparse.Namespace, Config, str], int]


def add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-c", "--config", type=Path, default=Path("routes.yaml"))
    parser.add_argument("--json", action="store_true")


def reading(args: argparse.Namespace, work: Work) -> int:
    """`work` with the configuration and the path of the ledger that it names; its exit code."""
    try:
        config = load(args.config)
        return work(args, config, ledger_path(config))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return NO
    except CommandFailed as error:
        print(error, file=sys.stderr)
        return error.code
    except GatewayError as error:
        print(error.message, file=sys.stderr)
        return NO if error.status == 404 else WRONG_USE
