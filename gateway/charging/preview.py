"""What a reserve would hold, without holding it."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from zoneinfo import ZoneInfo

from gateway.charging import affording, directory, loading, views
from gateway.charging.grants import Grant
from gateway.charging.image import Image
from gateway.charging.rating import Quote
from gateway.charging.records import Account
from gateway.charging.store import read_only
from gateway.config.model import Plan
from gateway.errors import StoreUnavailable


@dataclass(slots=True)
class Terms:
    """`max_tokens` may be less than the quote's where the package covers no more; None where there is no output."""

    max_tokens: int | None
    reserved_uc: int
    available_uc: int
    covered: frozenset[tuple[str, str]] | None = None  # model and backend of the targets that it pays for; None: all
    closed: Sequence[Grant] = ()  # which pay at other hours
    slice_tokens: int | None = None  # what is held at first, of a hold that grows with its stream


def terms(image: Image, quote: Quote, now_ms: int, *, clamp: bool) -> Terms:
    """Raises QuotaExhausted as the reserve would, NotFound.

    Grants that are due by the clock are booked on the way, as whoever looks at an account does.
    """
    found = affording.active(image, quote, now_ms)
    accounts = [directory.account(image, name) for name in quote.account_path]
    left = {grant.id: grant.available for grant in found.burn}
    for account in accounts:
        if account.debt_uc and not quote.throttled and not _repaid(image, account, left, now_ms):
            raise affording.exhausted(image, quote, now_ms, f"{account.id} is in debt for an earlier call")
    aside = replace(found, burn=[replace(grant, available=left[grant.id]) for grant in found.burn])
    hold = affording.afforded(image, quote, aside, now_ms, clamp=clamp)
    shown = sum(left.values()), hold.covered, views.closed(found), hold.held_tokens
    return Terms(hold.max_tokens, hold.reserved_uc, *shown)


def read_image(path: str, plans: Mapping[str, Plan], zone: ZoneInfo, now_ms: int) -> Image:
    """The image of a ledger's file, whoever has it open, without the holds. Raises StoreUnavailable."""
    try:
        with contextlib.closing(read_only(path)) as connection:
            connection.execute("BEGIN")  # one snapshot for all the reading
            return loading.load(connection, plans, zone, now_ms)
    except sqlite3.Error as error:
        raise StoreUnavailable(f"the ledger {path} cannot be read: {error}") from error


def _repaid(image: Image, account: Account, left: dict[str, int], now_ms: int) -> bool:
    """Takes a debt out of `left`, as a reserve repays it first; False when that does not suffice."""
    debt_uc = account.debt_uc
    for grant in image.burn_list(account.path, now_ms):
        uc = min(debt_uc, left[grant.id]) if grant.scope is None else 0
        left[grant.id] -= uc
        debt_uc -= uc
    return not debt_uc
