"""Runs the checks of one client, in that client's own environment, and prints what was exercised as JSON.

A script gives its checks in groups by what they need: `chat`, `messages` and `responses` are endpoints of the gateway;
`real`, `real_messages` and `real_responses` the small model through them. What is not there is named, not run.
The first failure ends the script.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Checks = Mapping[str, Callable[[], Any]]

URL = os.environ["MOMA_URL"]  # without /v1
BASE_URL = f"{URL}/v1"
KEY = os.environ["MOMA_KEY"]
EMPTY_KEY = os.environ["MOMA_EMPTY_KEY"]
REAL = "smollm2-135m"
PATIENT = {"x-stainless-read-timeout": "60"}  # told of the client's time, the gateway's own answer might come first
ABSENT: dict[str, str] = json.loads(os.environ["MOMA_ABSENT"])  # groups that are not there, and why


@dataclass(frozen=True)
class Outcome:
    """What a check that is many checks found: how many, and which were left out and why."""

    note: str
    left_out: Mapping[str, str] = field(default_factory=dict)


def run(version: str, **groups: Checks) -> None:
    """Does all checks of the groups that are there. A check fails by raising; it may be async."""
    report = {name: absent(ABSENT[name]) if name in ABSENT else done(checks) for name, checks in groups.items()}
    print(json.dumps({"version": version, "groups": report}))


def absent(reason: str) -> dict[str, Any]:
    return {"passed": [], "left_out": {"all": reason}}


def done(checks: Checks) -> dict[str, Any]:
    passed: list[str] = []
    left_out: dict[str, str] = {}
    for name, check in checks.items():
        print("checking", name, file=sys.stderr, flush=True)
        outcome = check()
        if inspect.isawaitable(outcome):
            asyncio.run(awaited(outcome))
        if isinstance(outcome, Outcome):
            left_out.update(outcome.left_out)
        passed.append(f"{name} ({outcome.note})" if isinstance(outcome, Outcome) else name)
    return {"passed": passed, "left_out": left_out}


async def awaited(what: Any) -> Any:
    return await what


def raises(kind: type[BaseException] | tuple[type[BaseException], ...], call: Callable[[], Any]) -> Any:
    """The error that the call raises, which must be of this kind."""
    try:
        done = call()
        if inspect.isawaitable(done):
            asyncio.run(awaited(done))
    except kind as error:
        return error
    raise AssertionError(f"no {kind}")
