"""What the image shows to others: credits as decimal strings, times as RFC 3339 in UTC."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from gateway.charging import directory
from gateway.charging.alerts import Alert
from gateway.charging.caps import Meter, text
from gateway.charging.grants import NEVER_MS, Grant, hours_change_ms
from gateway.charging.image import Image, Standing
from gateway.charging.rating import Quote, credits_text, percent_text
from gateway.config.model import Payg

FIRST_MS: Final = -86_400_000  # 1970 began up to a day earlier in the east
LAST_MS: Final = int(datetime(9999, 12, 31, tzinfo=UTC).timestamp() * 1000)  # later than that cannot be shown
ENDED_SHOWN_MS: Final = 40 * 86_400_000  # long enough to compare the list with last month's statement


def usage(image: Image, tenant: str, now_ms: int) -> dict[str, Any]:
    """The grants the tenant may draw on, its ancestors' among them, and their sums.

    In `grants`, in each and in the sums at the top, granted = available + reserved + spent. The sums at the top are
    over all cards; `cards` has those of each. A grant that has ended is in `ended`, for 40 days and as long as a call
    still holds of it: there expired and revoked belong to the sum too. What is paid for afterwards stands apart, in
    `payg`.
    """
    path = directory.account(image, tenant).path
    image.standing(path, now_ms)
    every = [grant for name in path for grant in image.accounts[name].owned]
    owned = [grant for grant in every if grant.payg is None]
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
        "payg": [_shown_purse(grant, grant.payg) for grant in every if grant.payg and grant.live(now_ms)],
        "alerts": [shown_alert(alert) for alert in image.watch.of(grant for grant in every if grant.live(now_ms))],
    }


def quota(image: Image, quote: Quote, now_ms: int) -> dict[str, Any]:
    """What a refusal says of the grants on the path that pay now, and of when there are others."""
    found = image.standing(quote.account_path, now_ms)
    burn, opens_ms = found.burn, hours_change_ms(closed(found), now_ms, image.zone)
    reset_ms = image.next_reset_ms(quote.account_path, now_ms)
    if opens_ms < NEVER_MS:
        reset_ms = opens_ms if reset_ms is None else min(opens_ms, reset_ms)
    return {
        "limit": credits_text(sum(grant.granted for grant in burn)),
        "used": credits_text(sum(grant.spent for grant in burn)),
        "reserved": credits_text(sum(grant.reserved for grant in burn)),
        "resets_at": None if reset_ms is None else iso(reset_ms),
        "scope": quote.tenant,
    }


def closed(found: Standing) -> list[Grant]:
    """The grants that do not pay at this hour."""
    now = {grant.id for grant in found.burn}
    return [grant for grant in found.hourly if grant.id not in now]


def available_uc(image: Image, tenants: Sequence[str], now_ms: int) -> int:
    """From all grants on their paths that are prepaid; one that several of them may draw on counts once."""
    paths = [directory.account(image, tenant).path for tenant in tenants]
    grants = {grant.id: grant for path in paths for grant in image.burn_list(path, now_ms)}
    return sum(grant.available for grant in grants.values() if grant.payg is None)


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


def _shown_purse(grant: Grant, payg: Payg) -> dict[str, Any]:
    """Credits, and `price` (of 1M of them), `cap` and `amount` in the currency."""
    return {
        "id": grant.id,
        "account": grant.account,
        "package": grant.source_ref,
        "price": credits_text(payg.price),
        "cap": credits_text(payg.cap),
        "amount": credits_text(payg.amount(grant.spent)),
        "available": credits_text(grant.available),
        "reserved": credits_text(grant.reserved),
        "spent": credits_text(grant.spent),
        "expires_at": None if grant.expires_ms is None else iso(grant.expires_ms),
    }


def shown_alert(alert: Alert) -> dict[str, Any]:
    """`granted` and `spent` in credits, as they were then; `kind` payg: of what its cap buys."""
    return {
        "id": alert.id,
        "tenant": alert.account,
        "package": alert.source_ref,
        "kind": "payg" if alert.payg else "prepaid",
        "level": percent_text(alert.level),
        "granted": credits_text(alert.granted_uc),
        "spent": credits_text(alert.spent_uc),
        "at": iso(alert.ms),
    }


def iso(ms: int) -> str:
    return datetime.fromtimestamp(ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
