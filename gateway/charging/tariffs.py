"""What a rate card takes, in whole micro-credits: tariffs, and the versions under which the ledger keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, Final

import orjson

Rates = Mapping[str, Mapping[str, int]]  # by model and usage bucket: micro-credits per unit
UNKEPT: Final = 1  # the version that every record named before versions were kept, whatever its rates were
_TERMS: Final = ("effective", "hours", "factor")


@dataclass(frozen=True)
class Tariff:
    """Rates from a date on, in some hours of the day. Nothing is left to multiply: `factor` says what was, for people.

    A card is made of several: for each of its dates one for all hours that no other tariff of that date has.
    """

    rates: Rates
    effective: str = ""  # a date such as 2027-01-01; "": from the beginning
    hours: tuple[str, ...] = ()  # such as 22:00-08:00; none: all others
    factor: str = ""  # of its hours

    @property
    def terms(self) -> dict[str, Any]:
        """As JSON, what there is beside the rates."""
        return {name: value for name in _TERMS if (value := getattr(self, name))}

    @cached_property
    def text(self) -> tuple[str, str]:
        """As it is stored: the same tariffs have the same text."""
        return rates_text(self.rates), terms_text(self)


Tariffs = Mapping[str, tuple[Tariff, ...]]  # by card


@dataclass(frozen=True)
class CardVersion:
    """A tariff of a card under its number. `made_ms` is the same for all versions that came with one edit."""

    card: str
    version: int
    made_ms: int
    tariff: Tariff = field(repr=False)

    @property
    def row(self) -> tuple[Any, ...]:
        return self.card, self.version, self.made_ms, self.tariff.text[0]

    @property
    def terms_row(self) -> tuple[Any, ...]:
        return self.card, self.version, self.tariff.text[1]


Versions = Mapping[str, tuple[CardVersion, ...]]  # by card: those of its last edit, which are all of it


def plain(card: str, rates: Rates) -> Tariffs:
    """One card with the same rates at all times."""
    return {card: (Tariff(rates),)}


def grouped(versions: list[CardVersion]) -> dict[str, tuple[CardVersion, ...]]:
    found: dict[str, tuple[CardVersion, ...]] = {}
    for one in versions:
        found[one.card] = (*found.get(one.card, ()), one)
    return found


def changed(
    known: Versions, wanted: Tariffs, now_ms: int, first: Mapping[str, int] = MappingProxyType({})
) -> list[CardVersion]:
    """What is to be appended so that the cards are as `wanted`: of each that differs, all of its tariffs.

    `first` has the number of a card's first version where that is not 1.
    """
    new = []
    for card, tariffs in wanted.items():
        last = known.get(card, ())
        if [one.tariff.text for one in last] != [tariff.text for tariff in tariffs]:
            number = last[-1].version + 1 if last else first.get(card, 1)
            made_ms = max(now_ms, last[-1].made_ms + 1) if last else now_ms  # it tells two edits apart
            new += [CardVersion(card, number + place, made_ms, tariff) for place, tariff in enumerate(tariffs)]
    return new


def rates_text(rates: Rates) -> str:
    return orjson.dumps(rates, option=orjson.OPT_SORT_KEYS).decode()


def terms_text(tariff: Tariff) -> str:
    """ "" where there are none."""
    return orjson.dumps(tariff.terms).decode() if tariff.terms else ""


def tariff_of(rates: str, terms: str | None) -> Tariff:
    """As it was stored."""
    values = orjson.loads(terms) if terms else {}
    return Tariff(orjson.loads(rates), **{**values, "hours": tuple(values.get("hours", ()))})
