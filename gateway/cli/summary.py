"""What `moma check` prints for people. No name is cut or broken: where they are long, the lines are longer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from rich.text import Text

from gateway.charging.offers import STANDARD
from gateway.cli.layout import NONE
from gateway.cli.layout import say as _say
from gateway.cli.layout import table as _table
from gateway.config.model import Plan

Row = Sequence[str]
TOLD: Final = 3  # of a catalogue's models in one list; of more their number is said


def summary(facts: dict[str, Any], warnings: Sequence[str]) -> None:
    """From the outside in: what can be called, what serves it, who may call it, what limits it."""
    _say(f"{_counts(facts)}; listens on {facts['listen']}, ledger {facts['ledger']}, timezone {facts['timezone']}")
    _models(facts)
    _catalogues(facts)
    _backends(facts)
    _routes(facts)
    _caches(facts)
    _aliases(facts)
    _plans(facts)
    _cards(facts)
    _packages(facts)
    _tenants(facts)
    _limits(facts)
    if warnings:
        _say("")
    for warning in warnings:
        _say(Text.assemble(("warning ", "yellow"), warning))


def _counts(facts: dict[str, Any]) -> str:
    counts = ((len(facts[noun + "s"]), noun) for noun in ("model", "backend", "route", "plan", "tenant"))
    return ", ".join(f"{count} {noun}{'' if count == 1 else 's'}" for count, noun in counts)


def _models(facts: dict[str, Any]) -> None:
    rows: list[Row] = []
    catalogued = _catalogue_of(facts)
    for model in (model for model in facts["models"] if model["name"] not in catalogued):
        price, rates = model["price"], model["rates"]
        costs = (f"{price[b]} ({rates[b]})" for b in ("input", "output"))
        via = ", ".join(_via(model["name"], via) for via in model["backends"])
        further = [_further(price, rates, b) for b in dict.fromkeys((*price, *rates)) if b not in ("input", "output")]
        rows.append((model["name"], _number(model["context"]), _number(model["max_output"]), *costs, via))
        rows += [("", "", "", "", "", line) for line in further]
    title = f"Models: price in {facts['currency']} per 1M tokens (credits per token)"
    _table(title, ("model", "context", "output", "price in", "price out", "backends; other prices"), rows)


def _catalogues(facts: dict[str, Any]) -> None:
    rows = [(one["name"], one["of"], one["date"], one["backend"], _first(one["models"])) for one in facts["catalogues"]]
    title = "Catalogues (moma check --json has each of their models)"
    _table(title, ("catalogue", "of", "facts of", "backend", "models"), rows)


def _catalogue_of(facts: dict[str, Any]) -> dict[str, str]:
    """Of models that are made by one, and are written out nowhere."""
    return {model: one["name"] for one in facts["catalogues"] for model in one["models"]}


def _first(names: Sequence[str]) -> str:
    if not names:
        return "none, as all are written out"
    return f"{len(names)}: {', '.join(names[:TOLD])}" + (", ..." if len(names) > TOLD else "")


def _gathered(facts: dict[str, Any], said: Iterable[tuple[str, str]]) -> list[str]:
    """Names with what is said of each; what is said of many of one catalogue once, with their number."""
    of, groups = _catalogue_of(facts), dict[tuple[str, str], list[str]]()
    for name, words in said:
        groups.setdefault((of.get(name, f"-{name}"), words), []).append(name)
    lines = []
    for (catalogue, words), names in groups.items():
        many = [f"{len(names)} of catalogue {catalogue}"] if len(names) > TOLD else names
        lines += [f"{one}{words}" for one in many]
    return lines


def _via(model: str, via: dict[str, Any]) -> str:
    notes = [f"as {via['as']}"] if via["as"] != model else []
    notes += [f"weight {via['weight']}"] if via["weight"] != 1 else []
    return f"{via['backend']} ({', '.join(notes)})" if notes else via["backend"]


def _further(price: dict[str, str], rates: dict[str, str], bucket: str) -> str:
    """A bucket with a price or rate of its own; the other is its family's."""
    family = bucket.partition("_")[0]
    shown = (values.get(bucket, values.get(family, "0")) for values in (price, rates))
    return "{} {} ({})".format(bucket, *shown)


def _backends(facts: dict[str, Any]) -> None:
    rows = [
        (
            b["name"],
            b["kind"],
            b["region"] or NONE,
            b["chip"] or NONE,
            str(b["keys"]),
            _listed((*b["tags"], *([f"check {b['check']}"] if b["check"] else [])), b["base_url"]),
        )
        for b in facts["backends"]
    ]
    _table("Backends", ("backend", "kind", "region", "chip", "keys", "address, tags"), rows)


def _routes(facts: dict[str, Any]) -> None:
    rows = []
    for route in facts["routes"]:
        require = "; ".join(f"{key} {' or '.join(words)}" for key, words in route["require"].items())
        lines = [("picks", _targets(facts, route["pick"])), ("requires", require)]
        lines += [(f"on {kind}", _targets(facts, targets)) for kind, targets in route["fallback"].items()]
        names = [route["name"], route["policy"]]
        for what, text in lines:
            if text:
                rows.append((*names, what, text))
                names = ["", ""]
    _table("Routes: model (backends that satisfy the route)", ("route", "policy", "", "models"), rows)


def _targets(facts: dict[str, Any], targets: Iterable[dict[str, Any]]) -> str:
    said = [(target["model"], f" ({', '.join(target['backends']) or 'none'})") for target in targets]
    return ", ".join(_gathered(facts, said))


def _caches(facts: dict[str, Any]) -> None:
    rows = [
        (
            cache["name"],
            f"{cache['ttl_s']:g} s",
            cache["scope"],
            cache["charge"],
            "all" if cache["sampled"] else "without chance",
            f"{cache['max_bytes'] / 1e6:g} MB",
            ", ".join(cache["routes"]) or NONE,
        )
        for cache in facts["caches"]
    ]
    _table("Caches", ("cache", "lives", "scope", "charge of a hit", "answers", "at most", "routes"), rows)


def _aliases(facts: dict[str, Any]) -> None:
    _table("Aliases", ("alias", "stands for"), list(facts["aliases"].items()))


def _plans(facts: dict[str, Any]) -> None:
    rows = []
    for plan in facts["plans"]:
        first, *others = [_granted(grant) for grant in plan["grants"]] or [NONE]
        limits = (_number(plan["limits"][kind]) for kind in ("rpm", "tpm", "concurrency"))
        allowed = "everything" if plan["allow"] is None else ", ".join(plan["allow"]) or "nothing"
        rows.append((plan["name"], first, *limits, _number(plan["max_output"]), _beyond(plan), allowed))
        rows += [("", more, *[""] * 6) for more in (*others, *_share(plan), *_ending(plan))]
    _table("Plans", ("plan", "credits", "rpm", "tpm", "at once", "output", "exhausted", "may use"), rows)


def _share(plan: dict[str, Any]) -> Iterable[str]:
    """Of what is short, where it is not the usual one."""
    if (plan["priority"], plan["weight"]) != (Plan.priority, Plan.weight):
        yield f"priority {plan['priority']}, weight {plan['weight']}"


def _beyond(plan: dict[str, Any]) -> str:
    exhausted = plan["exhausted"]
    return exhausted if isinstance(exhausted, str) else ", ".join(exhausted)


def _ending(owner: dict[str, Any]) -> Iterable[str]:
    """What `exhausted` and `alerts` of a plan or package say."""
    exhausted = owner["exhausted"]
    if exhausted != "block":
        if payg := exhausted.get("payg"):
            yield f"then {payg['price']} for 1M, at most {payg['cap']}"
        if downgrade := exhausted.get("downgrade"):
            yield f"then by {downgrade}"
        if throttle := exhausted.get("throttle"):
            yield "then free, with " + ", ".join(f"{_number(limit)} {kind}" for kind, limit in throttle.items())
    if owner["alerts"]:
        yield f"alerts at {', '.join(owner['alerts'])}"


def _credits(text: str) -> str:
    return _number(int(text)) if text.isdigit() else text


def _granted(grant: dict[str, Any]) -> str:
    card = f" on card {grant['card']}" if grant["card"] != STANDARD else ""
    return f"{_credits(grant['credits'])} {_every(grant['every'])}{card}"


def _every(period: str | None) -> str:
    return f"each {period}" if period else "once"


def _cards(facts: dict[str, Any]) -> None:
    rows = []
    for card in facts["rate_cards"]:
        lines = (
            [f"{card['factor']} x {card['base']}" if card["factor"] != "1" else card["base"]] if card["base"] else []
        )
        lines += [f"{model}: {_rates(rates)}" for model, rates in card["rates"].items()]
        lines += [f"{span} x {factor}" for span, factor in (card["hours"] or {}).items()]
        names = [card["name"], card["effective"] or "the beginning"]
        for line in lines or [NONE]:
            rows.append((*names, line))
            names = ["", ""]
    _table("Rate cards: credits per token", ("card", "from", "rates and hours"), rows)


def _rates(rates: dict[str, str]) -> str:
    return ", ".join(f"{bucket} {rate}" for bucket, rate in rates.items())


def _packages(facts: dict[str, Any]) -> None:
    rows = [
        (
            package["id"],
            _credits(package["credits"]),
            _lasts(package),
            package["price"],
            str(package["priority"]),
            "; ".join(_further_terms(package)) or NONE,
        )
        for package in facts["packages"]
    ]
    title = f"Packages: price in {facts['currency']}"
    _table(title, ("package", "credits", "lasts", "price", "priority", "further terms"), rows)


def _lasts(package: dict[str, Any]) -> str:
    if package["every"]:
        return f"each {package['every']}" + (f", {package['periods']} times" if package["periods"] else "")
    return "for ever" if package["valid_s"] is None else f"{package['valid_s'] / 86_400:g} days"


def _further_terms(package: dict[str, Any]) -> Iterable[str]:
    if package["rollover"] != "0":
        yield f"rolls over {_credits(package['rollover'])}"
    if package["once"]:
        yield "once for each tenant"
    if package["card"] != STANDARD:
        yield f"card {package['card']}"
    for kind, words in (package["scope"] or {}).items():
        yield f"{kind} {', '.join(words)}"
    for window, limits in package["caps"].items():
        yield f"{window}: " + ", ".join(f"{_credits(limit)} {unit}" for unit, limit in limits.items())
    yield from _ending(package)


def _tenants(facts: dict[str, Any]) -> None:
    rows = [(tenant["name"], str(tenant["keys"]), tenant["plan"]) for tenant in facts["tenants"]]
    _table("Tenants of this file (others, and further keys, are in the ledger)", ("tenant", "keys", "plan"), rows)


def _limits(facts: dict[str, Any]) -> None:
    """A row for each plan or backend that has a limit, one line for all that have none."""
    rows, free = [], []
    every = len(facts["models"]) + len(facts["aliases"]) + len(facts["routes"])
    for limit in facts["limits"]:
        name, kinds = f"{limit['of']} {limit['name']}", [limit[kind] for kind in ("rpm", "tpm", "concurrency")]
        if any(kinds):
            binds = [*limit["binds"], *(f"{route} (fallback)" for route in limit["binds_fallback_of"])]
            rows.append((name, limit["counted_for"], *map(_number, kinds), _binds(facts, binds, every)))
        else:
            free.append(name)
    _table("Limits", ("limit of", "counted for", "rpm", "tpm", "at once", "binds"), rows)
    queue = facts["queue"]
    if rows and queue["length"]:
        _say(f"Up to {queue['length']} calls wait at each limit, at most {queue['wait_s']:g} s.")
    if free:
        _table("Without limits", ("",), [(", ".join(free),)])


def _binds(facts: dict[str, Any], names: Sequence[str], every: int) -> str:
    if len(names) == every > 1:
        return "every name"
    return ", ".join(_gathered(facts, [(name, "") for name in names])) or "nothing"


def _listed(words: Iterable[str], first: str) -> str:
    return ", ".join((first, *words))


def _number(value: int | None) -> str:
    """As routes.yaml writes it, where that is exact."""
    if value is None:
        return NONE
    for factor, unit in ((1_000_000, "M"), (1_000, "k")):
        if value % factor == 0:
            return f"{value // factor}{unit}"
    return f"{value:,}"
