"""Rate and concurrency permits: rpm and tpm are token buckets that start full, concurrency is a count."""

from __future__ import annotations

import copy
from collections.abc import Container

from gateway.clock import Clock
from gateway.config.model import Limits
from gateway.errors import RateLimited

_MINUTE_S = 60.0


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
        return lacking * _MINUTE_S / self.capacity if lacking > 0 else 0.0

    def reset_s(self) -> float:
        return (self.capacity - self.level) * _MINUTE_S / self.capacity


class Permit:
    """The right to proceed. `release` is synchronous and may be called twice."""

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


class Gate:
    """The limits of one tenant or backend. State: `limits`, the two buckets and `in_flight`."""

    __slots__ = ("_clock", "concurrency", "in_flight", "limits", "rpm", "tpm")

    def __init__(self, limits: Limits, clock: Clock) -> None:
        self._clock = clock
        self.rpm: Bucket | None = None
        self.tpm: Bucket | None = None
        self.in_flight = 0
        self.change(limits)

    def change(self, limits: Limits) -> None:
        """Other limits from now on. Buckets stay as full as they are, so that nobody gains by a reload."""
        self.limits = limits
        self.rpm = self._changed(self.rpm, limits.rpm)
        self.tpm = self._changed(self.tpm, limits.tpm)
        self.concurrency = limits.concurrency

    def _changed(self, bucket: Bucket | None, capacity: int | None) -> Bucket | None:
        now = self._clock.now()
        if not capacity:
            return None
        if bucket is None:
            return Bucket(capacity, now)
        if bucket.capacity != capacity:
            bucket.refill(now)
            bucket.resize(capacity)
        return bucket

    def admit(self, tokens: int) -> Permit:
        """All limits in one synchronous step: nothing is taken unless everything is. Raises RateLimited."""
        now = self._clock.now()
        if self.concurrency is not None and self.in_flight >= self.concurrency:
            raise RateLimited(
                f"{self.in_flight} calls are in flight, the limit is {self.concurrency}. Retry when one has ended.",
                kind="concurrency",
                retry_after_s=1.0,
                limits=self.headers(),
            )
        rpm, tpm = self.rpm, self.tpm
        if rpm is not None:
            self._ask("rpm", rpm, 1, now)
        if tpm is not None:
            self._ask("tpm", tpm, tokens, now)
            tpm.level -= tokens
        if rpm is not None:
            rpm.level -= 1.0
        self.in_flight += 1
        return Permit(self, tokens)

    def _ask(self, kind: str, bucket: Bucket, amount: int, now: float) -> None:
        bucket.refill(now)
        if bucket.level < amount and (wait_s := bucket.wait_s(amount)):
            raise RateLimited(
                f"The limit of {bucket.capacity} {kind} is used up. Retry in {wait_s:.1f} s.",
                kind=kind,
                retry_after_s=wait_s,
                limits=self.headers(),
            )

    def aside(self) -> Gate:
        """The same state in a gate of its own: what is admitted there takes nothing here."""
        gate = copy.copy(self)
        gate.rpm, gate.tpm = copy.copy(self.rpm), copy.copy(self.tpm)
        return gate

    def headers(self) -> dict[str, str]:
        """x-ratelimit-* in OpenAI's format, only for the limits that exist."""
        out: dict[str, str] = {}
        now = self._clock.now()
        if (rpm := self.rpm) is not None:
            rpm.refill(now)
            out["x-ratelimit-limit-requests"] = rpm.shown
            out["x-ratelimit-remaining-requests"] = str(rpm.left)
            out["x-ratelimit-reset-requests"] = f"{rpm.reset_s():.3f}s"
        if (tpm := self.tpm) is not None:
            tpm.refill(now)
            out["x-ratelimit-limit-tokens"] = tpm.shown
            out["x-ratelimit-remaining-tokens"] = str(tpm.left)
            out["x-ratelimit-reset-tokens"] = f"{tpm.reset_s():.3f}s"
        return out


class Gates:
    """Gates by tenant or backend name, made on first use; as many as there are names in the configuration or ledger."""

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

    def keep(self, names: Container[str]) -> None:
        """Forgets all others that no call is in."""
        self._gates = {name: gate for name, gate in self._gates.items() if name in names or gate.in_flight}

    def aside(self, name: str, limits: Limits) -> Gate:
        """A copy of the gate as it is, or would be made."""
        gate = self._gates.get(name)
        return Gate(limits, self._clock) if gate is None else gate.aside()
