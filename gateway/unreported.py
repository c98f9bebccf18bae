"""Usage of an answer whose backend has not said all of it: counted here, from what went in and what came out.

Some say at the beginning of a stream what they have read, and how much of that from a cache: where it ends early, only
what came out is counted.
"""

from __future__ import annotations

from gateway.adapters.usage import usage_of
from gateway.adapters.works import passed_counts
from gateway.call import Call, Usage
from gateway.dispatch import Delivery
from gateway.tokens import Tokenizer


class Unreported:
    """Counts with the one tokenizer there is."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    async def counted(self, call: Call, delivery: Delivery) -> Usage:
        """Of a whole answer, or of one that was ended here."""
        written = await self._tokenizer.count_long(delivery.passed_text())
        return _partly_said(call, delivery, written) or _estimated(
            call, delivery, await self._tokenizer.read(call), written
        )

    def counted_so_far(self, call: Call, delivery: Delivery) -> Usage:
        """Of a call that was cut off, without an await: of long texts an estimate."""
        written = self._tokenizer.count_now(delivery.passed_text())
        return _partly_said(call, delivery, written, "partial") or _estimated(
            call, delivery, self._tokenizer.read_now(call), written, "partial"
        )


def _partly_said(call: Call, delivery: Delivery, written: int, *flags: str) -> Usage | None:
    """By what the backend said of its input. It may have written more than was passed on, such as thoughts."""
    said = None if delivery.reader is None else delivery.reader.said_usage[0]
    if not isinstance(said, dict) or not said.get("prompt_tokens") or delivery.target is None:
        return None
    told = said.get("completion_tokens")
    if type(told) is int and told > written:
        written = told
    usage = usage_of(call, delivery.target.model, {**said, "completion_tokens": written})
    if usage is None or usage.flags:
        return None
    return Usage(usage.quantities, "estimated", ("estimated", *flags))


def _estimated(call: Call, delivery: Delivery, read: int, written: int, *flags: str) -> Usage:
    """Nobody has said what an image comes to: it counts as the most that its model declares."""
    if call.media_parts and delivery.target is not None:
        read += call.media_parts * delivery.target.model.max_image_tokens
    quantities = {"input": read, "output": written, "calls": 1}
    if call.work is not None:
        quantities |= {**call.work.taken, **passed_counts(delivery.reader)}
    return Usage({b: n for b, n in quantities.items() if n}, "estimated", ("estimated", *flags))
