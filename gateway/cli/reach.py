"""How a command reaches the ledger: by the running gateway's admin API, else by the file itself."""

from __future__ import annotations

import asyncio
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode
from zoneinfo import ZoneInfo

from gateway.admin.api import Admin
from gateway.admin.fields import query_int
from gateway.admin.shown import (
    admin_keys,
    alerts,
    code_batches,
    listed,
    order,
    orders,
    packages,
    page_asked,
    page_of_months,
    shown,
    shown_key,
    subscription,
    subscriptions,
)
from gateway.app import ledger_path, open_config_ledger
from gateway.charging import cuts, statements, views
from gateway.charging.audited import entries
from gateway.charging.cutting import Statements
from gateway.charging.preview import read_image
from gateway.charging.records import Account
from gateway.charging.store import LockHeld
from gateway.charging.why import why
from gateway.clock import LoopClock
from gateway.config.model import Config
from gateway.config.yaml_source import Problem
from gateway.errors import GatewayError, NotFound, StoreUnavailable

ANSWER_S = 10.0
NO, WRONG_USE = 1, 2
AUDIT_PAGE = 1000
SOLD: Mapping[str, tuple[Callable[..., Any], Callable[..., Any] | None]] = {  # all of them, and one
    "orders": (orders, order), "subscriptions": (subscriptions, subscription), "codes": (code_batches, None),
    "alerts": (alerts, None),
    "admin-keys": (admin_keys, None),
}  # fmt: skip


class CommandFailed(Exception):
    """Carries the exit code: 1 the answer is no, 2 wrong use, or neither gateway nor ledger could be reached."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Asked:
    """One request to the admin API, by the parts of its path below /admin/v1."""

    method: str
    parts: tuple[str, ...]
    body: Mapping[str, Any] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    live: bool = False  # only a running gateway has it


def answer(config: Config, url: str | None, asked: Asked) -> Any:
    """What the admin API says. Raises CommandFailed."""
    key = os.environ.get("MOMA_ADMIN_KEY", "")
    reads = asked.method == "GET"
    try:
        # Who may open the file may read it; a change has to go through the gateway, which has the lock.
        if url is not None or key or not reads or asked.live:
            value = _by_gateway(url or own_url(config), asked, key)
            if value is not None:
                return value
            if url is not None or asked.live:
                raise CommandFailed(f"No gateway answers at {url or own_url(config)}.", WRONG_USE)
        return _by_reading(config, asked) if reads else asyncio.run(_by_writing(config, asked))
    except LockHeld as error:
        where = url or own_url(config)
        raise CommandFailed(f"{error} None answers at {where}: use --url to say where it is.", WRONG_USE) from error
    except GatewayError as error:
        raise CommandFailed(error.message, _exit_code(error.status)) from error


def ask_gateway(url: str, asked: Asked) -> Any:
    """What the admin API of a gateway that runs says. Raises CommandFailed."""
    value = _by_gateway(url, asked, os.environ.get("MOMA_ADMIN_KEY", ""))
    if value is None:
        raise CommandFailed(f"No gateway answers at {url}: use --url to say where it is.", WRONG_USE)
    return value


def all_pages(config: Config, url: str | None, asked: Asked) -> Any:
    """As `answer`, of a list all of it."""
    value = answer(config, url, asked)
    while asked.method == "GET" and value.get("next") is not None:
        page = answer(config, url, Asked("GET", asked.parts, query={**asked.query, "after": str(value["next"])}))
        value = {"data": value["data"] + page["data"], "next": page["next"]}
    return value


def by_gateway(config: Config, url: str | None, asked: Asked) -> Any:
    """What the running gateway says; None when nobody listens where `config` says. Raises CommandFailed."""
    if url is not None:
        return ask_gateway(url, asked)
    return _by_gateway(own_url(config), asked, os.environ.get("MOMA_ADMIN_KEY", ""))


def _exit_code(status: int) -> int:
    """Unknown or existing already, a routes.yaml that is refused: no. Wrong values or keys, what fails itself: 2."""
    return NO if status in (404, 409, 412, 422) else WRONG_USE


def own_url(config: Config) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(config.server.host, config.server.host)  # noqa: S104
    return f"http://{f'[{host}]' if ':' in host else host}:{config.server.port}"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the admin key elsewhere."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _by_gateway(url: str, asked: Asked, key: str) -> Any:
    """The admin API's answer; None when nobody listens there."""
    if not url.startswith(("http://", "https://")):
        raise CommandFailed("--url is a http or https address.", WRONG_USE)
    target = f"{url.rstrip('/')}/admin/v1/{'/'.join(quote(part, safe='') for part in asked.parts)}"
    request = urllib.request.Request(  # noqa: S310 - the scheme is checked above
        f"{target}?{urlencode(asked.query)}" if asked.query else target,
        method=asked.method,
        data=json.dumps(asked.body).encode() if asked.method in ("POST", "PATCH") else None,
        headers={"authorization": "Bearer " + key},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)
    try:
        with opener.open(request, timeout=ANSWER_S) as reply:
            return json.load(reply)
    except urllib.error.HTTPError as error:
        with error:
            raise _refused(url, error.code, error.read(), key) from error
    except ValueError as error:
        raise CommandFailed(f"What answers at {url} is not a gateway, or the address is not one.", WRONG_USE) from error
    except OSError as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(reason, TimeoutError):
            raise CommandFailed(f"The gateway at {url} does not answer.", WRONG_USE) from error
        return None


def _refused(url: str, status: int, body: bytes, key: str) -> CommandFailed:
    try:
        error = json.loads(body)["error"]
        message = "\n".join([str(error["message"]), *(str(Problem(**p)) for p in error.get("problems", ()))])
    except (ValueError, KeyError, TypeError, AttributeError):
        return CommandFailed(f"What answers at {url} is not a gateway (status {status}).", WRONG_USE)
    if status == 401:
        advice = "It is not the one" if key else "Set MOMA_ADMIN_KEY to the one"
        message += f" {advice} of the gateway at {url}."
    return CommandFailed(message, _exit_code(status))


async def _by_writing(config: Config, asked: Asked) -> Any:
    """The same code as behind the admin API, on the ledger that this process locks."""
    clock = LoopClock(asyncio.get_running_loop())
    ledger = await open_config_ledger(config, clock)
    try:
        admin = Admin(
            ledger=ledger,
            plans=lambda: config.plans,
            packages=lambda: config.packages,
            cards=lambda: config.rate_cards,
            clock=clock,
            statements=Statements(ledger, ledger_path(config), config.timezone, config.currency, clock),
        )
        path = "/admin/v1/" + "/".join(asked.parts)
        _, value = await admin.handle(asked.method, path, asked.query, json.dumps(asked.body).encode())
        return value
    finally:
        await ledger.aclose()


def _by_reading(config: Config, asked: Asked) -> Any:
    """From the file as it is, without a lock; tenants of routes.yaml are there before the first start."""
    if asked.parts == ("packages",):
        return packages(config.packages)
    path = ledger_path(config)
    if not os.path.exists(path):
        raise StoreUnavailable(f"There is no ledger at {path} yet, and no gateway was reached.")
    match asked.parts:
        case ("tenants",):
            return listed(_accounts(config, path).values(), asked.query, shown)
        case ("tenants", tenant):
            return {**shown(_account(config, path, tenant)), "caps": _caps(config, path, tenant)}
        case ("tenants", tenant, "keys"):
            _account(config, path, tenant)
            return listed(statements.keys(path, tenant), asked.query, shown_key)
        case ("tenants", tenant, "statement"):
            now_ms = time.time_ns() // 1_000_000
            from_, to = asked.query.get("from"), asked.query.get("to")
            span = statements.span(from_, to, now_ms, ZoneInfo(config.timezone))
            return statements.statement(path, tenant, *span, config.currency)
        case ("tenants", tenant, "statements"):
            limit, after = page_asked(asked.query)
            return page_of_months(cuts.listed(path, tenant, after, limit + 1), limit)
        case ("tenants", tenant, "statements", month):
            now_ms = time.time_ns() // 1_000_000
            return cuts.of_month(path, tenant, month, ZoneInfo(config.timezone), config.currency, now_ms)
        case ("charges", charge_id):
            return why(path, charge_id)
        case ("audit",):
            of = [_account(config, path, asked.query["tenant"]).id] if "tenant" in asked.query else None
            return entries(path, query_int(asked.query, "after", 0, 2**53), AUDIT_PAGE, of)
    if asked.parts[0] in SOLD:
        every, one = SOLD[asked.parts[0]]
        now_ms = time.time_ns() // 1_000_000
        image = read_image(path, config.plans, ZoneInfo(config.timezone), now_ms)
        return one(image, asked.parts[1], now_ms) if asked.parts[1:] and one else every(image, asked.query, now_ms)
    raise CommandFailed("This can only be asked of a running gateway.", WRONG_USE)


def _caps(config: Config, path: str, tenant: str) -> list[dict[str, Any]]:
    now_ms = time.time_ns() // 1_000_000
    image = read_image(path, config.plans, ZoneInfo(config.timezone), now_ms)
    if tenant not in image.accounts:
        return []
    return views.caps(image.standing(image.accounts[tenant].path, now_ms).meters, now_ms)


def _account(config: Config, path: str, tenant: str) -> Account:
    account = _accounts(config, path).get(tenant)
    if account is None:
        raise NotFound(f"no tenant {tenant[:64]!r}")
    return account


def _accounts(config: Config, path: str) -> dict[str, Account]:
    static = {t.name: Account(t.name, t.plan, None, (t.name,), (), 0) for t in config.tenants.values()}
    return static | {account.id: account for account in statements.accounts(path)}
