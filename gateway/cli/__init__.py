"""The command line `moma`: one file per noun. Exit codes: 0 good, 1 the answer is no, 2 wrong use."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Final

from gateway import __version__
from gateway.cli import (
    accounts,
    admin_keys,
    alerts,
    cache,
    check,
    codes,
    diff,
    explain,
    export,
    imports,
    models,
    orders,
    packages,
    probe,
    reconcile,
    reload,
    serve,
    statement,
    subscriptions,
    test,
    verify,
    why,
)
from gateway.cli.reach import NO, WRONG_USE, CommandFailed
from gateway.config.load import ConfigError
from gateway.errors import GatewayError

SIGPIPE_CODE: Final = 128 + 13  # as a shell says it of a program that a broken pipe ends


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="moma", description="MoMA gateway: route, cache, charge.")
    parser.add_argument("--version", action="version", version=f"moma {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    sold = (packages, orders, subscriptions, codes, alerts)
    books = (verify, why, export, reconcile)
    own = (accounts, statement, *sold, admin_keys, cache, *books)
    for noun in (serve, check, diff, explain, test, imports, models, probe, reload, *own):
        noun.add_parser(subparsers)
    args = parser.parse_args(argv)
    try:
        code: int = args.func(args)
        sys.stdout.flush()
    except ConfigError as error:
        print(error, file=sys.stderr)
        return NO
    except CommandFailed as error:
        print(error, file=sys.stderr)
        return error.code
    except GatewayError as error:
        print(error.message, file=sys.stderr)
        return NO if error.status == 404 else WRONG_USE
    except BrokenPipeError:  # who reads our output (`| head`) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor shall the flush at the end complain
        return SIGPIPE_CODE
    return code
