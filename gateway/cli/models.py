"""`moma models`: what is known of models, and what a backend has of them, as lines for routes.yaml."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Any

from gateway.changes.flat import compact
from gateway.charging.rating import credits_text
from gateway.cli.asked import add_arguments, place_of
from gateway.cli.layout import NONE, say, table
from gateway.cli.reach import NO, CommandFailed
from gateway.config.families import Family, families, family
from gateway.config.model import Config
from gateway.importing.draft import flow, scalar, size
from gateway.probing.asker import Place, asking
from gateway.probing.listing import Listed, listed
from gateway.probing.matching import Match, likely, matches

Facts = dict[str, Any]
Subparsers = Any  # argparse keeps the type of add_subparsers() private


def add_parser(subparsers: Subparsers) -> None:
    noun = subparsers.add_parser("models", help="what is known of models, and what a backend has")
    verbs = noun.add_subparsers(dest="verb", required=True, metavar="VERB")
    shown = verbs.add_parser("list", help="models that are known, with their facts")
    shown.add_argument("pattern", nargs="?", default="*", help='a name, or a pattern such as "gpt-4o*"')
    shown.add_argument("--of", metavar="FAMILY", choices=families(), help="one of " + ", ".join(families()))
    shown.add_argument("--json", action="store_true", help="one line of JSON")
    shown.set_defaults(func=run_list)
    imported = verbs.add_parser(
        "import",
        help="ask a backend for its models, and print lines for routes.yaml",
        description="Asks a backend which models it has, matches their names with those that are known, and prints"
        " lines for routes.yaml. What is missing of a model stands in a comment. Nothing is written or charged.",
    )
    add_arguments(imported)
    imported.add_argument("--of", metavar="FAMILY", choices=families(), help="whose prices the backend has")
    imported.set_defaults(func=run_import)


def run_list(args: argparse.Namespace) -> int:
    rows = [
        _shown(one, name, facts)
        for one in map(family, [args.of] if args.of else families())
        for name, facts in one.models.items()
        if fnmatchcase(name, args.pattern)
    ]
    if args.json:
        print(json.dumps({"data": rows}, ensure_ascii=False))
    elif rows:
        _print_list(rows)
    else:
        say(f"Nothing is known of {args.pattern}.")
    return 0 if rows else NO


def _shown(one: Family, name: str, facts: Mapping[str, Any]) -> Facts:
    price = facts.get("price")
    return {
        "model": name,
        "of": one.name,
        "date": one.date,
        "context": facts["context"],
        "max_output": facts["max_output"],
        "currency": one.currency,
        "price": None if price is None else {bucket: credits_text(micro) for bucket, micro in price.items()},
        "price_up_to": facts.get("price_up_to"),
        "can": list(facts["can"]),
        "endpoints": list(facts["endpoints"]),
    }


def _print_list(rows: Iterable[Facts]) -> None:
    lines = []
    for row in rows:
        price = row["price"] or {}
        costs = (f"{row['currency']} {price['input']}" if price else NONE, price.get("output", NONE))
        can = ", ".join(row["can"] or row["endpoints"])
        lines.append((row["model"], row["of"], compact(row["context"]), compact(row["max_output"]), *costs, can))
    title = "Models that are known: prices per 1M tokens"
    table(title, ("model", "of", "context", "output", "price in", "price out", "can"), lines)


def run_import(args: argparse.Namespace) -> int:
    place, config = place_of(args)
    found = asyncio.run(_found(place))
    known = [family(name) for name in families()]
    own = family(args.of) if args.of else likely((one.name for one in found), known)
    matched = matches(found, own, known)
    there = _there(config, place.name)
    if args.json:
        print(json.dumps(_plain(place, own, matched, there), ensure_ascii=False))
    else:
        print("\n".join(_lines(args, place, config, own, matched)))
    return 0


async def _found(place: Place) -> list[Listed]:
    async with asking(place) as asker:
        found, answer = await listed(asker, place.kind)
        if not found:
            why = "it lists none" if answer.ok else asker.said(answer)
            raise CommandFailed(f"{place.base_url} does not say which models it has ({why}).", NO)
        return found


def _there(config: Config | None, backend: str) -> set[str]:
    """By the backend's own names."""
    models = config.models.values() if config is not None else ()
    return {via.as_name for model in models for via in model.via if via.backend == backend}


def _plain(place: Place, own: Family | None, matched: Sequence[Match], there: set[str]) -> Facts:
    models = [
        {
            "model": one.name,
            "known_as": one.known_as or None,
            "in_routes": one.name in there,
            "missing": one.missing,
            **{key: _json_value(key, value) for key, value in one.facts.items()},
        }
        for one in matched
    ]
    return {
        "backend": place.name,
        "of": own.name if own else None,
        "currency": own.currency if own else None,
        "models": models,
    }


def _json_value(key: str, value: Any) -> Any:
    if key == "price":
        return {bucket: credits_text(micro) for bucket, micro in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _lines(
    args: argparse.Namespace, place: Place, config: Config | None, own: Family | None, matched: Sequence[Match]
) -> Iterable[str]:
    """For routes.yaml; what it cannot have like this stands in comments."""
    there = _there(config, place.name)
    new = [one for one in matched if one.name not in there]
    yield f"# {place.name} lists {len(matched)} models; {len(matched) - len(new)} stand in routes.yaml already."
    if own is not None:
        yield f"# Facts of {own.name} as of {own.date}; prices per 1M tokens in {own.currency}."
    if config is None:
        yield f"currency: {own.currency if own else 'USD'}"
        keys = {"keys": [args.key]} if args.key else {}
        yield f"backends:\n  {place.name}: {flow({'kind': place.kind, 'base_url': place.base_url, **keys})}"
    yield "models:"
    currency = config.currency if config is not None else own.currency if own else ""
    for one in new:
        yield _line(one, place.name, currency, own, {*config.models} if config else set())


def _line(one: Match, backend: str, currency: str, own: Family | None, names: set[str]) -> str:
    if one.name in names:
        return f"  # {scalar(one.name)} stands in routes.yaml already: add {backend} to its via"
    facts, missing = dict(one.facts), one.missing
    if "price" in facts and own is not None and own.currency != currency:
        price = _price(facts.pop("price"))
        missing = [f"price in {currency} (it is {flow(price)} in {own.currency})"]
    text = f"{scalar(one.name)}: {flow({'via': [backend], **_written(facts)})}"
    return f"  # {text}  # fill in: {', '.join(missing)}" if missing else f"  {text}"


def _written(facts: Mapping[str, Any]) -> Facts:
    """As people write them. That a price has a bound is no key of a model."""
    out = {key: value for key, value in facts.items() if key != "price_up_to"}
    out |= {key: size(out[key]) for key in ("context", "max_output") if key in out}
    return out | ({"price": _price(out["price"])} if "price" in out else {})


def _price(price: Mapping[str, int]) -> dict[str, Decimal]:
    return {bucket: Decimal(micro) / 1_000_000 for bucket, micro in price.items()}
