"""The gateway as it is, but it kills itself when it comes to a point the Nth time.

python -m tests.chaos.stopping "after a commit" 7 serve -c routes.yaml
"""

from __future__ import annotations

import inspect
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, Final

from gateway.backends.client import HttpClient
from gateway.charging import loading
from gateway.charging.ledger import Ledger
from gateway.charging.store import Store
from gateway.charging.writer import Writer
from gateway.cli import main
from gateway.server import HttpSink

BEFORE, AFTER = "before", "after"
# What is wrapped, and on which side of it the process dies.
POINTS: Final[dict[str, tuple[Any, str, str]]] = {
    "before a hold": (Ledger, "reserve", BEFORE),
    "before dispatch": (Ledger, "dispatched", BEFORE),
    "after dispatch, before a byte is sent": (Ledger, "dispatched", AFTER),
    "when a backend has begun to answer": (HttpClient, "send", AFTER),
    "before the settle": (Ledger, "settle", BEFORE),
    "after the settle, before its commit begins": (Ledger, "settle", AFTER),
    "before a commit": (Store, "write", BEFORE),
    "in a commit, before it is durable": (Store, "_execute", AFTER),
    "after a commit, which nobody has heard of": (Store, "write", AFTER),
    "after a commit, before its answers": (Writer, "_done", BEFORE),
    "in the middle of a stream": (HttpSink, "write", AFTER),
    "before the last byte of a stream": (HttpSink, "finish", BEFORE),
    "after the last byte of a stream": (HttpSink, "finish", AFTER),
    "before the last byte of a body": (HttpSink, "send", BEFORE),
    "after the last byte of a body": (HttpSink, "send", AFTER),
}
AT_START: Final[dict[str, tuple[Any, str, str]]] = {
    "at a start, before what a crash left is closed": (loading, "close_orphans", BEFORE),
    "at a start, before that is durable": (loading, "close_orphans", AFTER),
    "at a start, after it": (Store, "open", AFTER),
}


def stop_at(owner: Any, name: str, side: str, number: int) -> None:
    inner = getattr(owner, name)
    left = iter(range(number - 1, -1, -1))

    def passing(here: str, args: tuple[Any, ...]) -> None:
        if here == side and _counts(args) and next(left, 1) == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, _wrapped(inner, passing))


def _wrapped(inner: Callable[..., Any], passing: Callable[[str, tuple[Any, ...]], None]) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(inner):

        async def waits(*args: Any, **kwargs: Any) -> Any:
            passing(BEFORE, args)
            value = await inner(*args, **kwargs)
            passing(AFTER, args)
            return value

        return waits

    def steps(*args: Any, **kwargs: Any) -> Any:
        passing(BEFORE, args)
        value = inner(*args, **kwargs)
        passing(AFTER, args)
        return value

    return steps


def _counts(args: tuple[Any, ...]) -> bool:
    """Of answers only those to calls: the test asks whether the gateway is ready, too."""
    return not isinstance(args[0], HttpSink) or args[0]._request.path.startswith("/v1/chat")


if __name__ == "__main__":
    stop_at(*(POINTS | AT_START)[sys.argv[1]], int(sys.argv[2]))
    sys.exit(main(sys.argv[3:]))
