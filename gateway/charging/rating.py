"""What a call costs: integer micro-credits (uc) from bucket quantities and rates, and the ceiling that is held."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache
from typing import Final

from gateway.charging.offers import Offer
from gateway.charging.units import UC_PER_CREDIT

PPM: Final = 1_000_000  # all of a charge; shares are millionths of it
CACHE_HIT: Final = "cache_hit"
THROTTLED: Final = "throttled"
DOWNGRADED: Final = "downgraded"
_SHARE_FLAG: Final = "charge:"
MIN_CLAMPED_TOKENS: Final = 256  # an answer cut shorter than this is of no use: refuse instead


def cost_uc(quantities: Mapping[str, int], rates: Mapping[str, int]) -> int:
    """Rates are whole uc per unit, so that the sum needs no rounding. A bucket without a rate is a KeyError."""
    total = 0
    for bucket, quantity in quantities.items():
        if quantity:
            total += quantity * rates[bucket]
    return total


@lru_cache(maxsize=64)
def hit_flags(ppm: int) -> tuple[str, ...]:
    """What a cache hit has on its record: that it is one, and the share of the rate that was charged for it."""
    return CACHE_HIT, _SHARE_FLAG + percent_text(ppm)


def percent_text(ppm: int) -> str:
    """Exact, without trailing zeros: 250000 -> "25%"."""
    return f"{Decimal(ppm) / 10_000:f}%"


def shared_uc(uc: int, flags: Sequence[str]) -> int:
    """What is charged of a cost: all, nothing of a call that was throttled, or of a cache hit the share among its
    flags, rounded down to a micro-credit."""
    if THROTTLED in flags:
        return 0
    if CACHE_HIT not in flags:
        return uc
    for flag in flags:
        if flag.startswith(_SHARE_FLAG):
            return uc * int(Decimal(flag[len(_SHARE_FLAG) : -1]) * 10_000) // PPM
    return uc


def provider_cost(quantities: Mapping[str, int], price: Mapping[str, int]) -> int:
    """What the call cost us, in micro-units of currency, rounded up once; prices are per 1M units."""
    total = 0
    for bucket, quantity in quantities.items():
        total += quantity * price.get(bucket, 0)
    return -(-total // 1_000_000)


def credits_text(uc: int) -> str:
    """Micro-credits as an exact decimal string without trailing zeros: 1500000 -> "1.5"."""
    whole, part = divmod(abs(uc), UC_PER_CREDIT)
    sign = "-" if uc < 0 else ""
    return f"{sign}{whole}" + (f".{part:06d}".rstrip("0") if part else "")


@dataclass(slots=True)
class Quote:
    """What a reserve is asked for. `account_path` runs from the billing root to the tenant.

    `output_uc_per_token` is the dearest output rate over the targets, times the choices. `max_tokens` is None or 0
    where there is no output (embeddings). `input_tokens`, `choices` and the `offers` that a call may go to are looked
    at where grants pay by other cards, or not for everything.
    """

    tenant: str
    account_path: tuple[str, ...]
    request_id: str
    endpoint: str
    model_requested: str
    card: str
    card_version: int
    input_uc: int
    output_uc_per_token: int
    max_tokens: int | None
    deadline_ms: int
    input_tokens: int = 0
    choices: int = 1
    offers: Sequence[Offer] = ()
    once: str = ""  # of all calls with the same text one is charged
    throttled: bool = False  # it is for nothing, so that debts do not matter
    slice_tokens: int = 0  # a hold of so much output may do at first, as it can grow in mid-stream; 0: it cannot
    key_id: str = ""  # of the api key; "" for one of routes.yaml
    open_output: int = 0  # tokens of output that no max_tokens limits; in `input_uc`, as the call may take it all
    counts: Mapping[str, int] = field(default_factory=dict)  # the most of what is counted; in `input_uc` too

    @property
    def min_tokens(self) -> int:
        return min(MIN_CLAMPED_TOKENS, self.max_tokens or 0)

    def ceiling(self, max_tokens: int | None) -> int:
        return self.input_uc + self.output_uc_per_token * (max_tokens or 0)

    def lowered(self, available_uc: int) -> int:
        """As much output as `available_uc` affords; 0 when that is of no use."""
        max_tokens = self.affordable(available_uc)
        return max_tokens if max_tokens >= self.min_tokens else 0

    def affordable(self, available_uc: int) -> int:
        """Output tokens, at most those asked for, that `available_uc` pays after the input; 0 when not even that."""
        left_uc = available_uc - self.input_uc
        if left_uc < 0 or not self.max_tokens:
            return 0
        if not self.output_uc_per_token:
            return self.max_tokens
        return min(self.max_tokens, left_uc // self.output_uc_per_token)
