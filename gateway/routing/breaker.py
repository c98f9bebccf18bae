"""Breaker: a target that fails, or that others have reason to doubt, is left alone, tried by one call at a time, and
taken back slowly."""

from __future__ import annotations

from typing import Final

from gateway.config.model import Breaker as Settings

FAILURES_IN_A_ROW: Final = 5  # opens without a look at the rate: nobody waits for min_requests of a dead target
LONGEST_COOLDOWN_S: Final = 300.0
SLOW_START_S: Final = 10.0  # caches are cold and connections few: the full load at once may break it again
LEAST_SHARE: Final = 0.1  # of its calls, right after recovery

CLOSED, HALF_OPEN, OPEN = 0, 1, 2  # as moma_breaker_state shows them
ERRORS, SILENT, SLOW, CHECK = "errors", "silent", "slow", "check"  # why it is open


class Breaker:
    """closed -(errors)-> open -(cooldown)-> half-open -(the probe answers)-> closed, or -(fails)-> open, for longer.

    The window is two halves, of which the older is dropped whole: it covers between half of it and all.
    An attempt that began before the last change says nothing of the time after it.

    State: `_until` (end of the cooldown; None: closed), `cause` (why it is open; "" when it is not), `since` (the last
    change), `_openings` in a row, `_ejections` of late, whether a probe is under way, `recovered_at`, failures in a
    row, and attempts and errors of both halves of the window.
    """

    __slots__ = (
        "_calls", "_calls_before", "_ejections", "_errors", "_errors_before", "_half_ends", "_in_a_row", "_openings",
        "_probing", "_settings", "_until", "cause", "recovered_at", "since",
    )  # fmt: skip

    def __init__(self, settings: Settings, since: float = float("-inf")) -> None:
        """Attempts that began before `since` say nothing of the target."""
        self._settings = settings
        self._until: float | None = None
        self.cause = ""
        self.since = since
        self._openings = self._ejections = 0
        self._probing = False
        self.recovered_at: float | None = None
        self._half_ends = float("-inf")
        self._in_a_row = 0
        self._calls, self._calls_before = 0, 0
        self._errors, self._errors_before = 0, 0

    def follow(self, settings: Settings) -> None:
        """Other settings for all that comes; what has been counted stays, and a cooldown under way as well."""
        self._settings = settings

    def state(self, now: float) -> int:
        if self._until is None:
            return CLOSED
        return OPEN if now < self._until else HALF_OPEN

    def available(self, now: float) -> bool:
        return self._until is None or (now >= self._until and not self._probing)

    def back_in_s(self, now: float) -> float:
        return 0.0 if self._until is None else max(0.0, self._until - now)

    def share(self, now: float) -> float:
        """Of the calls that a policy would give it: it grows to 1 after a recovery."""
        if self.recovered_at is None:
            return 1.0
        return min(1.0, max(LEAST_SHARE, (now - self.recovered_at) / SLOW_START_S))

    def began(self, now: float) -> bool:
        """An attempt begins; true when it is the probe, which must be given to `ended`."""
        if self._until is None or now < self._until or self._probing:
            return False
        self._probing = True
        return True

    def ended(self, probe: bool) -> None:
        """However it ended: also a probe that was cancelled gives way to the next."""
        if probe:
            self._probing = False

    def succeeded(self, began: float, now: float) -> bool:
        """True when this closes it. While it is open that may be a call which had no other target.

        What a check found, the next check takes back: a backend that is being drained answers well.
        """
        if began < self.since or (self.cause == CHECK and self.state(now) == OPEN):
            return False
        if self._until is None:
            # Even if it began before the row: failures are quick and answers slow, so that with many calls at once a
            # hundredth of errors would otherwise make a row.
            self._in_a_row = 0
            self._count(now, 0)
            return False
        self.recover(now)
        return True

    def failed(self, began: float, now: float) -> bool:
        """True when this opens it."""
        if began < self.since:
            return False
        if self._until is None:
            self._in_a_row += 1
            self._count(now, 1)
            if self._in_a_row < FAILURES_IN_A_ROW and not self._too_many():
                return False
        elif began < self._until:
            return False  # it was asked because there was no other: no probe
        self._openings += 1
        self._open(now, now + self._cooldown_s(self._openings), self.cause or ERRORS)
        return True

    # -- what others found -------------------------------------------------------------------------------------------

    def eject(self, now: float, cause: str) -> None:
        """Opens it. Who has been ejected within the longest cooldown before is left alone for twice as long."""
        self._ejections = self._ejections + 1 if now - self.since < LONGEST_COOLDOWN_S else 1
        self._open(now, now + self._cooldown_s(self._ejections), cause)

    def hold(self, now: float, until: float) -> None:
        """Open until then, because a check has failed; the next one that fails prolongs it."""
        self._open(now, until if self._until is None else max(until, self._until), CHECK)

    def acquit(self) -> None:
        """It was suspected without reason: closed as if nothing had been."""
        self._until, self.cause, self.since = None, "", float("-inf")

    def recover(self, now: float) -> None:
        """Closed, and to be taken back slowly."""
        self._until, self.cause = None, ""
        self.since = self.recovered_at = now
        self._openings = 0
        self._forget()

    def seen(self, now: float) -> tuple[int, int]:
        """Attempts and errors in the window."""
        if now >= self._half_ends + self._settings.window_s / 2:
            return 0, 0
        return self._calls + self._calls_before, self._errors + self._errors_before

    def _open(self, now: float, until: float, cause: str) -> None:
        self._until, self.cause, self.since = until, cause, now
        self.recovered_at = None

    def _cooldown_s(self, in_a_row: int) -> float:
        cooldown_s = self._settings.cooldown_s
        return max(cooldown_s, min(cooldown_s * 2.0 ** min(in_a_row - 1, 16), LONGEST_COOLDOWN_S))

    def _too_many(self) -> bool:
        calls, errors = self._calls + self._calls_before, self._errors + self._errors_before
        return calls >= self._settings.min_requests and errors >= self._settings.errors * calls

    def _count(self, now: float, errors: int) -> None:
        if now >= self._half_ends:
            half_s = self._settings.window_s / 2
            fresh = now < self._half_ends + half_s
            self._calls_before, self._errors_before = (self._calls, self._errors) if fresh else (0, 0)
            self._calls = self._errors = 0
            self._half_ends = now + half_s
        self._calls += 1
        self._errors += errors

    def _forget(self) -> None:
        self._in_a_row = self._calls = self._errors = self._calls_before = self._errors_before = 0
