"""`moma reconcile`: records against balances; with a provider's export of usage, records against that."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from gateway.charging.provider import Compared, compared, served, totals
from gateway.charging.reconcile import reconciled
from gateway.charging.usage_file import BadUsageFile, columns, read
from gateway.cli.books import add_common, reading
from gateway.cli.layout import say, table
from gateway.cli.reach import NO, WRONG_USE, CommandFailed
from gateway.config.model import Config

Subparsers = Any  # argparse keeps the type of add_subparsers() private


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser("reconcile", help="records against balances, or against a provider's usage")
    parser.add_argument("--provider", metavar="BACKEND", help="compare with what this backend's provider has counted")
    parser.add_argument("--file", type=Path, metavar="CSV", help="the provider's export of usage")
    parser.add_argument("--map", metavar="NAME=COLUMN,...", help="day, model and buckets, such as input=prompt_tokens")
    add_common(parser)
    parser.set_defaults(func=lambda args: reading(args, _reconcile))


def _reconcile(args: argparse.Namespace, config: Config, path: str) -> int:
    given = [args.provider is not None, args.file is not None, args.map is not None]
    if all(given):
        return _provider(args, config, path)
    if any(given):
        raise CommandFailed("--provider, --file and --map belong together.", WRONG_USE)
    differences = reconciled(path, time.time_ns() // 1_000_000)
    if args.json:
        print(json.dumps({"differences": [asdict(each) for each in differences]}, ensure_ascii=False))
    elif differences:
        rows = [(each.subject, each.field, each.check, each.says) for each in differences]
        table("", ("what", "field", "check", "finding"), rows)
    else:
        say("Records and balances agree, and no hold is older than its deadline.")
    return NO if differences else 0


# -- against a provider -------------------------------------------------------------------------------------------


def _provider(args: argparse.Namespace, config: Config, path: str) -> int:
    backend, zone = args.provider, ZoneInfo(config.timezone)
    known = {*config.backends, *served(path)}
    if backend not in known:
        raise CommandFailed(f"There is no backend {backend!r}. Known: {', '.join(sorted(known))}.", WRONG_USE)
    try:
        of = columns(args.map)
        theirs = read(args.file, of, zone)
    except BadUsageFile as error:
        print(error, file=sys.stderr)
        return WRONG_USE
    except OSError as error:
        raise CommandFailed(f"{args.file} cannot be read: {error.strerror or error}", WRONG_USE) from error
    rows = compared(path, backend, _names(config, backend), theirs, of.buckets, zone)
    unexplained = [row for row in rows if row.unexplained]
    if args.json:
        value = {"backend": backend, "timezone": config.timezone, "rows": [asdict(row) for row in rows]}
        print(json.dumps({**value, "totals": totals(rows), "unexplained": len(unexplained)}, ensure_ascii=False))
    else:
        _show(rows, len(unexplained))
    return NO if unexplained else 0


def _names(config: Config, backend: str) -> Mapping[str, str]:
    """What the backend calls our models."""
    return {
        model.name: via.as_name for model in config.models.values() for via in model.via if via.backend == backend
    }  # fmt: skip


def _show(rows: list[Compared], unexplained: int) -> None:
    headings = ("day", "model", "bucket", "ours", "theirs", "difference", "unexplained", "records not exact")
    differing = [row for row in rows if row.difference or row.unexplained]
    table("", headings, [_cells(row) for row in differing])
    for bucket, sums in totals(rows).items():
        say(f"{bucket}: ours {sums['ours']:,}, theirs {sums['theirs']:,}, difference {sums['difference']:+,}")
    say(f"{len(rows) - len(differing):,} of {len(rows):,} figures are equal, {unexplained:,} are not explained")


def _cells(row: Compared) -> tuple[str, ...]:
    flags = ", ".join(f"{n} {flag}" for flag, n in row.flags.items()) or "none"
    numbers = (f"{row.ours:,}", f"{row.theirs:,}", f"{row.difference:+,}", f"{row.unexplained:+,}")
    return (row.day, row.model, row.bucket, *numbers, flags)
