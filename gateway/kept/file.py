"""The SQLite file of what is kept. sqlite3 and OS errors end here, as StoreUnavailable.

A response is kept with the items that were new in its request; `previous` leads to what came before. All responses
that go on from one another are a conversation. Conversations go as a whole: when they have not been used for so long,
or to make room. Room is made where most is: at the tenant that has more bytes than any other, the one that keeps
counted with what it keeps; of its conversations the one goes that was used the longest ago.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway.errors import RequestTooLarge, StoreUnavailable

OVERHEAD_BYTES: Final = 1_000  # of a response, beside its text: so many small ones are bounded, too
MOST_TURNS: Final = 2_000  # of one conversation that are read back
SWEPT_AT_ONCE: Final = 100
_BUSY_S: Final = 0.5
_log = logging.getLogger("gateway.kept")
_DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
# The content of deleted rows is overwritten. After a power cut the last commits may be lost, never the file.
_PRAGMAS: Final = """
PRAGMA journal_mode=WAL;
PRAGMA synchronous=NORMAL;
PRAGMA secure_delete=ON;
PRAGMA journal_size_limit=16000000;
"""
_DDL: Final = """
CREATE TABLE IF NOT EXISTS responses (tenant TEXT NOT NULL, id TEXT NOT NULL, conversation TEXT NOT NULL, previous TEXT,
  bytes INTEGER NOT NULL, items BLOB NOT NULL, response BLOB NOT NULL, PRIMARY KEY (tenant, id));
CREATE INDEX IF NOT EXISTS by_conversation ON responses (tenant, conversation);
CREATE TABLE IF NOT EXISTS conversations (tenant TEXT NOT NULL, id TEXT NOT NULL, used_ms INTEGER NOT NULL,
  bytes INTEGER NOT NULL, PRIMARY KEY (tenant, id)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_use ON conversations (used_ms);
CREATE INDEX IF NOT EXISTS by_tenant_and_use ON conversations (tenant, used_ms);
CREATE TABLE IF NOT EXISTS tenants (tenant TEXT PRIMARY KEY, bytes INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_bytes ON tenants (bytes);
"""
_CHAIN: Final = """
WITH RECURSIVE chain(id, previous, bytes, turn) AS (
  SELECT id, previous, bytes, 1 FROM responses WHERE tenant = :tenant AND id = :id
  UNION ALL
  SELECT r.id, r.previous, r.bytes, turn + 1 FROM chain JOIN responses r ON r.tenant = :tenant AND r.id = chain.previous
  WHERE turn < :most)
SELECT id, previous, bytes FROM chain ORDER BY turn
"""
_ADD_CONVERSATION: Final = """
INSERT INTO conversations VALUES (:tenant, :id, :ms, :bytes)
ON CONFLICT DO UPDATE SET used_ms = max(used_ms, :ms), bytes = bytes + :bytes
"""
_ADD_TENANT: Final = "INSERT INTO tenants VALUES (?, ?) ON CONFLICT DO UPDATE SET bytes = bytes + excluded.bytes"


@dataclass(slots=True)
class Turn:
    """A response, and the items that were new in its request; both as JSON. `previous` is what it went on from."""

    tenant: str
    id: str
    previous: str | None
    used_ms: int
    items: bytes
    response: bytes

    @property
    def size(self) -> int:
        return len(self.items) + len(self.response) + OVERHEAD_BYTES


class File:
    """All of it runs in one thread. State: the connection (None until it is needed, and after an error), and the
    bytes of all responses."""

    def __init__(self, path: str, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._connection: sqlite3.Connection | None = None
        self.bytes = 0

    def write(self, turns: Sequence[Turn]) -> list[str]:
        """What became of each: `kept`, `known` (it was there already), `orphan` (what it goes on from is not there any
        more) or `no_room`. One transaction."""
        with self._transaction() as connection:
            return [self._add(connection, turn) for turn in turns]

    def chain(self, tenant: str, response_id: str, max_bytes: int) -> list[tuple[bytes, bytes]] | None:
        """(items, response) of a conversation up to this response, the oldest first; None when not all of it is there.

        Raises RequestTooLarge.
        """
        with self._transaction() as connection:
            names = {"tenant": tenant, "id": response_id, "most": MOST_TURNS}
            turns = connection.execute(_CHAIN, names).fetchall()
            if not turns or turns[-1][1] is not None:
                return None
            if sum(size for _, _, size in turns) <= max_bytes:
                return [self._turn(connection, tenant, name) for name, _, _ in reversed(turns)]
        raise RequestTooLarge(f"The conversation of '{response_id}' has more than {max_bytes} bytes.")

    def find(self, tenant: str, response_id: str) -> tuple[bytes, bytes] | None:
        """(items, response)."""
        with self._transaction() as connection:
            sql = "SELECT items, response FROM responses WHERE tenant = ? AND id = ?"
            found: tuple[bytes, bytes] | None = connection.execute(sql, (tenant, response_id)).fetchone()
            return found

    def delete(self, tenant: str, response_id: str) -> bool:
        """False when it is not there."""
        with self._transaction() as connection:
            sql = "DELETE FROM responses WHERE tenant = ? AND id = ? RETURNING conversation, bytes"
            found = connection.execute(sql, (tenant, response_id)).fetchone()
            if found is None:
                return False
            conversation, size = found
            sql = "UPDATE conversations SET bytes = bytes - ? WHERE tenant = ? AND id = ? RETURNING bytes"
            ((left,),) = connection.execute(sql, (size, tenant, conversation)).fetchall()
            if not left:
                connection.execute("DELETE FROM conversations WHERE tenant = ? AND id = ?", (tenant, conversation))
            self._freed(connection, tenant, size)
            return True

    def expire(self, before_ms: int) -> int:
        """Lets some of the conversations go that were not used since; how many."""
        return self._drop_some("used_ms < ?", before_ms)

    def forget(self, tenant: str) -> int:
        """Lets some of the conversations of a tenant go; how many."""
        return self._drop_some("tenant = ?", tenant)

    def tenants(self) -> list[str]:
        with self._transaction() as connection:
            return [name for (name,) in connection.execute("SELECT tenant FROM tenants")]

    def close(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def _add(self, connection: sqlite3.Connection, turn: Turn) -> str:
        names = (turn.tenant, turn.id)
        if connection.execute("SELECT 1 FROM responses WHERE tenant = ? AND id = ?", names).fetchone():
            return "known"
        conversation = turn.id
        if turn.previous is not None:
            sql = "SELECT conversation FROM responses WHERE tenant = ? AND id = ?"
            found = connection.execute(sql, (turn.tenant, turn.previous)).fetchone()
            if found is None:
                return "orphan"
            (conversation,) = found
        size = turn.size
        if not self._make_room(connection, turn.tenant, conversation, size):
            return "no_room"
        row = (turn.tenant, turn.id, conversation, turn.previous, size, turn.items, turn.response)
        connection.execute("INSERT INTO responses VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        told = {"tenant": turn.tenant, "id": conversation, "ms": turn.used_ms, "bytes": size}
        connection.execute(_ADD_CONVERSATION, told)
        connection.execute(_ADD_TENANT, (turn.tenant, size))
        self.bytes += size
        return "kept"

    def _make_room(self, connection: sqlite3.Connection, tenant: str, conversation: str, size: int) -> bool:
        """Never at the cost of the conversation itself."""
        if size > self._max_bytes:
            return False
        while self.bytes + size > self._max_bytes:
            richest = self._richest(connection, tenant, size)
            sql = "SELECT id FROM conversations WHERE tenant = ? AND NOT (tenant = ? AND id = ?) ORDER BY used_ms"
            found = connection.execute(f"{sql} LIMIT 1", (richest, tenant, conversation)).fetchone()
            if found is None:
                return False
            self._drop(connection, richest, *found)
        return True

    def _richest(self, connection: sqlite3.Connection, tenant: str, size: int) -> str:
        """The tenant that keeps counted with what it keeps."""
        ((richest, most),) = connection.execute("SELECT tenant, bytes FROM tenants ORDER BY bytes DESC LIMIT 1")
        own = connection.execute("SELECT bytes FROM tenants WHERE tenant = ?", (tenant,)).fetchone()
        return tenant if own is not None and own[0] + size >= most else str(richest)

    def _drop_some(self, condition: str, value: Any) -> int:
        with self._transaction() as connection:
            sql = f"SELECT tenant, id FROM conversations WHERE {condition} LIMIT {SWEPT_AT_ONCE}"  # noqa: S608
            found = connection.execute(sql, (value,)).fetchall()
            for tenant, conversation in found:
                self._drop(connection, tenant, conversation)
            return len(found)

    def _drop(self, connection: sqlite3.Connection, tenant: str, conversation: str) -> None:
        names = (tenant, conversation)
        connection.execute("DELETE FROM responses WHERE tenant = ? AND conversation = ?", names)
        sql = "DELETE FROM conversations WHERE tenant = ? AND id = ? RETURNING bytes"
        ((size,),) = connection.execute(sql, names).fetchall()
        self._freed(connection, tenant, size)

    def _freed(self, connection: sqlite3.Connection, tenant: str, size: int) -> None:
        connection.execute("UPDATE tenants SET bytes = bytes - ? WHERE tenant = ?", (size, tenant))
        connection.execute("DELETE FROM tenants WHERE tenant = ? AND bytes = 0", (tenant,))
        self.bytes -= size

    def _turn(self, connection: sqlite3.Connection, tenant: str, response_id: str) -> tuple[bytes, bytes]:
        sql = "SELECT items, response FROM responses WHERE tenant = ? AND id = ?"
        ((items, response),) = connection.execute(sql, (tenant, response_id)).fetchall()
        return items, response

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """After an error the connection is dropped, and the next one counts again what is there."""
        try:
            if self._connection is None:
                self._connection = self._opened()
            self._connection.execute("BEGIN IMMEDIATE")
            yield self._connection
            self._connection.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            self.close()
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED:  # the rest of it says where
                self._put_aside()
            raise StoreUnavailable(f"kept responses cannot be used now: {error}") from error
        except BaseException:
            self.close()
            raise

    def _opened(self) -> sqlite3.Connection:
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # prompts are in it
        connection = sqlite3.connect(self._path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            connection.executescript(_PRAGMAS + _DDL)
            ((self.bytes,),) = connection.execute("SELECT coalesce(sum(bytes), 0) FROM tenants").fetchall()
        except BaseException:
            connection.close()
            raise
        return connection

    def _put_aside(self) -> None:
        """A new file is begun: what is kept is worth less than that responses are kept again."""
        _log.error("the file of kept responses is damaged: it is %s.damaged now, and a new one is begun", self._path)
        with contextlib.suppress(OSError):
            os.replace(self._path, f"{self._path}.damaged")
        for rest in ("-wal", "-shm"):
            with contextlib.suppress(OSError):
                os.unlink(f"{self._path}{rest}")
