"""The image from the tables, and the end of the holds that a crash or a failed store left in them."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Final
from zoneinfo import ZoneInfo

import orjson

from gateway.call import Usage
from gateway.charging.grants import Grant
from gateway.charging.image import CLOSED_KEPT, Image
from gateway.charging.rating import Quote
from gateway.charging.records import CRASH, Account, Hold, Key, Receipt
from gateway.charging.schema import select_sql
from gateway.config.model import Limits, Plan

RECENT: Final = "SELECT seq, charge_id, charged, overage, status, flags FROM records ORDER BY seq DESC LIMIT ?"


def load(connection: sqlite3.Connection, plans: Mapping[str, Plan], zone: ZoneInfo) -> Image:
    """Everything but the holds, which no image survives."""
    image = Image(plans, zone)
    image.accounts.update(accounts(connection))
    image.debtors.update(name for name, account in image.accounts.items() if account.debt_uc)
    for key in keys(connection):
        image.keys[key.id] = image.keys_by_hash[key.key_hash] = key
    for grant in grants(connection):
        image.keep_grant(grant)
    recent = connection.execute(RECENT, (CLOSED_KEPT,)).fetchall()
    for seq, charge_id, charged, overage, status, flags in reversed(recent):
        end = Receipt(status, charged_uc=charged, overage_uc=overage, flags=tuple(orjson.loads(flags)), seq=seq)
        end.durable = True
        image.remember(charge_id, end)
        image.next_seq = seq + 1
    return image


def keys(connection: sqlite3.Connection) -> list[Key]:
    """Also of a file that an earlier version wrote and nobody has opened for writing since: it knows no limits."""
    known = connection.execute("SELECT count(*) FROM pragma_table_info('keys') WHERE name = 'limits'").fetchone()[0]
    sql = select_sql("keys") if known else select_sql("keys").replace(", limits FROM", ", NULL FROM")
    found = []
    for *values, limits in connection.execute(sql):
        key = Key(*values)
        key.limits = None if limits is None else Limits(**orjson.loads(limits))
        found.append(key)
    return found


def accounts(connection: sqlite3.Connection) -> dict[str, Account]:
    found = {}
    for row in connection.execute(select_sql("accounts")):
        name, plan, parent, path, tags, *numbers = row
        found[name] = Account(name, plan, parent, tuple(orjson.loads(path)), tuple(orjson.loads(tags)), *numbers)
    return found


def grants(connection: sqlite3.Connection) -> list[Grant]:
    return [_grant(*row) for row in connection.execute(f"{select_sql('grants')} ORDER BY id")]


def close_orphans(connection: sqlite3.Connection, image: Image, now_ms: int) -> None:
    """Not dispatched: void. Dispatched: settled at 0 with flag crash, numbered, for what was delivered is unknown."""
    for row in connection.execute(select_sql("holds")).fetchall():
        (
            charge_id, request_id, tenant, path, endpoint, requested, card, version, reserved, _,
            dispatched, backend, model, opened_ms, deadline_ms,
        ) = row  # fmt: skip
        account_path = tuple(orjson.loads(path))
        quote = Quote(tenant, account_path, request_id, endpoint, requested, card, version, 0, 0, None, deadline_ms)
        hold = Hold(charge_id, quote, None, reserved, [], opened_ms, 0.0, stored=True)
        image.holds[charge_id] = hold
        end = Receipt("settled", Usage({}, "estimated"), model, backend, flags=(CRASH,)) if dispatched else Receipt()
        image.close(hold, end, now_ms, numbered=bool(dispatched))


def _grant(
    name: str, account: str, granted: int, spent: int, expired: int, revoked: int, starts_ms: int,
    expires_ms: int | None, priority: int, card: str, source_ref: str | None, created_ms: int, period: str,
) -> Grant:  # fmt: skip
    available = granted - spent - expired - revoked
    return Grant(
        name, account, granted, available, starts_ms, expires_ms, priority, card, source_ref, created_ms, period,
        0, spent, expired, revoked,
    )  # fmt: skip
