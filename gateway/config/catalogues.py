"""`catalogues` of routes.yaml: patterns that stand for models of a family, each made as if it were written out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.config.families import Family, families, family
from gateway.config.known import fitting, must_exist, named
from gateway.config.model import Catalogue
from gateway.config.structure import near
from gateway.config.yaml_source import Source

Values = Mapping[str, Any]
Path = tuple[str, ...]
MILLION: Final = 1_000_000  # factors are millionths
MAX_MATCHED: Final = 1_000_000  # names with which patterns are compared, over all catalogues
MAX_MADE: Final = 10_000  # models, over all catalogues
DEFAULT_CURRENCY: Final = "CNY"
_TOLD: Final = 3  # names in one problem


@dataclass(frozen=True)
class _Entry:
    """One of the catalogues, and the family that it is of."""

    source: Source
    path: Path
    value: Values
    family: Family
    currency: str  # of routes.yaml

    def problem(self, key: str, message: str, suggestion: str = "") -> None:
        self.source.problem((*self.path, key) if key else self.path, message, suggestion)


def expand(source: Source, values: Values) -> tuple[dict[str, Any], dict[str, Catalogue]]:
    """All models, those of `values` first, and what became of each catalogue.

    A model that is written out stays as it is, and no catalogue adds to it. Two catalogues that make the same model
    make one with two backends. A problem hides all models, as any of them may be missing for it.
    """
    made: dict[str, Any] = {}
    taken: dict[str, Catalogue] = {}
    written, problems = values.get("models", {}), len(source.problems)
    for entry in _entries(source, values):
        before = len(source.problems)
        new = {name: model for name, model in _models(entry).items() if name not in written}
        if len(source.problems) == before:
            _join(entry, made, new)
            taken[entry.path[1]] = _catalogue(entry, new)
        if len(made) > MAX_MADE:
            entry.problem("models", f"all catalogues together make more than {MAX_MADE:,} models")
            break
    if len(source.problems) > problems or any(path[:1] == ("catalogues",) for path in source.lost):
        source.lose(("models",))
    return {**written, **made}, taken


def _entries(source: Source, values: Values) -> Iterable[_Entry]:
    """Without those that have a problem which leaves open what they stand for."""
    known, left = families(), MAX_MATCHED
    read: dict[str, Family] = {}
    for name, value in values.get("catalogues", {}).items():
        path, of = ("catalogues", name), value.get("of", name)
        if not value.keys() >= {"backend", "models"} or source.doubts((*path, "of")):
            continue
        if of not in known:
            written = (*path, "of") if "of" in value else path
            source.problem(written, f"there is no family {of}", near(of, known, source))
            continue
        problems = len(source.problems)
        must_exist(source, (*path, "backend"), value["backend"], values.get("backends", {}), "backends")
        one = read[of] = read.get(of) or family(of)
        left -= len(one.models) * sum(len(value.get(key, ())) for key in ("models", "except", "price"))
        if left < 0:
            source.problem(path, f"all catalogues together compare names with more than {MAX_MATCHED:,} models")
            return
        if len(source.problems) == problems:
            yield _Entry(source, path, value, one, values.get("currency", DEFAULT_CURRENCY))


def _models(entry: _Entry) -> dict[str, Any]:
    """By their names here, each as it would be read if it were written out."""
    if "rates" in entry.value and "rates_factor" in entry.value:
        entry.problem("rates_factor", "stands beside rates", "keep one of them")
    prefix = entry.value.get("prefix", "")
    return {prefix + name: _model(entry, name, price) for name, price in _prices(entry, _matched(entry)).items()}


def _matched(entry: _Entry) -> list[str]:
    """In the order of the family."""
    wanted, unwanted = (set(_meant(entry, key, entry.value.get(key, ()))) for key in ("models", "except"))
    matched = [name for name in entry.family.models if name in wanted and name not in unwanted]
    if wanted and not matched:
        entry.problem("except", "leaves no model", "take it out, or leave fewer out")
    return matched


def _meant(entry: _Entry, key: str, patterns: Iterable[str | None]) -> Iterable[str]:
    """What names and patterns mean; a problem for each that means nothing."""
    for index, pattern in enumerate(patterns):
        if pattern is None:  # it has a problem already
            continue
        found = fitting(entry.family.models, pattern)
        if not found:
            place = str(index) if key != "price" else pattern
            advice = near(pattern.strip("*"), entry.family.models, entry.source)
            entry.source.problem((*entry.path, key, place), f"matches no model of {entry.family.name}", advice)
        yield from found


def _prices(entry: _Entry, matched: list[str]) -> dict[str, Values]:
    """In micro-units of the currency of routes.yaml; without the models that have none."""
    written = entry.value.get("price", {})
    list(_meant(entry, "price", written))
    known = {name: price for name in matched if (price := entry.family.models[name].get("price"))}
    own = {name: price for name in matched if (price := named(written, name)) is not None}
    _check_known(entry, matched, {**known, **own})
    _check_currency(entry, known.keys() - own.keys())
    factor = entry.value.get("price_factor", MILLION)
    known = {name: _times(price, factor) for name, price in known.items()}
    prices = {**known, **own}
    return {name: prices[name] for name in matched if name in prices}


def _check_known(entry: _Entry, matched: list[str], prices: Mapping[str, Values]) -> None:
    without = [name for name in matched if name not in prices]
    if without:
        advice = (
            f'write price: {{"{without[0]}": {{input: 1, output: 2}}}} in {entry.currency}, or leave it out by except'
        )
        entry.problem("", f"no price is known of {_told(without)}", advice)
    for name, price in prices.items():
        writes = set(entry.family.models[name]["endpoints"]) != {"embeddings"}
        missing = [bucket for bucket in ("input", "output")[: 1 + writes] if bucket not in price]
        if missing and not entry.source.doubts((*entry.path, "price")):
            entry.problem("price", f"of {name} has no {missing[0]}", "a price of 0 must be written")


def _check_currency(entry: _Entry, names: Iterable[str]) -> None:
    theirs, unsure = entry.family.currency, entry.source.doubts(("currency",))
    if theirs != entry.currency and "price_factor" not in entry.value and any(names) and not unsure:
        advice = f"write price_factor: how many {entry.currency} are one {theirs}"
        entry.problem("", f"the prices of {entry.family.name} are in {theirs}, those here in {entry.currency}", advice)


def _model(entry: _Entry, name: str, price: Values) -> dict[str, Any]:
    facts, value = entry.family.models[name], entry.value
    model = {key: facts[key] for key in ("context", "max_output", "can", "endpoints")}
    model |= {key: value[key] for key in ("quality", "tags", "rates") if key in value}
    if "rates_factor" in value:
        model["rates"] = _times(price, value["rates_factor"])
    return {**model, "via": ({"backend": value["backend"], "as": name},), "price": price}


def _times(price: Values, factor: int) -> dict[str, int]:
    """Rounded up to a millionth."""
    return {bucket: -(-micro * factor // MILLION) for bucket, micro in price.items()}


def _join(entry: _Entry, made: dict[str, Any], new: Mapping[str, Any]) -> None:
    for name, model in new.items():
        there = made.setdefault(name, model)
        if there is model:
            entry.source.places[("models", name)] = entry.source.place(entry.path)
        elif differing := [key for key in {**there, **model} if key != "via" and there.get(key) != model.get(key)]:
            advice = "give one of them a prefix, or both the same terms"
            entry.problem("", f"makes {name} with another {differing[0]} than a catalogue above", advice)
        else:
            made[name] = {**there, "via": (*there["via"], *model["via"])}


def _catalogue(entry: _Entry, new: Mapping[str, Any]) -> Catalogue:
    of, value = entry.family, entry.value
    names = {model["via"][0]["as"]: name for name, model in new.items()}
    dearer = [
        name
        for known, name in names.items()
        if "price_up_to" in of.models[known] and named(value.get("price", {}), known) is None
    ]
    return Catalogue(entry.path[1], of.name, of.date, value["backend"], tuple(new), tuple(dearer))


def _told(names: list[str]) -> str:
    more = len(names) - _TOLD
    return ", ".join(names[:_TOLD]) + (f" and {more} more" if more > 0 else "")
