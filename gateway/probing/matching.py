"""What a backend lists, against what is known of the models of families."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.config.families import Family
from gateway.probing.listing import Listed

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Match:
    """`facts` as in a family, with what the backend says of itself; `known_as` "of a model there" or ""."""

    name: str
    known_as: str
    facts: Values

    @property
    def missing(self) -> list[str]:
        return [key for key in ("context", "max_output", "price") if key not in self.facts]


def likely(names: Iterable[str], families: Sequence[Family]) -> Family | None:
    """The family that has most of the names exactly: a backend's prices are those of its provider."""
    there = set(names)
    best = max(families, key=lambda one: len(there & one.models.keys()), default=None)
    return best if best is not None and there & best.models.keys() else None


def matches(listed: Sequence[Listed], own: Family | None, families: Sequence[Family]) -> list[Match]:
    """By its very name in the backend's own family, with its price.

    Else by the last part of its name in any family: what a model is stays the same wherever it runs, what it costs
    does not.
    """
    elsewhere = {_bare(name): (one.name, name, facts) for one in families for name, facts in one.models.items()}
    return [_match(one, own, elsewhere) for one in listed]


def _match(one: Listed, own: Family | None, elsewhere: Mapping[str, tuple[str, str, Values]]) -> Match:
    said = {key: value for key, value in (("context", one.context), ("max_output", one.max_output)) if value}
    if own is not None and one.name in own.models:
        return Match(one.name, f"{own.name}: {one.name}", own.models[one.name])
    if (found := elsewhere.get(_bare(one.name))) is None:
        return Match(one.name, "", said)
    family, name, facts = found
    return Match(one.name, f"{family}: {name}", {**_without_price(facts), **said})


def _without_price(facts: Values) -> dict[str, Any]:
    return {key: value for key, value in facts.items() if key not in ("price", "price_up_to")}


def _bare(name: str) -> str:
    return name.rpartition("/")[2].lower()
