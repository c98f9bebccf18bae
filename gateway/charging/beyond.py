"""What becomes of a call that no credits cover, by the packages and plans on its path."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from gateway.charging.grants import Grant, burn_key, in_hours
from gateway.charging.image import Image
from gateway.charging.ledger import Ledger
from gateway.charging.offers import Offer
from gateway.charging.rating import Quote
from gateway.charging.records import Account, Hold
from gateway.charging.splitting import pays
from gateway.config.model import Limits
from gateway.errors import QuotaExhausted


@dataclass(slots=True)
class Throttle:
    """Calls go on for nothing, within `limits`, which are counted for all that are below `account`.

    `grant` is the one that says so, for what it pays for; None: a plan, for everything.
    """

    account: str
    limits: Limits
    grant: Grant | None = None

    def covered(self, offers: Sequence[Offer]) -> frozenset[tuple[str, str]] | None:
        """Model and backend of those that it is for; None: all."""
        if self.grant is None or not self.grant.special:
            return None
        return frozenset((offer.model, offer.backend) for offer in offers if pays(self.grant, offer))


@dataclass(slots=True)
class Beyond:
    """The route to turn to, and how slowly to go on when that costs too much as well."""

    downgrade: str | None = None
    throttle: Throttle | None = None


def beyond(image: Image, quote: Quote, now_ms: int) -> Beyond:
    """What the nearest node says: of its packages the one that is spent first, then its plan."""
    found = Beyond()
    image.standing(quote.account_path, now_ms)
    for name in reversed(quote.account_path):
        for downgrade, throttle in _said(image, image.accounts[name], quote, now_ms):
            found.downgrade = found.downgrade or downgrade
            found.throttle = found.throttle or throttle
    return found


def for_nothing(quote: Quote) -> Quote:
    return replace(quote, input_uc=0, output_uc_per_token=0, offers=(), throttled=True)


async def hold_share(ledger: Ledger, charge_id: str, quote: Quote) -> Hold:
    """What a cache takes for a hit; nothing where no credits cover it and calls go on slowly then, as no backend works.

    Raises QuotaExhausted.
    """
    try:
        return await ledger.reserve(charge_id, quote, clamp=False)
    except QuotaExhausted as refusal:
        if refusal.capped or ledger.look(beyond, quote).throttle is None:
            raise
        return await ledger.reserve(charge_id, for_nothing(quote), clamp=False)


def _said(image: Image, account: Account, quote: Quote, now_ms: int) -> Iterator[tuple[str | None, Throttle | None]]:
    said = (grant for grant in account.grants if grant.ending and grant.live(now_ms))
    for grant in sorted(in_hours(said, now_ms, image.zone), key=burn_key):
        if grant.ending and (not grant.special or any(pays(grant, offer) for offer in quote.offers)):
            limits = grant.ending.throttle
            yield grant.ending.downgrade, Throttle(account.id, limits, grant) if limits else None
    plan = image.plans.get(account.plan)
    if plan is not None:
        limits = plan.exhausted.throttle
        yield plan.exhausted.downgrade, Throttle(account.id, limits) if limits else None
