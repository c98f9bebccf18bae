"""What the image shows to others: credits as decimal strings, times as RFC 3339 in UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from gateway.charging import directory
from gateway.charging.image import Image
from gateway.charging.rating import credits_text


def usage(image: Image, tenant: str, now_ms: int) -> dict[str, Any]:
    """The grants the tenant may draw on, its ancestors' among them, and their sums."""
    path = directory.account(image, tenant).path
    image.burn_list(path, now_ms)
    grants = [
        grant
        for name in path
        for grant in image.accounts[name].owned
        if grant.reserved or (grant.live(now_ms) and grant.granted)
    ]
    return {
        "tenant": tenant,
        "available": credits_text(sum(grant.available for grant in grants)),
        "reserved": credits_text(sum(grant.reserved for grant in grants)),
        "spent": credits_text(sum(grant.spent for grant in grants)),
        "grants": [
            {
                "id": grant.id,
                "granted": credits_text(grant.granted),
                "available": credits_text(grant.available),
                "reserved": credits_text(grant.reserved),
                "spent": credits_text(grant.spent),
                "expires_at": None if grant.expires_ms is None else iso(grant.expires_ms),
                "package": grant.source_ref,
            }
            for grant in grants
        ],
    }


def iso(ms: int) -> str:
    return datetime.fromtimestamp(ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
