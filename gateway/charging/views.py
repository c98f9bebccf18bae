"""What the image shows to others: credits as decimal strings, times as RFC 3339 in UTC."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from gateway.charging import directory
from gateway.charging.caps import Meter, text
from gateway.charging.grants import Grant
from gateway.charging.image import Image
from gateway.charging.rating import Quote, credits_text

FIRST_MS: Final = -86_400_000  # 1970 began up to a day earlier in the east
LAST_MS: Final = int(datetime(9999, 12, 31, tzinfo=UTC).timestamp() * 1000)  # later than that cannot be shown
ENDED_SHOWN_MS: Final = 40 * 86_400_000  # long enough to compare the list with last month's statement


def usage(image: Image, tenant: str, now_ms: int) -> dict[str, Any]:
    """The grants the tenant may draw on, its ancestors' among them, and their sums.

    In `grants`, in each and in the sums at the top, granted = available + reserved + spent. The sums at the top are
    over all cards; `cards` has those of each. A grant that has ended is in `ended`, for 40 days and as long as a call
    still holds of it: there expired and revoked belong to the sum too.
    """
    path = directory.account(image, tenant).path
    image.standing(path, now_ms)
    owned = [grant for name in path for grant in image.accounts[name].owned]
    grants = [grant for grant in owned if grant.live(now_ms)]
    ended = [grant for grant in owned if grant.over(now_ms) and (grant.reserved or _recent(grant, now_ms))]
    return {
        "tenant": tenant,
        "available": credits_text(sum(grant.available for grant in grants)),
        "reserved": credits_text(sum(grant.reserved for grant in grants)),
        "spent": credits_text(sum(grant.spent for grant in grants)),
        "cards": _by_card(grants),
        "grants": [_shown(grant) for grant in grants],
        "ended": [
            {**_shown(grant), "expired": credits_text(grant.expired), "revoked": credits_text(grant.revoked)}
            for grant in ended
        ],
        "caps": caps(image.standing(path, now_ms).meters, now_ms),
    }


def quota(image: Image, quote: Quote, now_ms: int) -> dict[str, Any]:
    """What a refusal says of the live grants on the path, and of when there are new ones."""
    burn = image.burn_list(quote.account_path, now_ms)
    reset_ms = image.next_reset_ms(quote.account_path, now_ms)
    return {
        "limit": credits_text(sum(grant.granted for grant in burn)),
        "used": credits_text(sum(grant.spent for grant in burn)),
        "reserved": credits_text(sum(grant.reserved for grant in burn)),
        "resets_at": None if reset_ms is None else iso(reset_ms),
        "scope": quote.tenant,
    }


def available_uc(image: Image, tenants: Sequence[str], now_ms: int) -> int:
    """From all grants on their paths; one that several of them may draw on counts once."""
    paths = [directory.account(image, tenant).path for tenant in tenants]
    return sum({grant.id: grant.available for path in paths for grant in image.burn_list(path, now_ms)}.values())


def caps(meters: Sequence[Meter], now_ms: int) -> list[dict[str, Any]]:
    """Amounts as decimal strings, times as in the rest of the usage; null where nothing is to come back."""
    out = []
    for meter in meters:
        room = meter.room(now_ms)
        resets_ms = meter.resets_ms()
        out.append(
            {
                "account": meter.account,
                "window": meter.window,
                "unit": meter.unit,
                "limit": text(meter, meter.limit),
                "used": text(meter, meter.used),
                "held": text(meter, meter.held),
                "left": text(meter, max(0, room)),
                "resets_at": None if resets_ms is None else iso(resets_ms),
            }
        )
    return out


def _by_card(grants: Sequence[Grant]) -> dict[str, dict[str, str]]:
    """A credit of one card is not worth one of another: these sums are of one each."""
    found: dict[str, dict[str, str]] = {}
    for card in sorted({grant.card for grant in grants}):
        of = [grant for grant in grants if grant.card == card]
        names = ("available", "reserved", "spent")
        found[card] = {name: credits_text(sum(getattr(grant, name) for grant in of)) for name in names}
    return found


def _recent(grant: Grant, now_ms: int) -> bool:
    return grant.expires_ms is not None and now_ms - grant.expires_ms < ENDED_SHOWN_MS


def _shown(grant: Grant) -> dict[str, Any]:
    return {
        "id": grant.id,
        "account": grant.account,
        "granted": credits_text(grant.granted),
        "available": credits_text(grant.available),
        "reserved": credits_text(grant.reserved),
        "spent": credits_text(grant.spent),
        "expires_at": None if grant.expires_ms is None else iso(grant.expires_ms),
        "package": grant.source_ref,
        "card": grant.card,
        "scope": grant.scope.value if grant.scope else None,
    }


def iso(ms: int) -> str:
    return datetime.fromtimestamp(ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
