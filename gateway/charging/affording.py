"""What a call may draw on, and the refusal when that is not enough."""

from __future__ import annotations

from gateway.charging import views
from gateway.charging.grants import Grant
from gateway.charging.image import Image
from gateway.charging.rating import Quote
from gateway.errors import QuotaExhausted


def burn_list(image: Image, quote: Quote, now_ms: int) -> list[Grant]:
    """In burn order. Raises NotFound, and QuotaExhausted for who is in debt that nothing repays."""
    if image.debtors:
        for name in image.debtors.intersection(quote.account_path):
            account = image.accounts[name]
            image.repay(account, now_ms)
            if account.debt_uc:
                raise exhausted(image, quote, now_ms, f"{name} is in debt for an earlier call")
    return image.burn_list(quote.account_path, now_ms)


def exhausted(image: Image, quote: Quote, now_ms: int, why: str) -> QuotaExhausted:
    return QuotaExhausted(f"You exceeded your current quota: {why}.", **views.quota(image, quote, now_ms))
