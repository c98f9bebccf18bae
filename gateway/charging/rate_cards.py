"""The rate cards of routes.yaml, resolved: bases, patterns and factors become whole micro-credits, rounded up once."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from math import prod
from typing import Final

from gateway.charging.image import Image
from gateway.charging.in_force import Cards
from gateway.charging.ledger import Ledger
from gateway.charging.offers import RAW, RAW_CARD, STANDARD
from gateway.charging.tariffs import Rates, Tariff, Tariffs, changed
from gateway.config.known import named
from gateway.config.model import CardHours, CardTerms, Config, Model

MILLION: Final = 1_000_000  # factors are millionths
# A model's rates as they are written, and the factors by which they are multiplied.
Written = tuple[Mapping[str, int], tuple[int, ...]]


def tariffs(config: Config) -> Tariffs:
    """All cards but `raw`, which never changes. Before its first date `standard` is the rates of the models."""
    standard = config.rate_cards.get(STANDARD, ())
    if all(terms.effective for terms in standard):
        standard = (CardTerms(), *standard)
    cards = {**config.rate_cards, STANDARD: standard}
    resolver = _Resolver(cards, config.models)
    return {name: tuple(resolver.card(name)) for name in cards}


async def put(ledger: Ledger, wanted: Tariffs) -> Cards:
    """The cards from now on, under their numbers; what is new is durable when this returns.

    One at a time. Raises StoreUnavailable.
    """
    _, receipt = ledger.change(_append, wanted)
    await receipt
    return ledger.look(known)


def known(image: Image, now_ms: int) -> Cards:
    """Those that the ledger has: what routes.yaml lacks goes on as it was, for what was sold on it."""
    return Cards(image.cards, image.zone)


def users(image: Image, now_ms: int) -> dict[str, list[str]]:
    """By card, whoever has a grant, a subscription or a plan that is charged by it, or codes that may be redeemed."""
    found: dict[str, dict[str, None]] = {}
    for account in image.accounts.values():
        plan = image.plans.get(account.plan)
        cards = {grant.card for grant in account.grants if not grant.over(now_ms)}
        cards |= {one.terms.card for one in account.subscriptions}
        cards |= {offer.card for offer in plan.grants} if plan else set()
        for card in cards:
            found.setdefault(card, {})[account.id] = None
    for code in image.sold.codes.values():
        expires_ms = code.batch.expires_ms
        if not code.order and (expires_ms is None or expires_ms > now_ms):
            found.setdefault(code.batch.terms.card, {})[f"codes of {code.batch.id}"] = None
    return {card: list(names) for card, names in found.items()}


def _append(image: Image, wanted: Tariffs, now_ms: int) -> None:
    """They are in the image once they are in the file."""
    image.changes.cards += changed(image.cards, wanted, now_ms)


class _Resolver:
    """The cards of a configuration, which have no ring."""

    def __init__(self, cards: Mapping[str, tuple[CardTerms, ...]], models: Mapping[str, Model]) -> None:
        self._cards = cards
        self._models = models

    def card(self, name: str) -> list[Tariff]:
        """For each date on which it or its base changes: one for the hours of each factor, and one for all others."""
        out = []
        for day in self._days(name):
            written, by_factor = self._written(name, day), _by_factor(self._hours(name, day))
            out.append(Tariff(_rates(written), day))
            for factor, hours in by_factor.items():
                out.append(Tariff(_rates(written, factor), day, hours, f"{Decimal(factor) / MILLION:f}"))
        return out

    def _days(self, name: str) -> list[str]:
        """ISO dates in order, "" first; none before its own first."""
        first = min(terms.effective for terms in self._cards[name])
        days, waiting, seen = {first}, [name], {name, RAW}
        while waiting:
            for terms in self._cards[waiting.pop()]:
                days.add(terms.effective)
                if terms.base is not None and terms.base not in seen:
                    seen.add(terms.base)
                    waiting.append(terms.base)
        return sorted(day for day in days if day >= first)

    def _at(self, name: str, day: str) -> CardTerms | None:
        """What it says on this day."""
        begun = [terms for terms in self._cards[name] if terms.effective <= day]
        return max(begun, key=lambda terms: terms.effective, default=None)

    def _written(self, name: str, day: str) -> dict[str, Written]:
        if name == RAW:
            return dict.fromkeys(self._models, (RAW_CARD, ()))
        terms = self._at(name, day)
        if terms is None:
            return {}
        found: dict[str, Written] = {}
        if name == STANDARD:
            found = {model.name: (model.rates, ()) for model in self._models.values()}
        elif terms.base is not None:
            found = self._written(terms.base, day)
        if terms.factor != MILLION:
            found = {model: (rates, (*factors, terms.factor)) for model, (rates, factors) in found.items()}
        own = ((model, named(terms.rates, model)) for model in self._models)
        return {**found, **{model: (rates, ()) for model, rates in own if rates is not None}}

    def _hours(self, name: str, day: str) -> tuple[CardHours, ...]:
        """Its own, or those of its base."""
        terms = self._at(name, day) if name != RAW else None
        if terms is None:
            return ()
        if terms.hours is None:
            return self._hours(terms.base, day) if terms.base is not None else ()
        return terms.hours


def _by_factor(hours: tuple[CardHours, ...]) -> dict[int, tuple[str, ...]]:
    factors = dict.fromkeys(one.factor for one in hours)
    return {factor: tuple(one.span for one in hours if one.factor == factor) for factor in factors}


def _rates(written: Mapping[str, Written], hour_factor: int = MILLION) -> Rates:
    """Multiplied exactly and rounded up to a whole micro-credit at the end."""
    out = {}
    for model, (rates, factors) in written.items():
        if hour_factor != MILLION:
            factors = (*factors, hour_factor)
        times, parts = prod(factors), MILLION ** len(factors)
        out[model] = {bucket: -(-rate * times // parts) for bucket, rate in rates.items()} if factors else rates
    return out
