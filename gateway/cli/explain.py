"""`moma explain`: what would become of a call, and why: by the running gateway, else by routes.yaml alone."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from gateway.charging.image import Image
from gateway.charging.preview import read_image
from gateway.charging.store import real_path
from gateway.cli.explained import show
from gateway.cli.reach import WRONG_USE, Asked, CommandFailed, by_gateway
from gateway.clock import LoopClock
from gateway.config.load import load
from gateway.config.model import Config
from gateway.explain.asked import ENDPOINTS, explained
from gateway.explain.offline import Offline
from gateway.tokens import Tokenizer

Subparsers = Any  # argparse keeps the type of add_subparsers() private
NO_KEY = "To ask the running gateway, set MOMA_ADMIN_KEY to its admin key."
NO_ANSWER = "No gateway answers where routes.yaml says; --url says where it is."


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "explain",
        help="where a call would go, why, and what it would hold",
        description="Says what would become of a call: candidates, what removed each, scores, order, cost, credits."
        " The running gateway is asked (MOMA_ADMIN_KEY, --url), with its breakers, limits and speeds; without one,"
        " or with --offline, routes.yaml alone is explained. Nothing is sent, held or changed.",
    )
    parser.add_argument("body", metavar="BODY.json", help="what a client would send; - reads standard input")
    parser.add_argument("-c", "--config", type=Path, default=Path("routes.yaml"), help="default: routes.yaml")
    parser.add_argument("--tenant", help="who calls; without it nothing is limited or paid, and all names are allowed")
    parser.add_argument("--endpoint", choices=ENDPOINTS, default="chat", help="default: chat")
    parser.add_argument(
        "--header", dest="headers", action="append", default=[], type=_header, metavar="'NAME: VALUE'",
        help="such as 'x-session-id: s1' or 'x-moma-prefer: cost'; may be repeated",
    )  # fmt: skip
    parser.add_argument("--url", help="the running gateway, default: server.host and port of routes.yaml")
    parser.add_argument("--offline", action="store_true", help="explain the file as it is, whatever is running")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    config = load(args.config)
    wish = _wish(args)
    can_ask = bool(args.url or os.environ.get("MOMA_ADMIN_KEY")) and not args.offline
    value = by_gateway(config, args.url, Asked("POST", ("explain",), wish)) if can_ask else None
    if value is None:
        value = asyncio.run(_alone(config, wish, _image(config)))
        value["notes"] += [] if args.offline else [NO_ANSWER if can_ask else NO_KEY]
    if args.json:
        print(json.dumps(value, ensure_ascii=False))
    else:
        show(value)
    return 0


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise argparse.ArgumentTypeError("a header is 'NAME: VALUE'")
    return name.strip().lower(), value.strip()


def _wish(args: argparse.Namespace) -> dict[str, Any]:
    wish: dict[str, Any] = {"body": _text(args.body), "endpoint": args.endpoint, "headers": dict(args.headers)}
    return wish if args.tenant is None else {**wish, "tenant": args.tenant}


def _text(name: str) -> str:
    try:
        return sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise CommandFailed(f"{name} cannot be read: {why}.", WRONG_USE) from error


def _image(config: Config) -> Image | None:
    """Of the ledger's file, where there is one."""
    path = real_path(config.ledger.removeprefix("sqlite:"))
    if not os.path.exists(path):
        return None
    return read_image(path, config.plans, ZoneInfo(config.timezone), time.time_ns() // 1_000_000)


async def _alone(config: Config, wish: dict[str, Any], image: Image | None) -> dict[str, Any]:
    tokenizer = Tokenizer()
    tokenizer.load()
    alone = Offline(config, LoopClock(asyncio.get_running_loop()), tokenizer, image)
    caller, request = explained(wish, alone.caller)
    return await alone.explainer(random.Random()).explain(caller, request)
