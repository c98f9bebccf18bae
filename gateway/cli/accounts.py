"""`moma tenant|key|grant|statement`: through the running gateway's admin API, or on the ledger itself with its lock."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import orjson
from rich.console import Console
from rich.table import Table

from gateway.admin import Admin
from gateway.app import directory, open_config_ledger
from gateway.charging.statements import statement
from gateway.charging.store import LockHeld
from gateway.clock import LoopClock
from gateway.config.load import ConfigError, load
from gateway.config.model import Config
from gateway.errors import GatewayError
from gateway.tenants import key_hash

Subparsers = Any  # argparse keeps the type of add_subparsers() private
Asked = tuple[str, str, dict[str, Any]]  # method, admin path, body
CONNECT_S = 2.0


class CommandFailed(Exception):
    """Carries the exit code: 1 the answer is no, 2 neither gateway nor ledger could be reached."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def add_parser(subparsers: Subparsers) -> None:
    tenant = _noun(subparsers, "tenant", "who is billed")
    _verb(tenant, "add", _tenant_add, "ID", "--plan")
    _verb(tenant, "list", lambda a: ("GET", "tenants", {}))
    _verb(tenant, "show", lambda a: ("GET", f"tenants/{a.id}", {}), "ID")
    key = _noun(subparsers, "key", "api keys")
    _verb(key, "add", _key_add, "ID", "--name", "--expires-at")
    _verb(key, "revoke", lambda a: ("DELETE", f"tenants/{a.id}/keys/{a.key_id}", {}), "ID", "KEY_ID")
    hashing = key.add_parser("hash", help="the hash of a key read from standard input")
    hashing.set_defaults(func=_hash)
    grant = _noun(subparsers, "grant", "credits for a tenant")
    _verb(grant, "add", _grant_add, "ID", "CREDITS", "--expires-at", "--priority", "--source-ref")
    parser = subparsers.add_parser("statement", help="what a tenant had, spent and has left")
    parser.add_argument("id", metavar="TENANT")
    parser.add_argument("--from", dest="from_", metavar="DATE")
    parser.add_argument("--to", metavar="DATE")
    _common(parser)
    parser.set_defaults(func=_statement)


def _noun(subparsers: Subparsers, name: str, help_: str) -> Subparsers:
    return subparsers.add_parser(name, help=help_).add_subparsers(required=True, metavar="VERB")


def _verb(noun: Subparsers, name: str, build: Callable[[argparse.Namespace], Asked], *arguments: str) -> None:
    parser = noun.add_parser(name)
    for argument in arguments:
        if argument.startswith("--"):
            parser.add_argument(argument, required=argument == "--plan")
        else:
            parser.add_argument(argument.lower(), metavar=argument)
    _common(parser)
    parser.set_defaults(func=lambda args: _change(args, build(args)))


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-c", "--config", type=Path, default=Path("routes.yaml"))
    parser.add_argument("--url", help="the running gateway, default: server.host and port of routes.yaml")
    parser.add_argument("--json", action="store_true")


def _tenant_add(args: argparse.Namespace) -> Asked:
    return "POST", "tenants", {"id": args.id, "plan": args.plan}


def _key_add(args: argparse.Namespace) -> Asked:
    return "POST", f"tenants/{args.id}/keys", _given(name=args.name, expires_at=args.expires_at)


def _grant_add(args: argparse.Namespace) -> Asked:
    body = _given(expires_at=args.expires_at, source_ref=args.source_ref)
    if args.priority is not None:
        body["priority"] = int(args.priority)
    return "POST", f"tenants/{args.id}/grants", {"credits": args.credits, **body}


def _given(**values: str | None) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _hash(args: argparse.Namespace) -> int:
    print("sha256:" + key_hash(sys.stdin.readline().strip()))
    return 0


def _change(args: argparse.Namespace, asked: Asked) -> int:
    try:
        config = load(args.config)
        value = _through_gateway(args, config, asked)
        if value is None:
            value = asyncio.run(_on_ledger(config, asked))
    except (CommandFailed, GatewayError, ConfigError, LockHeld, ValueError) as error:
        print(error, file=sys.stderr)
        return error.code if isinstance(error, CommandFailed) else 2 if isinstance(error, LockHeld) else 1
    _show(value, args.json)
    return 0


def _through_gateway(args: argparse.Namespace, config: Config, asked: Asked) -> Any:
    """The admin API's answer; None when no gateway listens there."""
    method, path, body = asked
    url = (args.url or f"http://{config.server.host}:{config.server.port}").rstrip("/")
    if not url.startswith(("http://", "https://")):
        raise CommandFailed("--url is a http or https address.", 2)
    request = urllib.request.Request(  # noqa: S310 (the scheme is checked above)
        f"{url}/admin/v1/{path}",
        method=method,
        data=json.dumps(body).encode() if method == "POST" else None,
        headers={"authorization": "Bearer " + os.environ.get("MOMA_ADMIN_KEY", "")},
    )
    try:
        with urllib.request.urlopen(request, timeout=CONNECT_S) as answer:  # noqa: S310
            return json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            raise CommandFailed(_said(error.read()), 1) from error
    except (urllib.error.URLError, OSError) as error:
        if args.url:
            raise CommandFailed(f"No gateway answers at {url}.", 2) from error
        return None


def _said(body: bytes) -> str:
    try:
        return str(orjson.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return "The answer was not the gateway's."


async def _on_ledger(config: Config, asked: Asked) -> Any:
    """The same code as behind the admin API, on the ledger that this process locks."""
    method, path, body = asked
    clock = LoopClock(asyncio.get_running_loop())
    ledger = await open_config_ledger(config, clock)
    try:
        admin = Admin(key=None, ledger=ledger, tenants=directory(config, ledger), plans=config.plans, clock=clock)
        _, value = await admin.handle(method, f"/admin/v1/{path}", {}, json.dumps(body).encode())
        return value
    finally:
        await ledger.aclose()


def _statement(args: argparse.Namespace) -> int:
    try:
        config = load(args.config)
        zone = ZoneInfo(config.timezone)
        now = datetime.now(zone)
        month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        from_ms = _ms(args.from_, zone) if args.from_ else int(month.timestamp() * 1000)
        to_ms = _ms(args.to, zone) if args.to else time.time_ns() // 1_000_000 + 1
        value = statement(config.ledger.removeprefix("sqlite:"), args.id, from_ms, to_ms)
    except (ConfigError, GatewayError, ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    _show(value, args.json)
    return 0


def _ms(text: str, zone: ZoneInfo) -> int:
    when = datetime.fromisoformat(text)
    return int((when if when.tzinfo else when.replace(tzinfo=zone)).timestamp() * 1000)


def _show(value: Any, as_json: bool) -> None:
    if as_json:
        print(json.dumps(value, ensure_ascii=False))
        return
    rows = value["data"] if isinstance(value, dict) and isinstance(value.get("data"), list) else [value]
    table = Table(box=None, pad_edge=False)
    for column in rows[0] if rows else ("nothing",):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(str(cell) for cell in row.values()))
    Console().print(table)
