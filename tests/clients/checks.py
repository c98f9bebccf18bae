"""Runs the checks of one client, in that client's own environment, and prints what was exercised as JSON.

A script gives its checks in groups by what they need: `chat`, `messages` and `responses` are endpoints of the gateway,
`real` is the small model. What is not there is named, not run. The first failure ends the script.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

Checks = Mapping[str, Callable[[], Any]]

URL = os.environ["MOMA_URL"]  # without /v1
BASE_URL = f"{URL}/v1"
KEY = os.environ["MOMA_KEY"]
EMPTY_KEY = os.environ["MOMA_EMPTY_KEY"]
REAL = "smollm2-135m"
ABSENT: dict[str, str] = json.loads(os.environ["MOMA_ABSENT"])  # groups that are not there, and why


def run(version: str, **groups: Checks) -> None:
    passed: list[str] = []
    skipped: dict[str, str] = {}
    for group, checks in groups.items():
        for name, check in checks.items():
            if group in ABSENT:
                skipped[name] = ABSENT[group]
                continue
            print("checking", name, file=sys.stderr, flush=True)
            done = check()
            if inspect.isawaitable(done):
                asyncio.run(awaited(done))
            passed.append(name)
    print(json.dumps({"version": version, "passed": passed, "skipped": skipped}))


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
