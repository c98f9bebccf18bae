"""`moma probe`: what a live backend can do, found out by a few tiny calls, as lines for routes.yaml."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Iterable
from typing import Any, Final

from rich.console import Console

from gateway.cli.asked import add_arguments, place_of
from gateway.cli.layout import say, table
from gateway.cli.reach import NO, WRONG_USE, CommandFailed
from gateway.config.model import Config
from gateway.importing.draft import flow, scalar, size
from gateway.probing.asker import Place, asking
from gateway.probing.probe import Probed, probe

SPOKEN: Final = ("openai", "azure")
Subparsers = Any  # argparse keeps the type of add_subparsers() private


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "probe",
        help="ask a live backend what it can do",
        description="Makes about a dozen tiny calls to a backend of the dialect openai: streams, usage, tools, JSON,"
        " logprobs, pictures, limits; and prints what was seen, with lines for routes.yaml. The backend may charge"
        " for them. Exit codes: 0 it answers, 1 it does not, 2 wrong use.",
    )
    add_arguments(parser)
    parser.add_argument("--model", metavar="NAME", help="the backend's name for it; default: the first there is")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    place, config = place_of(args)
    if place.kind not in SPOKEN:
        raise CommandFailed(
            f"Only backends of kind openai and azure can be probed; this one is {place.kind}.", WRONG_USE
        )
    probed = asyncio.run(_probed(place, args.model or _first(config, place.name)))
    if args.json:
        print(json.dumps(_plain(place, probed), ensure_ascii=False))
    else:
        _show(args, place, config, probed)
    return 0 if probed.answers else NO


async def _probed(place: Place, model: str | None) -> Probed:
    console = Console(stderr=True)
    async with asking(place) as asker:
        with console.status(f"asking {place.name}") as status:
            return await probe(asker, place, model, lambda what: status.update(f"asking {place.name}: {what}"))


def _first(config: Config | None, backend: str) -> str | None:
    """The backend's name for its first model in routes.yaml."""
    models = config.models.values() if config is not None else ()
    return next((via.as_name for model in models for via in model.via if via.backend == backend), None)


def _plain(place: Place, probed: Probed) -> dict[str, Any]:
    return {
        "backend": place.name,
        "model": probed.model,
        "calls": probed.asked,
        "findings": {
            name: {"verdict": finding.verdict, "seen": finding.seen, **finding.facts}
            for name, finding in probed.findings.items()
        },
        "quirks": dict(probed.quirks),
        "can": list(probed.can),
        "context": probed.context,
        "max_output": probed.max_output,
    }


def _show(args: argparse.Namespace, place: Place, config: Config | None, probed: Probed) -> None:
    rows = [(name, finding.verdict, finding.seen) for name, finding in probed.findings.items()]
    table(f"{place.name}, model {probed.model or 'unknown'}: {probed.asked} calls", ("asked", "answer", "seen"), rows)
    if probed.answers:
        say("\nFor routes.yaml:")
        for line in _lines(args, place, config, probed):
            say(line)


def _lines(args: argparse.Namespace, place: Place, config: Config | None, probed: Probed) -> Iterable[str]:
    """Whole entries for what is not in routes.yaml; for what is, the keys that belong into its entries."""
    quirks = {"quirks": dict(probed.quirks)} if probed.quirks else {}
    limits = {key: size(n) for key, n in (("context", probed.context), ("max_output", probed.max_output)) if n}
    found = {**limits, "can": list(probed.can)}
    if config is None:
        keys = {"keys": [args.key]} if args.key else {}
        whole = {"kind": place.kind, "base_url": place.base_url, **keys, **quirks}
        yield f"backends:\n  {place.name}: {flow(whole)}"
    else:
        yield f"backends:\n  {scalar(place.name)}: {flow(quirks)}" if quirks else f"# {place.name} needs no quirks"
    yield "models:"
    names = _names(config, place.name, probed.model)
    for name in names:
        yield f"  {scalar(name)}: {flow(found)}"
    if not names:
        missing = [key for key in ("context", "max_output", "price") if key not in found]
        yield f"  # {scalar(probed.model)}: {flow({'via': [place.name], **found})}  # fill in: {', '.join(missing)}"


def _names(config: Config | None, backend: str, as_name: str) -> list[str]:
    """The models of routes.yaml that the backend serves under that name."""
    models = config.models.values() if config is not None else ()
    return [model.name for model in models if any((v.backend, v.as_name) == (backend, as_name) for v in model.via)]
