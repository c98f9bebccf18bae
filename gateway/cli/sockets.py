"""A listening socket that was opened by somebody else and outlives this process: `--fd`, or systemd's activation."""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from typing import Final

FIRST_FD: Final = 3  # SD_LISTEN_FDS_START of sd_listen_fds(3)
_VARIABLES: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


class NoListener(Exception):
    """What was handed in cannot be listened on."""


def inherited(fd: int | None, environ: MutableMapping[str, str], pid: int) -> socket.socket | None:
    """The socket to listen on; None when there is none and one is to be opened. Raises NoListener.

    The variables are taken out, as no child of ours is meant by them.
    """
    given = {name: environ.pop(name) for name in _VARIABLES if name in environ}
    if fd is None and given.get("LISTEN_PID") == str(pid):
        if given.get("LISTEN_FDS") != "1":
            raise NoListener(f"systemd hands over {given.get('LISTEN_FDS')} sockets; one is wanted (ListenStream=).")
        fd = FIRST_FD
    return None if fd is None else _listener(fd)


def _listener(fd: int) -> socket.socket:
    try:
        os.set_inheritable(fd, False)
        listener = socket.socket(fileno=fd)
    except OSError as error:
        raise NoListener(f"File descriptor {fd} is not an open socket: {os.strerror(error.errno or 0)}.") from error
    stream = listener.family in (socket.AF_INET, socket.AF_INET6) and listener.type == socket.SOCK_STREAM
    if not stream or not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        listener.detach()
        raise NoListener(f"File descriptor {fd} is not a TCP socket that listens.")
    return listener
