"""Files that are older than a table or column: nobody may have opened them for writing since."""

from __future__ import annotations

import sqlite3


def has_table(connection: sqlite3.Connection, name: str) -> bool:
    return connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (name,)).fetchone() is not None


def has_column(connection: sqlite3.Connection, table: str, name: str) -> bool:
    return any(name == found for _, found, *_ in connection.execute(f"PRAGMA table_info({table})"))
