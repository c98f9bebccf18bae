"""`moma admin-key` and `moma audit`: who may change things by the admin API, and who has."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from gateway.charging.admins import ROLES
from gateway.charging.views import iso
from gateway.cli import tables
from gateway.cli.accounts import TIME_HELP, Subparsers, finish, given, noun
from gateway.cli.reach import Asked

SHOWN_CHARS = 60  # of a value that has changed


def add_parser(subparsers: Subparsers) -> None:
    key = noun(subparsers, "admin-key", "keys of the admin API, each with a role")
    parser = key.add_parser("add", help="a new key, shown once")
    parser.add_argument("name", metavar="NAME", help="whose it is: what the audit log will say")
    parser.add_argument("--role", choices=ROLES, required=True)
    parser.add_argument("--tenant", metavar="ID", help="only for this tenant and those below it")
    parser.add_argument("--expires-at", metavar="TIME", help=TIME_HELP)
    finish(parser, _add, tables.new_key)
    parser = key.add_parser("list", help="all of them, the revoked and expired ones too; never the secrets")
    finish(parser, lambda args: Asked("GET", ("admin-keys",)), tables.many)
    parser = key.add_parser("revoke", help="a key stops working at once")
    parser.add_argument("id", metavar="KEY_ID")
    finish(parser, lambda args: Asked("DELETE", ("admin-keys", args.id)), tables.one)
    audit = noun(subparsers, "audit", "who changed what")
    parser = audit.add_parser("list", help="all changes, the oldest first")
    parser.add_argument("--after", metavar="NUMBER", help="only entries with a number beyond this one")
    parser.add_argument("--tenant", metavar="ID", help="only what concerns this tenant")
    finish(parser, _audit, _entries)


def _add(args: argparse.Namespace) -> Asked:
    body = {"name": args.name, "role": args.role}
    return Asked("POST", ("admin-keys",), body | given(tenant=args.tenant, expires_at=args.expires_at))


def _audit(args: argparse.Namespace) -> Asked:
    return Asked("GET", ("audit",), query=given(after=args.after, tenant=args.tenant))


def _entries(value: Mapping[str, Any]) -> None:
    if not value["data"]:
        print("none")
    for entry in value["data"]:
        by = f"{entry['by']['name']} ({entry['by']['role']})"
        print(f"{entry['number']} {iso(entry['at_ms'])} {by} {entry['operation']} {entry['object']}".rstrip())
        before, after = entry["before"] or {}, entry["after"] or {}
        for name in {**before, **after}:
            if name != "version" and before.get(name) != after.get(name):
                was = f"{_short(before[name])} -> " if name in before else ""
                print(f"  {name}: {was}{_short(after.get(name))}")


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}..."
