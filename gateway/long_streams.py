"""Streams that run long: a hold that grows with them, how far they are, and their end when the package is used up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from gateway.call import Usage
from gateway.charging.ledger import Ledger
from gateway.charging.records import Hold, Progress
from gateway.dispatch import Delivery
from gateway.slices import Slices
from gateway.tokens import Tokenizer

QUOTA_EXHAUSTED: Final = "quota_exhausted"


def sliced(ledger: Ledger, hold: Hold, tokenizer: Tokenizer, grown: Callable[[], None]) -> Slices | None:
    """None for a hold that is whole. `grown` hears of each extension."""
    if hold.held_tokens is None:
        return None

    def extend(tokens: int) -> int:
        more = ledger.extend(hold.charge_id, tokens)
        grown()
        return more

    choices = hold.quote.choices
    return Slices(extend, tokenizer.count_aside, choices, hold.held_tokens * choices, (hold.max_tokens or 0) * choices)


def progress_of(delivery: Delivery, rates: Mapping[str, Mapping[str, int]]) -> Callable[[], Progress | None]:
    """What the stream has used at the least, at these rates by model; None before its first byte.

    What was read is not counted in midway.
    """

    def so_far() -> Progress | None:
        reader, target = delivery.reader, delivery.target
        if reader is None or target is None or not reader.least:
            return None
        return Progress({"output": reader.least, "calls": 1}, rates[target.model.name], target.model.price)

    return so_far


def cut_short(delivery: Delivery, usage: Usage) -> None:
    """The package was used up in mid-stream: what was passed on is charged, and looks like what max_tokens ended."""
    assert delivery.reader is not None
    usage.flags = (*usage.flags, QUOTA_EXHAUSTED)
    delivery.tail = delivery.reader.cut_short(usage, QUOTA_EXHAUSTED) + delivery.reader.tail()
