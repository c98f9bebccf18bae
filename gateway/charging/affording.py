"""What a call may draw on, and the refusal when that is not enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from gateway.charging import views
from gateway.charging.caps import CREDITS, Meter, text, worded
from gateway.charging.grants import Grant, hours_of
from gateway.charging.image import Image, Standing
from gateway.charging.rating import Quote
from gateway.charging.records import Hold
from gateway.charging.splitting import spread
from gateway.errors import AccountNotActive, Conflict, QuotaExhausted

UNBOUNDED: Final = 1 << 62
LARGE: Final = 4  # a ceiling beyond a quarter of what there is would keep other calls out: it is held in slices


def known(image: Image, charge_id: str, once: str) -> Conflict:
    """Why what was charged, or given up, before, or is under way, is not charged again."""
    if image.ended(charge_id) is not None:
        return Conflict(f"charge {charge_id} is already closed")
    if once in image.once_open:
        return Conflict("The call with this Idempotency-Key is under way.", retry_after_s=1.0)
    return Conflict("A call with this Idempotency-Key was answered and charged, and its answer is gone.")


def active(image: Image, quote: Quote, now_ms: int) -> Standing:
    """Raises NotFound, and AccountNotActive when the operator let no calls in there."""
    found = image.standing(quote.account_path, now_ms)
    if found.barred:
        status = image.accounts[found.barred].status
        raise AccountNotActive(f"{found.barred} is {status}: no calls are taken. Ask who runs this gateway.")
    return found


def standing(image: Image, quote: Quote, now_ms: int) -> Standing:
    """As `active`; and raises QuotaExhausted for who is in debt that nothing repays."""
    if image.debtors and not quote.throttled:
        for account in [image.accounts[name] for name in quote.account_path if name in image.debtors]:
            image.repay(account, now_ms)
            if account.debt_uc:
                raise exhausted(image, quote, now_ms, f"{account.id} is in debt for an earlier call")
    found = image.standing(quote.account_path, now_ms)
    return active(image, quote, now_ms) if found.barred else found


def afforded(
    image: Image, quote: Quote, found: Standing, now_ms: int, *, clamp: bool, charge_id: str = "", due: float = 0.0
) -> Hold:
    """A hold of the quote's ceiling, or with `clamp` of as much output as is affordable; it is not opened.

    Raises QuotaExhausted.
    """
    room_uc = _room_uc(image, quote, found, now_ms) if found.meters else UNBOUNDED
    if quote.slice_tokens and _large(quote, found, room_uc):
        first = _first_slice(image, quote, found, now_ms, charge_id, due)
        if first is not None:
            return first
    if found.special and quote.offers:
        whole = spread(found.burn, quote, room_uc, clamp=clamp)
        if whole is None:
            raise refusal(image, quote, found, now_ms)
        hold = Hold(charge_id, quote, whole.max_tokens, whole.total_uc, whole.parts, now_ms, due)
        hold.covered = whole.covered
        return hold
    burn = [grant for grant in found.burn if not grant.special] if found.special else found.burn
    max_tokens = quote.max_tokens
    need_uc = quote.ceiling(max_tokens)
    if burn and 0 < need_uc <= burn[0].available and need_uc <= room_uc:  # as nearly always
        return Hold(charge_id, quote, max_tokens, need_uc, [(burn[0], need_uc)], now_ms, due)
    available_uc = min(room_uc, sum(grant.available for grant in burn))
    if need_uc > available_uc:
        max_tokens = quote.lowered(available_uc) if clamp else 0
        if not max_tokens:
            raise refusal(image, quote, found, now_ms)
        need_uc = quote.ceiling(max_tokens)
    return Hold(charge_id, quote, max_tokens, need_uc, _in_order(burn, need_uc), now_ms, due)


def _large(quote: Quote, found: Standing, room_uc: int) -> bool:
    """Whether the whole ceiling is not to be had, or would leave little for other calls."""
    available_uc = min(room_uc, sum([grant.available for grant in found.burn]))
    if not (found.special and quote.offers):
        return quote.ceiling(quote.max_tokens) * LARGE > available_uc
    whole = spread(found.burn, quote, room_uc, clamp=False)
    return whole is None or whole.total_uc * LARGE > available_uc


def _first_slice(
    image: Image, quote: Quote, found: Standing, now_ms: int, charge_id: str, due: float
) -> Hold | None:  # fmt: skip
    """A hold that grows in mid-stream; None when not even its first slice is to be had."""
    less = replace(quote, max_tokens=quote.slice_tokens, slice_tokens=0)
    try:
        hold = afforded(image, less, found, now_ms, clamp=False, charge_id=charge_id, due=due)
    except QuotaExhausted:
        return None
    hold.quote, hold.held_tokens, hold.max_tokens = quote, hold.max_tokens, quote.max_tokens
    return hold


def _room_uc(image: Image, quote: Quote, found: Standing, now_ms: int) -> int:
    """What all caps leave in credits. Raises QuotaExhausted when no call is left."""
    room_uc = UNBOUNDED
    for meter in found.meters:
        room = meter.room(now_ms)
        if meter.unit == CREDITS:
            room_uc = min(room, room_uc)
        elif room < 1:
            raise capped(image, quote, meter, now_ms)
    return room_uc


def _in_order(burn: Sequence[Grant], need_uc: int) -> list[tuple[Grant, int]]:
    """`need_uc`, which the grants must have, out of the first of them."""
    parts = []
    for grant in burn:
        if need_uc <= 0:
            break
        uc = grant.available
        if uc:
            if uc > need_uc:
                uc = need_uc
            need_uc -= uc
            parts.append((grant, uc))
    return parts


def refusal(image: Image, quote: Quote, found: Standing, now_ms: int) -> QuotaExhausted:
    """Why the quote's ceiling is not to be had, nor less."""
    most_uc = quote.input_uc + quote.output_uc_per_token * quote.min_tokens
    for meter in found.meters:
        if meter.unit == CREDITS and meter.room(now_ms) < most_uc:
            return capped(image, quote, meter, now_ms)
    why = "the token package does not cover this call"
    if hours := hours_of(views.closed(found)):
        why += f" at this hour; some of it pays at {', '.join(hours)}"
    return exhausted(image, quote, now_ms, why)


def capped(image: Image, quote: Quote, meter: Meter, now_ms: int) -> QuotaExhausted:
    reset_ms = meter.resets_ms()
    return QuotaExhausted(
        f"You exceeded your current quota: {worded(meter)}.",
        limit=text(meter, meter.limit),
        used=text(meter, meter.used),
        reserved=text(meter, meter.held),
        resets_at=None if reset_ms is None else views.iso(reset_ms),
        scope=meter.account,
        capped=True,
    )


def exhausted(image: Image, quote: Quote, now_ms: int, why: str) -> QuotaExhausted:
    return QuotaExhausted(f"You exceeded your current quota: {why}.", **views.quota(image, quote, now_ms))
