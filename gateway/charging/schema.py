"""The tables, and how the image's values become rows. Statements are made of names in this file only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import orjson

from gateway.charging.admins import AUDIT_COLUMNS, AdminKey
from gateway.charging.alerts import alert_row
from gateway.charging.changes import Changes
from gateway.charging.ending import ending_text
from gateway.charging.grants import Grant
from gateway.charging.packages import Order, Subscription, terms_text
from gateway.charging.records import RECORD_COLUMNS, Account, Hold, Key, Row
from gateway.config.model import Limits

SCHEMA_VERSION: Final = 10
COLUMNS: Final = {
    "accounts": ("id", "plan", "parent", "path", "tags", "activated_ms", "debt_limit_uc", "debt_uc", "settled_uc",
                 "loss_uc", "status", "caps"),
    "keys": ("id", "tenant", "key_hash", "name", "created_ms", "expires_ms", "revoked_ms", "limits"),
    "grants": ("id", "account", "granted", "spent", "expired", "revoked", "starts_ms", "expires_ms", "priority",
               "card", "source_ref", "created_ms", "period", "scope", "ending", "price"),
    "holds": ("charge_id", "request_id", "tenant", "account_path", "endpoint", "model_requested", "card",
              "card_version", "reserved", "parts", "dispatched", "backend", "model", "opened_ms", "deadline_ms",
              "passed", "key_id"),
    "cap_use": ("account", "span", "unit", "slot_ms", "used"),
    "once": ("digest", "ms", "charge_id"),
    "subscriptions": ("id", "account", "order_id", "terms", "quantity", "started_ms", "ended_ms", "period", "peak",
                      "paid", "closed"),
    "orders": ("id", "kind", "account", "package", "quantity", "price", "credits", "created_ms", "subscription",
               "of_order", "asked"),
    "code_batches": ("id", "terms", "created_ms", "expires_ms"),
    "codes": ("hash", "batch", "number", "order_id"),
    "entries": ("ms", "account", "grant_id", "kind", "uc"),
    "alerts": ("id", "account", "lot", "level", "ms", "source_ref", "payg", "granted", "spent"),
    "rate_cards": ("card", "version", "effective_ms", "rates"),
    "card_terms": ("card", "version", "terms"),
    "records": RECORD_COLUMNS,
    "admin_keys": ("id", "name", "role", "tenant", "key_hash", "made_by", "created_ms", "expires_ms", "revoked_ms"),
    "audit": AUDIT_COLUMNS,
    "audit_head": ("one", "number", "hash"),
    "cuts": ("month", "from_ms", "to_ms", "floor", "last", "entry", "hash", "ms"),
    "cuts_ended": ("month",),
    "statements": ("tenant", "month", "body", "sha256"),
    "usage_days": ("tenant", "day", "model", "key_id", "calls", "input", "output", "last_ms"),
}  # fmt: skip
DDL: Final = """
CREATE TABLE IF NOT EXISTS meta (schema_version INTEGER NOT NULL, opened INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS accounts (id TEXT PRIMARY KEY, plan TEXT NOT NULL, parent TEXT, path TEXT NOT NULL,
  tags TEXT NOT NULL, activated_ms INTEGER NOT NULL, debt_limit_uc INTEGER, debt_uc INTEGER NOT NULL,
  settled_uc INTEGER NOT NULL, loss_uc INTEGER NOT NULL, status TEXT NOT NULL DEFAULT 'active',
  caps TEXT NOT NULL DEFAULT '{}') WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS once (digest TEXT PRIMARY KEY, ms INTEGER NOT NULL, charge_id TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS cap_use (account TEXT NOT NULL, span TEXT NOT NULL, unit TEXT NOT NULL,
  slot_ms INTEGER NOT NULL, used INTEGER NOT NULL, PRIMARY KEY (account, span, unit, slot_ms)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS keys (id TEXT PRIMARY KEY, tenant TEXT NOT NULL, key_hash TEXT NOT NULL UNIQUE,
  name TEXT NOT NULL, created_ms INTEGER NOT NULL, expires_ms INTEGER, revoked_ms INTEGER, limits TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS grants (id TEXT PRIMARY KEY, account TEXT NOT NULL, granted INTEGER NOT NULL,
  spent INTEGER NOT NULL, expired INTEGER NOT NULL, revoked INTEGER NOT NULL, starts_ms INTEGER NOT NULL,
  expires_ms INTEGER, priority INTEGER NOT NULL, card TEXT NOT NULL, source_ref TEXT, created_ms INTEGER NOT NULL,
  period TEXT NOT NULL, scope TEXT, ending TEXT, price INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS alerts (id TEXT PRIMARY KEY, account TEXT NOT NULL, lot TEXT NOT NULL,
  level INTEGER NOT NULL, ms INTEGER NOT NULL, source_ref TEXT NOT NULL, payg INTEGER NOT NULL,
  granted INTEGER NOT NULL, spent INTEGER NOT NULL, UNIQUE (account, lot, level)) WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS grants_period ON grants (account, period) WHERE period <> '';
CREATE UNIQUE INDEX IF NOT EXISTS grants_ref ON grants (account, source_ref)
  WHERE period = '' AND source_ref IS NOT NULL;
CREATE TABLE IF NOT EXISTS holds (charge_id TEXT PRIMARY KEY, request_id TEXT NOT NULL, tenant TEXT NOT NULL,
  account_path TEXT NOT NULL, endpoint TEXT NOT NULL, model_requested TEXT NOT NULL, card TEXT NOT NULL,
  card_version INTEGER NOT NULL, reserved INTEGER NOT NULL, parts TEXT NOT NULL, dispatched INTEGER NOT NULL,
  backend TEXT NOT NULL, model TEXT NOT NULL, opened_ms INTEGER NOT NULL, deadline_ms INTEGER NOT NULL, passed TEXT,
  key_id TEXT NOT NULL DEFAULT '') WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS records (seq INTEGER PRIMARY KEY, charge_id TEXT NOT NULL UNIQUE,
  request_id TEXT NOT NULL, tenant TEXT NOT NULL, account_path TEXT NOT NULL, endpoint TEXT NOT NULL,
  model_requested TEXT NOT NULL, model_served TEXT NOT NULL, backend TEXT NOT NULL, rate_card TEXT NOT NULL,
  card_version INTEGER NOT NULL, price_version INTEGER NOT NULL, status TEXT NOT NULL, usage TEXT NOT NULL,
  usage_source TEXT NOT NULL, reserved INTEGER NOT NULL, charged INTEGER NOT NULL, overage INTEGER NOT NULL,
  debt INTEGER NOT NULL, loss INTEGER NOT NULL, parts TEXT NOT NULL, cost INTEGER NOT NULL, flags TEXT NOT NULL,
  opened_ms INTEGER NOT NULL, closed_ms INTEGER NOT NULL, split TEXT, key_id TEXT,
  hash TEXT NOT NULL DEFAULT '');
CREATE TABLE IF NOT EXISTS chain_head (seq INTEGER NOT NULL, hash TEXT NOT NULL, covered INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS records_of_tenant ON records (tenant);
CREATE INDEX IF NOT EXISTS records_request ON records (request_id);
DROP INDEX IF EXISTS records_tenant;
DROP INDEX IF EXISTS records_tenant_seq;
CREATE TABLE IF NOT EXISTS entries (number INTEGER PRIMARY KEY, ms INTEGER NOT NULL, account TEXT NOT NULL,
  grant_id TEXT NOT NULL, kind TEXT NOT NULL, uc INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS entries_grant ON entries (grant_id);
CREATE INDEX IF NOT EXISTS entries_account ON entries (account, ms);
CREATE TABLE IF NOT EXISTS subscriptions (id TEXT PRIMARY KEY, account TEXT NOT NULL, order_id TEXT NOT NULL,
  terms TEXT NOT NULL, quantity INTEGER NOT NULL, started_ms INTEGER NOT NULL, ended_ms INTEGER,
  period INTEGER NOT NULL, peak INTEGER NOT NULL, paid INTEGER NOT NULL, closed INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS orders (id TEXT PRIMARY KEY, kind TEXT NOT NULL, account TEXT NOT NULL,
  package TEXT NOT NULL, quantity INTEGER NOT NULL, price INTEGER NOT NULL, credits INTEGER NOT NULL,
  created_ms INTEGER NOT NULL, subscription TEXT NOT NULL, of_order TEXT NOT NULL, asked INTEGER NOT NULL)
  WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS code_batches (id TEXT PRIMARY KEY, terms TEXT NOT NULL, created_ms INTEGER NOT NULL,
  expires_ms INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS codes (hash TEXT PRIMARY KEY, batch TEXT NOT NULL, number INTEGER NOT NULL,
  order_id TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS admin_keys (id TEXT PRIMARY KEY, name TEXT NOT NULL, role TEXT NOT NULL, tenant TEXT,
  key_hash TEXT NOT NULL UNIQUE, made_by TEXT NOT NULL, created_ms INTEGER NOT NULL, expires_ms INTEGER,
  revoked_ms INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS audit (number INTEGER PRIMARY KEY, ms INTEGER NOT NULL, name TEXT NOT NULL,
  role TEXT NOT NULL, key_id TEXT NOT NULL, operation TEXT NOT NULL, kind TEXT NOT NULL, object TEXT NOT NULL,
  tenant TEXT, before TEXT, after TEXT, request_id TEXT NOT NULL, hash TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS audit_of_tenant ON audit (tenant);
CREATE TABLE IF NOT EXISTS audit_head (one INTEGER PRIMARY KEY CHECK (one = 1), number INTEGER NOT NULL,
  hash TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS rate_cards (card TEXT NOT NULL, version INTEGER NOT NULL, effective_ms INTEGER NOT NULL,
  rates TEXT NOT NULL, PRIMARY KEY (card, version)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS card_terms (card TEXT NOT NULL, version INTEGER NOT NULL, terms TEXT NOT NULL,
  PRIMARY KEY (card, version)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS cuts (month TEXT PRIMARY KEY, from_ms INTEGER NOT NULL, to_ms INTEGER NOT NULL,
  floor INTEGER NOT NULL, last INTEGER NOT NULL, entry INTEGER NOT NULL, hash TEXT NOT NULL, ms INTEGER NOT NULL)
  WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS cuts_ended (month TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS statements (tenant TEXT NOT NULL, month TEXT NOT NULL, body TEXT NOT NULL,
  sha256 TEXT NOT NULL, PRIMARY KEY (tenant, month));
CREATE TABLE IF NOT EXISTS usage_days (tenant TEXT NOT NULL, day TEXT NOT NULL, model TEXT NOT NULL,
  key_id TEXT NOT NULL, calls INTEGER NOT NULL, input INTEGER NOT NULL, output INTEGER NOT NULL,
  last_ms INTEGER NOT NULL, PRIMARY KEY (tenant, day, model, key_id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS usage_days_head (one INTEGER PRIMARY KEY, seq INTEGER NOT NULL);
"""
# Commits are counted, so that one whose end nobody saw can be looked for. Not in DDL, which makes this table also in
# files that are older than it: they get the column by their migration.
COMMIT_NUMBER: Final = "ALTER TABLE chain_head ADD COLUMN batch INTEGER NOT NULL DEFAULT 0"
# By the version they lead to. DDL makes new files with all of them.
MIGRATIONS: Final = {
    2: ("ALTER TABLE keys ADD COLUMN limits TEXT",),
    3: (
        "ALTER TABLE accounts ADD COLUMN status TEXT NOT NULL DEFAULT 'active'",
        "ALTER TABLE accounts ADD COLUMN caps TEXT NOT NULL DEFAULT '{}'",
        "ALTER TABLE records ADD COLUMN split TEXT",
        "ALTER TABLE grants ADD COLUMN scope TEXT",
    ),
    4: ("ALTER TABLE records ADD COLUMN hash TEXT NOT NULL DEFAULT ''",),
    5: (),  # subscriptions, orders and codes: new tables alone, which DDL makes
    6: (),  # card_terms: a new table as well
    7: ("ALTER TABLE grants ADD COLUMN ending TEXT",),
    8: (COMMIT_NUMBER, "ALTER TABLE holds ADD COLUMN passed TEXT"),
    9: (
        "ALTER TABLE records ADD COLUMN key_id TEXT",
        "ALTER TABLE holds ADD COLUMN key_id TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE grants ADD COLUMN price INTEGER",
    ),
    10: (),  # admin keys and the audit log: new tables
}


SET_HEAD: Final = "UPDATE chain_head SET seq = ?, hash = ?"


def select_sql(table: str) -> str:
    return f"SELECT {', '.join(COLUMNS[table])} FROM {table}"  # noqa: S608 - names of this file


def insert_sql(table: str, verb: str, rows: int = 1) -> str:
    names = COLUMNS[table]
    row = f"({', '.join('?' * len(names))})"
    return f"{verb} INTO {table} ({', '.join(names)}) VALUES {', '.join([row] * rows)}"


# Records and entries are appended: a second one with the same id is an error, never a replacement.
_REPLACED: Final = ("accounts", "keys", "grants", "holds", "cap_use", "once", "subscriptions", "codes",
             "admin_keys", "audit_head")  # fmt: skip
_APPENDED: Final = ("entries", "rate_cards", "card_terms", "orders", "code_batches", "alerts", "audit")
_KEPT: Final = ("cuts", "cuts_ended", "statements")  # the first one stays, whatever comes later
WRITES: Final = {
    **{table: insert_sql(table, "REPLACE") for table in _REPLACED},
    **{table: insert_sql(table, "INSERT") for table in (*_APPENDED, "records")},
    **{table: insert_sql(table, "INSERT OR IGNORE") for table in _KEPT},
    "usage_days": f"{insert_sql('usage_days', 'INSERT')} ON CONFLICT DO UPDATE SET calls = calls + excluded.calls,"
    " input = input + excluded.input, output = output + excluded.output, last_ms = max(last_ms, excluded.last_ms)",
    "usage_days_head": "REPLACE INTO usage_days_head VALUES (1, ?)",
    "holds_gone": "DELETE FROM holds WHERE charge_id = ?",
    "once_gone": "DELETE FROM once WHERE digest = ?",
    "cap_use_gone": "DELETE FROM cap_use WHERE account = ? AND span = ? AND unit = ? AND slot_ms = ?",
    "chain_head": "UPDATE chain_head SET seq = ?, hash = ?, batch = ?",
    "counted": "UPDATE chain_head SET batch = ?",
}
# By the number of rows, less one. Each run of a statement gives the interpreter's lock away and waits for it again,
# which costs more than the row: a batch shall be few of them. OR FAIL, because the transaction is rolled back anyhow,
# and undoing several rows of one statement would need a journal of its own.
RECORD_INSERTS: Final = tuple(insert_sql("records", "INSERT OR FAIL", rows) for rows in range(1, 65))


def rows_of(changes: Changes) -> list[tuple[str, list[Row]]]:
    """Rows per statement (records apart), with the values of this moment; only of what changed."""
    rows = [
        (WRITES["grants"], [_grant_row(grant) for grant in changes.grants.values()]),
        (WRITES["accounts"], [_account_row(account) for account in changes.accounts.values()]),
    ]
    if changes.holds:
        stored = [_hold_row(hold) for hold in changes.holds.values() if hold is not None]
        gone: list[Row] = [(charge_id,) for charge_id, hold in changes.holds.items() if hold is None]
        rows += (WRITES["holds"], stored), (WRITES["holds_gone"], gone)
    if changes.entries:
        rows.append((WRITES["entries"], changes.entries))
    if changes.keys:
        rows.append((WRITES["keys"], [_key_row(key) for key in changes.keys.values()]))
    if changes.meters:
        used: list[Row] = [(*key, used) for key, used in changes.meters.items() if used is not None]
        rows.append((WRITES["cap_use"], used))
        rows.append((WRITES["cap_use_gone"], [key for key, used in changes.meters.items() if used is None]))
    if changes.once:
        rows.append((WRITES["once"], [(digest, *value) for digest, value in changes.once.items() if value is not None]))
        rows.append((WRITES["once_gone"], [(digest,) for digest, value in changes.once.items() if value is None]))
    if changes.alerts:
        rows.append((WRITES["alerts"], [alert_row(alert) for alert in changes.alerts]))
    if changes.sold:
        rows += _rows_sold(changes)
    if changes.cards:
        rows.append((WRITES["rate_cards"], [card.row for card in changes.cards]))
        rows.append((WRITES["card_terms"], [card.terms_row for card in changes.cards if card.tariff.terms]))
    if changes.admin_keys:
        rows.append((WRITES["admin_keys"], [_admin_key_row(key) for key in changes.admin_keys.values()]))
    if changes.audit:
        number, *_, last_hash = changes.audit[-1]
        rows += (WRITES["audit"], changes.audit), (WRITES["audit_head"], [(1, number, last_hash)])
    rows += ((WRITES[table], written) for table, written in changes.kept.items())
    return rows


def _rows_sold(changes: Changes) -> Iterable[tuple[str, list[Row]]]:
    yield WRITES["orders"], [_order_row(order) for order in changes.orders]
    yield WRITES["subscriptions"], [_subscription_row(one) for one in changes.subscriptions.values()]
    batches: list[Row] = [(b.id, terms_text(b.terms), b.created_ms, b.expires_ms) for b in changes.batches]
    yield WRITES["code_batches"], batches
    yield WRITES["codes"], [(code.hash, code.batch.id, code.number, code.order) for code in changes.codes.values()]


def _subscription_row(subscription: Subscription) -> Row:
    s = subscription
    return (
        s.id, s.account, s.order, terms_text(s.terms), s.quantity, s.started_ms, s.ended_ms, s.period, s.peak_uc,
        s.paid, int(s.closed),
    )  # fmt: skip


def _order_row(order: Order) -> Row:
    o = order
    return (
        o.id, o.kind, o.account, o.package, o.quantity, o.price, o.credits_uc, o.created_ms, o.subscription, o.of,
        o.asked_uc,
    )  # fmt: skip


def _account_row(account: Account) -> Row:
    a = account
    return (
        a.id, a.plan, a.parent, _json(a.path), _json(a.tags), a.activated_ms,
        a.debt_limit_uc, a.debt_uc, a.settled_uc, a.loss_uc, a.status, _json(a.caps),
    )  # fmt: skip


def _key_row(key: Key) -> Row:
    return (
        key.id, key.tenant, key.key_hash, key.name, key.created_ms, key.expires_ms, key.revoked_ms, _limits(key.limits),
    )  # fmt: skip


def _admin_key_row(key: AdminKey) -> Row:
    return (
        key.id, key.name, key.role, key.tenant, key.key_hash, key.made_by, key.created_ms, key.expires_ms,
        key.revoked_ms,
    )  # fmt: skip


def _grant_row(grant: Grant) -> Row:
    g = grant
    return (
        g.id, g.account, g.granted, g.spent, g.expired, g.revoked, g.starts_ms, g.expires_ms, g.priority,
        g.card, g.source_ref, g.created_ms, g.period, _json(g.scope.value) if g.scope else None, ending_text(g.ending),
        g.price,
    )  # fmt: skip


def _hold_row(hold: Hold) -> Row:
    quote = hold.quote
    parts = {grant.id: uc for grant, uc in hold.parts}
    return (
        hold.charge_id, quote.request_id, quote.tenant, _json(quote.account_path), quote.endpoint,
        quote.model_requested, quote.card, quote.card_version, hold.reserved_uc, _json(parts), int(hold.dispatched),
        hold.backend, hold.model, hold.opened_ms, quote.deadline_ms, hold.passed, quote.key_id,
    )  # fmt: skip


def _limits(limits: Limits | None) -> str | None:
    return None if limits is None else _json(limits.given)


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()
