"""What grants may pay for: scopes, and the rate cards of a target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.call import BUCKETS, TOKEN_BUCKETS
from gateway.charging.units import UC_PER_CREDIT
from gateway.hours import Span, spans, within

STANDARD: Final = "standard"
RAW: Final = "raw"
CARDS: Final = (STANDARD, RAW)  # those that are there without a word in routes.yaml
KINDS: Final = ("input", "output")
HELD_COUNTS: Final = ("images", "audio_ms")  # of which a call can say before how many it may take
RAW_RATES: Final[Mapping[str, int]] = dict.fromkeys(TOKEN_BUCKETS, UC_PER_CREDIT)  # a credit per token, of any kind
RAW_CARD: Final[Mapping[str, int]] = {**dict.fromkeys(BUCKETS, 0), **RAW_RATES}  # for each model


@dataclass(frozen=True, slots=True)
class Scope:
    """What a grant is for; an empty set leaves that open. A model is in it by its name or by one of its tags.

    `hours` are of the day, such as 22:00-08:00.
    """

    models: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()
    regions: frozenset[str] = frozenset()
    hours: frozenset[str] = frozenset()
    spans: tuple[Span, ...] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "spans", spans(self.hours))

    def covers(self, offer: Offer) -> bool:
        named = not self.models and not self.tags
        named = named or offer.model in self.models or not self.tags.isdisjoint(offer.tags)
        return named and (not self.regions or offer.region in self.regions)

    def open(self, minute: int) -> bool:
        """Whether this minute of the day is in it."""
        return not self.hours or within(minute, self.spans)

    @property
    def value(self) -> dict[str, list[str]]:
        """As JSON: what is not empty, in order."""
        fields = {"models": self.models, "tags": self.tags, "regions": self.regions, "hours": self.hours}
        return {name: sorted(words) for name, words in fields.items() if words}


def scope_of(value: Mapping[str, Any] | None) -> Scope | None:
    return Scope(**{name: frozenset(words) for name, words in value.items()}) if value else None


@dataclass(frozen=True, slots=True)
class Dearest:
    """The most that a unit takes: uc per input token, per output token, per call, and of what else is counted."""

    input: int
    output: int
    call: int
    images: int = 0
    audio_ms: int = 0


@dataclass(frozen=True, slots=True)
class Offer:
    """A target as the ledger sees it: rates in uc per unit, by card and usage bucket.

    A card that has no rates for its model is not among them. `versions` are those of the cards of routes.yaml.
    """

    model: str
    backend: str
    region: str
    tags: frozenset[str]
    rates: Mapping[str, Mapping[str, int]]
    versions: Mapping[str, int] = field(default_factory=dict)
    dearest: Mapping[str, Dearest] = field(init=False)

    @property
    def free(self) -> bool:
        """What no grant pays of it, which is counted at the card standard, is nothing."""
        return self.dearest.get(STANDARD) == Dearest(0, 0, 0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "dearest", {card: _dearest(rates) for card, rates in self.rates.items()})


def offered(model: str, backend: str, region: str, tags: frozenset[str], rates: Mapping[str, int]) -> Offer:
    """`rates` are those of the card standard; there is no other, but for raw."""
    return Offer(model, backend, region, tags, {STANDARD: rates, RAW: RAW_CARD})


def _dearest(rates: Mapping[str, int]) -> Dearest:
    input_, output = (max(rate for bucket, rate in rates.items() if bucket.startswith(kind)) for kind in KINDS)
    return Dearest(input_, output, rates.get("calls", 0), *(rates.get(bucket, 0) for bucket in HELD_COUNTS))
