"""`moma serve`: the gateway until SIGINT or SIGTERM; a second one ends the calls in flight at once. SIGHUP: reload."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import gc
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import uvloop

from gateway.app import App
from gateway.charging.store import LockHeld
from gateway.cli.lines import LineHandler, LineWriter
from gateway.cli.sockets import NoListener, inherited
from gateway.config.load import ConfigError, load
from gateway.config.model import Config
from gateway.config.secrets import secrets_of
from gateway.errors import StoreUnavailable

STDOUT: Final = 1
STDERR: Final = 2
M_MMAP_THRESHOLD: Final = -3  # of malloc.h
LARGE_BLOCK: Final = 128 * 1024
Subparsers = Any  # argparse keeps the type of add_subparsers() private


class CannotListen(Exception):
    """The port is taken, or the host is not ours."""


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser("serve", help="start the gateway")
    parser.add_argument("-c", "--config", type=Path, default=Path("routes.yaml"))
    parser.add_argument("--host")
    parser.add_argument("--port", type=_port)
    parser.add_argument("--fd", type=int, metavar="N", help="take this listening socket, which outlives the process")
    parser.add_argument("--log-calls", action="store_true", help="one JSON line per call on standard output")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    try:
        config = load(args.config)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    if unset := secrets_of(config).unset:
        print("\n".join(f"secret is not set: {name}" for name in unset), file=sys.stderr)
        return 1
    try:
        listener = _listener(args)
    except NoListener as error:
        print(error, file=sys.stderr)
        return 2
    with _log():
        for warning in config.warnings:
            logging.getLogger("gateway").warning("%s", warning)
        try:
            return uvloop.run(_serve(config, args, listener))
        except (LockHeld, StoreUnavailable) as error:
            said = str(error)
        except CannotListen as error:
            said = f"{error} --port takes another port."
    print(said, file=sys.stderr)
    return 2


def _listener(args: argparse.Namespace) -> socket.socket | None:
    listener = inherited(args.fd, os.environ, os.getpid())
    if listener is not None and (args.host is not None or args.port is not None):
        raise NoListener("A socket that is handed in has a host and port already: leave out --host and --port.")
    return listener


@contextlib.contextmanager
def _log() -> Iterator[None]:
    """The log on standard error, beside the event loop: what reads it may stop reading."""
    lines = LineWriter(STDERR, lambda missing: b"WARNING %d lines of this log are missing\n" % missing)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", handlers=[LineHandler(lines)]
    )
    try:
        yield
    finally:
        lines.close()


@contextlib.contextmanager
def _call_log(wanted: bool) -> Iterator[Callable[[bytes], None] | None]:
    if not wanted:
        yield None
        return
    lines = LineWriter(STDOUT, lambda missing: b'{"missing_lines":%d}\n' % missing)
    try:
        yield lines.put
    finally:
        if missing := lines.close():
            logging.getLogger("gateway").warning("%d lines of calls were not written: nobody reads them", missing)


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


def tune_memory() -> None:
    """What lives as long as the process need not be walked again; and a call leaves no cycles: the default would look
    for them every twenty calls.

    A large block goes back to the system when it is freed. glibc would move its threshold up with the first of them,
    and keep the next ones in a heap that grows around what is still in use there.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # not everywhere glibc
        libc.mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK)


async def _serve(config: Config, args: argparse.Namespace, listener: socket.socket | None) -> int:
    _raise_file_limit()
    with _call_log(args.log_calls) as log_call:
        app = App(config, log_call=log_call)
        stop = _signals(app)
        address = listener.getsockname()[0] if listener is not None else None
        try:
            await app.start(args.host, args.port, listener)
        except OSError as error:
            host, port = args.host or config.server.host, config.server.port if args.port is None else args.port
            why = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)
            raise CannotListen(f"Cannot listen on {host}:{port}: {why}.") from error
        tune_memory()
        host = args.host or config.server.host if address is None else address
        logging.getLogger("gateway").info("serving on http://%s:%d/v1", host, app.port)
        await stop.wait()
        await app.aclose()
        logging.getLogger("gateway").info("ended")
    return 0


def _signals(app: App) -> asyncio.Event:
    """Set by the first that ends the gateway; the second finds it set."""
    stop = asyncio.Event()

    def stopped() -> None:
        if stop.is_set():
            app.hurry()
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, app.reload_soon)
    return stop
