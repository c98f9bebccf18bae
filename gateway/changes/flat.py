"""A part of the configuration as numbers and texts by key path, named as in routes.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, TypeAlias

from gateway.charging.rating import credits_text
from gateway.config.model import CardTerms, Fallback, Payg, Plan, PlanGrant, Secret, Via

Path: TypeAlias = tuple[str, ...]
_WRITTEN: Mapping[str, Path] = {  # fields whose key in routes.yaml is another
    "fallback_error": ("fallback", "error"), "fallback_context": ("fallback", "context"), "charge_ppm": ("charge",),
}  # fmt: skip


@dataclass(frozen=True)
class Hidden:
    """What may be told apart and must not be shown: a header may carry a credential."""

    value: str = field(repr=False)


@dataclass(frozen=True)
class KeyHashes:
    """Who sees a hash could look for the key at leisure: only how many there are is told."""

    hashes: frozenset[str] = field(repr=False)


Value: TypeAlias = str | int | float | bool | tuple[str, ...] | Hidden | KeyHashes | None
Values: TypeAlias = dict[Path, Value]


def flat(value: Any, path: Path = ()) -> Values:
    """Works for parts that it has never heard of: what is new in the configuration is compared all the same."""
    key = path[-1] if path else ""
    if key == "charge":
        return {path: share_text(value)}
    if key in ("price", "rates"):
        if isinstance(value, int):  # of a package
            return {path: credits_text(value)}
        return {(*path, bucket): credits_text(uc) for bucket, uc in value.items()}
    if key == "factor":
        return {path: credits_text(value)}
    if isinstance(value, tuple) and value and isinstance(value[0], CardTerms):
        return {found: item for terms in value for found, item in _card(terms, path).items()}
    if key == "headers":
        return {(*path, name): Hidden(text) for name, text in value.items()}
    if key == "key_hashes":
        return {(*path[:-1], "keys"): KeyHashes(frozenset(value))}
    if is_dataclass(value) and not isinstance(value, Secret):
        return _fields(value, path)
    if isinstance(value, Mapping):
        return {found: item for name, part in value.items() for found, item in flat(part, (*path, name)).items()}
    if isinstance(value, frozenset):
        return {path: tuple(sorted(map(item_text, value)))}
    if isinstance(value, tuple):
        text = share_text if key == "alerts" else item_text
        return {path: tuple(map(text, value))}
    return {path: value if isinstance(value, int | float | None) else item_text(value)}


def _fields(value: Any, path: Path) -> Values:
    out: Values = {}
    for one in fields(value):
        item = getattr(value, one.name)
        if one.name == "name":
            continue
        if isinstance(value, Payg):
            out[*path, one.name] = credits_text(item)
            continue
        if one.name == "limits" and isinstance(value, Plan):  # they stand beside the rest
            out |= flat(item, path)
        elif one.name.endswith("_s"):
            out[*path, one.name.removesuffix("_s")] = None if item is None else f"{item:.12g}s"
        elif one.name.endswith("_uc"):
            out[*path, one.name.removesuffix("_uc")] = credits_text(item)
        else:
            out |= flat(item, (*path, *_WRITTEN.get(one.name, (one.name,))))
    return out


def _card(terms: CardTerms, path: Path) -> Values:
    """A version of a rate card, by its date where it has one."""
    path = (*path, terms.effective) if terms.effective else path
    hours: Value = None  # those of the base, which an empty list is not
    if terms.hours is not None:
        hours = tuple(f"{one.span} x {credits_text(one.factor)}" for one in terms.hours) or "[]"
    out: Values = {(*path, "base"): terms.base, (*path, "hours"): hours, **flat(terms.factor, (*path, "factor"))}
    for model, rates in terms.rates.items():
        for bucket, uc in rates.items():
            if uc != rates.get(bucket.partition("_")[0], 0) or bucket in ("input", "output"):
                out[*path, "rates", model, bucket] = credits_text(uc)
    return out


def share_text(ppm: int) -> str:
    return f"{ppm / 10_000:.4f}".rstrip("0").rstrip(".") + "%"


def compact(number: int) -> str:
    """As routes.yaml writes it, where that is exact."""
    for factor, unit in ((1_000_000, "M"), (1_000, "k")):
        if number and number % factor == 0:
            return f"{number // factor}{unit}"
    return str(number)


def item_text(value: Any) -> str:
    """One of a list, or a value that is a name."""
    if isinstance(value, Secret):
        return value.reference
    if isinstance(value, Via):
        return f"{value.backend} as {value.as_name}" + (f" with weight {value.weight}" if value.weight != 1 else "")
    if isinstance(value, PlanGrant):
        whole, left_uc = divmod(value.credits_uc, 1_000_000)
        amount = credits_text(value.credits_uc) if left_uc else compact(whole)
        card = f" on card {value.card}" if value.card != PlanGrant.card else ""
        return f"{amount} credits {f'each {value.every}' if value.every else 'once'}{card}"
    if isinstance(value, Fallback):
        return value.model
    return str(value)
