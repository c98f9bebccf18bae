"""Records against balances, quickly: sums that SQLite makes by itself, so that it may run beside calls.

`audit` looks at each record; this looks at their sums, every hour, and at holds that nobody will close (I11).
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from typing import Final

from gateway.charging import chain
from gateway.charging.audit import Difference
from gateway.charging.store import read_only
from gateway.errors import StoreUnavailable

OVERDUE_MS: Final = 120_000  # past its deadline: a gateway that runs closes such a hold after half of it
_KINDS: Final = ("granted", "expired", "revoked")


def reconciled(db_path: str, now_ms: int) -> list[Difference]:
    """One read-only snapshot. Raises StoreUnavailable."""
    try:
        with contextlib.closing(read_only(db_path)) as connection:
            connection.execute("BEGIN")
            return _Sums(connection, now_ms).differences
    except sqlite3.Error as error:
        raise StoreUnavailable(f"the ledger cannot be read: {error}; see moma verify") from error


def _sum(column: str) -> str:
    """In halves: SQLite's integers have 64 bits, and a sum of many may have more."""
    return f"sum({column} >> 32), sum({column} & 4294967295)"


def _whole(high: int, low: int) -> int:
    return (high << 32) + low


class _Sums:
    """State: what was spent of each grant and moved on each account, and what differs."""

    def __init__(self, connection: sqlite3.Connection, now_ms: int) -> None:
        self.differences: list[Difference] = []
        self._grants: dict[str, Counter[str]] = {}
        self._accounts: dict[str, Counter[str]] = {}
        self._read_records(connection)
        self._read_entries(connection)
        self._check_numbers(connection)
        self._check_grants(connection)
        self._check_accounts(connection)
        self._check_holds(connection, now_ms)

    def _expect(self, check: str, subject: str, field: str, says: str, holds: bool) -> None:
        if not holds:
            self.differences.append(Difference(check, subject, field, says))

    def _read_records(self, connection: sqlite3.Connection) -> None:
        names = ("charged", "debt", "loss", "overage")
        columns = ", ".join(map(_sum, names))
        for tenant, *halves in connection.execute(f"SELECT tenant, {columns} FROM records GROUP BY tenant"):  # noqa: S608
            pairs = zip(halves[::2], halves[1::2], strict=True)
            self._account(tenant).update(dict(zip(names, (_whole(*pair) for pair in pairs), strict=True)))
        sql = f"SELECT key, {_sum('value')} FROM records, json_each(records.parts) GROUP BY key"  # noqa: S608
        for grant, *halves in connection.execute(sql):
            self._grant(grant)["spent"] += _whole(*halves)
        paid = sum(sums["spent"] for sums in self._grants.values())
        charged = sum(sums["charged"] - sums["overage"] for sums in self._accounts.values())
        self._expect("I4", "all records", "parts", f"have parts of {paid}, not {charged}", paid == charged)

    def _read_entries(self, connection: sqlite3.Connection) -> None:
        sql = f"SELECT account, grant_id, kind, {_sum('uc')} FROM entries GROUP BY account, grant_id, kind"  # noqa: S608
        for account, grant, kind, *halves in connection.execute(sql):
            uc = _whole(*halves)
            if kind == "debt_repaid":
                self._grant(grant)["spent"] += uc
                self._account(account)["debt"] -= uc
            else:
                self._grant(grant)[kind] += uc

    def _check_numbers(self, connection: sqlite3.Connection) -> None:
        ((count, last),) = connection.execute("SELECT count(*), coalesce(max(seq), 0) FROM records").fetchall()
        self._expect("I9", "all records", "seq", f"are {count}, and the last is number {last}", count == last)
        head = chain.head(connection)
        if head is not None:
            self._expect("I14", "all records", "seq", f"end at {last}, not {head.seq}", last == head.seq)

    def _check_grants(self, connection: sqlite3.Connection) -> None:
        for name, *stored in connection.execute("SELECT id, spent, granted, expired, revoked FROM grants"):
            sums = self._grants.pop(name, Counter())
            for field, uc in zip(("spent", *_KINDS), stored, strict=True):
                self._expect("I5", f"grant {name}", field, f"has {field} {uc}, not {sums[field]}", uc == sums[field])
        for name in sorted(self._grants):
            self._expect("I5", f"grant {name}", "id", "is not there, and has paid or moved", False)

    def _check_accounts(self, connection: sqlite3.Connection) -> None:
        fields = {"settled_uc": "charged", "debt_uc": "debt", "loss_uc": "loss"}
        for name, *stored in connection.execute(f"SELECT id, {', '.join(fields)} FROM accounts"):  # noqa: S608
            sums = self._accounts.pop(name, Counter())
            for field, uc in zip(fields, stored, strict=True):
                wanted = sums[fields[field]]
                self._expect("I5", f"account {name}", field, f"has {field} {uc}, not {wanted}", uc == wanted)
        for name in sorted(self._accounts):
            self._expect("I5", f"account {name}", "id", "is not there, and has records", False)

    def _check_holds(self, connection: sqlite3.Connection, now_ms: int) -> None:
        sql = "SELECT charge_id, reserved, deadline_ms FROM holds WHERE deadline_ms < ? ORDER BY deadline_ms"
        for charge_id, uc, deadline_ms in connection.execute(sql, (now_ms - OVERDUE_MS,)):
            said = f"holds {uc}, and its deadline passed {(now_ms - deadline_ms) // 1000} s ago"
            self._expect("I11", f"hold {charge_id}", "deadline_ms", said, False)

    def _grant(self, name: str) -> Counter[str]:
        return self._grants.setdefault(name, Counter())

    def _account(self, name: str) -> Counter[str]:
        return self._accounts.setdefault(name, Counter())
