"""Files that are older than a table: nobody may have opened them for writing since."""

from __future__ import annotations

import sqlite3


def has_table(connection: sqlite3.Connection, name: str) -> bool:
    return connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (name,)).fetchone() is not None
