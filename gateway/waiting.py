"""Calls that wait for room at a limit: a bounded number, for a bounded time, inside the deadline of each call."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from gateway.config.model import Queue
from gateway.deadline import Deadline
from gateway.errors import AttemptFailed, DeadlineExceeded, NoRoom
from gateway.fair import Share, Waiter
from gateway.limits import BUSY_RETRY_S, Gate, Permit


class Waiting:
    """State: how many wait now. Who finds room at once never comes here, and pays nothing for it."""

    def __init__(self, settings: Queue | None = None) -> None:
        self._settings = settings or Queue()
        self.count = 0

    def follow(self, settings: Queue) -> None:
        """From now on; who waits already goes on as it began."""
        self._settings = settings

    async def room(self, gates: Sequence[Gate], tokens: int, share: Share, deadline: Deadline) -> Permit:
        """The permit of the first of these gates that has room, which may be at once.

        Raises NoRoom: of kind queue when all lines are full, or when their buckets need longer than one may wait; of
        kind queue_timeout when one has waited for as long. Raises DeadlineExceeded, or AttemptFailed of kind shutdown.
        """
        within_s = min(self._settings.wait_s, deadline.left_s)
        waiter = Waiter(share, tokens)
        self.count += 1
        taken = False
        try:
            for gate in gates:
                lacks_s = gate.lacks_s(tokens)
                if waiter.grant is None and (lacks_s == inf or lacks_s <= within_s):
                    gate.join(waiter, self._settings.length)
            if waiter.at:
                with deadline:
                    deadline.expect(self._settings.wait_s)
                    await waiter.woken
            if not isinstance(waiter.grant, Permit):
                raise NoRoom("queue", _retry_s(gates, tokens))
            taken = True
            return waiter.grant
        except AttemptFailed as failure:
            if failure.kind == "shutdown":
                raise
            if failure.kind == "deadline":
                raise DeadlineExceeded(
                    "The deadline passed while the call waited for its turn.", refusal="queue_timeout"
                ) from failure
            raise NoRoom("queue_timeout", _retry_s(gates, tokens)) from failure
        finally:  # no await may stand here: a call that is cancelled leaves its place, or gives back what it just got
            self.count -= 1
            waiter.leave()
            if waiter.grant is not None and not taken:
                waiter.grant.undo()


def _retry_s(gates: Sequence[Gate], tokens: int) -> float:
    """When the first of them may have room for who comes then."""
    return min((gate.retry_s(tokens) for gate in gates), default=BUSY_RETRY_S)
