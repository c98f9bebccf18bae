"""The connections of all clients: how many there may be, who has waited too long, and how they end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Final

from gateway.call import Answer
from gateway.connection import Connection
from gateway.errors import GatewayError
from gateway.request import HttpRequest

SWEEP_S: Final = 1.0
DRAIN_LOOK_S: Final = 0.02
BACKLOG: Final = 4096  # of connections that wait to be accepted; the system's somaxconn bounds it too


class Edge:
    """Listens, with at most `most` connections: a call takes a second one, to a backend, which must not lack files.

    `refuse` makes the answer to what cannot be handled, and counts it.

    State: the connections; `draining`, from when on each ends behind its answer, and until when that is waited for.
    """

    def __init__(
        self, handle: Callable[[HttpRequest], Awaitable[None]], refuse: Callable[[GatewayError], Answer], most: int
    ) -> None:
        self.handle = handle
        self.refuse = refuse
        self.connections: set[Connection] = set()
        self.draining = False
        self._most = most
        self._drain_until = 0.0
        self._loop = asyncio.get_running_loop()
        self._listener: asyncio.Server | None = None

    async def listen(self, host: str, port: int, listener: socket.socket | None = None) -> int:
        """Returns the port, which is chosen when it is 0. A `listener` that was handed in is used instead.

        Raises OSError.
        """
        where: dict[str, Any] = {"host": host, "port": port} if listener is None else {"sock": listener}
        server = await self._loop.create_server(lambda: Connection(self, self._loop), **where, backlog=BACKLOG)
        self._listener = server
        return int(server.sockets[0].getsockname()[1])

    def stop_listening(self) -> None:
        """Closes our end of the socket; it is not shut down, for others may have it too."""
        if self._listener is not None:
            self._listener.close()

    def opened(self, connection: Connection) -> bool:
        """Whether there is room for it: one that waits between two requests makes room, if there is any."""
        if len(self.connections) >= self._most:
            idle = next((other for other in self.connections if other.between_requests), None)
            if idle is None:
                return False
            self.connections.discard(idle)
            idle.close()
        self.connections.add(connection)
        return True

    def closed(self, connection: Connection) -> None:
        self.connections.discard(connection)

    async def drain(self, within_s: float) -> None:
        """Waits until no request is served, but not longer, nor after `hurry`. Who connects is still answered."""
        self.draining = True
        self._drain_until = self._loop.time() + within_s
        for connection in self.connections:
            connection.last_answer()
        while self._loop.time() < self._drain_until:
            if not any(connection.busy for connection in self.connections):
                break
            await asyncio.sleep(DRAIN_LOOK_S)

    def hurry(self) -> None:
        self._drain_until = 0.0

    async def aclose(self, within_s: float) -> None:
        """Listens no longer, and ends all connections, each after the synchronous end of its call."""
        self.stop_listening()
        tasks = [task for connection in list(self.connections) if (task := connection.end()) is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=within_s)

    def sweep(self) -> None:
        """Asked for every SWEEP_S."""
        now = self._loop.time()
        for connection in list(self.connections):
            connection.sweep(now)
