"""The ledger's file recomputed from its records and entries alone, without the image that wrote it."""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import orjson

from gateway.charging import audited, cards, chain
from gateway.charging.cap_records import caps_contradicted
from gateway.charging.recomputed import recomputed
from gateway.charging.sales_audit import sales_contradicted
from gateway.charging.statement_audit import statements_contradicted
from gateway.charging.store import read_only
from gateway.charging.tariffs import UNKEPT
from gateway.errors import StoreUnavailable

MOST: Final = 1_000  # differences that are told; all are counted
TOLD_EVERY: Final = 10_000  # records, between two calls of `seen`
SHOWN_DIGITS: Final = 12  # of a hash: enough to tell one from another
Seen = Callable[[int], None]


@dataclass(frozen=True)
class Difference:
    """`check` is an invariant of docs/records.md, `subject` such as "record 7"."""

    check: str
    subject: str
    field: str
    says: str

    def __str__(self) -> str:
        return f"{self.check}: {self.subject} {self.says}"


@dataclass(frozen=True)
class Findings:
    """`last_hash` is that of record `records`, "" without a chain; `differences` are the first of `found`."""

    records: int
    last_hash: str
    found: int
    differences: list[Difference]


def audit(db_path: str) -> list[str]:
    """What contradicts the invariants of the charging design, one line each; empty when the books are right."""
    return [str(difference) for difference in verified(db_path).differences]


def verified(db_path: str, seen: Seen = lambda seq: None) -> Findings:
    """One read-only snapshot: it may run beside a gateway that is serving. `seen` hears how far it is.

    Raises StoreUnavailable.
    """
    try:
        with contextlib.closing(read_only(db_path)) as connection:
            connection.row_factory = sqlite3.Row
            connection.execute("BEGIN")
            books = _Books(connection, seen)
    except sqlite3.Error as error:
        raise StoreUnavailable(f"the ledger cannot be read: {error}") from error
    return Findings(books.last[0], books.last[1], books.found, books.differences)


class _Books:
    """Sums over the records and entries, then every table against them. State: the sums, the last record's number and
    hash, and what differs."""

    def __init__(self, connection: sqlite3.Connection, seen: Seen) -> None:
        self.differences: list[Difference] = []
        self.found = 0
        self._head = chain.head(connection)
        self.last = (0, chain.GENESIS if self._head else "")
        self._charges: set[str] = set()
        self._by_grant: dict[str, Counter[str]] = {}
        self._by_account: dict[str, Counter[str]] = {}
        self._cards = cards.kept(connection)
        self._read_records(connection, seen)
        self._read_entries(connection)
        self._check_grants(connection)
        self._check_accounts(connection)
        self._check_holds(connection)
        self._check_caps(connection)
        for line in sales_contradicted(connection):
            check, _, says = line.partition(": ")
            self._differ(check, "sales", "", says)
        self._check_statements(connection)
        for what, says in audited.contradicted(connection):
            self._differ("I16", what, "hash", says)

    def _differ(self, check: str, subject: str, field: str, says: str) -> None:
        self.found += 1
        if len(self.differences) < MOST:
            self.differences.append(Difference(check, subject, field, says))

    def _expect(self, check: str, subject: str, field: str, says: str, holds: bool) -> None:
        if not holds:
            self._differ(check, subject, field, says)

    def _read_records(self, connection: sqlite3.Connection, seen: Seen) -> None:
        for row in connection.execute(f"{chain.select_sql(connection)} ORDER BY seq"):
            what, before = f"record {row['seq']}", self.last[0]
            self._expect("I9", what, "seq", f"follows record {before}", row["seq"] == before + 1)
            self._follow_chain(row)
            try:
                self._read_record(row, what)
            except (ValueError, TypeError, AttributeError) as error:  # text that is no JSON, or not of this kind
                self._differ("I8", what, "usage", f"cannot be read: {error}")
            if row["seq"] % TOLD_EVERY == 0:
                seen(row["seq"])
        self._check_head()

    def _read_record(self, row: Any, what: str) -> None:
        parts: dict[str, int] = orjson.loads(row["parts"])
        known = row["charge_id"] in self._charges
        self._expect("I6", what, "charge_id", f"closes {row['charge_id']} again", not known)
        self._charges.add(row["charge_id"])
        values = (row["charged"], row["debt"], row["loss"], row["reserved"], *parts.values())
        self._expect("I4", what, "parts", "has a negative value", min(values) >= 0)
        paid = sum(parts.values()) + row["overage"]
        self._expect("I4", what, "parts", "is not paid as charged", row["charged"] == paid)
        self._expect("I4", what, "overage", "has another overage", row["overage"] == row["debt"] + row["loss"])
        self._check_price(row, what)
        self._expect("I13", what, "backend", "was never dispatched", _dispatched(row))
        for grant, uc in parts.items():
            self._grant(grant)["spent"] += uc
        sums = self._account(row["tenant"])
        for name in ("charged", "debt", "loss"):
            sums[name] += row[name]

    def _check_price(self, row: Any, what: str) -> None:
        """The charge from the record's usage and the kept version of its card."""
        known = (row["rate_card"], row["card_version"]) in self._cards
        if not known and row["status"] == "settled":
            good = row["card_version"] == UNKEPT
        else:
            price = recomputed(row, self._cards)
            good = price is not None and price.charged_uc == row["charged"]
        self._expect("I8", what, "charged", f"has charged {row['charged']}, not what its card says", good)

    def _follow_chain(self, row: Any) -> None:
        """From the hash that the file has: one that is wrong is told where it is, and not for all that follow."""
        if self._head is None:  # a file that is older than the chain
            self.last = (row["seq"], "")
            return
        what, computed = f"record {row['seq']}", ""
        try:
            computed = chain.link(self.last[1], tuple(row)[:-1])
        except TypeError:
            self._differ("I14", what, "hash", "holds something that no ledger has written")
        else:
            wanted = computed if self._head.stored(row["seq"]) else ""
            said = f"has hash {_short(row['hash'])}, not {_short(wanted)}"
            self._expect("I14", what, "hash", said, row["hash"] == wanted)
        self.last = (row["seq"], str(row["hash"] or computed))

    def _check_head(self) -> None:
        """Records that are gone from the end leave no gap."""
        if self._head is not None:
            seq, last_hash = self.last
            said = f"are {seq}, not {self._head.seq}"
            self._expect("I14", "all records", "seq", said, seq == self._head.seq)
            said = f"end with hash {_short(last_hash)}, not {_short(self._head.hash)}"
            self._expect("I14", "all records", "hash", said, last_hash == self._head.hash)

    def _read_entries(self, connection: sqlite3.Connection) -> None:
        for row in connection.execute("SELECT account, grant_id, kind, uc FROM entries"):
            if row["kind"] == "debt_repaid":
                self._grant(row["grant_id"])["spent"] += row["uc"]
                self._account(row["account"])["debt"] -= row["uc"]
            else:
                self._grant(row["grant_id"])[row["kind"]] += row["uc"]

    def _check_grants(self, connection: sqlite3.Connection) -> None:
        for row in connection.execute("SELECT * FROM grants"):
            sums, what = self._by_grant.pop(row["id"], Counter()), f"grant {row['id']}"
            gone = row["spent"] + row["expired"] + row["revoked"]
            self._expect("I1", what, "granted", "gave more than it had", 0 <= gone <= row["granted"])
            for name in ("granted", "spent", "expired", "revoked"):
                good = row[name] == sums[name] >= 0
                self._expect("I5", what, name, f"has {name} {row[name]}, not {sums[name]}", good)
        for name in sorted(self._by_grant):
            self._differ("I5", f"grant {name}", "id", "is not there, and has paid or moved")

    def _check_accounts(self, connection: sqlite3.Connection) -> None:
        for row in connection.execute("SELECT * FROM accounts"):
            sums, what = self._by_account.pop(row["id"], Counter()), f"account {row['id']}"
            for name, column in (("charged", "settled_uc"), ("debt", "debt_uc"), ("loss", "loss_uc")):
                good = row[column] == sums[name] >= 0
                self._expect("I5", what, column, f"has {column} {row[column]}, not {sums[name]}", good)
        for name in sorted(self._by_account):
            self._differ("I5", f"account {name}", "id", "is not there, and has records")

    def _check_holds(self, connection: sqlite3.Connection) -> None:
        for charge_id, reserved, parts in connection.execute("SELECT charge_id, reserved, parts FROM holds"):
            what = f"hold {charge_id}"
            self._expect("I6", what, "charge_id", "is open, and has a record", charge_id not in self._charges)
            held = sum(orjson.loads(parts).values())
            self._expect("I3", what, "parts", f"holds {held}, not {reserved}", held == reserved)

    def _check_caps(self, connection: sqlite3.Connection) -> None:
        try:
            for name, window, says in caps_contradicted(connection):
                self._differ("I7", f"account {name}", f"cap {window}", says)
        except (ValueError, TypeError):  # a path or flags that are no JSON, which the chain tells of by record
            self._differ("I7", "all records", "account_path", "cannot be counted for caps")

    def _check_statements(self, connection: sqlite3.Connection) -> None:
        try:
            for subject, field, says in statements_contradicted(connection):
                self._differ("I15", subject, field, says)
        except (ValueError, TypeError, AttributeError):  # parts that are no JSON, which I8 tells of by record
            self._differ("I15", "all records", "parts", "cannot be counted for statements")

    def _grant(self, name: str) -> Counter[str]:
        return self._by_grant.setdefault(name, Counter())

    def _account(self, name: str) -> Counter[str]:
        return self._by_account.setdefault(name, Counter())


def _short(text: object) -> str:
    return f"{str(text)[:SHOWN_DIGITS]}..." if text else "none"


def _dispatched(row: Any) -> bool:
    return row["status"] != "settled" or bool(row["backend"]) or "cache_hit" in orjson.loads(row["flags"])
