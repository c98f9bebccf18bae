"""What a record's usage costs by the version of the rate card that it names (I8): for the audit and for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from gateway.call import BUCKETS
from gateway.charging.offers import RAW, RAW_RATES, STANDARD
from gateway.charging.rating import cost_uc, shared_uc
from gateway.charging.splitting import splits

NOT_REPORTED: Final = frozenset({"bad_usage", "estimated"})  # with one of these, never more than was held


@dataclass(frozen=True)
class Price:
    """`cost_uc` by the rates, `shared_uc` what a cache hit pays of it, `charged_uc` that within what was held."""

    lines: list[tuple[str, str, int, int]]  # card, bucket, quantity, micro-credits a unit
    cost_uc: int
    shared_uc: int
    charged_uc: int


def recomputed(record: Mapping[str, Any], rates: Mapping[str, Mapping[str, int]]) -> Price | None:
    """`record` as it is stored; only what is settled costs anything. None where the rates do not explain it."""
    usage, flags = orjson.loads(record["usage"]), orjson.loads(record["flags"])
    if record["status"] != "settled":
        return Price([], 0, 0, 0)
    of_model = rates.get(record["model_served"], {})
    if split := orjson.loads(record["split"] or "[]"):
        return _by_share(record, split, of_model)
    try:
        cost = cost_uc(usage, of_model)
        shared = charged = shared_uc(cost, flags)
    except (KeyError, TypeError, ArithmeticError):  # no rate; no number
        return None
    if NOT_REPORTED.intersection(flags):
        charged = max(0, min(shared, record["reserved"]))
    lines = [(STANDARD, bucket, n, of_model.get(bucket, 0)) for bucket, n in usage.items()]
    return Price(lines, cost, shared, charged)


def _by_share(
    record: Mapping[str, Any], split: Sequence[Mapping[str, Any]], standard: Mapping[str, int]
) -> Price | None:
    """Each grant has paid units at the rates of its own card."""
    if not splits(record, split, standard):
        return None
    rates = {STANDARD: standard, RAW: {**dict.fromkeys(BUCKETS, 0), **RAW_RATES}}
    lines = [
        (share["card"], bucket, n, rates[share["card"]][bucket])
        for share in split
        for bucket, n in share["units"].items()
    ]
    cost = sum(n * rate for _, _, n, rate in lines)
    return Price(lines, cost, cost, cost)
