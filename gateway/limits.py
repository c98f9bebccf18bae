"""Rate and concurrency permits: rpm and tpm are token buckets that start full, concurrency is a count."""

from __future__ import annotations

import copy
from collections.abc import Callable, Container
from math import inf
from typing import Final

from gateway.clock import Clock, Timer
from gateway.config.model import Limits
from gateway.errors import RateLimited
from gateway.fair import Line, Waiter

_MINUTE_S = 60.0
_ROUNDING = 1e-6  # of a unit: sums of times that a timer has waited for come out a hair too short
BUSY_RETRY_S: Final = 1.0  # when a place is free again nobody can tell before one was
LONGEST_RETRY_S: Final = 60.0


class Bucket:
    """`capacity` units refilled evenly over a minute, by the monotonic clock."""

    __slots__ = ("_at", "capacity", "level", "shown")

    def __init__(self, capacity: int, now: float) -> None:
        self.capacity = capacity
        self.shown = str(capacity)
        self.level = float(capacity)
        self._at = now

    @property
    def left(self) -> int:
        return int(self.level) if self.level > 0 else 0  # tpm goes below when a call used more than was thought

    def refill(self, now: float) -> None:
        """Never lowers the level: a clock that went back gives nothing until it has caught up."""
        if now > self._at:
            level = self.level + (now - self._at) * self.capacity / _MINUTE_S
            self.level = level if level < self.capacity else self.capacity
            self._at = now

    def resize(self, capacity: int) -> None:
        """As full as before."""
        self.level *= capacity / self.capacity
        self.capacity = capacity
        self.shown = str(capacity)

    def wait_s(self, amount: float) -> float:
        """How long until `amount` is there; more than a full bucket waits for a full one."""
        lacking = min(amount, self.capacity) - self.level
        return lacking * _MINUTE_S / self.capacity if lacking > _ROUNDING else 0.0

    def reset_s(self) -> float:
        return (self.capacity - self.level) * _MINUTE_S / self.capacity


class Permit:
    """The right to proceed. `release` and `undo` are synchronous; the first of them counts."""

    __slots__ = ("_gate", "_tokens")

    def __init__(self, gate: Gate, tokens: int) -> None:
        self._gate: Gate | None = gate
        self._tokens = tokens

    def release(self, actual_tokens: int | None) -> None:
        """Gives the place back; tpm is corrected by what was used (None: as estimated)."""
        gate, self._gate = self._gate, None
        if gate is None:
            return
        gate.in_flight -= 1
        if gate.tpm is not None and actual_tokens is not None:
            gate.tpm.level = min(gate.tpm.capacity, gate.tpm.level + self._tokens - actual_tokens)
        if gate.line is not None:
            gate.serve()

    def undo(self) -> None:
        """As if it had never been: nothing was done with it."""
        if self._gate is not None and self._gate.rpm is not None:
            self._gate.rpm.level = min(self._gate.rpm.capacity, self._gate.rpm.level + 1.0)
        self.release(0)

    @property
    def gate(self) -> Gate | None:
        """Whose it is; None: given back."""
        return self._gate


class Gate:
    """The limits of one tenant, key or backend.

    State: the two buckets, `in_flight`, the line of those who wait (None while nobody does), and the timer that is set
    when the first of them waits for a bucket.
    """

    __slots__ = ("_clock", "_timer", "concurrency", "in_flight", "limits", "line", "rpm", "tpm")

    def __init__(self, limits: Limits, clock: Clock) -> None:
        self._clock = clock
        now = clock.now()
        self.limits = limits
        self.rpm = _resized(None, limits.rpm, now)
        self.tpm = _resized(None, limits.tpm, now)
        self.concurrency = limits.concurrency
        self.in_flight = 0
        self.line: Line | None = None
        self._timer: Timer | None = None

    def change(self, limits: Limits) -> None:
        """After an edit. Calls in flight go on counting, and a bucket stays as full as it was."""
        now = self._clock.now()
        self.limits = limits
        self.rpm = _resized(self.rpm, limits.rpm, now)
        self.tpm = _resized(self.tpm, limits.tpm, now)
        self.concurrency = limits.concurrency
        self.serve()

    def take(self, tokens: int) -> Permit | None:
        """All limits in one synchronous step: nothing is taken unless everything is, and nobody overtakes a line."""
        if self.line is not None or self.lacks_s(tokens):
            return None
        return self._grant(tokens)

    def admit(self, tokens: int) -> Permit:
        """For who does not wait. Raises RateLimited."""
        permit = self.take(tokens)
        if permit is None:
            raise self.refusal(tokens)
        return permit

    def lacks_s(self, tokens: int) -> float:
        """How long until there is room: 0 when there is, inf when a call has to end first."""
        concurrency, rpm, tpm = self.concurrency, self.rpm, self.tpm
        if concurrency is not None and self.in_flight >= concurrency:
            return inf
        if rpm is None and tpm is None:
            return 0.0
        now, wait_s = self._clock.now(), 0.0
        if rpm is not None:
            rpm.refill(now)
            if rpm.level < 1.0:
                wait_s = rpm.wait_s(1.0)
        if tpm is not None:
            tpm.refill(now)
            if tpm.level < tokens:
                wait_s = max(wait_s, tpm.wait_s(tokens))
        return wait_s

    def _grant(self, tokens: int) -> Permit:
        if self.rpm is not None:
            self.rpm.level -= 1.0
        if self.tpm is not None:
            self.tpm.level -= tokens
        self.in_flight += 1
        return Permit(self, tokens)

    # -- what a call hears -------------------------------------------------------------------------------------------

    def aside(self) -> Gate:
        """The same state in a gate of its own: what is admitted there takes nothing here."""
        gate = copy.copy(self)
        gate.rpm, gate.tpm = copy.copy(self.rpm), copy.copy(self.tpm)
        return gate

    def over_rate(self, tokens: int) -> RateLimited | None:
        """What the buckets lack: only time helps, so that a tenant hears of it at once."""
        now = self._clock.now()
        for kind, bucket, amount in (("rpm", self.rpm, 1), ("tpm", self.tpm, tokens)):
            if bucket is None:
                continue
            bucket.refill(now)
            if bucket.level < amount and (wait_s := bucket.wait_s(amount)):
                return RateLimited(
                    f"The limit of {bucket.capacity} {kind} is used up. Retry in {wait_s:.1f} s.",
                    kind=kind,
                    retry_after_s=wait_s,
                    limits=self.headers(),
                )
        return None

    def refusal(self, tokens: int) -> RateLimited:
        return self.over_rate(tokens) or self.busy("concurrency", tokens)

    def busy(self, kind: str, tokens: int) -> RateLimited:
        waited = " and the queue has not moved on in time" if kind == "queue_timeout" else ""
        return RateLimited(
            f"{self.in_flight} calls are in flight, the limit is {self.concurrency}{waited}. Retry when one has ended.",
            kind=kind,
            retry_after_s=self.retry_s(tokens),
            limits=self.headers(),
        )

    def retry_s(self, tokens: int) -> float:
        """When who has found no place should come again: when those that wait now will have been served."""
        lacks_s = self.lacks_s(tokens)
        if lacks_s != inf:
            return lacks_s
        wait_s = None if self.line is None else self.line.empty_in_s(self._clock.now())
        return BUSY_RETRY_S if wait_s is None else min(wait_s, LONGEST_RETRY_S)

    def headers(self, other: Gate | None = None) -> dict[str, str]:
        """x-ratelimit-* in OpenAI's format, only for the limits that exist; of two gates the one with less left."""
        out: dict[str, str] = {}
        rpm, tpm = self.rpm, self.tpm
        if other is not None:
            rpm, tpm = _scarcer(rpm, other.rpm), _scarcer(tpm, other.tpm)
        if rpm is None and tpm is None:
            return out
        now = self._clock.now()
        if rpm is not None:
            rpm.refill(now)
            out["x-ratelimit-limit-requests"] = rpm.shown
            out["x-ratelimit-remaining-requests"] = str(rpm.left)
            out["x-ratelimit-reset-requests"] = duration(rpm.reset_s())
        if tpm is not None:
            tpm.refill(now)
            out["x-ratelimit-limit-tokens"] = tpm.shown
            out["x-ratelimit-remaining-tokens"] = str(tpm.left)
            out["x-ratelimit-reset-tokens"] = duration(tpm.reset_s())
        return out

    # -- the line ----------------------------------------------------------------------------------------------------

    def join(self, waiter: Waiter, length: int) -> None:
        """At the end of its tenant's calls; where there is no place left it may push out another."""
        if self.line is None:
            self.line = Line(length, self._clock.now())
        out = self.line.join(waiter)
        if out is not waiter:
            waiter.at[self] = None
            if out is not None:
                out.pushed_out(self)
        if not self._ended():
            self.serve()

    def leave(self, waiter: Waiter) -> None:
        """Called by the waiter, once."""
        assert self.line is not None
        self.line.leave(waiter)
        if not self._ended() and self._timer is not None:
            self._set_timer(0.0)  # it may have been the first, and the next may lack less

    def serve(self) -> None:
        """Lets in the first of the line, and the next, as long as there is room."""
        while self.line is not None:
            waiter = self.line.first()
            wait_s = self.lacks_s(waiter.tokens)
            if wait_s:
                self._set_timer(wait_s)
                return
            permit = self._grant(waiter.tokens)
            del waiter.at[self]
            self.line.served(waiter, self._clock.now())
            self._ended()
            waiter.wake(permit)

    def _ended(self) -> bool:
        if self.line is not None and not self.line.size:
            self.line = None
            self._set_timer(inf)
        return self.line is None

    def _set_timer(self, wait_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if wait_s == inf else self._clock.call_at(self._clock.now() + wait_s, self._refilled)

    def _refilled(self) -> None:
        self._timer = None
        self.serve()


class Gates:
    """Gates by name of a tenant, key or backend, made on first use; as many as the configuration or ledger has."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._gates: dict[str, Gate] = {}

    def of(self, name: str, limits: Limits) -> Gate:
        gate = self._gates.get(name)
        if gate is None:
            gate = self._gates[name] = Gate(limits, self._clock)
        elif gate.limits is not limits:  # those of another generation of routes.yaml
            gate.change(limits)
        return gate

    def follow(self, limits_of: Callable[[str], Limits | None]) -> None:
        """Limits that were edited let in who waits there, without a further call having to come."""
        for name, gate in self._gates.items():
            limits = None if gate.line is None else limits_of(name)
            if limits is not None and limits is not gate.limits:
                gate.change(limits)

    def keep(self, names: Container[str]) -> None:
        """Forgets all others that no call is in."""
        self._gates = {name: gate for name, gate in self._gates.items() if name in names or gate.in_flight}

    def aside(self, name: str, limits: Limits) -> Gate:
        """A copy of the gate as it is, or would be made."""
        gate = self._gates.get(name)
        return Gate(limits, self._clock) if gate is None else gate.aside()


def _resized(bucket: Bucket | None, capacity: int | None, now: float) -> Bucket | None:
    if capacity is None or (bucket is not None and bucket.capacity == capacity):
        return bucket if capacity is not None else None
    sized = Bucket(capacity, now)
    if bucket is not None:
        bucket.refill(now)
        sized.level = bucket.level / bucket.capacity * capacity
    return sized


def _scarcer(one: Bucket | None, other: Bucket | None) -> Bucket | None:
    if one is None or other is None:
        return one or other
    return one if one.level <= other.level else other


def duration(seconds: float) -> str:
    """As OpenAI and Go write it, rounded up: 120ms, 1s, 6.25s, 6m0s, 1h2m3s."""
    millis = -int(-seconds * 1000 // 1)
    if millis < 1000:
        return f"{millis}ms" if millis > 0 else "0s"
    minutes, millis = divmod(millis, 60_000)
    text = f"{millis / 1000:g}s"
    if not minutes:
        return text
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{text}" if hours else f"{minutes}m{text}"
