"""`moma tenant|key|grant`: through the running gateway's admin API, or on the ledger itself with its lock."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from gateway.charging.directory import STATUSES
from gateway.cli import tables
from gateway.cli.reach import WRONG_USE, Asked, all_pages
from gateway.config.load import load
from gateway.tenants import key_hash

Subparsers = Any  # argparse keeps the type of add_subparsers() private
Build = Callable[[argparse.Namespace], Asked]
Show = Callable[[Any], None]
CARD_HELP = "raw: one credit per token of any kind, or one of rate_cards in routes.yaml; default: standard"
TIME_HELP = "a date or time, in the timezone of routes.yaml unless it says another, or Unix seconds"

VERSION_HELP = "only if this is still its version: that of `show`"


def add_parser(subparsers: Subparsers) -> None:
    _add_tenant(noun(subparsers, "tenant", "who is billed"))
    _add_key(noun(subparsers, "key", "api keys"))
    _add_grant(noun(subparsers, "grant", "credits for a tenant"))


def _add_tenant(tenant: Subparsers) -> None:
    parser = tenant.add_parser("add", help="a new tenant")
    parser.add_argument("id", metavar="ID")
    parser.add_argument("--plan", required=True)
    parser.add_argument("--parent", metavar="ID", help="the tenant whose grants it may draw on as well")
    parser.add_argument("--tag", dest="tags", action="append", default=[], metavar="TAG", help="may be repeated")
    finish(parser, _tenant_add, tables.one)
    finish(tenant.add_parser("list", help="all tenants"), lambda args: Asked("GET", ("tenants",)), tables.many)
    parser = tenant.add_parser("set", help="another plan, place or status, or caps of its own")
    parser.add_argument("id", metavar="ID")
    parser.add_argument("--plan")
    parser.add_argument("--parent", metavar="ID", help="move it below this tenant; - makes it a root")
    parser.add_argument("--status", choices=STATUSES, help="closed is for ever")
    parser.add_argument(
        "--cap", dest="caps", action="append", type=_cap, metavar="WINDOW=AMOUNT",
        help="such as month=5M for credits or 5h=100calls; all of its caps at once, none= takes them away",
    )  # fmt: skip
    parser.add_argument("--version", metavar="VERSION", help=VERSION_HELP)
    finish(parser, _tenant_set, tables.one)
    parser = tenant.add_parser("show", help="one tenant")
    parser.add_argument("id", metavar="ID")
    finish(parser, lambda args: Asked("GET", ("tenants", args.id)), tables.one)


def _add_key(key: Subparsers) -> None:
    parser = key.add_parser("add", help="a new key, shown once")
    parser.add_argument("id", metavar="TENANT")
    parser.add_argument("--name")
    parser.add_argument("--expires-at", metavar="TIME", help=TIME_HELP)
    for kind, what in (("rpm", "requests"), ("tpm", "tokens"), ("concurrency", "calls at once")):
        parser.add_argument(f"--{kind}", metavar="N", help=f"{what} of this key{' a minute' * (kind != 'concurrency')}")
    finish(parser, _key_add, tables.new_key)
    parser = key.add_parser("list", help="a tenant's keys, the revoked and expired ones too; never the secrets")
    parser.add_argument("id", metavar="TENANT")
    finish(parser, lambda args: Asked("GET", ("tenants", args.id, "keys")), tables.many)
    parser = key.add_parser("revoke", help="a key stops working at once")
    parser.add_argument("id", metavar="TENANT")
    parser.add_argument("key_id", metavar="KEY_ID")
    finish(parser, lambda args: Asked("DELETE", ("tenants", args.id, "keys", args.key_id)), tables.one)
    parser = key.add_parser("hash", help="the hash of a key read from standard input, for routes.yaml")
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(func=_hash)


def _add_grant(grant: Subparsers) -> None:
    parser = grant.add_parser("add", help="credits for a tenant")
    parser.add_argument("id", metavar="TENANT")
    parser.add_argument("credits", metavar="CREDITS", help="such as 2.5, 100k or 1M")
    parser.add_argument("--expires-at", metavar="TIME", help=TIME_HELP)
    parser.add_argument("--priority", type=int, help="0 to 1000, the lowest is spent first; default 30")
    parser.add_argument("--source-ref", metavar="REF", help="the same REF again returns the first grant")
    parser.add_argument("--card", metavar="CARD", help=CARD_HELP)
    for kind, dest in (("model", "models"), ("tag", "tags"), ("region", "regions"), ("hours", "hours")):
        parser.add_argument(
            f"--{kind}",
            dest=dest,
            action="append",
            metavar=kind.upper(),
            help="what it pays for; may be repeated" if kind != "hours" else "of the day, such as 22:00-08:00",
        )
    finish(parser, _grant_add, tables.one)


def noun(subparsers: Subparsers, name: str, help_: str) -> Subparsers:
    return subparsers.add_parser(name, help=help_).add_subparsers(required=True, metavar="VERB")


def finish(parser: argparse.ArgumentParser, build: Build, show: Show) -> None:
    """What every verb takes, and how it runs."""
    parser.add_argument("-c", "--config", type=Path, default=Path("routes.yaml"))
    parser.add_argument("--url", help="the running gateway, default: server.host and port of routes.yaml")
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(func=lambda args: _run(args, build, show))


def _tenant_add(args: argparse.Namespace) -> Asked:
    body = {"id": args.id, "plan": args.plan, "tags": args.tags}
    return Asked("POST", ("tenants",), body | given(parent=args.parent))


def _tenant_set(args: argparse.Namespace) -> Asked:
    body = given(plan=args.plan, parent=args.parent, status=args.status, version=args.version)
    if args.parent == "-":
        body["parent"] = None
    if args.caps is not None:
        body["caps"] = {}
        for window, unit, limit in args.caps:
            if window != "none":
                body["caps"].setdefault(window, {})[unit] = limit
    return Asked("PATCH", ("tenants", args.id), body)


def _cap(text: str) -> tuple[str, str, str]:
    window, found, amount = text.partition("=")
    if not found:
        raise argparse.ArgumentTypeError("a cap is WINDOW=AMOUNT, such as month=5M or 5h=100calls")
    calls = amount.removesuffix("calls")
    return window, "calls" if calls != amount else "credits", calls


def _key_add(args: argparse.Namespace) -> Asked:
    limits = given(rpm=args.rpm, tpm=args.tpm, concurrency=args.concurrency)
    body = given(name=args.name, expires_at=args.expires_at, limits=limits or None)
    return Asked("POST", ("tenants", args.id, "keys"), body)


def _grant_add(args: argparse.Namespace) -> Asked:
    scope = given(models=args.models, tags=args.tags, regions=args.regions, hours=args.hours)
    body = given(
        expires_at=args.expires_at, source_ref=args.source_ref, priority=args.priority, card=args.card,
        scope=scope or None,
    )  # fmt: skip
    return Asked("POST", ("tenants", args.id, "grants"), {"credits": args.credits, **body})


def given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _hash(args: argparse.Namespace) -> int:
    key = sys.stdin.readline().strip()
    if not key:
        print("There is no key on standard input.", file=sys.stderr)
        return WRONG_USE
    hashed = "sha256:" + key_hash(key)
    print(json.dumps({"hash": hashed}) if args.json else hashed)
    return 0


def _run(args: argparse.Namespace, build: Build, show: Show) -> int:
    config = load(args.config)
    value = all_pages(config, args.url, _in_zone(build(args), ZoneInfo(config.timezone)))
    if args.json:
        print(json.dumps(value, ensure_ascii=False))
    else:
        show(value)
    return 0


def _in_zone(asked: Asked, zone: ZoneInfo) -> Asked:
    """A time without an offset is meant where the tenants' months begin."""
    text = asked.body.get("expires_at")
    if text is None:
        return asked
    value: int | str = text
    if text.isascii() and text.isdigit():
        value = int(text)
    else:
        try:
            when = datetime.fromisoformat(text)
        except ValueError:
            return asked  # the admin API says what is wrong with it
        value = when.isoformat() if when.tzinfo else when.replace(tzinfo=zone).isoformat()
    return Asked(asked.method, asked.parts, {**asked.body, "expires_at": value})
