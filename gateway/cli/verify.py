"""`moma verify`: the ledger recomputed from its records; what differs, by record and field."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from rich.console import Console

from gateway.charging.audit import Findings, verified
from gateway.cli.books import add_common, reading
from gateway.cli.layout import say, table
from gateway.cli.reach import NO
from gateway.config.model import Config

Subparsers = Any  # argparse keeps the type of add_subparsers() private


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser("verify", help="recompute balances, prices and the hash chain from the records")
    add_common(parser)
    parser.set_defaults(func=lambda args: reading(args, _verify))


def _verify(args: argparse.Namespace, config: Config, path: str) -> int:
    with progress("records checked") as seen:
        findings = verified(path, seen)
    if args.json:
        print(json.dumps(asdict(findings), ensure_ascii=False))
    else:
        _show(findings)
    return NO if findings.found else 0


def _show(findings: Findings) -> None:
    if not findings.found:
        right = "prices, balances and the hash chain are" if findings.last_hash else "prices and balances are"
        say(f"{findings.records:,} records: {right} right.")
        say(f"last hash {findings.last_hash or 'none: there is a chain when this version has opened the ledger'}")
        return
    rows = [(each.subject, each.field, each.check, each.says) for each in findings.differences]
    table("", ("what", "field", "check", "finding"), rows)
    more = findings.found - len(findings.differences)
    say(f"\n{findings.found:,} differences in {findings.records:,} records" + (f", {more:,} not shown" if more else ""))


@contextlib.contextmanager
def progress(what: str) -> Iterator[Callable[[int], None]]:
    """For people who wait at a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda number: None
        return
    with console.status(what) as status:
        yield lambda number: status.update(f"{number:,} {what}")
