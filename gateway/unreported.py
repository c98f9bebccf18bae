"""Usage of an answer whose backend said nothing of it: counted here, from what went in and what came out."""

from __future__ import annotations

from gateway.adapters.works import passed_counts
from gateway.call import Call, Usage
from gateway.dispatch import Delivery
from gateway.tokens import Tokenizer


class Unreported:
    """Counts with the one tokenizer there is."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    async def counted(self, call: Call, delivery: Delivery) -> Usage:
        """Of a whole answer."""
        counts = await self._tokenizer.read(call), await self._tokenizer.count_long(delivery.passed_text())
        return _estimated(call, delivery, *counts)

    def counted_so_far(self, call: Call, delivery: Delivery) -> Usage:
        """Of a call that was cut off, without an await: of long texts an estimate."""
        counts = self._tokenizer.read_now(call), self._tokenizer.count_now(delivery.passed_text())
        return _estimated(call, delivery, *counts, "partial")


def _estimated(call: Call, delivery: Delivery, read: int, written: int, *flags: str) -> Usage:
    """Nobody has said what an image comes to: it counts as the most that its model declares."""
    if call.media_parts and delivery.target is not None:
        read += call.media_parts * delivery.target.model.max_image_tokens
    quantities = {"input": read, "output": written, "calls": 1}
    if call.work is not None:
        quantities |= {**call.work.taken, **passed_counts(delivery.reader)}
    return Usage({b: n for b, n in quantities.items() if n}, "estimated", ("estimated", *flags))
