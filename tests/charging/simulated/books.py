"""What the file of a ledger says after a run, read without the code that has written it."""

from __future__ import annotations

import contextlib
import sqlite3
from collections import defaultdict
from typing import Any

import orjson

from gateway.charging.cuts import all_of
from gateway.charging.store import read_only

RECORDS = "SELECT * FROM records ORDER BY seq"


class Books:
    """What the file says."""

    def __init__(self, path: str) -> None:
        with contextlib.closing(read_only(path)) as connection:
            connection.row_factory = sqlite3.Row
            self.records = [Record(row) for row in connection.execute(RECORDS)]
            self.grants = {row["id"]: dict(row) for row in connection.execute("SELECT * FROM grants")}
            self.orders = {row["id"] for row in connection.execute("SELECT id FROM orders")}
            self.bought = {(row["account"], row["package"]) for row in connection.execute("SELECT * FROM orders")}
            rates = connection.execute("SELECT * FROM rate_cards")
            self.rates = {(row["card"], row["version"]): orjson.loads(row["rates"]) for row in rates}
            self.audit = [dict(row) for row in connection.execute("SELECT * FROM audit")]
            self.cuts = all_of(connection)
            self.months = {
                (row["tenant"], row["month"]): orjson.loads(row["body"])
                for row in connection.execute("SELECT * FROM statements")
            }
            terms = connection.execute("SELECT * FROM card_terms")
            self.terms = {(row["card"], row["version"]): orjson.loads(row["terms"]) for row in terms}
            self.holds = [row["charge_id"] for row in connection.execute("SELECT charge_id FROM holds")]
            endings = {name: orjson.loads(row["ending"] or "{}") for name, row in self.grants.items()}
            self.purses = {name for name, ending in endings.items() if ending.get("payg")}
            self.entries = [dict(row) for row in connection.execute("SELECT * FROM entries")]
        self.by_request: dict[str, list[Record]] = defaultdict(list)
        for record in self.records:
            record.afterwards = bool(self.purses & record.parts.keys())
            self.by_request[record.request].append(record)


class Record:
    def __init__(self, row: Any) -> None:
        self.seq, self.request, self.tenant = row["seq"], row["request_id"], row["tenant"]
        self.status, self.backend, self.model = row["status"], row["backend"], row["model_served"]
        self.charged, self.reserved, self.overage = row["charged"], row["reserved"], row["overage"]
        self.usage: dict[str, int] = orjson.loads(row["usage"])
        self.flags: list[str] = orjson.loads(row["flags"])
        self.parts: dict[str, int] = orjson.loads(row["parts"])
        self.path: list[str] = orjson.loads(row["account_path"])
        self.split: list[dict[str, Any]] = orjson.loads(row["split"] or "[]")
        self.opened_ms, self.closed_ms, self.card_version = row["opened_ms"], row["closed_ms"], row["card_version"]

    afterwards = False  # paid for by a purse

    @property
    def kinds(self) -> list[str]:
        """What of it happens to some."""
        cards = [f"card {share['card']}" for share in self.split]
        more = {"in debt": self.overage, "paid for afterwards": self.afterwards}
        return [self.status, *self.flags, *cards, *(kind for kind, is_so in more.items() if is_so)]

    @property
    def hit(self) -> bool:
        return "cache_hit" in self.flags

    @property
    def settled(self) -> bool:
        return self.status == "settled" and "crash" not in self.flags

    def __repr__(self) -> str:
        return f"record {self.seq} of {self.request} ({self.status}, {self.charged} uc, {self.flags})"
