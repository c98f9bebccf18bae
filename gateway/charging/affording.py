"""What a call may draw on, and the refusal when that is not enough."""

from __future__ import annotations

from gateway.charging import views
from gateway.charging.caps import CREDITS, Meter, text, worded
from gateway.charging.image import Image, Standing
from gateway.charging.rating import Quote
from gateway.errors import AccountNotActive, QuotaExhausted


def active(image: Image, quote: Quote, now_ms: int) -> Standing:
    """Raises NotFound, and AccountNotActive when the operator let no calls in there."""
    found = image.standing(quote.account_path, now_ms)
    if found.barred:
        status = image.accounts[found.barred].status
        raise AccountNotActive(f"{found.barred} is {status}: no calls are taken. Ask who runs this gateway.")
    return found


def standing(image: Image, quote: Quote, now_ms: int) -> Standing:
    """As `active`; and raises QuotaExhausted for who is in debt that nothing repays."""
    if image.debtors:
        for account in [image.accounts[name] for name in quote.account_path if name in image.debtors]:
            image.repay(account, now_ms)
            if account.debt_uc:
                raise exhausted(image, quote, now_ms, f"{account.id} is in debt for an earlier call")
    return active(image, quote, now_ms)


def room_uc(image: Image, quote: Quote, found: Standing, now_ms: int) -> int:
    """What the grants have, and all caps leave, for this call. Raises QuotaExhausted when no call is left."""
    available_uc = 0
    for grant in found.burn:
        available_uc += grant.available
    for meter in found.meters:
        room = meter.room(now_ms)
        if meter.unit == CREDITS:
            if room < available_uc:
                available_uc = room
        elif room < 1:
            raise capped(image, quote, meter, now_ms)
    return available_uc


def refusal(image: Image, quote: Quote, found: Standing, now_ms: int) -> QuotaExhausted:
    """Why the quote's ceiling is not to be had, nor less."""
    most_uc = quote.input_uc + quote.output_uc_per_token * quote.min_tokens
    for meter in found.meters:
        if meter.unit == CREDITS and meter.room(now_ms) < most_uc:
            return capped(image, quote, meter, now_ms)
    return exhausted(image, quote, now_ms, "the token package does not cover this call")


def capped(image: Image, quote: Quote, meter: Meter, now_ms: int) -> QuotaExhausted:
    reset_ms = meter.resets_ms()
    return QuotaExhausted(
        f"You exceeded your current quota: {worded(meter)}.",
        limit=text(meter, meter.limit),
        used=text(meter, meter.used),
        reserved=text(meter, meter.held),
        resets_at=None if reset_ms is None else views.iso(reset_ms),
        scope=meter.account,
    )


def exhausted(image: Image, quote: Quote, now_ms: int, why: str) -> QuotaExhausted:
    return QuotaExhausted(f"You exceeded your current quota: {why}.", **views.quota(image, quote, now_ms))
