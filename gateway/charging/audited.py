"""The audit log: an entry for each change that somebody asked for, in the commit of the change, chained as records are.

hash = SHA-256(hash of the entry before, followed by the text of the entry's columns without the hash); see chain.py.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final, TypeVar, cast

import orjson

from gateway.charging import chain
from gateway.charging.admins import AUDIT_COLUMNS, NO_HASH, By
from gateway.charging.image import Image
from gateway.charging.records import Row
from gateway.charging.schema import select_sql
from gateway.charging.store import read_only
from gateway.charging.tables import has_table
from gateway.errors import NotFound, StoreUnavailable, VersionMismatch

VERSION_DIGITS: Final = 16
T = TypeVar("T")
Shown = Mapping[str, Any]


@dataclass(frozen=True)
class Kind:
    """What changes are made to. `every` one by its id, which are only ever added to; `show` as JSON without secrets."""

    name: str
    every: Callable[[Image], Mapping[str, Any]]
    show: Callable[[Any, int], dict[str, Any]]
    tenant: Callable[[Any], str | None]

    def shown(self, image: Image, name: str, now_ms: int) -> dict[str, Any]:
        """Raises NotFound."""
        found = self.every(image).get(name)
        if found is None:
            raise NotFound(f"no {self.name} {name[:64]!r}")
        return self.show(found, now_ms)


@dataclass(frozen=True)
class Deed:
    """A change that is asked for: of what it edits, of what it makes, or of what it edits by making something.

    `versions`: what is edited must be of one of these; empty: of any.
    """

    by: By
    operation: str
    request_id: str = ""
    edits: tuple[Kind, str] | None = None
    makes: Kind | None = None
    versions: frozenset[str] = field(default_factory=frozenset)


def version(shown: Shown) -> str:
    """Of an object: another one when anything of it has changed, whoever did it."""
    said = {name: value for name, value in shown.items() if name != "version"}
    return sha256(orjson.dumps(said, option=orjson.OPT_SORT_KEYS)).hexdigest()[:VERSION_DIGITS]


def audited(image: Image, deed: Deed, step: Callable[..., T], *terms: Any) -> T:
    """`step` for `Ledger.change`; the last of its terms is the time. What it changes leaves one entry, else none.

    Raises what it raises, VersionMismatch, and NotFound for what would be edited.
    """
    now_ms: int = terms[-1]
    before = None if deed.edits is None else _before(image, *deed.edits, deed.versions, now_ms)
    many = 0 if deed.makes is None else len(deed.makes.every(image))
    done: Any = step(image, *terms)
    made = None
    if deed.makes is not None:
        if len(deed.makes.every(image)) == many:  # whoever asks again is given the first
            return cast("T", done)
        made = deed.makes, (done[0] if isinstance(done, tuple) else done).id
    _append(image, deed, made, before, now_ms)
    return cast("T", done)


def _before(image: Image, kind: Kind, name: str, versions: frozenset[str], now_ms: int) -> Shown:
    before = kind.shown(image, name, now_ms)
    current = version(before)
    if versions and current not in versions and "*" not in versions:
        raise VersionMismatch("It was changed meanwhile: look at it again, and send its version.", version=current)
    return before


def _append(image: Image, deed: Deed, made: tuple[Kind, str] | None, before: Shown | None, now_ms: int) -> None:
    """Of what was edited, with what was made for it; else of what was made."""
    of = deed.edits or made
    assert of is not None
    kind, name = of
    after = kind.shown(image, name, now_ms)
    if deed.edits is not None and made is not None:
        after = {**after, "made": made[0].shown(image, made[1], now_ms)}
    if after != before:
        tenant = kind.tenant(kind.every(image)[name])
        note(image, deed.by, deed.operation, deed.request_id, kind.name, name, tenant, before, after, now_ms)


def note(
    image: Image, by: By, operation: str, request_id: str, kind: str, name: str, tenant: str | None,
    before: Shown | None, after: Shown | None, now_ms: int,
) -> None:  # fmt: skip
    """Appends an entry: by itself a step for what changes something else than the image."""
    admins = image.admins
    admins.number += 1
    row = (
        admins.number, now_ms, by.name, by.role, by.key_id, operation, kind, name, tenant, _text(before), _text(after),
        request_id,
    )  # fmt: skip
    admins.hash = chain.link(admins.hash, row)
    image.changes.audit.append((*row, admins.hash))


def _text(shown: Shown | None) -> str | None:
    return None if shown is None else orjson.dumps(shown).decode()


# -- reading, of the file alone -------------------------------------------------------------------------------------


def entries(db_path: str, after: int, limit: int, tenants: Sequence[str] | None = None) -> dict[str, Any]:
    """Entries with a number beyond `after`, of these tenants or (None) of all: {"data", "next"}."""
    wanted = "" if tenants is None else " AND tenant IN (SELECT value FROM json_each(?))"
    terms = (after, *(() if tenants is None else (orjson.dumps(tenants).decode(),)), limit + 1)
    sql = f"{select_sql('audit')} WHERE number > ?{wanted} ORDER BY number LIMIT ?"
    try:
        with contextlib.closing(read_only(db_path)) as connection:
            rows = connection.execute(sql, terms).fetchall() if has_table(connection, "audit") else []
    except sqlite3.Error as error:
        raise StoreUnavailable(f"the ledger cannot be read: {error}") from error
    return {"data": [public_entry(row) for row in rows[:limit]], "next": rows[limit - 1][0] if rows[limit:] else None}


def public_entry(row: Row) -> dict[str, Any]:
    entry = dict(zip(AUDIT_COLUMNS, row, strict=True))
    by = {"name": entry.pop("name"), "role": entry.pop("role"), "key": entry.pop("key_id") or None}
    return {
        "number": entry.pop("number"),
        "at_ms": entry.pop("ms"),
        "by": by,
        **entry,
        "before": None if row[9] is None else orjson.loads(row[9]),
        "after": None if row[10] is None else orjson.loads(row[10]),
        "request_id": row[11] or None,
    }


def contradicted(connection: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    """Entry and what is wrong of those that are not as they were written; nothing in a file from before there were."""
    if not has_table(connection, "audit"):
        return
    number, last = 0, NO_HASH
    for row in connection.execute(f"{select_sql('audit')} ORDER BY number"):
        *values, said = row
        if values[0] != number + 1:
            yield f"audit entry {values[0]}", f"follows entry {number}"
        number = values[0]
        try:
            computed = chain.link(last, tuple(values))
        except TypeError:  # what no ledger writes
            computed = ""
        if said != computed:
            yield f"audit entry {number}", "is not as it was written"
        last = str(said)
    head = connection.execute("SELECT number, hash FROM audit_head").fetchone() or (0, NO_HASH)
    if tuple(head) != (number, last):
        yield "the audit log", f"ends with entry {number}, not as it was written with {head[0]}"
