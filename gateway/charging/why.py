"""One charge, explained: its price, who paid it and why they, in that order. From the tables alone."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

import orjson

from gateway.charging import cards, chain
from gateway.charging.flags import meaning
from gateway.charging.grants import Grant, burn_key
from gateway.charging.loading import grants
from gateway.charging.rating import credits_text
from gateway.charging.recomputed import recomputed
from gateway.charging.records import RECORD_COLUMNS, public_record
from gateway.charging.store import read_only
from gateway.charging.views import iso
from gateway.errors import NotFound, StoreUnavailable

MOST_OTHERS: Final = 20  # charges of the same request id that are named
Record = Mapping[str, Any]


def why(db_path: str, wanted: str) -> dict[str, Any]:
    """`wanted` is a charge id, or a request id: then its last charge. Raises NotFound, StoreUnavailable."""
    try:
        with contextlib.closing(read_only(db_path)) as connection:
            connection.execute("BEGIN")  # one snapshot for all the reading
            return _why(connection, wanted)
    except sqlite3.Error as error:
        raise StoreUnavailable(f"the ledger cannot be read: {error}") from error


def _why(connection: sqlite3.Connection, wanted: str) -> dict[str, Any]:
    row, others = _found(connection, wanted)
    record = dict(zip(RECORD_COLUMNS, row, strict=True))
    return {
        "record": public_record(row),
        "opened_at": iso(record["opened_ms"]),
        "price": _price(connection, record),
        "grants": _grants(connection, record),
        "flags": [{"flag": flag, "means": meaning(flag)} for flag in orjson.loads(record["flags"])],
        "other_charges": others,
    }


def _found(connection: sqlite3.Connection, wanted: str) -> tuple[tuple[Any, ...], list[str]]:
    """The row, and other charges of the same request: a client may send an id again."""
    sql = f"{chain.select_sql(connection)} WHERE {{}} = ? ORDER BY seq DESC LIMIT {MOST_OTHERS + 1}"
    for column in ("charge_id", "request_id"):
        rows = connection.execute(sql.format(column), (wanted,)).fetchall()
        if rows:
            at = RECORD_COLUMNS.index("charge_id")
            return rows[0], [row[at] for row in rows[1:]]
    raise unknown(wanted)


def unknown(wanted: str) -> NotFound:
    return NotFound(f"no charge or request {wanted[:80]!r}: what was refused, or left before dispatch, has no record")


def _price(connection: sqlite3.Connection, record: Record) -> dict[str, Any] | None:
    """None where nobody knows the rates: the version was not kept, or the record does not fit it."""
    name, version = record["rate_card"], record["card_version"]
    kept = cards.kept(connection)
    price = recomputed(record, kept) if (name, version) in kept else None
    if price is None:
        return None
    lines = [
        {
            "card": line.card, "version": line.version, "bucket": line.bucket, "quantity": line.quantity,
            "rate": credits_text(line.rate), "credits": credits_text(line.quantity * line.rate),
        }
        for line in price.lines
    ]  # fmt: skip
    named = {(name, version): None, **{(line.card, line.version): None for line in price.lines if line.version}}
    described = [_card(connection, card, number) for card, number in named if number is not None]
    return {
        "card": name, "version": version, "effective_at": described[0]["effective_at"], "cards": described,
        "lines": lines, "sum": credits_text(price.cost_uc), "share": credits_text(price.shared_uc),
        "charged": credits_text(price.charged_uc),
    }  # fmt: skip


def _card(connection: sqlite3.Connection, card: str, version: int) -> dict[str, Any]:
    """A version that is kept: since when it is there, and from which date, at which hours and by which factor."""
    found = cards.version_of(connection, card, version)
    assert found is not None, "it was read a moment ago"
    tariff = found.tariff
    return {
        "card": card, "version": version, "effective_at": iso(found.made_ms), "from": tariff.effective or None,
        "hours": list(tariff.hours), "factor": tariff.factor or None,
    }  # fmt: skip


def _grants(connection: sqlite3.Connection, record: Record) -> list[dict[str, Any]]:
    """Those that could be drawn on then, in burn order, each with what it paid and the reason for its place."""
    parts: dict[str, int] = orjson.loads(record["parts"])
    then_ms, path = record["opened_ms"], orjson.loads(record["account_path"])
    alive = [
        grant
        for grant in grants(connection)
        if grant.id in parts or (grant.account in path and grant.created_ms <= then_ms and grant.live(then_ms))
    ]
    order = sorted(alive, key=burn_key)
    reasons = [_before(*pair) for pair in pairwise(order)]
    reasons.append("the last of those that were there" if len(order) > 1 else "the only one that was there")
    return [
        {
            "grant": grant.id, "kind": "payg" if grant.payg else "prepaid", "account": grant.account,
            "paid": credits_text(parts.get(grant.id, 0)),
            "priority": grant.priority, "created_at": iso(grant.created_ms),
            "expires_at": None if grant.expires_ms is None else iso(grant.expires_ms), "source_ref": grant.source_ref,
            "place": reason, "why": _paid(connection, record, order[at:], parts, first=not at),
        }
        for at, (grant, reason) in enumerate(zip(order, reasons, strict=True))
    ]  # fmt: skip


def _before(grant: Grant, following: Grant) -> str:
    """What puts it before the next one: the first of burn_key's terms that differs."""
    if grant.priority != following.priority:
        return f"before {following.id} by priority: {grant.priority} is less than {following.priority}"
    if grant.expires_ms != following.expires_ms:
        assert grant.expires_ms is not None
        later = "never" if following.expires_ms is None else iso(following.expires_ms)
        return f"before {following.id} by expiry: it ends {iso(grant.expires_ms)}, the other {later}"
    if grant.created_ms != following.created_ms:
        return f"before {following.id} by age: it was granted first"
    return f"before {following.id} by its id: all else is equal"


def _paid(
    connection: sqlite3.Connection, record: Record, order: Sequence[Grant], parts: Mapping[str, int], *, first: bool
) -> str:
    """Why the first of `order` paid, or did not: each pays what it can before the next one does."""
    grant, *later = order
    if grant.id not in parts and grant.scope is not None:
        words = ", ".join(f"{kind} {' or '.join(names)}" for kind, names in grant.scope.value.items())
        return f"it is only for {words}"
    if grant.id in parts:
        return "it comes first" if first else "what comes before it did not cover the charge"
    if not any(other.id in parts for other in later):
        return "it was not needed"
    left_uc = _left_uc(connection, grant, record)
    return f"others held all that was left of it, {credits_text(left_uc)}" if left_uc > 0 else "nothing was left of it"


def _left_uc(connection: sqlite3.Connection, grant: Grant, record: Record) -> int:
    """What had not been spent, expired or revoked when the charge was opened; open holds are not on record.

    Reads all records before this one, so it is asked only where the answer matters.
    """
    seq, then_ms = record["seq"], record["opened_ms"]
    sql = "SELECT sum(json_extract(parts, ?)) FROM records WHERE seq < ? AND closed_ms <= ? AND instr(parts, ?)"
    path, name = f'$."{grant.id}"', f'"{grant.id}"'
    ((spent,),) = connection.execute(sql, (path, seq, then_ms, name)).fetchall()
    sql = "SELECT sum(uc) FROM entries WHERE grant_id = ? AND kind <> 'granted' AND ms <= ?"
    ((moved,),) = connection.execute(sql, (grant.id, then_ms)).fetchall()
    return grant.granted - (spent or 0) - (moved or 0)
