"""What the schema cannot see of rate cards: names, patterns, bases, dates and hours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, Final

from gateway.call import READING
from gateway.config.known import hidden, must_exist
from gateway.config.structure import near
from gateway.config.yaml_source import ANY, Source
from gateway.hours import empty, overlapping, span

Values = Mapping[str, Any]
Path = tuple[str, ...]
STANDARD, RAW = OWN_CARDS = ("standard", "raw")  # those that are there without a word
MILLION: Final = 1_000_000  # factors and rates are millionths
MAX_BASES: Final = 20
MAX_RATE: Final = 10**18  # in micro-credits, as 64 bits hold it
MAX_RATED: Final = 100_000  # models that have rates, over all cards, dates and hours
MAX_MATCHED: Final = 1_000_000  # models with which names and patterns in cards are compared


def check(source: Source, values: Values) -> None:
    """As `names.check`."""
    for name, card in values.get("rate_cards", {}).items():
        _card(source, values, ("rate_cards", name), card)


def too_much(source: Source, values: Values) -> bool:
    """A card is short and stands for the rates of all models, at each date and hour: many would be a bomb."""
    models = max(1, len(values.get("models", {})))
    left, patterns_left = MAX_RATED // models, MAX_MATCHED // models
    for name in values.get("rate_cards", {}):
        patterns_left -= sum(len(terms.get("rates", {})) for terms in _terms(values, name))
        below = [terms for card in {name, *_bases(values, name)} for terms in _terms(values, card)]
        days = {terms.get("effective") for terms in below}
        left -= len(days) * max((len(_factors(terms)) for terms in below), default=1)
        if left < 0 or patterns_left < 0:
            what = (
                f"have rates of more than {MAX_RATED:,}"
                if left < 0
                else f"compare names with more than {MAX_MATCHED:,}"
            )
            source.problem(("rate_cards", name), f"all cards together {what} models")
            return True
    return False


def known_card(source: Source, values: Values, path: Path, name: str | None) -> None:
    cards = values.get("rate_cards", {})
    if name not in OWN_CARDS and name not in cards:
        must_exist(source, path, name, {**dict.fromkeys(OWN_CARDS), **cards}, "rate_cards")


def _card(source: Source, values: Values, path: Path, card: Any) -> None:
    """Each of its versions, and that no two begin on one day."""
    if path[1] == RAW:
        source.problem(path, "is a card already, where each token takes one credit", "give this one another name")
        return
    days: set[str] = set()
    for at, terms in _versions(path, card):
        _card_terms(source, values, at, terms)
        day = terms.get("effective", "")
        if day in days and not source.doubts((*at, "effective")):
            what = f"two versions begin on {day}" if day else "two versions have no date"
            source.problem((*at, "effective") if day else at, what, "give each its own effective: date")
        days.add(day)
    bases = _bases(values, path[1])
    if path[1] in bases:
        source.problem(path, "is a base of itself")
    elif len(bases) > MAX_BASES:
        source.problem(path, f"stands on more than {MAX_BASES} other cards")
    elif _dearest(values, path[1]) > MAX_RATE:
        source.problem(path, "takes more than 10^12 credits a token", "make its factors smaller")


def _versions(path: Path, card: Any) -> list[tuple[Path, Values]]:
    """One alone, or a list."""
    if isinstance(card, Mapping):
        return [(path, card)]
    return [((*path, str(index)), terms) for index, terms in enumerate(card)]


def _terms(values: Values, name: str) -> list[Values]:
    return [terms for _, terms in _versions((), values.get("rate_cards", {}).get(name, ()))]


def _bases(values: Values, name: str) -> set[str]:
    """All cards below it, or enough of them to be too many."""
    found: set[str] = set()
    waiting = [name]
    while waiting and len(found) <= MAX_BASES:
        below = {terms["base"] for terms in _terms(values, waiting.pop()) if terms.get("base") is not None} - found
        found |= below
        waiting += below
    return found


def _dearest(values: Values, name: str) -> int:
    """No token takes more than this many micro-credits: the dearest rate, times the largest factor of each card."""
    cards = {name, STANDARD, *_bases(values, name)}
    rated = [*values.get("models", {}).values(), *(r for c in cards for t in _terms(values, c) for r in _own(t))]
    most = max((rate for one in rated for rate in one.get("rates", {}).values() if rate is not None), default=0)
    most = max(most, MILLION)
    for card in cards:
        factors = [(terms.get("factor", MILLION), hours) for terms in _terms(values, card) for hours in _factors(terms)]
        most = most * max((factor * hours for factor, hours in factors), default=MILLION**2) // MILLION**2
    return most


def _own(terms: Values) -> Iterable[Values]:
    return ({"rates": rates} for rates in terms.get("rates", {}).values())


def _factors(terms: Values) -> set[int]:
    return {MILLION, *(one["factor"] for one in terms.get("hours", ()) if one and one.get("factor") is not None)}


def _card_terms(source: Source, values: Values, path: Path, terms: Values) -> None:
    base, standard = terms.get("base"), path[1] == STANDARD
    if standard and base is not None:
        source.problem((*path, "base"), "is for other cards", "standard is made of the rates of the models")
    else:
        known_card(source, values, (*path, "base"), base)
    if base is None and not standard and not source.doubts((*path, "base")):
        if "factor" in terms:
            source.problem((*path, "factor"), "multiplies the rates of a base", "add base: standard")
        if not terms.get("rates") and not source.doubts((*path, "rates")):
            source.problem(path, "has no rates", "write rates: or base:")
    for wanted, rates in terms.get("rates", {}).items():
        _card_rates(source, values, (*path, "rates", wanted), wanted, rates)
    check_hours(source, (*path, "hours"), terms.get("hours", ()), apart=True)


def _card_rates(source: Source, values: Values, path: Path, wanted: str, rates: Values) -> None:
    """By the name of a model, or a pattern that fits some."""
    models = values.get("models", {})
    meant = [model for name, model in models.items() if name == wanted or fnmatchcase(name, wanted)]
    if not any(sign in wanted for sign in "*?["):
        must_exist(source, path, wanted, models, "models")
    elif not meant and not hidden(source, "models", ANY):
        source.problem(path, "matches no model", near(wanted, models, source))
    writes = any(not READING.issuperset(model.get("endpoints", ("chat",))) for model in meant)
    for bucket in ("input", "output") if writes else ("input",):
        if bucket not in rates and not source.doubts((*path, bucket)):
            source.problem(path, f"has no {bucket}", "a rate of 0 must be written")


def check_hours(source: Source, path: Path, hours: Iterable[Values], *, apart: bool) -> None:
    """Each has a minute; `apart`: no two have one in common."""
    if source.doubts(path):
        return
    found = [span(f"{one['from']}-{one['to']}") for one in hours]
    for index, one in enumerate(found):
        if empty(one):
            source.problem((*path, str(index)), "has no minute", "from and to differ, and from is before 24:00")
            return
    both = overlapping(found) if apart else None
    if both is not None:
        first, second = both
        source.problem((*path, str(second)), f"has hours in common with entry {first + 1} of the list")


def pay_something(source: Source, values: Values) -> None:
    """The card of each package has rates for a model of its scope: else nobody could use what was bought."""
    models, rated = values.get("models", {}), dict[str, set[str]]()
    for name, package in values.get("packages", {}).items():
        card, scope = package.get("card", STANDARD), package.get("scope", {})
        if card not in rated:
            rated[card] = _rated(values, card)
        names, tags = set(scope.get("models", ())), set(scope.get("tags", ()))
        meant = (m for m in models if not (names or tags) or m in names or tags & set(models[m].get("tags", ())))
        if models and rated[card].isdisjoint(meant):
            source.problem(("packages", name, "card"), "has no rates for any model of the package's scope")


def _rated(values: Values, card: str) -> set[str]:
    cards = {card, *_bases(values, card)}
    wanted = {one for name in cards for terms in _terms(values, name) for one in terms.get("rates", {})}
    everything = not cards.isdisjoint(OWN_CARDS)
    return {
        name
        for name in values.get("models", {})
        if everything or any(name == w or fnmatchcase(name, w) for w in wanted)
    }
