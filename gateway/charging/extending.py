"""Sliced holds: a long stream holds a first slice of its output, and more as it goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gateway.charging.affording import afforded, standing
from gateway.charging.caps import CREDITS, Meter
from gateway.charging.image import Image
from gateway.charging.metering import mark_more
from gateway.charging.offers import Offer
from gateway.charging.records import Hold
from gateway.errors import AccountNotActive, NotFound, QuotaExhausted


def extend(image: Image, charge_id: str, tokens: int, now_ms: int) -> int:
    """Hold so many more output tokens of each choice; returns how many were to be had, 0 for a refusal.

    They come out of what a new call could spend now, by the same rules; no more than was asked for at the reserve.
    """
    hold = image.holds.get(charge_id)
    if hold is None or hold.held_tokens is None or hold.max_tokens is None:
        return 0
    tokens = min(tokens, hold.max_tokens - hold.held_tokens)
    more = _more(image, hold, tokens, now_ms) if tokens > 0 else None
    if more is None or not more.max_tokens:
        return 0
    _add(image, hold, more)
    hold.held_tokens += more.max_tokens
    return more.max_tokens


def _more(image: Image, hold: Hold, tokens: int, now_ms: int) -> Hold | None:
    """The output alone, for the target that answers: nobody else will once the client has seen a byte."""
    quote = replace(
        hold.quote, input_uc=0, input_tokens=0, max_tokens=tokens, slice_tokens=0, offers=_offers(hold)
    )  # fmt: skip
    try:
        found = replace(standing(image, quote, now_ms), meters=_meters(hold))
        return afforded(image, quote, found, now_ms, clamp=True)
    except (QuotaExhausted, AccountNotActive, NotFound):
        return None


def _offers(hold: Hold) -> Sequence[Offer]:
    """None for a hold of the card standard alone: it is paid by that."""
    if hold.covered is None:
        return ()
    served = [offer for offer in hold.quote.offers if (offer.model, offer.backend) == (hold.model, hold.backend)]
    return [
        replace(offer, rates={card: {**rates, "calls": 0} for card, rates in offer.rates.items()}) for offer in served
    ]  # the first slice has paid for the call itself


def _meters(hold: Hold) -> list[Meter]:
    """Caps in whose window the call counts. It is one call already, so caps of calls have nothing to say."""
    return [meter for meter, slot, _ in hold.marks if meter.unit == CREDITS and meter.kept and slot.counts]


def _add(image: Image, hold: Hold, more: Hold) -> None:
    """A grant stands once among the parts: what it pays is reckoned against all that is held of it."""
    parts = {grant.id: (grant, uc) for grant, uc in hold.parts}
    for grant, uc in more.parts:
        grant.available -= uc
        grant.reserved += uc
        parts[grant.id] = (grant, uc + (parts[grant.id][1] if grant.id in parts else 0))
    hold.parts = list(parts.values())
    hold.reserved_uc += more.reserved_uc
    if hold.marks:
        mark_more(hold, more.reserved_uc)
    if hold.stored:
        image.changes.holds[hold.charge_id] = hold  # with the next commit: nothing waits for it
