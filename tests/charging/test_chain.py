"""The hash chain: every change of a record, a balance or the chain itself is found."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gateway.charging import chain
from gateway.charging.audit import audit, verified
from gateway.charging.ledger import Ledger
from gateway.charging.records import RECORD_COLUMNS
from gateway.errors import StoreUnavailable
from tests.charging.fakes import FakeClock, opened, quote, settle


async def charge(ledger: Ledger, charge_id: str, tokens: int) -> None:
    await ledger.reserve(charge_id, quote(), clamp=False)
    ledger.dispatched(charge_id, "b", "m")
    await settle(ledger, charge_id, tokens)


async def void(ledger: Ledger, charge_id: str) -> None:
    await ledger.reserve(charge_id, quote(), clamp=False)
    ledger.dispatched(charge_id, "b", "m")
    ledger.close(charge_id, "aborted")


@pytest.fixture
async def path(tmp_path: Path) -> str:
    """Four charges, one of them a void at the end: no balance would miss it."""
    ledger = await opened(tmp_path, FakeClock())
    for number, tokens in enumerate((10, 20, 30)):
        await charge(ledger, f"ch-{number}", tokens)
    await void(ledger, "ch-3")
    await ledger.aclose()
    assert audit(f"{tmp_path}/l.db") == []
    return f"{tmp_path}/l.db"


def changed(path: str, *statements: str) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()
    return audit(path)


def rows(path: str, sql: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


@pytest.mark.parametrize("seq", [1, 2, 4])
@pytest.mark.parametrize("column", RECORD_COLUMNS)
def test_a_change_of_any_column_of_any_record_is_found(path: str, column: str, seq: int) -> None:
    ((kind,),) = rows(path, f"SELECT typeof({column}) FROM records WHERE seq = {seq}")
    value = f"{column} + 100" if kind == "integer" else f"coalesce({column}, '') || ' '"
    found = changed(path, f"UPDATE records SET {column} = {value} WHERE seq = {seq}")
    where = seq + 100 if column == "seq" else seq
    assert [line for line in found if line.startswith(f"I14: record {where} ")] or column == "seq"
    assert found


@pytest.mark.parametrize("value", ["''", "'{'", "'[1'", "x'00ff'", '\'{"output":"many"}\''])
@pytest.mark.parametrize("column", ["usage", "parts", "flags", "account_path", "split", "hash"])
def test_what_is_no_record_at_all_is_found_too(path: str, column: str, value: str) -> None:
    assert [
        line for line in changed(path, f"UPDATE records SET {column} = {value} WHERE seq = 2") if "record 2" in line
    ]


@pytest.mark.parametrize("seq", [1, 2, 3, 4])
def test_a_record_that_is_gone_is_found(path: str, seq: int) -> None:
    assert changed(path, f"DELETE FROM records WHERE seq = {seq}")


def test_two_records_that_changed_places_are_found(path: str) -> None:
    found = changed(path, *(f"UPDATE records SET seq = {to} WHERE seq = {seq}" for seq, to in ((1, 9), (2, 1), (9, 2))))
    assert {"I14: record 1", "I14: record 2"} <= {" ".join(line.split()[:3]) for line in found}


@pytest.mark.parametrize("charge_id", ["'ch-0'", "'ch-9'"])
def test_a_copy_of_a_record_is_found(path: str, charge_id: str) -> None:
    copy = ", ".join({"seq": "5", "charge_id": charge_id}.get(name, name) for name in RECORD_COLUMNS)
    drop = "DELETE FROM records WHERE charge_id = 'ch-0'" if charge_id == "'ch-0'" else "SELECT 1"
    with closing(sqlite3.connect(path)) as connection:
        (row,) = connection.execute(f"SELECT {copy} FROM records WHERE seq = 1").fetchall()
        connection.execute(drop)
        connection.execute(f"INSERT INTO records VALUES ({', '.join('?' * len(row))})", row)
        connection.commit()
    assert any(line.startswith("I14: record 5 has hash") for line in audit(path))


@pytest.mark.parametrize(
    ("forged", "found"),
    [
        ("UPDATE grants SET spent = spent + 1", "I5: grant g00000001 has spent 61, not 60"),
        ("UPDATE grants SET granted = granted + 1", "I5: grant g00000001 has granted 1001, not 1000"),
        ("UPDATE grants SET id = 'g2'", "I5: grant g00000001 is not there, and has paid or moved"),
        ("DELETE FROM grants", "I5: grant g00000001 is not there, and has paid or moved"),
        ("UPDATE accounts SET settled_uc = 0", "I5: account t has settled_uc 0, not 60"),
        ("UPDATE accounts SET debt_uc = 5", "I5: account t has debt_uc 5, not 0"),
        ("DELETE FROM accounts", "I5: account t is not there, and has records"),
        ("UPDATE entries SET uc = 1001", "I5: grant g00000001 has granted 1000, not 1001"),
        ("DELETE FROM entries", "I5: grant g00000001 has granted 1000, not 0"),
        ("UPDATE rate_cards SET rates = '{}'", "I8: record 1 has charged 10, not what its card says"),
        ("UPDATE chain_head SET seq = 5", "I14: all records are 4, not 5"),
    ],
)  # fmt: skip
def test_a_change_of_any_other_table_is_found(path: str, forged: str, found: str) -> None:
    assert found in changed(path, forged)


def test_whoever_chains_anew_what_he_changed_is_found_by_a_hash_that_was_kept_elsewhere(path: str) -> None:
    kept = verified(path).last_hash
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE records SET request_id = 'another' WHERE seq = 2")
        names = ", ".join(RECORD_COLUMNS[:-1])
        linked = chain.chained(
            chain.GENESIS, connection.execute(f"SELECT {names} FROM records ORDER BY seq").fetchall()
        )
        connection.executemany("UPDATE records SET hash = ? WHERE seq = ?", [(row[-1], row[0]) for row in linked])
        connection.execute("UPDATE chain_head SET hash = ?", (linked[-1][-1],))
        connection.commit()
    assert audit(path) == []
    assert verified(path).last_hash != kept


def test_a_chain_without_a_head_is_no_ledger(path: str) -> None:
    with pytest.raises(StoreUnavailable, match="has lost its head"):
        changed(path, "DELETE FROM chain_head")


# -- where the chain begins, and goes on ----------------------------------------------------------------------------


async def test_the_chain_goes_on_after_a_restart(path: str, tmp_path: Path) -> None:
    ledger = await opened(tmp_path, FakeClock())
    await charge(ledger, "ch-4", 5)
    await ledger.aclose()
    assert audit(path) == []
    assert verified(path).records == 5


def before_statements(connection: sqlite3.Connection) -> None:
    for table, column in (("records", "key_id"), ("holds", "key_id"), ("grants", "price")):
        connection.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
    for table in ("cuts", "statements", "usage_days", "usage_days_head"):
        connection.execute(f"DROP TABLE {table}")


def as_version_2(path: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("ALTER TABLE records DROP COLUMN hash")
        connection.execute("DROP TABLE chain_head")
        before_statements(connection)
        connection.execute("UPDATE meta SET schema_version = 3")
        connection.commit()


async def test_a_ledger_without_hashes_is_covered_from_its_first_record(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain, "KEPT_EVERY", 2)
    hashes = rows(path, "SELECT hash FROM records ORDER BY seq")
    as_version_2(path)
    assert audit(path) == []  # read before it is opened
    ledger = await opened(tmp_path, FakeClock())
    await charge(ledger, "ch-4", 5)
    await ledger.aclose()
    assert audit(path) == []
    kept = rows(path, "SELECT hash FROM records ORDER BY seq")
    assert [row[0] for row in kept[:4]] == ["", hashes[1][0], "", hashes[3][0]]
    assert rows(path, "SELECT seq, covered FROM chain_head") == [(5, 4)]
    found = changed(path, "UPDATE records SET request_id = 'another' WHERE seq = 1")
    assert [line.split(" has ")[0] for line in found] == ["I14: record 2"]


@pytest.mark.parametrize(
    "forged",
    [
        "UPDATE records SET hash = '' WHERE seq = 4",
        "UPDATE records SET hash = '00' WHERE seq = 1",
        "UPDATE chain_head SET covered = 5",
    ],
)
async def test_hashes_are_missing_nowhere_else(path: str, tmp_path: Path, forged: str) -> None:
    as_version_2(path)
    ledger = await opened(tmp_path, FakeClock())
    for number in range(4, 7):
        await charge(ledger, f"ch-{number}", 5)
    await ledger.aclose()
    assert audit(path) == []
    assert changed(path, forged)


def test_the_text_of_a_record_is_what_the_documentation_says() -> None:
    row = (7, "ch-é", 'a"\\\n', '{"x":1}', 0)
    assert chain.text(row) == b'[7,"ch-\xc3\xa9","a\\"\\\\\\n","{\\"x\\":1}",0]'


async def test_a_ledger_of_before_a_column_is_read_as_if_that_were_null(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain, "RECORD_COLUMNS", (*RECORD_COLUMNS[:-1], "later", "hash"))
    assert audit(path) == []


def test_a_column_that_comes_later_leaves_old_texts_as_they_are() -> None:
    assert chain.text((1, "a", None, None)) == chain.text((1, "a")) == b'[1,"a"]'
    assert chain.text((1, "a", None, 2)) == b'[1,"a",null,2]'
