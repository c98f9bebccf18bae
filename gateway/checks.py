"""Active checks: a GET to each backend that has one in routes.yaml; two bad ones in a row take its targets out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from gateway.backends.client import Client
from gateway.backends.keys import Keys
from gateway.clock import Clock
from gateway.config.model import Backend, Check
from gateway.deadline import Deadlines
from gateway.errors import AttemptFailed
from gateway.routing.health import Health

BAD_IN_A_ROW: Final = 2  # one may be a packet that was lost
NEXT_SPEAKS_S: Final = 1.0  # the next check comes a little late: until then the last one holds


class Checker:
    """The check of one backend, to be asked for each `every_s`. State: how many were bad in a row."""

    def __init__(
        self, backend: Backend, check: Check, client: Client, keys: Keys, health: Health, clock: Clock,
        deadlines: Deadlines,
    ) -> None:  # fmt: skip
        self.backend = backend.name
        self.every_s = check.every_s
        self._backend = backend
        self._check = check
        self._client = client
        self._keys = keys
        self._health = health
        self._clock = clock
        self._deadlines = deadlines
        parts = urlsplit(backend.base_url)
        self._url = f"{parts.scheme}://{parts.netloc}{check.path}"
        self._bad = 0

    async def look(self) -> None:
        good = await self._is_good()
        self._bad = 0 if good else self._bad + 1
        if good or self._bad >= BAD_IN_A_ROW:
            check = self._check
            now = self._clock.now()
            until = now + check.every_s + check.timeout_s + NEXT_SPEAKS_S
            self._health.checked(self.backend, good=good, now=now, until=until)

    async def _is_good(self) -> bool:
        """A status of 2xx, and all of the answer, in time."""
        try:
            with self._deadlines.start(self._check.timeout_s):
                exchange = await self._client.get(self._url, self._headers())
                try:
                    await exchange.read()
                finally:
                    exchange.close()
        except AttemptFailed:
            return False
        return 200 <= exchange.status < 300

    def _headers(self) -> Mapping[str, str]:
        key = self._keys.current()
        return {**self._backend.headers, **({} if key is None else {"authorization": f"Bearer {key[1]}"})}
