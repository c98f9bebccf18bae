"""Which version of each rate card is in force at a moment: what prices the calls that are reserved then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time
from typing import Final
from zoneinfo import ZoneInfo

from gateway.charging.grants import NEVER_MS
from gateway.charging.offers import RAW, RAW_CARD, STANDARD, Offer
from gateway.charging.tariffs import CardVersion, Tariffs, Versions
from gateway.hours import minute_of_day, next_edge_ms, spans, within

NO_VERSION: Final = 0  # of cards that no ledger keeps: nothing is charged by them


@dataclass(frozen=True, eq=False)
class InForce:
    """From `since_ms` to before `until_ms`. A card that has not begun is not among the `versions`.

    State: the offers that were asked for so far, which are as many as there are targets.
    """

    since_ms: int
    until_ms: int
    versions: Mapping[str, CardVersion]
    standard: Mapping[str, Mapping[str, int]] = field(init=False)  # rates of that card, by model
    version: int = field(init=False)  # of that card
    _offers: dict[tuple[str, str], Offer] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        known = self.versions.get(STANDARD)
        object.__setattr__(self, "standard", known.tariff.rates if known else {})
        object.__setattr__(self, "version", known.version if known else NO_VERSION)

    def offer(self, model: str, backend: str, region: str, tags: frozenset[str]) -> Offer:
        """A target of the generation, with the rates of all cards that have some for the model."""
        known = self._offers.get((model, backend))
        if known is None:
            known = self._offers[model, backend] = self._offer(model, backend, region, tags)
        return known

    def _offer(self, model: str, backend: str, region: str, tags: frozenset[str]) -> Offer:
        found = {name: one for name, one in self.versions.items() if model in one.tariff.rates}
        rates = {RAW: RAW_CARD, **{name: one.tariff.rates[model] for name, one in found.items()}}
        return Offer(
            model, backend, region, tags, rates, {name: one.version for name, one in found.items() if name != STANDARD}
        )


class Cards:
    """All cards of a generation. State: what was in force when it was last asked."""

    def __init__(self, versions: Versions, zone: ZoneInfo) -> None:
        self._zone = zone
        self._cards = {name: [(_begin_ms(one, zone), one) for one in of] for name, of in versions.items()}
        self._known = self._at(0)

    def at(self, now_ms: int) -> InForce:
        known = self._known
        if not known.since_ms <= now_ms < known.until_ms:
            known = self._known = self._at(now_ms)
        return known

    def _at(self, now_ms: int) -> InForce:
        until_ms, found = NEVER_MS, {}
        for name, begins in self._cards.items():
            until_ms = min([until_ms, *(begin_ms for begin_ms, _ in begins if begin_ms > now_ms)])
            latest_ms = max((begin_ms for begin_ms, _ in begins if begin_ms <= now_ms), default=None)
            of = [one for begin_ms, one in begins if begin_ms == latest_ms]
            if of:
                found[name], edge_ms = self._by_hour(of, now_ms)
                until_ms = min(until_ms, edge_ms)
        timeless = all(begin_ms <= 0 for begins in self._cards.values() for begin_ms, _ in begins)
        return InForce(0 if timeless and until_ms == NEVER_MS else now_ms, until_ms, found)

    def _by_hour(self, of: Sequence[CardVersion], now_ms: int) -> tuple[CardVersion, int]:
        """The version whose hours these are, else the one without; and when that may change."""
        hours = [span for one in of for span in spans(one.tariff.hours)]
        usual = next(one for one in of if not one.tariff.hours)
        if not hours:
            return usual, NEVER_MS
        minute = minute_of_day(now_ms, self._zone)
        now = (one for one in of if within(minute, spans(one.tariff.hours)))
        return next(now, usual), next_edge_ms(hours, now_ms, self._zone)


def unkept(tariffs: Tariffs, zone: ZoneInfo, known: Versions | None = None, version: int = NO_VERSION) -> Cards:
    """Of a configuration that no ledger has seen, beside cards that it has; all under one number."""
    new = {name: tuple(CardVersion(name, version, 0, tariff) for tariff in of) for name, of in tariffs.items()}
    return Cards({**(known or {}), **new}, zone)


def _begin_ms(version: CardVersion, zone: ZoneInfo) -> int:
    """Midnight of its date."""
    if not version.tariff.effective:
        return 0
    begins = datetime.combine(date.fromisoformat(version.tariff.effective), time(), zone)
    return int(begins.timestamp() * 1000)
