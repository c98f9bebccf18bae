"""The command line `moma`: one file per noun. Exit codes: 0 good, 1 the answer is no, 2 wrong use."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from gateway import __version__
from gateway.cli import (
    accounts,
    cache,
    check,
    codes,
    diff,
    explain,
    imports,
    orders,
    packages,
    reload,
    serve,
    subscriptions,
    test,
)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="moma", description="MoMA gateway: route, cache, charge.")
    parser.add_argument("--version", action="version", version=f"moma {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    sold = (packages, orders, subscriptions, codes)
    for noun in (serve, check, diff, explain, test, imports, reload, accounts, *sold, cache):
        noun.add_parser(subparsers)
    args = parser.parse_args(argv)
    code: int = args.func(args)
    return code
