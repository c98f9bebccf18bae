"""Holds and payments out of grants of several cards and scopes.

A grant pays whole units of what it covers, bucket by bucket in the fixed order, at the rates of its own card. What it
has left below the price of one unit stays with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from gateway.call import BUCKETS
from gateway.charging.grants import Grant
from gateway.charging.offers import STANDARD, Offer
from gateway.charging.rating import Quote, cost_uc


@dataclass(slots=True)
class Spread:
    """A hold over grants: for each of the offers that are covered, its parts pay for the whole ceiling."""

    max_tokens: int | None
    parts: list[tuple[Grant, int]]
    covered: frozenset[tuple[str, str]]  # model, backend

    @property
    def total_uc(self) -> int:
        return sum(uc for _, uc in self.parts)


@dataclass(slots=True)
class Share:
    """What one grant pays of a charge; without a grant, what none paid, at the card standard.

    `version` is that of a card of routes.yaml; that of the card standard is on the record.
    """

    grant: Grant | None
    version: int | None = None
    units: dict[str, int] = field(default_factory=dict)
    uc: int = 0

    @property
    def value(self) -> dict[str, object]:
        return {
            "grant": self.grant.id if self.grant else None,
            "card": self.grant.card if self.grant else STANDARD,
            **({} if self.version is None else {"version": self.version}),
            "units": self.units,
        }


def spread(burn: Sequence[Grant], quote: Quote, room_uc: int, *, clamp: bool) -> Spread | None:
    """The hold for as many of the quote's offers as can be paid; with `clamp` for less output than was asked for.

    No more than `room_uc`, which is what the caps leave. None when no offer can be paid.
    """
    found = _spread_at(burn, quote, quote.max_tokens, room_uc)
    if found is not None or not clamp or not quote.max_tokens:
        return found
    low, high = quote.min_tokens, quote.max_tokens  # the more output, the more it takes: halve
    found = _spread_at(burn, quote, low, room_uc)
    while found is not None and high - low > 1:
        middle = (low + high) // 2
        better = _spread_at(burn, quote, middle, room_uc)
        if better is None:
            high = middle
        else:
            found, low = better, middle
    return found


def _spread_at(burn: Sequence[Grant], quote: Quote, max_tokens: int | None, room_uc: int) -> Spread | None:
    held: dict[str, int] = {}
    covered = set()
    due = {"call": 1, "input": quote.input_tokens, "output": (max_tokens or 0) * quote.choices + quote.open_output}
    due |= quote.counts
    for offer in quote.offers:
        parts = _ceiling(burn, offer, due)
        if parts is None and offer.free:
            parts = {}
        if parts is None:
            continue
        both = {name: max(parts.get(name, 0), held.get(name, 0)) for name in {*parts, *held}}
        if sum(both.values()) <= room_uc:
            held = both
            covered.add((offer.model, offer.backend))
    if not covered:
        return None
    return Spread(max_tokens, [(grant, held[grant.id]) for grant in burn if held.get(grant.id)], frozenset(covered))


def _ceiling(burn: Iterable[Grant], offer: Offer, most: Mapping[str, int]) -> dict[str, int] | None:
    """What each grant pays of the most that the offer can take; None when they cannot."""
    parts: dict[str, int] = {}
    due = dict(most)
    for grant in burn:
        if not pays(grant, offer):
            continue
        dearest = offer.dearest[grant.card]
        left_uc = grant.available
        for kind, asked in due.items():
            rate = getattr(dearest, kind)
            n = asked if not rate else min(asked, left_uc // rate)
            due[kind] -= n
            left_uc -= n * rate
        if left_uc < grant.available:
            parts[grant.id] = grant.available - left_uc
        if not any(due.values()):
            return parts
    return None


def pays(grant: Grant, offer: Offer) -> bool:
    return grant.card in offer.dearest and (grant.scope is None or grant.scope.covers(offer))


def is_purse(part: tuple[Grant, int]) -> bool:
    """To sort by: what is paid for afterwards comes after all that is prepaid."""
    return part[0].payg is not None


def shares(
    purses: Iterable[tuple[Grant, int]], offer: Offer, quantities: Mapping[str, int], *, capped: bool
) -> list[Share]:
    """What each grant pays, at most so much in all; the last share is what none paid, if anything is left.

    A grant may come twice: with what was held of it, and later with all that it has.
    `capped`: what nobody reported is forgiven where the purses do not reach.
    """
    due = {bucket: quantities[bucket] for bucket in BUCKETS if quantities.get(bucket)}
    found: dict[str, Share] = {}
    for grant, most_uc in purses:
        if not due:
            break
        if pays(grant, offer):
            share = found.setdefault(grant.id, Share(grant, offer.versions.get(grant.card)))
            _take(share, most_uc - share.uc, due, offer.rates[grant.card])
    out = [share for share in found.values() if share.units]
    if due and not capped:
        out.append(Share(None, None, due, cost_uc(due, offer.rates[STANDARD])))
    return out


def _take(share: Share, room_uc: int, due: dict[str, int], rates: Mapping[str, int]) -> None:
    """Moves whole units from what is due to the share."""
    left_uc = room_uc
    for bucket, wanted in list(due.items()):
        rate = rates[bucket]
        n = wanted if not rate else min(wanted, left_uc // rate)
        if n:
            share.units[bucket] = share.units.get(bucket, 0) + n
            left_uc -= n * rate
            due[bucket] = wanted - n
            if not due[bucket]:
                del due[bucket]
    share.uc += room_uc - left_uc


def splits(record: Any, split: Sequence[Mapping[str, Any]], rates: Sequence[Mapping[str, int]]) -> bool:
    """Whether a record's shares are its usage, each at its own `rates`, and are what was charged and who paid it.

    What nobody reported may be forgiven in part: then the shares are less than the usage.
    """
    used, paid = Counter[str](orjson.loads(record["usage"])), Counter[str]()
    for share, of_card in zip(split, rates, strict=True):
        used.subtract(share["units"])
        paid[share["grant"] or ""] += cost_uc(share["units"], of_card)
    overage_uc = paid.pop("", 0)
    whole = not any(used.values())
    forgiven = {"estimated", "bad_usage"} & set(orjson.loads(record["flags"])) and min(used.values()) >= 0
    parts = {grant: uc for grant, uc in paid.items() if uc}
    total = sum(parts.values()) + overage_uc == record["charged"] and overage_uc == record["overage"]
    return bool((whole or forgiven) and parts == orjson.loads(record["parts"]) and total)
