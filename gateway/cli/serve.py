"""`moma serve`: the gateway until SIGINT or SIGTERM; a second one ends the calls in flight at once."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

import uvloop

from gateway.app import App
from gateway.charging.store import LockHeld
from gateway.config.load import ConfigError, load, unset_secrets
from gateway.config.model import Config
from gateway.errors import StoreUnavailable

Subparsers = Any  # argparse keeps the type of add_subparsers() private


class CannotListen(Exception):
    """The port is taken, or the host is not ours."""


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser("serve", help="start the gateway")
    parser.add_argument("-c", "--config", type=Path, default=Path("routes.yaml"))
    parser.add_argument("--host")
    parser.add_argument("--port", type=_port)
    parser.add_argument("--log-calls", action="store_true", help="one JSON line per call on standard output")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        config = load(args.config)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    for warning in config.warnings:
        logging.getLogger("gateway").warning("%s", warning)
    if unset := unset_secrets(config):
        print("\n".join(f"secret is not set: {name}" for name in unset), file=sys.stderr)
        return 1
    try:
        return uvloop.run(_serve(config, args))
    except (LockHeld, StoreUnavailable) as error:
        print(error, file=sys.stderr)
        return 2
    except CannotListen as error:
        print(f"{error} --port takes another port.", file=sys.stderr)
        return 2


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError("a port is a number from 0 to 65535")
    return port


def _raise_file_limit() -> None:
    """As far as allowed: the usual soft limit of 1,024 is for programs that use select()."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _serve(config: Config, args: argparse.Namespace) -> int:
    app = App(config, log_call=_to_stdout if args.log_calls else None)
    stop = _stop_signals(app)
    _raise_file_limit()
    try:
        await app.start(args.host, args.port)
    except OSError as error:
        host, port = args.host or config.server.host, config.server.port if args.port is None else args.port
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)
        raise CannotListen(f"Cannot listen on {host}:{port}: {why}.") from error
    gc.collect()
    gc.freeze()  # what lives as long as the process need not be walked again
    gc.set_threshold(10_000, 20, 20)  # a call leaves no cycles: the default would look for them every twenty calls
    logging.getLogger("gateway").info("serving on http://%s:%d/v1", args.host or config.server.host, app.port)
    await stop.wait()
    await app.aclose()
    return 0


def _stop_signals(app: App) -> asyncio.Event:
    """Set by the first; the second finds it set."""
    stop = asyncio.Event()

    def stopped() -> None:
        if stop.is_set():
            app.hurry()
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped)
    return stop


def _to_stdout(line: bytes) -> None:
    """A reader that has gone must not fail a call."""
    with contextlib.suppress(OSError):
        os.write(sys.stdout.fileno(), line)
