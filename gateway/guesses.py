"""Guesses at keys, limited by the address that they come from. The right key is heard all the while."""

from __future__ import annotations

from typing import Final

from gateway.clock import Clock
from gateway.config.model import Limits
from gateway.limits import Gates

FAILED_LOGINS: Final = Limits(rpm=10)
MAX_REMOTES: Final = 1024


class Guesses:
    """State: failed logins by address, bounded; beyond that all others are one."""

    def __init__(self, clock: Clock) -> None:
        self._failures = Gates(clock)
        self._remotes: set[str] = set()

    def failed(self, remote: str) -> None:
        """A key was wrong. Raises RateLimited after ten of them in a minute."""
        self._failures.of(self._known(remote), FAILED_LOGINS).admit(0).release(None)

    def _known(self, remote: str) -> str:
        if remote not in self._remotes and len(self._remotes) >= MAX_REMOTES:
            return "others"
        self._remotes.add(remote)
        return remote
