"""Which backend `moma models import` and `moma probe` ask: one of routes.yaml, or an address."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Final

from gateway.cli.reach import WRONG_USE, CommandFailed
from gateway.config.kinds import SECRET, URL, Kind
from gateway.config.load import load
from gateway.config.model import Config
from gateway.config.secrets import secret_value, secrets_of
from gateway.probing.asker import Place

UNNAMED: Final = "backend-1"  # what a backend is called in lines for routes.yaml, where it has no name yet
KINDS: Final = ("openai", "anthropic", "gemini", "azure")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("backend", metavar="BACKEND|URL", help="a backend of routes.yaml, or its base_url")
    parser.add_argument("-c", "--config", type=Path, default=Path("routes.yaml"), help="default: routes.yaml")
    parser.add_argument("--key", metavar="env:NAME|file:/path", help="with a URL: where its key is")
    parser.add_argument("--kind", choices=KINDS, help="with a URL: default openai")
    parser.add_argument("--json", action="store_true", help="one line of JSON")


def place_of(args: argparse.Namespace) -> tuple[Place, Config | None]:
    """With the configuration that the backend is of. Raises ConfigError and CommandFailed."""
    if "://" in args.backend:
        return _at_url(args), None
    if args.key or args.kind:
        raise CommandFailed("--key and --kind are for a URL; routes.yaml says them of a backend.", WRONG_USE)
    config = load(args.config)
    backend = config.backends.get(args.backend)
    if backend is None:
        there = ", ".join(config.backends) or "none"
        raise CommandFailed(f"{args.config} has no backend {args.backend} (it has {there}).", WRONG_USE)
    keys = secrets_of(config).keys_of(backend)
    if backend.keys and not keys:
        references = ", ".join(secret.reference for secret in backend.keys)
        raise CommandFailed(f"No key of backend {args.backend} is set ({references}).", WRONG_USE)
    return Place(backend.name, backend.kind, backend.base_url, keys[0] if keys else None, backend.headers), config


def _at_url(args: argparse.Namespace) -> Place:
    url = _understood("The address", URL, args.backend)
    secret = _understood("--key", SECRET, args.key) if args.key else None
    key = None if secret is None else secret_value(secret)
    if secret is not None and key is None:
        raise CommandFailed(f"The key {secret.reference} is not set.", WRONG_USE)
    return Place(UNNAMED, args.kind or "openai", url, key)


def _understood(what: str, kind: Kind, text: str) -> Any:
    try:
        return kind.read(text)
    except ValueError as error:
        raise CommandFailed(f"{what} {error.args[0]}.", WRONG_USE) from error
