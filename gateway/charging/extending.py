"""Sliced holds: a long stream holds a first slice of its output, and more as it goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gateway.charging.affording import afforded, standing
from gateway.charging.caps import CREDITS, Meter
from gateway.charging.image import Image
from gateway.charging.metering import mark_more
from gateway.charging.offers import STANDARD, Offer
from gateway.charging.records import Hold
from gateway.charging.splitting import is_purse
from gateway.errors import AccountNotActive, NotFound, QuotaExhausted


def extend(image: Image, charge_id: str, tokens: int, now_ms: int) -> int:
    """Hold so many more output tokens of each choice; returns how many were to be had, 0 for a refusal.

    They come out of what a new call could spend now, by the same rules; no more than was asked for at the reserve.
    """
    hold = image.holds.get(charge_id)
    if hold is None or hold.held_tokens is None or hold.max_tokens is None:
        return 0
    left = hold.max_tokens - hold.held_tokens
    more = min(left, _paid(hold) - hold.held_tokens)
    if more <= 0:
        added = _more(image, hold, min(tokens, left), now_ms) if left > 0 else None
        if added is None or not added.max_tokens:
            return 0
        _add(image, hold, added)
        more = added.max_tokens
    hold.held_tokens += more
    return more


def _paid(hold: Hold) -> int:
    """Output of each choice that is paid for: what was held for the dearest target pays more of a cheaper one."""
    if hold.covered is not None:
        return 0  # held as it is paid, by units
    uc = _output_uc(hold) * hold.quote.choices
    return (hold.reserved_uc - hold.quote.input_uc) // uc if uc else hold.max_tokens or 0


def _output_uc(hold: Hold) -> int:
    """The most that a token takes of the target that answers: nobody else will once the client has seen a byte."""
    served = _served(hold)
    return served[0].dearest[STANDARD].output if served else hold.quote.output_uc_per_token // hold.quote.choices


def _served(hold: Hold) -> list[Offer]:
    return [offer for offer in hold.quote.offers if (offer.model, offer.backend) == (hold.model, hold.backend)]


def _more(image: Image, hold: Hold, tokens: int, now_ms: int) -> Hold | None:
    """The output alone."""
    quote = replace(
        hold.quote, input_uc=0, input_tokens=0, output_uc_per_token=_output_uc(hold) * hold.quote.choices,
        max_tokens=tokens, slice_tokens=0, offers=_offers(hold),
    )  # fmt: skip
    try:
        found = replace(standing(image, quote, now_ms), meters=_meters(hold, now_ms))
        return afforded(image, quote, found, now_ms, clamp=True)
    except (QuotaExhausted, AccountNotActive, NotFound):
        return None


def _offers(hold: Hold) -> Sequence[Offer]:
    """None for a hold of the card standard alone: it is paid by that."""
    if hold.covered is None:
        return ()
    return [
        replace(offer, rates={card: {**rates, "calls": 0} for card, rates in offer.rates.items()})
        for offer in _served(hold)
    ]  # the first slice has paid for the call itself


def _meters(hold: Hold, now_ms: int) -> list[Meter]:
    """Caps in whose window the call counts. It is one call already, so caps of calls have nothing to say."""
    counting = (meter for meter, slot, _ in hold.marks if slot.start_ms <= now_ms < slot.end_ms)
    return [meter for meter in counting if meter.unit == CREDITS and meter.kept]


def _add(image: Image, hold: Hold, more: Hold) -> None:
    """A grant stands once among the parts: what it pays is reckoned against all that is held of it.

    Purses stay the last of them, also where something prepaid has come back since.
    """
    parts = {grant.id: (grant, uc) for grant, uc in hold.parts}
    for grant, uc in more.parts:
        grant.available -= uc
        grant.reserved += uc
        parts[grant.id] = (grant, uc + (parts[grant.id][1] if grant.id in parts else 0))
    hold.parts = sorted(parts.values(), key=is_purse)
    hold.reserved_uc += more.reserved_uc
    if hold.marks:
        mark_more(hold, more.reserved_uc)
    if hold.stored:
        image.changes.holds[hold.charge_id] = hold  # with the next commit: nothing waits for it
