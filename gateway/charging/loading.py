"""The image from the tables, and the end of the holds that a crash or a failed store left in them."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, Final
from zoneinfo import ZoneInfo

import orjson

from gateway.charging import cards, checkpoints, metering
from gateway.charging.admins import AdminKey
from gateway.charging.alerts import alert_of
from gateway.charging.cap_records import used_before
from gateway.charging.ending import ending_of
from gateway.charging.grants import Grant
from gateway.charging.image import CLOSED_KEPT, Image
from gateway.charging.offers import scope_of
from gateway.charging.packages import Batch, Code, Order, Subscription, terms_of
from gateway.charging.rating import Quote
from gateway.charging.records import Account, Hold, Key, Receipt, Row
from gateway.charging.schema import select_sql
from gateway.charging.tables import has_table
from gateway.config.model import Limits, Plan

RECENT: Final = "SELECT seq, charge_id, charged, overage, status, flags FROM records ORDER BY seq DESC LIMIT ?"


def load(connection: sqlite3.Connection, plans: Mapping[str, Plan], zone: ZoneInfo, now_ms: int) -> Image:
    """Everything but the holds, which no image survives."""
    image = Image(plans, zone)
    image.accounts.update(accounts(connection))
    image.debtors.update(name for name, account in image.accounts.items() if account.debt_uc)
    for key in keys(connection):
        image.keys[key.id] = image.keys_by_hash[key.key_hash] = key
    for grant in grants(connection):
        image.keep_grant(grant)
    image.cards = cards.last(connection)
    _load_sold(connection, image)
    _load_admins(connection, image)
    recent = connection.execute(RECENT, (CLOSED_KEPT,)).fetchall()
    for seq, charge_id, charged, overage, status, flags in reversed(recent):
        end = Receipt(status, charged_uc=charged, overage_uc=overage, flags=tuple(orjson.loads(flags)), seq=seq)
        end.durable = True
        image.remember(charge_id, end)
        image.next_seq = seq + 1
    _load_meters(connection, image, now_ms)
    for row in connection.execute(f"{select_sql('alerts')} ORDER BY id") if has_table(connection, "alerts") else ():
        image.watch.restore(alert_of(row))
    if has_table(connection, "once"):
        image.once.update(connection.execute("SELECT digest, ms FROM once ORDER BY ms").fetchall())
    return image


def _load_sold(connection: sqlite3.Connection, image: Image) -> None:
    """Nothing where nobody has opened the file for writing since packages are sold."""
    if not has_table(connection, "orders"):
        return
    sold = image.sold
    for row in connection.execute(f"{select_sql('orders')} ORDER BY created_ms, id"):
        sold.keep(Order(*row))
    for name, account, order, terms, *others in connection.execute(f"{select_sql('subscriptions')} ORDER BY id"):
        one = sold.subscriptions[name] = Subscription(name, account, order, terms_of(terms), *others)
        one.closed = bool(one.closed)
        if not one.closed:
            image.accounts[account].subscriptions.append(one)
    for name, terms, created_ms, expires_ms in connection.execute(select_sql("code_batches")):
        sold.batches[name] = Batch(name, terms_of(terms), created_ms, expires_ms)
    for hashed, batch, number, order in connection.execute(select_sql("codes")):
        sold.codes[hashed] = Code(hashed, sold.batches[batch], number, order)


def _load_admins(connection: sqlite3.Connection, image: Image) -> None:
    """The keys, and where the audit log ends."""
    if has_table(connection, "admin_keys"):
        for key in admin_keys(connection):
            image.admins.keep(key)
        for number, last_hash in connection.execute("SELECT number, hash FROM audit_head"):
            image.admins.number, image.admins.hash = number, last_hash


def admin_keys(connection: sqlite3.Connection) -> list[AdminKey]:
    if not has_table(connection, "admin_keys"):
        return []
    return [AdminKey(*row) for row in connection.execute(f"{select_sql('admin_keys')} ORDER BY id")]


def keys(connection: sqlite3.Connection) -> list[Key]:
    found = []
    for *values, limits in _rows(connection, "keys", limits="NULL"):
        key = Key(*values)
        key.limits = None if limits is None else Limits(**orjson.loads(limits))
        found.append(key)
    return found


def accounts(connection: sqlite3.Connection) -> dict[str, Account]:
    found = {}
    for row in _rows(connection, "accounts", status="'active'", caps="'{}'"):
        name, plan, parent, path, tags, *others, caps = row
        account = Account(name, plan, parent, tuple(orjson.loads(path)), tuple(orjson.loads(tags)), *others)
        account.caps = orjson.loads(caps)
        found[name] = account
    return found


def _rows(
    connection: sqlite3.Connection, table: str, where: str = "", asked: Sequence[Any] = (), **later: str
) -> list[Row]:
    """With a value for columns that came `later`: nobody may have opened the file for writing since."""
    known = {name for _, name, *_ in connection.execute(f"PRAGMA table_info({table})")}
    sql = select_sql(table)
    for column, value in later.items():
        if column not in known:
            sql = re.sub(rf"\b{column}\b", value, sql)
    return connection.execute(f"{sql} {where}", asked).fetchall()


def _load_meters(connection: sqlite3.Connection, image: Image, now_ms: int) -> None:
    """What the caps of plans and accounts have used. Of which the file does not say it, those are counted from the
    records: before the first call, which may find a cap used up."""
    for account in image.accounts.values():
        image.fit(account, now_ms, {})  # there are no holds yet
    stored: dict[tuple[str, str, str], dict[int, int]] = {}
    for name, window, unit, slot_ms, used in (
        connection.execute(select_sql("cap_use")) if has_table(connection, "cap_use") else ()
    ):
        stored.setdefault((name, window, unit), {})[slot_ms] = used
    meters = {(name, *meter.key): meter for name, account in image.accounts.items() for meter in account.meters}
    for key, rows in stored.items():
        if key not in meters or not meters[key].restore(rows, now_ms):
            image.changes.meters.update(dict.fromkeys(((*key, slot_ms) for slot_ms in rows), None))
    uncounted, image.uncounted = [meter for meter in image.uncounted if meter.counted_to], []
    metering.count(image.changes, used_before(connection, uncounted), uncounted, now_ms)


def grants(connection: sqlite3.Connection, where: str = "", asked: Sequence[Any] = ()) -> list[Grant]:
    rows = _rows(connection, "grants", where, asked, scope="NULL", ending="NULL", price="NULL")
    return [_grant(*row) for row in sorted(rows, key=lambda row: row[0])]


def close_orphans(connection: sqlite3.Connection, image: Image, now_ms: int) -> None:
    """Not dispatched: void. Dispatched: settled at its last checkpoint with flag crash, without one at 0; numbered."""
    for row in connection.execute(select_sql("holds")).fetchall():
        (
            charge_id, request_id, tenant, path, endpoint, requested, card, version, reserved, parts,
            dispatched, backend, model, opened_ms, deadline_ms, passed, key_id,
        ) = row  # fmt: skip
        account_path = tuple(orjson.loads(path))
        quote = Quote(tenant, account_path, request_id, endpoint, requested, card, version, 0, 0, None, deadline_ms)
        quote.key_id = key_id
        hold = Hold(charge_id, quote, None, reserved, [], opened_ms, 0.0, stored=True)
        image.holds[charge_id] = hold
        hold.backend, hold.model, hold.passed = backend, model, passed
        end = checkpoints.settled(image, hold, orjson.loads(parts), now_ms) if dispatched else Receipt()
        image.close(hold, end, now_ms, numbered=bool(dispatched))


def _grant(
    name: str, account: str, granted: int, spent: int, expired: int, revoked: int, starts_ms: int,
    expires_ms: int | None, priority: int, card: str, source_ref: str | None, created_ms: int, period: str,
    scope: str | None, ending: str | None, price: int | None,
) -> Grant:  # fmt: skip
    available = granted - spent - expired - revoked
    return Grant(
        name, account, granted, available, starts_ms, expires_ms, priority, card, source_ref, created_ms, period,
        0, spent, expired, revoked, scope_of(orjson.loads(scope)) if scope else None, ending_of(ending), price,
    )  # fmt: skip
