"""Admission of a call by the limits of its key and of its tenant."""

from __future__ import annotations

from gateway.backends.failures import public
from gateway.clock import Clock
from gateway.config.model import Limits
from gateway.deadline import Deadline
from gateway.errors import AttemptFailed, NoRoom, RateLimited
from gateway.limits import Gate, Gates, Permit
from gateway.tenants import Caller
from gateway.waiting import Waiting


class Entry:
    """What one call holds. The limits of its key are None where the key has none of its own; `slow_permit` is of what
    goes on when a package is used up."""

    __slots__ = ("gate", "key_gate", "key_permit", "permit", "slow_permit")

    def __init__(self, gate: Gate, key_gate: Gate | None) -> None:
        self.gate = gate
        self.key_gate = key_gate
        self.permit: Permit | None = None
        self.key_permit: Permit | None = None
        self.slow_permit: Permit | None = None

    def headers(self) -> dict[str, str]:
        """x-ratelimit-*, of the key or of the tenant, whichever has less left."""
        return self.gate.headers(self.key_gate)

    def release(self, used: int | None) -> None:
        """May be called twice. What the tenant's limit refused has taken nothing of the key's."""
        if self.permit is not None:
            self.permit.release(used)
        if self.key_permit is not None:
            if self.permit is None:
                self.key_permit.undo()
            self.key_permit.release(used)
        if self.slow_permit is not None:
            self.slow_permit.release(used)


class Admission:
    """Gates by tenant and by key, and the calls that wait at them."""

    def __init__(self, gates: Gates, waiting: Waiting, clock: Clock) -> None:
        self._gates = gates
        self._waiting = waiting
        self._clock = clock

    def entry(self, caller: Caller) -> Entry:
        gate, limits = self._gates.of(caller.tenant, caller.plan.limits), caller.key_limits
        return Entry(gate, None if limits is None else self._gates.of(caller.key, limits))

    async def admit(self, entry: Entry, caller: Caller, tokens: int, deadline: Deadline) -> float:
        """How long it had to wait, in seconds. Raises RateLimited, DeadlineExceeded or ShuttingDown."""
        waited_s, key_gate = 0.0, entry.key_gate
        if key_gate is not None and (permit := key_gate.take(tokens)) is not None:
            entry.key_permit = permit
        elif key_gate is not None:
            entry.key_permit, waited_s = await self._wait(key_gate, caller, tokens, deadline)
        entry.permit = entry.gate.take(tokens)
        if entry.permit is None:
            entry.permit, more_s = await self._wait(entry.gate, caller, tokens, deadline)
            waited_s += more_s
        return waited_s

    def slow(self, entry: Entry, account: str, limits: Limits, tokens: int) -> None:
        """For a call that no credits of the account cover any more. Raises RateLimited."""
        gate = self._gates.of(slow_name(account), limits)
        entry.slow_permit = gate.take(tokens)
        if entry.slow_permit is None:
            raise slowed(gate, tokens)

    async def _wait(self, gate: Gate, caller: Caller, tokens: int, deadline: Deadline) -> tuple[Permit, float]:
        """A call too many waits for one to end; what exceeds a rate hears so at once."""
        error = gate.over_rate(tokens)
        if error is not None:
            raise error
        began = self._clock.now()
        try:
            permit = await self._waiting.room((gate,), tokens, caller.share, deadline)
        except NoRoom as none:
            raise gate.busy("concurrency" if none.kind == "queue" else none.kind, tokens) from none
        except AttemptFailed as failure:  # we shut down
            raise public(failure) from failure
        return permit, self._clock.now() - began


def slow_name(account: str) -> str:
    """Of the gate for all below the account that no credits cover."""
    return f"throttle:{account}"


def slowed(gate: Gate, tokens: int) -> RateLimited:
    error = gate.refusal(tokens)
    error.message = f"The package is used up, so calls go on slowly. {error.message}"
    return error
