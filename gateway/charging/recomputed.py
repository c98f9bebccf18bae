"""What a record's usage costs by the versions of rate cards that it names (I8): for the audit and for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import orjson

from gateway.charging.offers import RAW, RAW_CARD, STANDARD
from gateway.charging.rating import cost_uc, shared_uc
from gateway.charging.splitting import splits
from gateway.charging.tariffs import Rates

NOT_REPORTED: Final = frozenset({"bad_usage", "estimated"})  # with one of these, never more than was held
Kept = Mapping[tuple[str, int], Rates]  # by card and version


class Line(NamedTuple):
    """`rate` in micro-credits a unit; `version` is None for the card raw, which has none."""

    bucket: str
    quantity: int
    rate: int
    card: str
    version: int | None


@dataclass(frozen=True)
class Price:
    """`cost_uc` by the rates, `shared_uc` what a cache hit pays of it, `charged_uc` that within what was held."""

    lines: list[Line]
    cost_uc: int
    shared_uc: int
    charged_uc: int


def recomputed(record: Mapping[str, Any], kept: Kept) -> Price | None:
    """`record` as it is stored; only what is settled costs anything. None where no rates are `kept` that explain it."""
    usage, flags = orjson.loads(record["usage"]), orjson.loads(record["flags"])
    if record["status"] != "settled":
        return Price([], 0, 0, 0)
    if record["split"]:
        return _split(record, orjson.loads(record["split"]), kept)
    card, version = record["rate_card"], record["card_version"]
    of_model = kept.get((card, version), {}).get(record["model_served"], {})
    try:
        cost = cost_uc(usage, of_model)
        shared = charged = shared_uc(cost, flags)
    except (KeyError, TypeError, ArithmeticError):  # no rate; no number
        return None
    if NOT_REPORTED.intersection(flags):
        charged = max(0, min(shared, record["reserved"]))
    lines = [Line(bucket, n, of_model.get(bucket, 0), card, version) for bucket, n in usage.items()]
    return Price(lines, cost, shared, charged)


def _split(record: Mapping[str, Any], shares: Sequence[Mapping[str, Any]], kept: Kept) -> Price | None:
    """Where grants of several cards paid: each share at its own."""
    try:
        versions = [_version(record, share) for share in shares]
        rates = [
            RAW_CARD if version is None else kept[share["card"], version][record["model_served"]]
            for share, version in zip(shares, versions, strict=True)
        ]
        if not splits(record, shares, rates):
            return None
        lines = [
            Line(bucket, n, of_card[bucket], share["card"], version)
            for share, version, of_card in zip(shares, versions, rates, strict=True)
            for bucket, n in share["units"].items()
        ]
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    total_uc = sum(line.quantity * line.rate for line in lines)
    return Price(lines, total_uc, total_uc, total_uc)


def _version(record: Mapping[str, Any], share: Mapping[str, Any]) -> int | None:
    """That of the card standard is the record's own. Raises KeyError."""
    if share["card"] == RAW:
        return None
    return int(record["card_version"] if share["card"] == STANDARD else share["version"])
