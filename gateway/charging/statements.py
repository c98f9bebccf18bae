"""A tenant's statement, from the tables alone: of a span of time, or of a month that is cut or still runs.

What a statement is made of is read for some tenants or for all of them at once; `composed` makes one of it.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import orjson

from gateway.charging import loading
from gateway.charging.composing import Balance, Before, Book, composed, debt_of
from gateway.charging.figures import ALL, Figures, Reach, figures
from gateway.charging.grants import Grant
from gateway.charging.rating import credits_text
from gateway.charging.records import Account, Key
from gateway.charging.statement_lines import lines
from gateway.charging.store import read_only
from gateway.charging.tables import has_table
from gateway.charging.views import FIRST_MS, LAST_MS
from gateway.errors import InvalidValue, NotFound, StoreUnavailable


def statement(db_path: str, tenant: str, from_ms: int, to_ms: int, currency: str = "") -> dict[str, Any]:
    """[from, to): opening + granted - spent - expired - revoked = closing, over the tenant's own prepaid grants.

    `spent` is what they paid, for members of a pool as well; calls, by_model, by_key, overage and debt are the
    tenant's own. Raises NotFound, StoreUnavailable.
    """
    with reading(db_path) as connection:
        check_tenant(connection, tenant)
        names = _drawing(connection, tenant)
        before = _history(connection, tenant, Reach(-ALL, from_ms), names)
        found = of_one(connection, tenant, Reach(from_ms, to_ms), before, currency, names)
        found["reserved"] = credits_text(_reserved(connection, tenant))
        return {**found, "month": None, "preliminary": True, "cut": None, "sha256": None}


@contextlib.contextmanager
def reading(db_path: str) -> Any:
    """One snapshot for all the reading. Raises StoreUnavailable."""
    try:
        with contextlib.closing(read_only(db_path)) as connection:
            connection.execute("BEGIN")
            yield connection
    except sqlite3.Error as error:
        raise StoreUnavailable(f"the ledger {db_path} cannot be read: {error}") from error


def accounts(db_path: str) -> list[Account]:
    """Of the file alone, whoever has it open."""
    with reading(db_path) as connection:
        return list(loading.accounts(connection).values())


def keys(db_path: str, tenant: str) -> list[Key]:
    """Also revoked and expired ones; of the file alone."""
    with reading(db_path) as connection:
        return [key for key in loading.keys(connection) if key.tenant == tenant]


def span(from_: str | None, to: str | None, now_ms: int, zone: ZoneInfo) -> tuple[int, int]:
    """[from, to) of ISO dates or times, in `zone` unless they say where; default: this month so far.

    Raises InvalidValue.
    """
    now = datetime.fromtimestamp(now_ms / 1000, zone)
    month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    from_ms = int(month.timestamp() * 1000) if from_ is None else _ms(from_, zone, "from")
    to_ms = now_ms + 1 if to is None else _ms(to, zone, "to")
    if from_ms > to_ms:
        raise InvalidValue("from lies after to.", param="from")
    return from_ms, to_ms


def _ms(text: str, zone: ZoneInfo, name: str) -> int:
    try:
        when = datetime.fromisoformat(text)
        ms = int((when if when.tzinfo else when.replace(tzinfo=zone)).timestamp() * 1000)
    except (ValueError, OverflowError) as error:
        raise InvalidValue(f"{name} is a date or time such as 2027-01-31, not {text[:40]!r}.", param=name) from error
    if not FIRST_MS <= ms <= LAST_MS:
        raise InvalidValue(f"{name} lies outside the years 1970 to 9999.", param=name)
    return ms


def check_tenant(connection: sqlite3.Connection, tenant: str) -> None:
    if not connection.execute("SELECT 1 FROM accounts WHERE id = ?", (tenant,)).fetchall():
        raise NotFound(f"no tenant {tenant[:64]!r}")


# -- what statements are made of ----------------------------------------------------------------------------------


def of_one(
    connection: sqlite3.Connection, tenant: str, reach: Reach, before: Before, currency: str,
    names: Collection[str] | None,
) -> dict[str, Any]:  # fmt: skip
    """`names` are those whose calls may have drawn on the tenant's grants; None: anybody."""
    owned = loading.grants(connection, "WHERE account = ?", (tenant,))
    found = figures(connection, reach, names, [grant.id for grant in owned])
    named = {grant.id: grant for grant in owned}
    moving = [grant for grant in owned if grant.id in found.moved or grant.id in before.left]
    sold = lines(connection, reach, named, [tenant])
    members = {tenant: members_of(connection, tenant)}
    return composed(
        tenant, reach, Book(found, {tenant: moving}, sold, members, _key_names(connection), currency), before
    )  # fmt: skip


def of_running(
    connection: sqlite3.Connection, tenant: str, reach: Reach, before: Before, currency: str
) -> dict[str, Any]:  # fmt: skip
    """Up to now. Those who are below the tenant have drawn on its grants; where that does not come to what the grants
    have left, somebody has moved away, and all records are asked."""
    names = [tenant, *members_of(connection, tenant)]
    found = of_one(connection, tenant, reach, before, currency, names)
    owned = loading.grants(connection, "WHERE account = ?", (tenant,))
    left = {one.id: credits_text(one.available) for one in owned if one.available}
    said = {one["grant"]: one["credits"] for one in found["left"]}
    if said | {one["grant"]: one["left"] for one in found["purses"]} != left:
        found = of_one(connection, tenant, reach, before, currency, None)
    return {**found, "reserved": credits_text(_reserved(connection, tenant))}


def _drawing(connection: sqlite3.Connection, tenant: str) -> list[str] | None:
    """Whose calls have drawn on the tenant's grants, ever: as in `of_running`."""
    names = [tenant, *members_of(connection, tenant)]
    owned = loading.grants(connection, "WHERE account = ?", (tenant,))
    found = figures(connection, Reach(-ALL, ALL), names, [grant.id for grant in owned])
    drawn = all(found.moved.get(grant.id, Counter())["spent"] == grant.spent for grant in owned)
    return names if drawn else None


def of_all(connection: sqlite3.Connection, reach: Reach, befores: Mapping[str, Before], currency: str) -> Book:
    """For `composed` of every tenant, in one pass."""
    found = figures(connection, reach)
    names = {*found.moved, *(grant for before in befores.values() for grant in before.left)}
    where = "WHERE id IN (SELECT value FROM json_each(?))"
    grants = {one.id: one for one in loading.grants(connection, where, (orjson.dumps(list(names)).decode(),))}
    owned, members = defaultdict(list), defaultdict(list)
    for grant in grants.values():
        owned[grant.account].append(grant)
    for account in loading.accounts(connection).values():
        for above in account.path[:-1]:
            members[above].append(account.id)
    return Book(found, owned, lines(connection, reach, grants), members, _key_names(connection), currency)


def history_of_all(connection: sqlite3.Connection, reach: Reach) -> dict[str, Before]:
    """What there was before the first month that is cut, by tenant; `reach` is all of the time before it."""
    found = figures(connection, reach)
    owned = defaultdict(list)
    where = "WHERE id IN (SELECT value FROM json_each(?))"
    for grant in loading.grants(connection, where, (orjson.dumps(list(found.moved)).decode(),)):
        owned[grant.account].append(grant)
    return {name: _before(found, name, owned[name]) for name in {*owned, *found.used}}


def _history(connection: sqlite3.Connection, tenant: str, reach: Reach, names: Collection[str] | None) -> Before:
    owned = loading.grants(connection, "WHERE account = ?", (tenant,))
    found = figures(connection, reach, names, [grant.id for grant in owned])
    return _before(found, tenant, owned)


def _before(found: Figures, tenant: str, owned: Collection[Grant]) -> Before:
    left = {one.id: Balance(one, 0, found.moved[one.id]).closing for one in owned if one.id in found.moved}
    spent = {one.id: found.moved[one.id]["spent"] for one in owned if one.payg and left.get(one.id)}
    return Before({name: uc for name, uc in left.items() if uc}, spent, debt_of(found, tenant))


def members_of(connection: sqlite3.Connection, tenant: str) -> list[str]:
    """All below it."""
    rows = connection.execute("SELECT id, path FROM accounts WHERE instr(path, ?)", (orjson.dumps(tenant).decode(),))
    return sorted(name for name, path in rows if name != tenant and tenant in orjson.loads(path))


def _key_names(connection: sqlite3.Connection) -> dict[str, str]:
    return dict(connection.execute("SELECT id, name FROM keys").fetchall())


def _reserved(connection: sqlite3.Connection, tenant: str) -> int:
    """Of the holds that are written: those open for longer than 50 ms."""
    own = {grant.id for grant in loading.grants(connection, "WHERE account = ?", (tenant,)) if not grant.payg}
    rows = connection.execute("SELECT parts FROM holds")
    return sum(int(uc) for (parts,) in rows for grant, uc in orjson.loads(parts).items() if grant in own)


def cut_table(connection: sqlite3.Connection) -> bool:
    """Nobody may have opened the file for writing since months are cut."""
    return has_table(connection, "cuts")
