"""`moma import litellm`: another gateway's configuration becomes a routes.yaml, with a report of what did not."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from rich.padding import Padding
from rich.text import Text

from gateway.cli.layout import say
from gateway.config.load import ConfigError, Problem, load
from gateway.importing.litellm import convert
from gateway.importing.report import CHANGED, FILL, LOST, Remark
from gateway.importing.source import Unreadable, read_tree

NO, WRONG_USE = 1, 2
TITLES: Final = {LOST: "Not carried over", CHANGED: "Carried over in another way", FILL: "To be filled in"}
Subparsers = Any  # argparse keeps the type of add_subparsers() private


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser("import", help="make a routes.yaml of another gateway's configuration")
    kinds = parser.add_subparsers(required=True, metavar="KIND")
    parser = kinds.add_parser(
        "litellm",
        help="of the config.yaml of a LiteLLM proxy",
        description="Writes a routes.yaml, and a report of what could not be carried over as it was, by line."
        " Secrets are not copied. Exit codes: 0 `moma check` accepts the result, 1 something is still to be filled in,"
        " 2 a file cannot be read or written.",
    )
    parser.add_argument("config", type=Path, metavar="CONFIG.yaml")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="a new file; default: standard output")
    parser.add_argument(
        "--prices",
        type=Path,
        metavar="FILE",
        help="LiteLLM's model_prices_and_context_window.json, for what is missing",
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    try:
        draft, report = convert(read_tree(args.config), _prices(args.prices))
        text = draft.text()
        problems = _problems(text, args.output or Path("routes.yaml"))
        if args.output is not None:
            _write(args.output, text)
    except Unreadable as error:
        print(error, file=sys.stderr)
        return WRONG_USE
    if args.json:
        said = {
            "routes": text,
            "report": [asdict(r) for r in report.remarks],
            "problems": [asdict(p) for p in problems],
        }
        print(json.dumps(said, ensure_ascii=False))
    else:
        _show(text, args.output, report.remarks, problems)
    return NO if problems else 0


def _prices(path: Path | None) -> Mapping[str, Any]:
    if path is None:
        return {}
    try:
        table = json.loads(path.read_bytes(), parse_float=Decimal)
    except (OSError, ValueError) as error:
        raise Unreadable(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(table, dict):
        raise Unreadable(f"{path} is no table of models.")
    return table


def _problems(text: str, path: Path) -> list[Problem]:
    """What `moma check` says of it, with the name that it will have."""
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "routes.yaml"
        written.write_text(text, encoding="utf-8")
        try:
            load(written)
        except ConfigError as error:
            return [Problem(str(path), p.line, p.key_path, p.message, p.suggestion) for p in error.problems]
    return []


def _write(path: Path, text: str) -> None:
    """Never over a file that somebody may have edited."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise Unreadable(f"{path} cannot be written: {error.strerror}.") from error


def _show(text: str, output: Path | None, remarks: Sequence[Remark], problems: Sequence[Problem]) -> None:
    """Without a file the YAML goes to standard output, alone."""
    if output is None:
        print(text, end="")
    stderr = output is None
    for kind in (LOST, CHANGED, FILL):
        found = [remark for remark in remarks if remark.kind == kind]
        if found:
            say(Text(f"\n{TITLES[kind]}", style="bold"), stderr=stderr)
        for remark in sorted(found, key=lambda remark: (remark.file, remark.line)):
            say(Text.assemble((f"{remark.file}:{remark.line} ", "dim"), remark.key_path), stderr=stderr)
            todo = f": {remark.todo}." if remark.todo else "."
            say(Padding(Text(f"{remark.what}{todo}"), (0, 0, 0, 4)), least=1, stderr=stderr)
    say("", stderr=stderr)
    written = f"{output} is written" if output is not None else "routes.yaml stands above"
    if not problems:
        say(Text(f"{written}; moma check accepts it."), stderr=stderr)
        return
    say(Text(f"{written}; moma check does not accept it yet:", style="yellow"), stderr=stderr)
    for problem in problems:
        say(Text(str(problem)), stderr=stderr)
