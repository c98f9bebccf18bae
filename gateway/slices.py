"""A stream whose hold grows with it: how much of it is paid for, and whether it may go on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from gateway.adapters.adapter import StreamReader

SLICE_TOKENS: Final = 2_048  # of each choice
LEAST_LEFT: Final = 64  # tokens: what is not worth another count of all the text


@dataclass(slots=True)
class Slices:
    """`held` tokens of all choices are paid for, of at most `most`; `extend` holds more of each and says how many.

    State: `held`, from which count on to `_ask`, and what an exact count has taken `_off` the bound.
    """

    extend: Callable[[int], int]
    count: Callable[[str], Awaitable[int]]
    choices: int
    held: int
    most: int
    _ask: int = 0
    _off: int = 0

    async def cover(self, reader: StreamReader) -> bool:
        """Whether what the stream has written so far is paid for, and some more."""
        if self.held >= self.most:  # all that it may write: its backend ends it
            return True
        pieces, bound = reader.written()
        used = bound - self._off
        if used * 4 > self.held * 3 and used >= self._ask:
            self._extend(used)
        if used < self.held or self.held >= self.most or reader.ended:
            return True
        used = max(pieces, await self.count(reader.passed_text()))
        self._off = bound - used
        return self.held - used >= LEAST_LEFT

    def _extend(self, used: int) -> None:
        """Until a quarter of what is held is free. After a refusal it is asked again a little later."""
        while used * 4 > self.held * 3 and self.held < self.most:
            more = self.extend(SLICE_TOKENS)
            if not more:
                self._ask = used + max(LEAST_LEFT, (self.held - used) // 4)
                return
            self.held += more * self.choices
