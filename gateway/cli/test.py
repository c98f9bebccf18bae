"""`moma test`: the expectations of routes.test.yaml against routes.yaml, for a team's CI."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.text import Text

from gateway.cases.load import Case, load_cases
from gateway.cases.run import Outcome, run_case
from gateway.cli.explained import candidates
from gateway.cli.layout import say, table
from gateway.config.load import ConfigError, load
from gateway.config.model import Config
from gateway.tokens import Tokenizer

FAILED, WRONG_USE = 1, 2
Subparsers = Any  # argparse keeps the type of add_subparsers() private


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "test",
        help="check what routes.test.yaml expects of routes.yaml",
        description="Explains each call of a file of cases by routes.yaml alone and compares it with what is expected:"
        " model, backend, route, order, credits, or a refusal. No gateway, ledger or secret is needed."
        " Exit codes: 0 all hold, 1 one does not, 2 a file is missing or wrong.",
    )
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="default: routes.test.yaml beside -c")
    parser.add_argument("-c", "--config", type=Path, default=Path("routes.yaml"), help="default: routes.yaml")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    path = args.file or args.config.with_suffix(".test.yaml")
    try:
        config = load(args.config)
        cases = load_cases(path, config)
    except ConfigError as error:
        if args.json:
            print(json.dumps({"problems": [asdict(problem) for problem in error.problems]}))
        else:
            print(error, file=sys.stderr)
        return WRONG_USE
    outcomes = asyncio.run(_run(cases, config))
    if args.json:
        print(json.dumps(_plain(outcomes), ensure_ascii=False))
    else:
        _show(outcomes)
    return 0 if all(outcome.passed for outcome in outcomes) else FAILED


async def _run(cases: Sequence[Case], config: Config) -> list[Outcome]:
    tokenizer, wall_ms = Tokenizer(), time.time_ns() // 1_000_000
    tokenizer.load()
    return [await run_case(case, config, tokenizer, wall_ms) for case in cases]


def _plain(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """`got` are the explanations of all that chance may make of a call."""
    passed = sum(outcome.passed for outcome in outcomes)
    return {
        "passed": passed,
        "failed": len(outcomes) - passed,
        "cases": [
            {
                "name": outcome.case.name,
                "file": outcome.case.file,
                "line": outcome.case.line,
                "passed": outcome.passed,
                "expected": outcome.case.written,
                "differences": [asdict(difference) for difference in outcome.differences],
                "got": outcome.seen,
            }
            for outcome in outcomes
        ],
    }


def _show(outcomes: Sequence[Outcome]) -> None:
    """A line for each case that holds; of the others what was expected, what happened, and why."""
    for outcome in outcomes:
        if outcome.passed:
            say(Text.assemble(("ok    ", "green"), outcome.case.name))
        else:
            _show_failed(outcome)
    passed = sum(outcome.passed for outcome in outcomes)
    failed = len(outcomes) - passed
    say(Text(f"{passed} passed, {failed} failed", style="bold red" if failed else "bold green"))


def _show_failed(outcome: Outcome) -> None:
    case, value = outcome.case, outcome.seen[0]
    say(Text.assemble(("FAIL  ", "bold red"), case.name, (f"  {case.file}:{case.line}", "dim")))
    rows = [(difference.key, difference.expected, difference.got) for difference in outcome.differences]
    table("", ("", "expected", "got"), rows)
    if value["reason"] is not None:
        table("", ("", ""), [("reason", value["reason"])])
    candidates(value)
    say("")
