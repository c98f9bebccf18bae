"""What a record's usage costs by the version of the rate card that it names (I8): for the audit and for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from gateway.charging.offers import card_rates
from gateway.charging.rating import cost_uc, shared_uc
from gateway.charging.splitting import splits

NOT_REPORTED: Final = frozenset({"bad_usage", "estimated"})  # with one of these, never more than was held


@dataclass(frozen=True)
class Price:
    """`cost_uc` by the rates, `shared_uc` what a cache hit pays of it, `charged_uc` that within what was held."""

    lines: list[tuple[str, int, int]]  # bucket, quantity, micro-credits a unit
    cost_uc: int
    shared_uc: int
    charged_uc: int


def recomputed(record: Mapping[str, Any], rates: Mapping[str, Mapping[str, int]]) -> Price | None:
    """`record` as it is stored; only what is settled costs anything. None where the rates do not explain it."""
    usage, flags = orjson.loads(record["usage"]), orjson.loads(record["flags"])
    if record["status"] != "settled":
        return Price([], 0, 0, 0)
    of_model = rates.get(record["model_served"], {})
    if record["split"]:
        return _split(record, orjson.loads(record["split"]), of_model)
    try:
        cost = cost_uc(usage, of_model)
        shared = charged = shared_uc(cost, flags)
    except (KeyError, TypeError, ArithmeticError):  # no rate; no number
        return None
    if NOT_REPORTED.intersection(flags):
        charged = max(0, min(shared, record["reserved"]))
    return Price([(bucket, n, of_model.get(bucket, 0)) for bucket, n in usage.items()], cost, shared, charged)


def _split(record: Mapping[str, Any], shares: Sequence[Mapping[str, Any]], standard: Mapping[str, int]) -> Price | None:
    """Where grants of several cards paid: each share at its own."""
    try:
        if not splits(record, shares, standard):
            return None
        rates = card_rates(standard)
        lines = [(bucket, n, rates[share["card"]][bucket]) for share in shares for bucket, n in share["units"].items()]
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    total_uc = sum(n * rate for _, n, rate in lines)
    return Price(lines, total_uc, total_uc, total_uc)
