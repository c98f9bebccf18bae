"""The ledger's file recomputed from its records and entries alone, without the image that wrote it."""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from typing import Any

import orjson

from gateway.charging import cards
from gateway.charging.caps import caps_contradicted
from gateway.charging.rating import cost_uc, shared_uc
from gateway.charging.sales_audit import sales_contradicted
from gateway.charging.store import read_only
from gateway.errors import StoreUnavailable


def audit(db_path: str) -> list[str]:
    """What contradicts the invariants of the charging design, one line each; empty when the books are right.

    One read-only snapshot: it may run beside a gateway that is serving. Raises StoreUnavailable.
    """
    try:
        with contextlib.closing(read_only(db_path)) as connection:
            connection.row_factory = sqlite3.Row
            connection.execute("BEGIN")
            books = _Books(connection).problems
            return [*books, *caps_contradicted(connection), *sales_contradicted(connection)]
    except sqlite3.Error as error:
        raise StoreUnavailable(f"the ledger cannot be read: {error}") from error


class _Books:
    """Sums over the records and entries, then every table against them. State: the sums and `problems`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.problems: list[str] = []
        self._charges: set[str] = set()
        self._by_grant: dict[str, Counter[str]] = {}
        self._by_account: dict[str, Counter[str]] = {}
        self._cards = cards.kept(connection)
        self._read_records(connection)
        self._read_entries(connection)
        self._check_grants(connection)
        self._check_accounts(connection)
        for (charge_id,) in connection.execute("SELECT charge_id FROM holds"):
            self._expect("I6", f"hold {charge_id}", charge_id not in self._charges)

    def _expect(self, name: str, what: str, holds: bool) -> None:
        if not holds:
            self.problems.append(f"{name}: {what}")

    def _read_records(self, connection: sqlite3.Connection) -> None:
        for number, row in enumerate(connection.execute("SELECT * FROM records ORDER BY seq"), 1):
            what = f"record {row['seq']}"
            parts: dict[str, int] = orjson.loads(row["parts"])
            self._expect("I9", f"{what} is the {number}th", row["seq"] == number)
            self._expect("I6", f"{what} closes {row['charge_id']} again", row["charge_id"] not in self._charges)
            self._charges.add(row["charge_id"])
            values = (row["charged"], row["debt"], row["loss"], row["reserved"], *parts.values())
            self._expect("I4", f"{what} has a negative value", min(values) >= 0)
            self._expect("I4", f"{what} is not paid as charged", row["charged"] == sum(parts.values()) + row["overage"])
            self._expect("I4", f"{what} has another overage", row["overage"] == row["debt"] + row["loss"])
            self._expect("I8", f"{what} has charged {row['charged']}, not what its card says", self._recomputes(row))
            self._expect("I13", f"{what} was never dispatched", _dispatched(row))
            for grant, uc in parts.items():
                self._grant(grant)["spent"] += uc
            sums = self._account(row["tenant"])
            for name in ("charged", "debt", "loss"):
                sums[name] += row[name]

    def _recomputes(self, row: Any) -> bool:
        """The charge from the record's usage and the kept version of its card. Only what is settled costs anything."""
        card = self._cards.get((row["rate_card"], row["card_version"]))
        if row["status"] != "settled":
            return bool(row["charged"] == 0)
        if card is None:
            return bool(row["card_version"] == cards.UNKEPT)
        flags = orjson.loads(row["flags"])
        try:
            cost = shared_uc(cost_uc(orjson.loads(row["usage"]), card.get(row["model_served"], {})), flags)
        except (KeyError, ArithmeticError):  # no rate; a share that is no number
            return False
        if "bad_usage" in flags or "estimated" in flags:
            cost = max(0, min(cost, row["reserved"]))
        return bool(row["charged"] == cost)

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
            self._expect("I1", f"{what} gave more than it had", 0 <= gone <= row["granted"])
            for name in ("granted", "spent", "expired", "revoked"):
                self._expect("I5", f"{what} has {name} {row[name]}, not {sums[name]}", row[name] == sums[name] >= 0)
        self._expect("I5", f"parts of unknown grants {sorted(self._by_grant)}", not self._by_grant)

    def _check_accounts(self, connection: sqlite3.Connection) -> None:
        for row in connection.execute("SELECT * FROM accounts"):
            sums, what = self._by_account.pop(row["id"], Counter()), f"account {row['id']}"
            for name, column in (("charged", "settled_uc"), ("debt", "debt_uc"), ("loss", "loss_uc")):
                good = row[column] == sums[name] >= 0
                self._expect("I5", f"{what} has {column} {row[column]}, not {sums[name]}", good)
        self._expect("I5", f"records of unknown accounts {sorted(self._by_account)}", not self._by_account)

    def _grant(self, name: str) -> Counter[str]:
        return self._by_grant.setdefault(name, Counter())

    def _account(self, name: str) -> Counter[str]:
        return self._by_account.setdefault(name, Counter())


def _dispatched(row: Any) -> bool:
    return row["status"] != "settled" or bool(row["backend"]) or "cache_hit" in orjson.loads(row["flags"])
