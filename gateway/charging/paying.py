"""A charge is paid: by what was held for it, then by what else there is; and booked on its account."""

from __future__ import annotations

from gateway.call import Usage
from gateway.charging.grants import Grant, burn_key, in_hours
from gateway.charging.image import Image
from gateway.charging.records import Hold
from gateway.charging.splitting import is_purse, shares


def pay(image: Image, hold: Hold, charged_uc: int, now_ms: int) -> tuple[dict[str, int], int]:
    """Release the hold and spend: own parts, then other grants. Returns the parts and what nothing paid.

    A purse pays after all that is prepaid: what other calls held while this one began may be there again.
    """
    parts: dict[str, int] = {}
    dirty = image.changes.grants
    left_uc = charged_uc
    for grant, held_uc in hold.parts:
        if left_uc and grant.ending is not None and grant.payg is not None:
            left_uc = _pay_from_others(image, hold, left_uc, parts, now_ms, prepaid=True)
        used_uc = held_uc if held_uc < left_uc else left_uc
        grant.reserved -= held_uc
        grant.available += held_uc - used_uc
        if used_uc:
            grant.spent += used_uc
            left_uc -= used_uc
            parts[grant.id] = used_uc
            dirty[grant.id] = grant
        if used_uc < held_uc and grant.over(now_ms):
            image.expire(grant, now_ms)
    if left_uc:
        left_uc = _pay_from_others(image, hold, left_uc, parts, now_ms)
    return parts, left_uc


def pay_split(
    image: Image, hold: Hold, usage: Usage, served: tuple[str, str], capped: bool, now_ms: int
) -> tuple[dict[str, int], list[dict[str, object]], int]:
    """As `pay`, by units and each grant's own card: the parts, the units of each, and what nothing paid.

    `capped`: only what was held pays, and what it does not reach is forgiven.
    """
    offer = next(one for one in hold.quote.offers if (one.model, one.backend) == served)
    own = []
    for grant, held_uc in hold.parts:
        grant.reserved -= held_uc
        grant.available += held_uc
        own.append((grant, held_uc))
    burn = [] if capped else _payers(image, hold, now_ms)
    every = [*own, *((grant, grant.available) for grant in burn)]
    found = shares(sorted(every, key=is_purse), offer, usage.quantities, capped=capped)
    parts = {}
    for share in found:
        if share.grant is not None and share.uc:
            share.grant.available -= share.uc
            share.grant.spent += share.uc
            parts[share.grant.id] = share.uc
            image.changes.grants[share.grant.id] = share.grant
    for grant, _ in own:
        if grant.over(now_ms):
            image.expire(grant, now_ms)
    unpaid_uc = sum(share.uc for share in found if share.grant is None)
    return parts, [share.value for share in found], unpaid_uc


def _payers(image: Image, hold: Hold, now_ms: int) -> list[Grant]:
    """What may pay beside what was held: hours are judged by the time of the reserve."""
    found = image.standing(hold.quote.account_path, now_ms)
    if not found.hourly:
        return found.burn
    live = {grant.id: grant for grant in (*found.burn, *found.hourly)}.values()
    return sorted(in_hours(live, hold.opened_ms, image.zone), key=burn_key)


def _pay_from_others(
    image: Image, hold: Hold, left_uc: int, parts: dict[str, int], now_ms: int, *, prepaid: bool = False
) -> int:
    for grant in image.burn_list(hold.quote.account_path, now_ms):
        if prepaid and grant.payg is not None:  # these come last
            break
        uc = 0 if grant.special else min(grant.available, left_uc)
        if uc:
            grant.available -= uc
            grant.spent += uc
            left_uc -= uc
            parts[grant.id] = parts.get(grant.id, 0) + uc
            image.changes.grants[grant.id] = grant
    return left_uc


def book(image: Image, hold: Hold, charged_uc: int, unpaid_uc: int) -> int:
    """Book the charge on the account; returns what of `unpaid_uc` fits its debt limit: the rest is lost."""
    account = image.accounts[hold.quote.tenant]
    account.settled_uc += charged_uc
    image.changes.accounts[account.id] = account
    if not unpaid_uc:
        return 0
    limit_uc = hold.reserved_uc if account.debt_limit_uc is None else account.debt_limit_uc
    debt_uc = max(0, min(unpaid_uc, limit_uc - account.debt_uc))
    account.debt_uc += debt_uc
    if account.debt_uc:
        image.debtors.add(account.id)
    account.loss_uc += unpaid_uc - debt_uc
    return debt_uc
