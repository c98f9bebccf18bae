"""`moma export FOLDER`: charge records as closed files with manifests."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gateway.charging.export import EVERY, FORMATS, Exported, ExportRefused, export
from gateway.cli.books import add_common, reading
from gateway.cli.layout import say
from gateway.cli.reach import NO, WRONG_USE
from gateway.cli.verify import progress
from gateway.config.model import Config

Subparsers = Any  # argparse keeps the type of add_subparsers() private


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser("export", help="charge records as files that never change, with manifests")
    parser.add_argument("folder", metavar="FOLDER", type=Path)
    parser.add_argument("--format", choices=FORMATS, default=FORMATS[0], help="default: %(default)s")
    parser.add_argument("--every", type=_count, default=EVERY, metavar="N", help="records a file, default: %(default)s")
    parser.add_argument("--all", action="store_true", help="also close the last file, which is not full yet")
    add_common(parser)
    parser.set_defaults(func=lambda args: reading(args, _export))


def _export(args: argparse.Namespace, config: Config, path: str) -> int:
    try:
        with progress("records exported") as seen:
            done = export(path, args.folder, args.format, args.every, whole=args.all, seen=seen)
    except ExportRefused as error:
        print(error, file=sys.stderr)
        return NO
    except OSError as error:
        print(f"cannot write to {args.folder}: {error.strerror or error}", file=sys.stderr)
        return WRONG_USE
    print(json.dumps(asdict(done))) if args.json else _show(done)
    return 0


def _show(done: Exported) -> None:
    for manifest in done.files:
        say(f"{manifest.file}  sha256 {manifest.sha256}")
    if not done.files:
        say("no new file")
    if done.waiting:
        span = f"{done.last + 1:,} to {done.last + done.waiting:,}"
        say(f"records {span} wait until their file is full; --all closes it now")


def _count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 10**9:
        raise argparse.ArgumentTypeError("a file has 1 to 10^9 records")
    return number
