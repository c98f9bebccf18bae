"""Child processes of the demo: start, wait until they answer, end."""

from __future__ import annotations

import contextlib
import http.client
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Mapping

HOST = "127.0.0.1"
POLL_S = 0.05
STOP_S = 10.0  # then it is killed
PORTS = range(15_000, 32_000)  # below those that systems give to connections

Child = subprocess.Popen[bytes]


class NotReady(Exception):
    """A child ended, or did not answer in time."""


def start(*module_and_arguments: str, env: Mapping[str, str] | None = None, quiet: bool = False) -> Child:
    """`python -m ...` in a session of its own, so that Ctrl-C reaches only its parent, which ends it in order."""
    output = subprocess.DEVNULL if quiet else None
    return subprocess.Popen(  # noqa: S603 - this interpreter with our own modules
        [sys.executable, "-m", *module_and_arguments],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )


def wait_ready(child: Child, port: int, path: str, within_s: float) -> None:
    """Until GET answers 200; NotReady otherwise."""
    deadline = time.monotonic() + within_s
    while not _answers(port, path):
        if child.poll() is not None:
            raise NotReady(f"the process ended with exit code {child.returncode}")
        if time.monotonic() > deadline:
            raise NotReady(f"no answer from port {port} within {within_s:g} s")
        time.sleep(POLL_S)


def stop(child: Child) -> None:
    if child.poll() is None:
        child.terminate()
    try:
        child.wait(STOP_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def free_port() -> int:
    """One that nobody listens on, and that no connection of a client will be given until somebody does."""
    while True:
        port = secrets.choice(PORTS)
        with contextlib.suppress(OSError), socket.create_server((HOST, port)):
            return port


def _answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
