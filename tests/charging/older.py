"""Ledger files as earlier versions of the schema left them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Final

# What each version of the schema added, taken away again.
UNDONE: Final = {
    10: "DROP TABLE admin_keys; DROP TABLE audit; DROP TABLE audit_head",
    9: "ALTER TABLE records DROP COLUMN key_id; ALTER TABLE holds DROP COLUMN key_id;"
    "ALTER TABLE grants DROP COLUMN price; DROP TABLE cuts; DROP TABLE statements; DROP TABLE usage_days;"
    "DROP TABLE usage_days_head; DROP TABLE cuts_ended",
    8: "ALTER TABLE chain_head DROP COLUMN batch; ALTER TABLE holds DROP COLUMN passed",
    7: "ALTER TABLE grants DROP COLUMN ending; DROP TABLE alerts",
    6: "DROP TABLE card_terms",
    5: "DROP TABLE subscriptions; DROP TABLE orders; DROP TABLE code_batches; DROP TABLE codes; DROP TABLE once",
    4: "ALTER TABLE records DROP COLUMN hash; DROP TABLE chain_head",
    3: "ALTER TABLE accounts DROP COLUMN status; ALTER TABLE accounts DROP COLUMN caps; DROP TABLE cap_use;"
    "ALTER TABLE records DROP COLUMN split; ALTER TABLE grants DROP COLUMN scope",
    2: "ALTER TABLE keys DROP COLUMN limits",
}


def as_version(path: str, version: int) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for step, undone in UNDONE.items():
            if step > version:
                connection.executescript(undone)
        connection.execute("UPDATE meta SET schema_version = ?", (version,))
        connection.commit()
